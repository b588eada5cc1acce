"""An adapter on all live replicas of the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from tuneproof.servicekit.errors import WrongState
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.clock import now
from tuneproof_generator.pool.changes import OnReplica
from tuneproof_generator.pool.replica_status import AdapterStatus
from tuneproof_generator.pool.replicas import Replicas

NOT_SEEN = AdapterStatus(AdapterState.PENDING, "not seen yet")
"""The status of an adapter whose declaration a replica has not read."""


class Fleet:
    """This replica among the others.

    Args:
        replicas: their statuses; None: this one is alone.
    """

    def __init__(self, replicas: Replicas | None) -> None:
        self._replicas = replicas
        self._told: Mapping[str, Mapping[str, AdapterStatus]] = {}

    def check(self) -> None:
        """Raises Unavailable while another process has this replica's name."""
        if self._replicas:
            self._replicas.check()

    def changed(self) -> None:
        """Tells the others soon: something changed here."""
        if self._replicas:
            self._replicas.changed()

    def everywhere(self, ref: str, mine: AdapterStatus) -> tuple[OnReplica, ...]:
        """An adapter on every live replica, sorted by the replica's name.

        Args:
            mine: its status on this replica.
        """
        if not self._replicas:
            return (OnReplica("this replica", mine, now()),)
        others = self._replicas.others()
        found = {name: statuses.get(ref, NOT_SEEN) for name, statuses in others.items()}
        found[self._replicas.name] = _as_known(mine, self._replicas.obstacle)
        return tuple(
            OnReplica(name, found[name], self._replicas.lease_end(name)) for name in sorted(found)
        )

    def last_used(self, ref: str) -> datetime | None:
        """When an adapter last answered on another replica, as far as is known."""
        return self._replicas.last_used(ref) if self._replicas else None

    async def refresh(self) -> set[str]:
        """Reads the others' statuses; the references whose status changed somewhere.

        Raises:
            Unavailable: when the artifact store does not answer.
        """
        if not self._replicas:
            return set()
        await self._replicas.refresh()
        old, self._told = self._told, self._replicas.others()
        return {
            ref
            for name in {*old, *self._told}
            for ref in {*old.get(name, ()), *self._told.get(name, ())}
            if old.get(name, {}).get(ref) != self._told.get(name, {}).get(ref)
        }

    async def check_ready(self, refs: Iterable[str], mine: Callable[[str], AdapterStatus]) -> None:
        """Checks that adapters are READY on every live replica, by what they say right now.

        Args:
            mine: gives an adapter's status on this replica, by reference.

        Raises:
            WrongState: naming each replica that lags, and its state.
            Unavailable: when the artifact store does not answer.
        """
        await self.refresh()
        for ref in refs:
            lagging = [
                f"{each.status.state} on {each.replica}"
                + (f" ({each.status.reason})" if each.status.reason else "")
                for each in self.everywhere(ref, mine(ref))
                if each.status.state is not AdapterState.READY
            ]
            if lagging:
                raise WrongState(
                    f"adapter {ref} is not READY on every live replica: it is"
                    f" {', '.join(lagging)}; wait for it, or force the change",
                    reason="ADAPTER_NOT_READY",
                )


def _as_known(mine: AdapterStatus, obstacle: str) -> AdapterStatus:
    if not obstacle:
        return mine
    reasons = [mine.reason] if mine.reason else []
    return replace(mine, reason="; ".join([*reasons, f"not published: {obstacle}"]))
