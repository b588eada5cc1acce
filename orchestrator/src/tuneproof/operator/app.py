"""The operator as a process: kopf tells which objects there are, a follower serves each pool."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuneproof.operator.cluster import Cluster
from tuneproof.operator.following import Follower
from tuneproof.operator.objects import GROUP, PLURAL, VERSION, AdapterObject
from tuneproof.sdk import GeneratorClient
from tuneproof.servicekit.errors import Internal, InvalidInput, Unavailable

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OperatorSettings:
    """How it runs."""

    namespace: str
    """Whose objects it follows."""
    seconds: float
    """Between two looks at a pool when nothing is told to change."""
    health: str = ""
    """Where it answers `GET /healthz`, as `0.0.0.0:8080`; empty: nowhere."""


class Operator:
    """The objects of a namespace, by their pools.

    Args:
        open_client: gives the client of a pool by its name.
    """

    def __init__(
        self, cluster: Cluster, open_client: Callable[[str], GeneratorClient], seconds: float
    ) -> None:
        self._cluster, self._open_client, self._seconds = cluster, open_client, seconds
        self._followers: dict[str, Follower] = {}
        self._clients: list[GeneratorClient] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.broken = asyncio.Event()
        """Set when a task ended that may not end."""

    def start(self) -> None:
        """Starts to look for objects that went unseen."""
        self._run(self._sweep())

    async def close(self) -> None:
        """Ends all tasks. Raises what ended one before."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.__aexit__()
        for end in ends:
            if isinstance(end, Exception):
                raise Internal(f"the operator broke: {end!r}") from end

    async def changed(self, kind: str | None, body: Mapping[str, Any]) -> None:
        """An object is there, has changed, or was deleted, as an event of the API says."""
        one = AdapterObject.of(body)
        if kind == "DELETED":
            await self._deleted(one)
        elif "deletionTimestamp" not in body["metadata"]:
            self._follower(one.spec.pool).take(one)

    async def _deleted(self, one: AdapterObject) -> None:
        going = await self._cluster.going()
        if going:
            _log.warning("%s: its adapter stays in the pool: the kind goes, or all", one.name)
        self._follower(one.spec.pool).drop(one, leaves=not going)

    def _follower(self, pool: str) -> Follower:
        if pool not in self._followers:
            client = self._open_client(pool)
            self._clients.append(client)
            self._followers[pool] = Follower(client, self._cluster, seconds=self._seconds)
            self._run(self._followers[pool].run())
        return self._followers[pool]

    async def _sweep(self) -> None:
        """kopf does not tell of objects that were deleted while it was not connected."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            known = [one for each in self._followers.values() for one in each.objects]
            try:
                there = {one.uid for one in await self._cluster.objects()}
            except Unavailable as error:
                _log.warning("%s", error.message)
                continue
            for one in known:
                if one.uid not in there:
                    await self._deleted(one)

    def _run(self, work: Any) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self.broken.set())
        self._tasks.append(task)


SWEEP_SECONDS = 60.0


async def run_operator(
    settings: OperatorSettings, open_client: Callable[[str], GeneratorClient]
) -> None:
    """Runs until a signal ends it.

    Args:
        open_client: gives the client of a pool by its name.

    Raises:
        InvalidInput: the packages of `tuneproof[operator]` are missing.
    """
    try:
        import kopf  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise InvalidInput(f"{error}: install tuneproof[operator]") from None
    operator = Operator(Cluster(settings.namespace), open_client, settings.seconds)
    registry = kopf.OperatorRegistry()
    configured = kopf.OperatorSettings()
    configured.scanning.disabled = True  # It needs rights in the whole cluster.
    configured.posting.enabled = False

    async def start(**_: Any) -> None:
        operator.start()

    async def changed(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002
        await operator.changed(type, body)

    kopf.on.login(registry=registry)(kopf.login_via_client)
    kopf.on.startup(registry=registry)(start)
    # Not `on.create` and the like, which write their progress into the objects; and nothing that
    # needs a finalizer, by which `kubectl delete` would wait for an operator that is gone.
    kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(changed)
    try:
        await kopf.operator(
            registry=registry,
            settings=configured,
            namespaces=[settings.namespace],
            standalone=True,
            liveness_endpoint=f"http://{settings.health}/healthz" if settings.health else None,
            stop_flag=operator.broken,
        )
    finally:
        await operator.close()
