"""Aliases: names that point to an adapter and can be moved.

Each change is an object of its own with the next number, made only if it is not there; so of two
who move an alias at once one fails, and the history stays.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import Corrupted, InvalidInput, WrongState
from tuneproof_generator.pool_store import PoolStore

_NAME = re.compile(r"[a-z][a-z0-9.-]{0,62}")
_MAX_REASON = 1024
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Alias:
    """Where an alias points, since its last change."""

    name: str
    ref: str
    """`name@sha256:<hex>`."""
    version: int
    """Counts the changes from 1."""
    reason: str
    time: datetime
    request_id: str = ""


def check_alias(name: str, reason: str) -> None:
    """Raises InvalidInput unless an alias may be called that, for that reason."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"alias {name!r} is not 1 to 63 characters of a-z, 0-9, `.` and `-`, beginning with a"
            " letter",
            field="alias",
        )
    if len(reason) > _MAX_REASON:
        raise InvalidInput(
            f"the reason has {len(reason)} characters, more than {_MAX_REASON}", field="reason"
        )


class Aliases:
    """The aliases in the pool's folder. Its calls block; run them in a thread."""

    def __init__(self, store: PoolStore) -> None:
        self._store = store

    def list(self) -> dict[str, Alias]:
        """Every alias as it is now, by name. One that cannot be read is logged and left out.

        Raises:
            Unavailable: when the store does not answer.
        """
        found: dict[str, Alias] = {}
        for name in filter(_NAME.fullmatch, self._store.names("aliases")):
            try:
                alias = self.get(name)
            except Corrupted as error:
                _log.warning("alias ignored", alias=name, error=error.message)
                continue
            if alias is not None:
                found[name] = alias
        return found

    def get(self, name: str) -> Alias | None:
        """One alias as it is now; None when there is none.

        Raises:
            Corrupted: when its last change cannot be read.
        """
        last = self._last(name)
        return self._read(name, last) if last else None

    def move(
        self, name: str, ref: AdapterRef, *, expected_ref: str, reason: str, request_id: str
    ) -> Alias:
        """Points an alias to an adapter.

        Args:
            expected_ref: where it points now; empty when there is no such alias.

        Raises:
            WrongState: when it points elsewhere, or someone moved it at the same time.
        """
        check_alias(name, reason)
        last = self._last(name)
        current = self._read(name, last).ref if last else ""
        if current != expected_ref:
            now = f"points to {current}" if current else "does not exist"
            raise WrongState(
                f"alias {name} {now}, not {expected_ref or 'absent'} as expected; look at it and"
                " set it again",
                reason="ALIAS_MOVED",
                current_ref=current,
            )
        alias = Alias(name, str(ref), last + 1, reason, datetime.now(UTC), request_id)
        content = {
            "ref": alias.ref,
            "reason": alias.reason,
            "time": alias.time.isoformat(),
            "request_id": request_id,
        }
        if not self._store.create(_path(name, alias.version), json.dumps(content).encode()):
            raise WrongState(
                f"alias {name} was moved by someone else at this moment; look at it and set it"
                " again",
                reason="ALIAS_MOVED",
            )
        return alias

    def _last(self, name: str) -> int:
        files = (file.removesuffix(".json") for file in self._store.names(f"aliases/{name}"))
        return max((int(file) for file in files if file.isdigit()), default=0)

    def _read(self, name: str, version: int) -> Alias:
        path = _path(name, version)
        try:
            content = json.loads(self._store.read(path))
            return Alias(
                name,
                str(AdapterRef.parse(content["ref"])),
                version,
                str(content["reason"]),
                datetime.fromisoformat(content["time"]),
                str(content["request_id"]),
            )
        except (ValueError, KeyError, TypeError, InvalidInput) as error:
            raise Corrupted(f"{path} in the pool's folder is no alias: {error}") from None


def _path(name: str, version: int) -> str:
    return f"aliases/{name}/{version:08d}.json"
