"""An engine in memory with vLLM's dangers, and replicas of a pool on it that can be killed.

What vLLM 0.32 would answer wrongly, or die of, is noted in `violations`: an adapter asked for
before it was loaded or after it was unloaded; its files missing while it is loaded; one name or
engine id with two contents; more adapters than capacity, of which the oldest would go unsaid.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tuneproof.adapters import AdapterRef, FolderStorage
from tuneproof.servicekit.errors import Corrupted, InvalidInput, Unavailable
from tuneproof_generator.adapters.admission import AdmissionResult
from tuneproof_generator.adapters.detached import detached
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.local_adapters import LOAD_RETRIES
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.engine.protocol import Chunk, EngineFacts, Finish, Sampling, WorkerAdapters
from tuneproof_generator.engine.residency import ResidencyProbe
from tuneproof_generator.generation import GenerationRequest, Generator, Tokens
from tuneproof_generator.pool.adapter_pool import AdapterPool
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.declarations import Declarations

BASE = "tiny"
SLOTS = 1


def ref(name: str, content: str = "") -> AdapterRef:
    """An adapter whose digest is its content, repeated."""
    return AdapterRef(name, "sha256:" + (content or name[0]) * 64)


class PerilousEngine:
    """Answers with the content of its adapter's files, one token at a time, as the test allows."""

    def __init__(self, capacity: int) -> None:
        self.facts = EngineFacts("float32", 64, 16, SLOTS, capacity, 1000, "perilous 1")
        self.loaded: dict[int, tuple[str, Path, str]] = {}
        self.loads: list[str] = []
        self.slots: list[int] = []
        self.violations: list[str] = []
        self.refused: set[str] = set()
        self.go = asyncio.Event()
        self.go.set()
        self._contents_by_name: dict[str, str] = {}
        self._given: set[int] = set()
        self._aborted: dict[str, asyncio.Event] = {}

    def encode_chat(self, messages):
        return [len(message.content) for message in messages]

    def encode_text(self, text):
        return [len(text)]

    encode_probe = encode_continuation = encode_text

    async def score(self, request_id, prompt, tokens, adapter):
        content = self._content(adapter)
        return tuple(-1.0 if content == "base" else -2.0 for _ in tokens)

    async def generate(self, request_id, prompt, sampling, adapter):
        aborted = self._aborted.setdefault(request_id, asyncio.Event())
        for number in range(sampling.max_tokens):
            content = self._content(adapter)
            waits = [asyncio.ensure_future(event.wait()) for event in (self.go, aborted)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if aborted.is_set():
                yield Chunk("", (), Finish.ABORT)
                return
            content = self._content(adapter)
            last = number + 1 == sampling.max_tokens
            yield Chunk(content, (1,), Finish.LENGTH if last else None)

    def _content(self, adapter) -> str:
        if adapter is None:
            return "base"
        if adapter.engine_id not in self.loaded:
            return self._wrong(f"{adapter.ref} was asked for and is not loaded")
        name, folder, content = self.loaded[adapter.engine_id]
        if (name, folder) != (adapter.ref, adapter.folder):
            return self._wrong(f"{adapter.ref} has the engine id of {name}")
        self._read(folder)
        self.slots = [*self.slots, adapter.engine_id][-SLOTS:]
        return content

    def _read(self, folder: Path) -> str:
        try:
            return (folder / "content").read_text()
        except OSError:
            return self._wrong(f"{folder.name} is loaded and its files are gone")

    def _wrong(self, what: str) -> str:
        self.violations.append(what)
        return "poison"

    async def abort(self, request_id):
        self._aborted.setdefault(request_id, asyncio.Event()).set()

    async def load(self, adapter):
        self.loads.append(adapter.ref)
        await asyncio.sleep(0.01)
        if adapter.ref in self.refused:
            raise InvalidInput(f"the engine refuses {adapter.ref}")
        if adapter.engine_id in self._given:
            self._wrong(f"{adapter.ref} has an engine id that was given before")
        content = self._read(adapter.folder)
        if self._contents_by_name.setdefault(adapter.ref, content) != content:
            self._wrong(f"the prefix cache knows {adapter.ref} with another content")
        if len(self.loaded) >= self.facts.max_cpu_loras:
            self._wrong(f"{adapter.ref} is one more than there are capacity")
        self._given.add(adapter.engine_id)
        self.loaded[adapter.engine_id] = (adapter.ref, adapter.folder, content)

    async def unload(self, adapter):
        await asyncio.sleep(0.01)
        held = self.loaded.pop(adapter.engine_id, None)
        if held is not None:
            self._read(held[1])

    async def workers(self):
        return [WorkerAdapters(frozenset(self.loaded), frozenset(self.slots))]

    async def check(self):
        return None


@dataclass
class Faults:
    """What is wrong with the registry at the moment; shared by all replicas."""

    is_down: bool = False
    is_slow: bool = False
    damaged: set[AdapterRef] = field(default_factory=set)
    """The stored file is not what was committed."""
    unfit: set[AdapterRef] = field(default_factory=set)
    """Admission refuses it."""
    fetched: list[AdapterRef] = field(default_factory=list)
    """Every fetch that was begun."""


class Replica:
    """A pool with its engine, on a folder that outlives it."""

    def __init__(
        self,
        root: Path,
        faults: Faults,
        *,
        capacity: int = 2,
        cache: str = "cache",
        clock: Callable[[], datetime] | None = None,
        fetch_seconds: float = 60.0,
        in_virtual_time: bool = True,
    ) -> None:
        self.root = root
        self.faults = faults
        self.cache = root / cache
        self.engine = PerilousEngine(capacity)
        self.is_dead = False
        self.more: dict[str, object] = {"clock": clock} if clock else {}
        self.traffic = Traffic(**self.more)
        self.store = _MortalStore(FolderStorage(root / "pool"), self)
        self.declarations = Declarations(self.store)
        self.aliases = Aliases(self.store)
        self.pool = AdapterPool(
            Loader(
                self.engine,
                self,
                self._inspect,
                self.cache,
                fetch_seconds=fetch_seconds,
                run=self._run if in_virtual_time else detached,
            ),
            self.traffic,
            self.declarations,
            self.aliases,
            base_model=BASE,
            capacity=capacity,
            retries=replace(LOAD_RETRIES, draw=random.Random(0).uniform),
            residency_probe=ResidencyProbe(self.engine),
            **self.more,
        )
        self.generator = Generator(self.engine, self.pool, self.traffic)

    def fetch(self, wanted: AdapterRef, cache: Path) -> Path:
        """The registry."""
        if self.faults.is_down:
            raise Unavailable("the artifact store does not answer")
        if wanted in self.faults.damaged:
            raise Corrupted(f"{wanted}: tensor x is not what was committed")
        folder = cache / wanted.hex
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "content").write_text(wanted.hex[0])
        return folder

    def _inspect(self, folder: Path, wanted: AdapterRef) -> AdmissionResult:
        return self.inspect(folder, wanted)  # Looked up late: tests replace it.

    def inspect(self, folder: Path, wanted: AdapterRef) -> AdmissionResult:
        if wanted in self.faults.unfit:
            raise InvalidInput(f"{wanted} cannot be served: not_finite: tensor x holds NaN")
        return AdmissionResult(8, 100)

    async def _run(self, call, *arguments):
        if call == self.fetch:
            self.faults.fetched.append(arguments[0])
            half = self.cache / f".{arguments[0].hex[:12]}.{next(_numbers)}"
            half.mkdir(parents=True, exist_ok=True)
            await asyncio.sleep(0.01)
            while self.faults.is_slow:
                await asyncio.sleep(1)
            half.rmdir()
        else:
            await asyncio.sleep(0.01)
        return call(*arguments)

    async def ask(self, model: str, tokens: int = 2) -> tuple[str, str]:
        """The content that answered, and the reference that the reply names."""
        said: set[str] = set()
        request = GenerationRequest(model, Tokens((1,)), Sampling(max_tokens=tokens))
        async with aclosing(self.generator.generate(request)) as pieces:
            async for piece in pieces:
                said.add(piece.text)
                if piece.outcome:
                    (content,) = said
                    return content, piece.outcome.adapter_ref
        raise AssertionError

    async def settled(self, wanted: AdapterRef) -> AdapterState:
        async with aclosing(self.pool.views.watch(frozenset({str(wanted)}))) as changes:
            async for change in changes:
                if change.view and change.view.record.state in (
                    AdapterState.READY,
                    AdapterState.FAILED,
                ):
                    return change.view.record.state
        raise AssertionError

    async def declare(self, wanted: AdapterRef, **more) -> AdapterState:
        await self.pool.declare(wanted, required=more.pop("required", False), request_id="", **more)
        return await self.settled(wanted)

    def declared(self) -> set[str]:
        """The pool's declared set, as it is stored."""
        return {str(one.ref) for one in self.declarations.list()}

    def files(self) -> set[str]:
        """Names in the cache."""
        return {path.name for path in self.cache.iterdir()} if self.cache.is_dir() else set()

    def kill(self) -> Path:
        """Ends it as SIGKILL does, without any last word; the folder as it was at that moment."""
        self.is_dead = True
        left = self.root / f"left-{next(_numbers)}"
        if self.cache.is_dir():
            shutil.copytree(self.cache, left)
        return left


class _MortalStore:
    """The pool's folder, for a replica that does nothing any more once it is dead."""

    def __init__(self, store: FolderStorage, replica: Replica) -> None:
        self._store = store
        self._replica = replica

    def __getattr__(self, name: str):
        if self._replica.is_dead:
            raise asyncio.CancelledError
        return getattr(self._store, name)


_numbers = itertools.count()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes when nothing is left to do; threads are none."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        select = self._selector.select

        def skip(timeout=None):
            if timeout is None:
                raise AssertionError("everybody waits for somebody")
            self._now += timeout
            return select(0)

        self._selector.select = skip
        self.set_default_executor(_Inline(1))

    async def shutdown_default_executor(self) -> None:
        """Asyncio's own asks a thread to do it, for which this loop would have to wait."""
        self._default_executor.shutdown()

    def time(self) -> float:
        return self._now

    def clock(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._now)


class _Inline(ThreadPoolExecutor):
    def submit(self, call, /, *arguments, **keywords):
        done: Future = Future()
        try:
            done.set_result(call(*arguments, **keywords))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            done.set_exception(error)
        return done
