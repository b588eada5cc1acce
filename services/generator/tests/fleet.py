"""Replicas of one pool in this process, and a pool's folder that fails as it is told."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tuneproof.adapters import FolderStorage, ObjectStore
from tuneproof.servicekit.errors import Unavailable
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.pool.alias import Alias, Target
from tuneproof_generator.pool.replicas import Replicas

from .test_generator_pool import Replica, until


class MovedClock:
    """A steady clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Disturbed:
    """A pool's folder that fails while `error` is set, and does something before each call."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.error: Exception | None = None
        self.before: Callable[[str, str], None] = lambda call, path: None
        self.calls = 0

    def __getattr__(self, name: str):
        def call(path: str, *data: bytes):
            self.calls += 1
            if self.error:
                raise self.error
            self.before(name, path)
            return getattr(self._store, name)(path, *data)

        return call


class Member(Replica):
    """A replica that tells the others of its state when the test says so."""

    def __init__(
        self, root: Path, name: str, clock: MovedClock, draw=random.random, lease: float = 15
    ) -> None:
        self.store = Disturbed(FolderStorage(root / "pool"))
        self.replicas = Replicas(self.store, name, lease_seconds=lease, process=name, clock=clock)
        super().__init__(root, f"cache-{name}", store=self.store, replicas=self.replicas, draw=draw)

    async def tell(self) -> None:
        await self.replicas.renew(self.pool.views.statuses())

    async def declare(self, *refs) -> None:
        """Declares adapters here, waits for them, and tells."""
        for ref in refs:
            await self.pool.declare(ref, required=False, request_id="")
        await self.ready(*refs)

    async def ready(self, *refs) -> None:
        for ref in refs:
            assert await self.settled(ref) is AdapterState.READY
        await self.tell()

    async def follow(self, *refs) -> None:
        """Reconciles, waits for what was declared elsewhere, and tells."""
        await self.pool.reconciler.reconcile()
        await self.ready(*refs)

    async def point(self, ref, expected="", **more) -> Alias:
        return await self.pool.routes.set("live", Target(ref), expected_ref=str(expected), **more)

    async def served_by(self, model: str) -> str:
        return (await self.ask(model))[1].adapter_ref


@asynccontextmanager
async def member(root: Path, name: str, clock: MovedClock, **more) -> AsyncIterator[Member]:
    found = Member(root, name, clock, **more)
    await found.tell()
    await found.pool.reconciler.reconcile()
    try:
        yield found
    finally:
        await found.pool.close()


__all__ = ["LOST", "Disturbed", "Member", "MovedClock", "member", "until"]

LOST = Unavailable("the artifact store does not answer: connection refused")
