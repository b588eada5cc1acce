"""The pool under random sequences of everything that can happen to it, against a model.

Two replicas share a registry and a folder; adapters are declared, evicted and removed, aliases
move, requests run on across all that, replicas end, are killed at any moment of their work and
start again, and the registry fails or hangs. Time is virtual, so a sequence always goes the same.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import NotFound, TuneproofError, Unavailable
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.pool.alias import Target

from .perilous import BASE, Faults, Replica, VirtualLoop, ref

pytestmark = pytest.mark.long

CAPACITY = 2
FIT = [ref("a"), ref("b"), ref("c"), ref("twin-of-a", "a")]
UNFIT = ref("unfit", "f")
DAMAGED = ref("damaged", "d")
ALIASES = ["live", "next"]
FOR_GOOD = (
    "cannot be served",
    "is not what was committed",
    "the engine refuses",
    "when there is capacity",
)
"""In the reasons of failures that time alone does not mend."""

which = st.integers(0, 1)
adapters = st.sampled_from([*FIT, *FIT, *FIT, UNFIT, DAMAGED])
models = st.sampled_from([*map(str, FIT), str(UNFIT), *ALIASES, BASE])
moments = st.sampled_from([0, 0.001, 0.011, 0.021, 0.031, 0.041, 1, 40])


@dataclass
class Asked:
    """A request under way."""

    replica: Replica
    model: str
    allowed: frozenset[str]
    """References one of which must answer; the base is the empty one."""
    answer: asyncio.Task[tuple[str, str]] = field(repr=False)


class Pool(RuleBasedStateMachine):
    """Two replicas, and what must be true of them."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.loop = self.runner.get_loop()
        self.root = Path(tempfile.mkdtemp(prefix="pool-"))
        self.faults = Faults(unfit={UNFIT}, damaged={DAMAGED})
        self.replicas: list[Replica] = []
        self.asked: list[Asked] = []
        self.calls: list[asyncio.Task[object]] = []
        # The declared set as the callers know it, by reference: whether it is required. What a
        # call that failed or did not return yet has done is not known.
        self.declared: dict[str, bool] = {}
        self.unsure: set[str] = set()
        self.may_evict = False

    @initialize(first=st.lists(st.sampled_from(FIT), max_size=CAPACITY, unique=True))
    def start(self, first: list[AdapterRef]) -> None:
        self.replicas = [self._new("cache-0"), self._new("cache-1")]
        for replica in self.replicas:
            self._run(replica.pool.reconciler.reconcile())
        for wanted in first:
            self.declare(n=0, wanted=wanted, required=False, evict=False, then=1)
        self.let_time_pass(40)

    @rule(n=which, wanted=adapters, required=st.booleans(), evict=st.booleans(), then=moments)
    def declare(self, n: int, wanted: AdapterRef, required: bool, evict: bool, then: float) -> None:
        self.unsure.add(str(wanted))
        self.may_evict |= evict

        async def call() -> None:
            await self.replicas[n].pool.declare(
                wanted, required=required, request_id="", evict=evict
            )
            self.declared[str(wanted)] = required
            self.unsure.discard(str(wanted))

        self._begin(call(), then)

    @rule(n=which, wanted=adapters, drain=st.sampled_from([0.5, 30]), then=moments)
    def remove(self, n: int, wanted: AdapterRef, drain: float, then: float) -> None:
        self.unsure.add(str(wanted))

        async def call() -> None:
            await self.replicas[n].pool.remove(wanted, drain)
            self.declared.pop(str(wanted), None)
            self.unsure.discard(str(wanted))

        self._begin(call(), then)

    @rule(
        n=which,
        name=st.sampled_from(ALIASES),
        goal=st.sampled_from(FIT),
        canary=st.none() | st.sampled_from(FIT),
        force=st.booleans(),
    )
    def set_alias(
        self, n: int, name: str, goal: AdapterRef, canary: AdapterRef | None, force: bool
    ) -> None:
        if canary == goal:
            return
        pool = self.replicas[n].pool
        old = pool.routes.table.get(name)

        async def call() -> None:
            await pool.routes.set(
                name,
                Target(goal, canary, 50 if canary else 0),
                expected_ref=old.ref if old else "",
                force=force,
            )

        self._begin(call(), 0.001)

    @rule(n=which, model=models, tokens=st.integers(1, 3), then=moments)
    def ask(self, n: int, model: str, tokens: int, then: float) -> None:
        replica = self.replicas[n]
        alias = replica.pool.routes.table.get(model)
        allowed = frozenset(alias.refs if alias else ["" if model == BASE else model])
        is_served = all(self._state(replica, one) is AdapterState.READY for one in allowed - {""})
        answer = self.loop.create_task(replica.ask(model, tokens))
        self.asked.append(Asked(replica, model, allowed, answer))
        self._sleep(0)
        if is_served and (alias or model not in ALIASES):
            assert not answer.done() or not isinstance(answer.exception(), NotFound)
        self._sleep(then)

    @rule(n=which, is_held=st.booleans())
    def hold_answers(self, n: int, is_held: bool) -> None:
        go = self.replicas[n].engine.go
        go.clear() if is_held else go.set()

    @rule(is_down=st.booleans(), is_slow=st.booleans(), then=moments)
    def disturb_the_registry(self, is_down: bool, is_slow: bool, then: float) -> None:
        self.faults.is_down, self.faults.is_slow = is_down, is_slow
        self._sleep(then)

    @rule(n=which, then=moments)
    def reconcile(self, n: int, then: float) -> None:
        self._begin(self.replicas[n].pool.reconciler.reconcile(), then)

    @rule(n=which, refuses=st.booleans())
    def engine_refuses(self, n: int, refuses: bool) -> None:
        self.replicas[n].engine.refused = {str(FIT[1])} if refuses else set()

    @rule(n=which, then=moments)
    def restart(self, n: int, then: float) -> None:
        old = self.replicas[n]
        self._run(old.pool.close())
        self._check_engine(old)
        # A copy, since threads that still fetch end with a process, but go on here.
        self._replace(n, old.kill())
        self._sleep(then)

    @rule(n=which, then=moments)
    def kill(self, n: int, then: float) -> None:
        old = self.replicas[n]
        self._check_engine(old)
        left = old.kill()
        self._run(old.pool.close())
        self._replace(n, left)
        self._sleep(then)

    @rule(seconds=st.sampled_from([5, 60, 400]))
    def let_time_pass(self, seconds: int) -> None:
        async def follow() -> None:
            for _ in range(seconds // 5):
                for replica in self.replicas:
                    await replica.pool.reconciler.reconcile()
                await asyncio.sleep(5)

        self._run(follow())

    @precondition(lambda self: self.replicas)
    @invariant()
    def what_is_ready_is_in_the_engine(self) -> None:
        for replica in self.replicas:
            self._check_engine(replica)
            held = {name: content for name, _, content in replica.engine.loaded.values()}
            for view in replica.pool.views.list():
                record = view.record
                if record.state is AdapterState.READY:
                    assert held[record.ref] == AdapterRef.parse(record.ref).hex[0]
                    assert AdapterRef.parse(record.ref).hex in replica.files()
                if record.state is AdapterState.FAILED:
                    may_pass = not any(sign in record.reason for sign in FOR_GOOD)
                    assert may_pass is (record.next_try is not None), record.reason

    @invariant()
    def answers_are_of_whom_they_say(self) -> None:
        for asked in list(self.asked):
            if not asked.answer.done():
                continue
            self.asked.remove(asked)
            try:
                content, said = asked.answer.result()
            except (Unavailable, NotFound):
                continue
            except asyncio.CancelledError:
                assert asked.replica.is_dead
                continue
            assert said in asked.allowed, f"{asked.model} was answered by {said or 'the base'}"
            assert content == (AdapterRef.parse(said).hex[0] if said else "base")

    @precondition(lambda self: self.replicas)
    @invariant()
    def nothing_is_lost(self) -> None:
        stored = self.replicas[0].declared()
        sure = self.declared.keys() - self.unsure
        lost = sure - stored
        if not self.may_evict:
            assert not lost
        pointed_to = {one for alias in self._aliases() for one in alias.refs}
        for one in lost:
            assert not self.declared[one], f"{one} is required and was evicted"
            assert one not in pointed_to, f"{one} has an alias and was evicted"
            del self.declared[one]
        assert not stored - self.declared.keys() - self.unsure

    def teardown(self) -> None:
        try:
            if self.replicas:
                self._calm_down()
        finally:
            self._run(_all([replica.pool.close() for replica in self.replicas]))
            self.runner.close()
            shutil.rmtree(self.root)

    def _calm_down(self) -> None:
        """In the end every fit adapter that was declared is served, as far as there is capacity,
        and nothing else is left anywhere."""
        self.faults.is_down = self.faults.is_slow = False
        for replica in self.replicas:
            replica.engine.go.set()
            replica.engine.refused = set()
        self._run(_all(self.calls))
        self.let_time_pass(400)
        self.answers_are_of_whom_they_say()
        self.nothing_is_lost()
        assert not self.asked
        stored = self.replicas[0].declared()
        fit = stored & set(map(str, FIT))
        for replica in self.replicas:
            self.what_is_ready_is_in_the_engine()
            views = replica.pool.views.list()
            assert {view.record.ref for view in views} == stored
            ready = {v.record.ref for v in views if v.record.state is AdapterState.READY}
            assert {v.record.state for v in views} <= {AdapterState.READY, AdapterState.FAILED}
            refused = {v.record.ref for v in views if "engine refuses" in v.record.reason}
            assert len(ready) == min(CAPACITY, len(fit - refused))
            assert {name for name, _, _ in replica.engine.loaded.values()} == ready
            # What is declared and has no place may lie there from before.
            assert replica.files() <= {AdapterRef.parse(one).hex for one in stored}

    def _new(self, cache: str) -> Replica:
        return Replica(
            self.root, self.faults, capacity=CAPACITY, cache=cache, clock=self.loop.clock
        )

    def _replace(self, n: int, cache: Path) -> None:
        """A new process in place of a replica that ended; nobody of the old one is left."""
        old = self.replicas[n]
        old.is_dead = True
        for asked in self.asked:
            if asked.replica is old:
                asked.answer.cancel()
        for call in self.calls:
            call.cancel()
        self._run(_all(self.calls))
        self.calls = []
        self._sleep(0)
        self.replicas[n] = self._new(cache.name)
        self._run(self.replicas[n].pool.reconciler.reconcile())

    def _begin(self, call, then: float) -> None:
        self.calls = [one for one in self.calls if not one.done()]
        self.calls.append(self.loop.create_task(_tolerated(call)))
        self._sleep(then)

    def _run(self, call) -> None:
        self.loop.run_until_complete(_tolerated(call))

    def _sleep(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def _check_engine(self, replica: Replica) -> None:
        assert replica.engine.violations == []

    def _aliases(self):
        return self._stored().values()

    def _stored(self):
        return self.replicas[0].aliases.list()

    def _state(self, replica: Replica, wanted: str) -> AdapterState | None:
        found = {view.record.ref: view.record.state for view in replica.pool.views.list()}
        return found.get(wanted)


async def _all(calls) -> None:
    async with asyncio.timeout(100):
        await asyncio.gather(*calls)


async def _tolerated(call):
    """The domain's own errors are answers, too."""
    try:
        return await call
    except (TuneproofError, asyncio.CancelledError):
        return None


@pytest.fixture(autouse=True, scope="module")
def quiet():
    before = structlog.get_config()
    structlog.configure(logger_factory=lambda *_: structlog.ReturnLogger(), processors=[])
    yield
    structlog.configure(**before)


TestPool = Pool.TestCase
TestPool.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
