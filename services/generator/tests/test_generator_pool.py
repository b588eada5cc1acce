"""The pool of adapters on an engine in memory: declared, loaded, removed, reconciled."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from tuneproof.adapters import AdapterRef, FolderStorage
from tuneproof.servicekit.errors import (
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
    WrongState,
)
from tuneproof_generator.adapters.admission import AdmissionResult
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.engine.protocol import Chunk, EngineFacts, Finish, Sampling
from tuneproof_generator.generation import GenerationOutcome, GenerationRequest, Generator, Tokens
from tuneproof_generator.pool.adapter_pool import AdapterPool
from tuneproof_generator.pool.alias import Target
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.declarations import Declarations

pytestmark = pytest.mark.timeout(20)

A = AdapterRef("a", "sha256:" + "a" * 64)
B = AdapterRef("b", "sha256:" + "b" * 64)
TWIN = AdapterRef("twin", "sha256:" + "a" * 64)


class MemoryEngine:
    """An engine that answers with its adapter's id, one token at a time, as the test allows."""

    facts = EngineFacts("float32", 64, 16, 2, 2, 1000, "memory 1")

    def __init__(self) -> None:
        self.loaded: dict[int, Path] = {}
        self.loads: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self._aborted: dict[str, asyncio.Event] = {}

    def encode_chat(self, messages):
        return [len(message.content) for message in messages]

    def encode_text(self, text):
        return [len(text)]

    encode_probe = encode_continuation = encode_text

    async def score(self, request_id, prompt, tokens, adapter):
        if adapter is not None:
            self._check(adapter)
        return tuple(-1.0 if adapter is None else -2.0 for _ in tokens)

    def _check(self, adapter):
        assert adapter.engine_id in self.loaded, "asked for an adapter that is not loaded"
        assert self.loaded[adapter.engine_id].is_dir(), "its files are gone"

    async def generate(self, request_id, prompt, sampling, adapter):
        if adapter is not None:
            self._check(adapter)
        aborted = self._aborted.setdefault(request_id, asyncio.Event())
        for number in range(sampling.max_tokens):
            waits = [asyncio.ensure_future(event.wait()) for event in (self.go, aborted)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if aborted.is_set():
                yield Chunk("", (), Finish.ABORT)
                return
            last = number + 1 == sampling.max_tokens
            yield Chunk(
                "x", (adapter.engine_id if adapter else 0,), Finish.LENGTH if last else None
            )

    async def abort(self, request_id):
        self._aborted[request_id].set()

    async def load(self, adapter):
        self.loads.append(adapter.ref)
        assert adapter.engine_id not in self.loaded
        self.loaded[adapter.engine_id] = adapter.folder

    async def unload(self, adapter):
        folder = self.loaded.pop(adapter.engine_id, None)
        assert folder is None or folder.is_dir(), "the files went before the engine let go"

    async def check(self):
        return None


class MemoryRegistry:
    """Gives every adapter but the lost ones; counts."""

    def __init__(self) -> None:
        self.fetched: list[AdapterRef] = []
        self.lost: set[AdapterRef] = set()

    def fetch(self, ref: AdapterRef, cache: Path) -> Path:
        self.fetched.append(ref)
        if ref in self.lost:
            raise NotFound(f"no adapter {ref} in the registry")
        folder = cache / ref.hex
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Replica:
    """A pool with its engine on a folder that outlives it."""

    def __init__(self, root: Path, cache: str = "cache", *, store=None, **more) -> None:
        self.engine = MemoryEngine()
        self.registry = MemoryRegistry()
        self.traffic = Traffic()
        self.cache = root / cache
        store = store or FolderStorage(root / "pool")
        self.pool = AdapterPool(
            Loader(self.engine, self.registry, lambda *_: AdmissionResult(8, 100), self.cache),
            self.traffic,
            Declarations(store),
            Aliases(store),
            base_model="tiny",
            capacity=2,
            **more,
        )
        self.generator = Generator(self.engine, self.pool, self.traffic)

    async def settled(self, ref: AdapterRef) -> AdapterState:
        async with aclosing(self.pool.views.watch(frozenset({str(ref)}))) as changes:
            async for change in changes:
                state = change.view.record.state
                if state in (AdapterState.READY, AdapterState.FAILED):
                    return state
        raise AssertionError

    async def ask(self, model: str, tokens: int = 2) -> tuple[list[int], GenerationOutcome]:
        ids: list[int] = []
        request = GenerationRequest(model, Tokens((1,)), Sampling(max_tokens=tokens))
        async with aclosing(self.generator.generate(request)) as pieces:
            async for piece in pieces:
                ids += piece.token_ids
                if piece.outcome:
                    return ids, piece.outcome
        raise AssertionError


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; the test's own time limit ends it."""
    while not condition():
        await asyncio.sleep(0.001)


@asynccontextmanager
async def _replica(root: Path) -> AsyncIterator[Replica]:
    found = Replica(root)
    await found.pool.reconciler.reconcile()
    try:
        yield found
    finally:
        await found.pool.close()


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    async with _replica(tmp_path) as found:
        yield found


async def _declare(replica: Replica, ref: AdapterRef, **more) -> AdapterState:
    await replica.pool.declare(ref, required=more.get("required", False), request_id="")
    return await replica.settled(ref)


async def test_many_declarations_at_once_cause_one_load(replica: Replica) -> None:
    views = await asyncio.gather(
        *(replica.pool.declare(A, required=False, request_id=str(n)) for n in range(200))
    )
    assert {view.record.ref for view in views} == {str(A)}
    assert await replica.settled(A) is AdapterState.READY
    assert replica.registry.fetched == [A]
    assert replica.engine.loads == [str(A)]


async def test_what_is_lost_fails_and_can_be_declared_again(replica: Replica) -> None:
    replica.registry.lost.add(A)
    assert await _declare(replica, A) is AdapterState.FAILED
    with pytest.raises(Unavailable, match="in the registry"):
        await replica.ask(str(A))
    replica.registry.lost.clear()
    assert await _declare(replica, A) is AdapterState.READY
    _, outcome = await replica.ask(str(A))
    assert outcome.adapter_ref == str(A)


async def test_beyond_capacity_is_refused_naming_the_limit(replica: Replica) -> None:
    await _declare(replica, A)
    await _declare(replica, B)
    with pytest.raises(Overloaded, match="2 adapters at most"):
        await replica.pool.declare(TWIN, required=False, request_id="")
    await replica.pool.remove(A)
    assert await _declare(replica, TWIN) is AdapterState.READY


async def test_an_engine_id_is_never_given_twice(replica: Replica) -> None:
    seen = []
    for _ in range(3):
        await _declare(replica, A)
        ids, _ = await replica.ask(str(A))
        seen += ids[:1]
        await replica.pool.remove(A)
    assert len(set(seen)) == 3
    assert 0 not in seen


async def test_equal_content_under_two_names_keeps_its_files_until_both_are_gone(
    replica: Replica,
) -> None:
    await _declare(replica, A)
    await _declare(replica, TWIN)
    await replica.pool.remove(A)
    assert (await replica.ask(str(TWIN)))[1].adapter_ref == str(TWIN)
    await replica.pool.remove(TWIN)
    assert not (replica.cache / A.hex).exists()


async def test_removal_waits_for_running_requests_and_refuses_new_ones(replica: Replica) -> None:
    await _declare(replica, A)
    replica.engine.go.clear()
    running = asyncio.create_task(replica.ask(str(A)))
    await until(lambda: replica.pool.views.get(str(A)).usage.running == 1)
    removal = asyncio.create_task(replica.pool.remove(A, 10))
    await until(lambda: replica.pool.views.get(str(A)).record.state is AdapterState.DRAINING)
    with pytest.raises(Unavailable, match="DRAINING"):
        await replica.ask(str(A))
    with pytest.raises(WrongState, match="being removed"):
        await replica.pool.declare(A, required=False, request_id="")
    assert not removal.done()
    assert replica.engine.loaded
    replica.engine.go.set()
    ids, _ = await running
    assert len(ids) == 2
    await removal
    assert not replica.engine.loaded
    with pytest.raises(NotFound):
        await replica.ask(str(A))


async def test_what_does_not_end_in_time_is_aborted(replica: Replica) -> None:
    await _declare(replica, A)
    replica.engine.go.clear()
    running = asyncio.create_task(replica.ask(str(A)))
    await until(lambda: replica.pool.views.get(str(A)).usage.running == 1)
    await replica.pool.remove(A, 0.02)
    with pytest.raises(Unavailable, match="removed while it answered"):
        await running
    assert not replica.engine.loaded


async def test_a_restarted_replica_serves_the_same_set_and_aliases(tmp_path: Path) -> None:
    async with _replica(tmp_path) as first:
        await _declare(first, A)
        await _declare(first, B, required=True)
        await first.pool.remove(A)
        await first.pool.routes.set("live", Target(B), expected_ref="")
    (tmp_path / "cache" / ("f" * 64)).mkdir()
    second = Replica(tmp_path)
    with pytest.raises(Unavailable, match="not read yet"):
        second.pool.check_ready()
    await second.pool.reconciler.reconcile()
    with pytest.raises(Unavailable, match="required"):
        second.pool.check_ready()
    assert await second.settled(B) is AdapterState.READY
    second.pool.check_ready()
    assert [view.record.ref for view in second.pool.views.list()] == [str(B)]
    assert (await second.ask("live"))[1].adapter_ref == str(B)
    assert not (tmp_path / "cache" / ("f" * 64)).exists()
    await second.pool.close()


async def test_a_restarted_replica_settles_before_it_is_asked(tmp_path: Path) -> None:
    async with _replica(tmp_path) as first:
        await _declare(first, A)
        await _declare(first, B)
    second = Replica(tmp_path)
    second.registry.lost.add(B)
    # What it does not know yet may be declared: another replica knows.
    with pytest.raises(Unavailable, match="not read yet"):
        await second.ask(str(A))
    following = asyncio.create_task(second.pool.reconciler.follow(60))
    await second.pool.settle(10)
    states = {view.record.ref: view.record.state for view in second.pool.views.list()}
    assert states == {str(A): AdapterState.READY, str(B): AdapterState.FAILED}
    with pytest.raises(NotFound):
        await second.ask("nobody")
    following.cancel()
    await second.pool.close()


async def test_a_restarted_replica_does_not_wait_for_ever_to_settle(tmp_path: Path) -> None:
    second = Replica(tmp_path)
    await second.pool.settle(0.01)  # Nobody reads the pool's folder.


async def test_replicas_of_one_pool_follow_each_other(tmp_path: Path) -> None:
    async with _replica(tmp_path) as first:
        second = Replica(tmp_path, cache="other")
        await _declare(first, A)
        await second.pool.reconciler.reconcile()
        assert await second.settled(A) is AdapterState.READY
        await first.pool.remove(A)
        await second.pool.reconciler.reconcile()
        async with aclosing(second.pool.views.watch(frozenset())) as changes:
            async for change in changes:
                if change.view is None:
                    break
        assert second.pool.views.list() == []
        await second.pool.close()


async def test_of_two_who_move_an_alias_one_wins(replica: Replica) -> None:
    await _declare(replica, A)
    await _declare(replica, B)

    async def move(ref: AdapterRef):
        return await replica.pool.routes.set("live", Target(ref), expected_ref="")

    done = await asyncio.gather(move(A), move(B), return_exceptions=True)
    assert sum(isinstance(each, WrongState) for each in done) == 1
    assert replica.pool.routes.table["live"].version == 1


async def test_an_alias_is_never_the_base_model(replica: Replica) -> None:
    with pytest.raises(InvalidInput, match="base model"):
        await replica.pool.routes.set("tiny", Target(A), expected_ref="", force=True)
    await replica.pool.routes.set("next", Target(A), expected_ref="", force=True)
    with pytest.raises(NotFound, match="not declared"):
        await replica.ask("next")


async def test_a_removed_adapter_that_was_still_loading_is_gone(replica: Replica) -> None:
    await replica.pool.declare(A, required=False, request_id="")
    await replica.pool.remove(A)
    assert replica.pool.views.list() == []
    assert not replica.engine.loaded
    assert await _declare(replica, A) is AdapterState.READY


async def test_watchers_see_each_adapter_now_and_then_its_changes(replica: Replica) -> None:
    await _declare(replica, A)
    async with aclosing(replica.pool.views.watch(frozenset())) as changes:
        first = await anext(changes)
        assert (first.ref, first.view.record.state) == (str(A), AdapterState.READY)
        await _declare(replica, B)
        async for change in changes:
            if change.ref == str(B) and change.view.record.state is AdapterState.READY:
                break
        states = [transition.state for transition in change.view.record.transitions]
        assert states == [
            AdapterState.PENDING,
            AdapterState.FETCHING,
            AdapterState.VERIFYING,
            AdapterState.LOADING,
            AdapterState.READY,
        ]
