"""Follows one pool: looks at it, acts for changed objects, and tells the objects what it sees."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from tuneproof.operator.acting import AWAY, SECONDS, bring, leave
from tuneproof.operator.conditions import Seen, Told, status_of, unknown
from tuneproof.operator.objects import AdapterObject
from tuneproof.sdk import GeneratorClient
from tuneproof.servicekit.errors import TuneproofError, Unavailable

_log = logging.getLogger(__name__)


class Teller(Protocol):
    """Writes the status of objects."""

    async def tell(self, one: AdapterObject, status: Mapping[str, Any]) -> AdapterObject | None:
        """See `Cluster`."""


class Follower:
    """The objects of one pool.

    Args:
        client: of the pool; closed by whoever opened it.
        seconds: between two looks when nothing is told to change.
    """

    def __init__(self, client: GeneratorClient, cluster: Teller, *, seconds: float) -> None:
        self._client, self._cluster, self._seconds = client, cluster, seconds
        self._objects: dict[str, AdapterObject] = {}
        self._leaving: list[AdapterObject] = []
        self._wake = asyncio.Event()

    def take(self, one: AdapterObject) -> None:
        """Takes an object as the cluster has it, unless a newer one is known."""
        known = self._objects.get(one.uid)
        if known is None or known.version < one.version:
            self._objects[one.uid] = one
            self._wake.set()

    def drop(self, one: AdapterObject, *, leaves: bool) -> None:
        """Forgets an object that was deleted.

        Args:
            leaves: what it declared is taken out of the pool.
        """
        known = self._objects.pop(one.uid, one)
        if leaves and not known.spec.retain:
            self._leaving.append(known)
        self._wake.set()

    @property
    def objects(self) -> list[AdapterObject]:
        """All that it follows, the oldest first."""
        return sorted(self._objects.values(), key=lambda one: one.age)

    async def run(self) -> None:
        """Follows without end."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            while True:
                self._wake.clear()
                await self.look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds):
                        await self._wake.wait()

    async def look(self) -> None:
        """Brings every object up to date, once."""
        if not self._objects and not self._leaving:
            return
        try:
            seen = await self._see()
        except TuneproofError as error:
            for one in self.objects:
                await self._tell(one, unknown(one.spec.alias, error.message))
            return
        for one in self.objects:
            others = [each for each in self.objects if each.uid != one.uid]
            try:
                brought, told = await bring(one, others, self._leaving, seen, self._client)
            except AWAY as error:
                brought, told = one, unknown(one.spec.alias, error.message)
            await self._tell(brought, told)
        for gone in list(self._leaving):
            with suppress(*AWAY):
                if await leave(gone, self.objects, seen, self._client):
                    self._leaving.remove(gone)

    async def _see(self) -> Seen:
        adapters = await self._client.adapters(timeout=SECONDS)
        aliases = await self._client.aliases(timeout=SECONDS)
        pool = await self._client.pool(timeout=SECONDS)
        return Seen(
            {each.ref: each for each in adapters},
            {each.name: each for each in aliases if each.ref},
            len(pool.live_replicas),
        )

    async def _tell(self, one: AdapterObject, told: Told) -> None:
        status = status_of(one, told, datetime.now(UTC))
        if {key: value for key, value in status.items() if value is not None} == one.status:
            return
        try:
            said = await self._cluster.tell(one, status)
        except Unavailable as error:
            _log.warning("%s: its status is not written: %s", one.name, error.message)
            return
        if said and one.uid in self._objects:
            self.take(said)

    async def _listen(self) -> None:
        """Looks at once when the pool says that an adapter changes."""
        while True:
            with suppress(TuneproofError):
                async for _ in self._client.watch():
                    self._wake.set()
            await asyncio.sleep(self._seconds)
