"""Bringing one adapter from the registry into the engine: fetch, verify, load, warm."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.tracing import span
from tuneproof_generator.adapters.admission import Inspect
from tuneproof_generator.adapters.detached import detached
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.local_adapter import LocalAdapter
from tuneproof_generator.engine.protocol import Engine, LoadedAdapter, Sampling
from tuneproof_generator.metrics import LOAD_SECONDS

FETCH_SECONDS = 600.0
"""How long the registry may take to give one adapter, by default."""
_FETCHES_AT_ONCE = 2
_WARM_TOKEN = 0


class AdapterSource(Protocol):
    """Where adapters come from; `tuneproof.adapters.Registry` is one."""

    def fetch(self, ref: AdapterRef, cache: Path) -> Path:
        """A local folder with the adapter, its content verified."""


Run = Callable[..., Awaitable[Any]]


class Loader:
    """Fetches, checks, loads and warms adapters; deletes files that no adapter needs.

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
        self._ids = itertools.count(1)
        # Two names can share one content, hence one folder.
        self._folders: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wanted: set[AdapterRef] = set()
        self._reading = asyncio.Semaphore(_FETCHES_AT_ONCE)
        self._tidying: set[asyncio.Task[None]] = set()

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
        return folder

    async def load(self, local: LocalAdapter, folder: Path) -> LoadedAdapter:
        """Brings an adapter into the engine and generates one token with it.

        Raises:
            TuneproofError: when the engine refuses it, or is dead.
        """
        local.enter(AdapterState.LOADING)
        adapter = LoadedAdapter(str(local.ref), next(self._ids), folder)
        local.loaded = adapter  # From now on the engine may hold it, even if loading fails.
        async with _timed("load", local):
            await self._engine.load(adapter)
        async with _timed("warm", local):
            await self._warm(adapter)
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

    async def _warm(self, adapter: LoadedAdapter) -> None:
        sampling = Sampling(max_tokens=1)
        request_id = f"warm-{adapter.engine_id}"
        stream = self._engine.generate(request_id, [_WARM_TOKEN], sampling, adapter)
        async with aclosing(stream):
            async for _ in stream:
                pass


@asynccontextmanager
async def _timed(stage: str, local: LocalAdapter) -> AsyncIterator[None]:
    start = time.perf_counter()
    with span(stage):
        yield
    seconds = time.perf_counter() - start
    local.took(stage, seconds)
    LOAD_SECONDS.labels(stage).observe(seconds)
