"""Bringing one adapter from the registry into the engine: fetch, verify, load, warm."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof.servicekit.tracing import span
from tuneproof_generator.adapters.admission import Inspect
from tuneproof_generator.adapters.detached import detached
from tuneproof_generator.adapters.effects import EffectCheck
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.local_adapter import LocalAdapter
from tuneproof_generator.engine.protocol import Engine, LoadedAdapter
from tuneproof_generator.metrics import LOAD_SECONDS

FETCH_SECONDS = 600.0
"""How long the registry may take to give one adapter, by default."""
_FETCHES_AT_ONCE = 2


class AdapterSource(Protocol):
    """Where adapters come from; `tuneproof.adapters.Registry` is one."""

    def fetch(self, ref: AdapterRef, cache: Path) -> Path:
        """A local folder with the adapter, its content verified."""


Run = Callable[..., Awaitable[Any]]


class Loader:
    """Fetches, checks, loads and compares adapters; deletes files that no adapter needs.

    Args:
        cache: a folder of this process alone.
        fetch_seconds: how long the registry may take to give an adapter.
        run: runs a blocking call beside the event loop.
    """

    def __init__(
        self,
        engine: Engine,
        source: AdapterSource,
        inspect: Inspect,
        cache: Path,
        *,
        fetch_seconds: float = FETCH_SECONDS,
        run: Run = detached,
    ) -> None:
        self._engine = engine
        self._source = source
        self._inspect = inspect
        self._cache = cache
        self._fetch_seconds = fetch_seconds
        self._run = run
        self._effects = EffectCheck(engine)
        self._ids = itertools.count(1)
        # Two names can share one content, hence one folder.
        self._folders: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wanted: set[AdapterRef] = set()
        self._reading = asyncio.Semaphore(_FETCHES_AT_ONCE)
        self._tidying: set[asyncio.Task[None]] = set()

    async def prepare(self) -> None:
        """Asks the engine's base what adapters are compared with, before the first one comes.

        Raises:
            Unavailable: when the engine is dead.
        """
        await self._effects.prepare()

    async def fetch(self, local: LocalAdapter) -> Path:
        """Brings an adapter's files here and checks them. They stay until `discard`.

        Raises:
            TuneproofError: with the reason for which it cannot be served.
            OSError: when the registry or the cache cannot be read or written.
        """
        ref = local.ref
        self._wanted.add(ref)
        async with self._reading, self._folders[ref.digest]:
            local.enter(AdapterState.FETCHING)
            async with _timed("fetch", local):
                folder = await self._fetch(ref)
            local.enter(AdapterState.VERIFYING)
            async with _timed("verify", local):
                local.inspected(await self._run(self._inspect, folder, ref))
            if local.admitted and local.admitted.changes_nothing and not local.allow_no_effect:
                raise InvalidInput(
                    f"{ref} has no effect: every product of its matrices is zero, so the base would"
                    " answer in its name. Train it, or declare it with allow_no_effect",
                    field="adapter_ref",
                    reason="ADAPTER_REFUSED",
                    codes="no_effect",
                )
        return folder

    async def load(self, local: LocalAdapter, folder: Path) -> LoadedAdapter:
        """Brings an adapter into the engine, and compares what it does there with what it did in
        training.

        Raises:
            TuneproofError: when the engine refuses it, it does something else, or the engine is
                dead.
        """
        local.enter(AdapterState.LOADING)
        adapter = LoadedAdapter(str(local.ref), next(self._ids), folder)
        local.loaded = adapter  # From now on the engine may hold it, even if loading fails.
        async with _timed("load", local):
            await self._engine.load(adapter)
        async with _timed("warm", local):
            fingerprint = local.admitted.fingerprint if local.admitted else None
            local.compared(
                await self._effects.check(
                    adapter, fingerprint, allow_no_effect=local.allow_no_effect
                )
            )
        return adapter

    async def discard(self, local: LocalAdapter) -> None:
        """Unloads an adapter, and only then deletes its files, unless another adapter has the same
        content."""
        if local.loaded is not None:
            await self._engine.unload(local.loaded)
        self._wanted.discard(local.ref)
        await self._tidy(local.ref)

    async def _fetch(self, ref: AdapterRef) -> Path:
        work = asyncio.ensure_future(self._run(self._source.fetch, ref, self._cache))
        try:
            async with asyncio.timeout(self._fetch_seconds):
                return await asyncio.shield(work)
        except TimeoutError:
            if work.done():
                raise
            raise Unavailable(
                f"the artifact store did not give {ref} within {self._fetch_seconds:g} s"
            ) from None
        finally:
            # A thread cannot be ended; what it fetches too late is deleted.
            if not work.done():
                work.add_done_callback(lambda done: self._came_late(ref, done))

    def _came_late(self, ref: AdapterRef, work: asyncio.Future[Path]) -> None:
        if not work.cancelled():
            work.exception()  # Looked at, else asyncio complains.
        task = asyncio.create_task(self._tidy(ref))
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    async def _tidy(self, ref: AdapterRef) -> None:
        async with self._folders[ref.digest]:
            if not any(other.digest == ref.digest for other in self._wanted):
                await asyncio.to_thread(shutil.rmtree, self._cache / ref.hex, ignore_errors=True)

    def sweep(self, keep: frozenset[str]) -> None:
        """Removes what an earlier process left in the cache, except these digests' folders."""
        names = {digest.removeprefix("sha256:") for digest in keep}
        for path in self._cache.iterdir() if self._cache.is_dir() else ():
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def _timed(stage: str, local: LocalAdapter) -> AsyncIterator[None]:
    start = time.perf_counter()
    with span(stage):
        yield
    seconds = time.perf_counter() - start
    local.took(stage, seconds)
    LOAD_SECONDS.labels(stage).observe(seconds)
