"""Aliases: names that point to an adapter and can be moved.

Each change is an object of its own with the next number, created only if it does not exist. So when
two callers move an alias at once, one of them fails, and the history stays. An alias may give a
part of its requests to a second adapter, the canary. An alias that points to nothing is retired.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import structlog
from pydantic import TypeAdapter
from pydantic_core import from_json

from tuneproof.adapters import ObjectStore
from tuneproof.servicekit.errors import Corrupted, InvalidInput, NotFound, WrongState
from tuneproof_generator import metrics
from tuneproof_generator.pool.alias import Alias, Target, check_alias, may_be_called

_VERSION = re.compile(r"[0-9]{8,18}")
_STORED = TypeAdapter(Alias)
_log = structlog.get_logger(__name__)


class Aliases:
    """The aliases in the pool's folder. Its calls block; run them in a thread."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def list(self, known: Mapping[str, Alias] = MappingProxyType({})) -> dict[str, Alias]:
        """Every alias as it is now, by name, without the retired ones.

        Args:
            known: what was read before. An alias whose last change cannot be read is logged and
                taken from here, or left out: an older change never stands in for the last.

        Raises:
            Unavailable: when the store does not answer.
        """
        found: dict[str, Alias] = {}
        for name in filter(may_be_called, self._store.names("aliases")):
            try:
                alias = self.get(name)
            except Corrupted as error:
                _ignore(error)
                alias = known.get(name)
            if alias is not None and alias.ref:
                found[name] = alias
        return found

    def versions(self, name: str) -> builtins.list[int]:
        """The numbers of an alias's changes, ascending.

        Raises:
            NotFound: when it was never set.
        """
        numbers = self._numbers(name) if may_be_called(name) else []
        if not numbers:
            raise NotFound(f"alias {name!r} was never set; see ListAliases", alias=name)
        return numbers

    def read(self, name: str, versions: Iterable[int]) -> builtins.list[Alias]:
        """Changes of an alias, in the order of `versions`. One that cannot be read is logged and
        left out.
        """
        found = []
        for version in versions:
            try:
                found.append(self._read(name, version))
            except Corrupted as error:
                _ignore(error)
        return found

    def get(self, name: str) -> Alias | None:
        """One alias as it is now; None when there is none.

        Raises:
            Corrupted: when its last change cannot be read.
        """
        last = self._last(name)
        return self._read(name, last) if last else None

    def move(
        self,
        name: str,
        target: Target,
        *,
        expected_ref: str,
        expected_version: int | None = None,
        reason: str,
        request_id: str = "",
        set_by: str = "",
    ) -> Alias:
        """Points an alias to an adapter, or to two, or to none.

        Args:
            expected_ref: where it points now; empty when there is no such alias.
            expected_version: its newest version, 0 when it was never set; None: not compared.

        Returns:
            the change; the last one if it was made already under the same request id.

        Raises:
            WrongState: when it is not as expected, or someone moved it at the same time.
        """
        check_alias(name, reason)
        last = self._last(name)
        before = self._read(name, last) if last else None
        current = before.ref if before else ""
        alias = Alias(
            name,
            str(target.ref or ""),
            last + 1,
            reason,
            datetime.now(UTC),
            request_id,
            set_by,
            str(target.canary or ""),
            target.canary_percent,
        )
        if before and request_id and request_id == before.request_id and _is_same(alias, before):
            return before
        wrong = ""
        if current != expected_ref:
            now = f"points to {current}" if current else "does not exist"
            wrong = f"{now}, not {expected_ref or 'absent'}"
        elif expected_version not in (None, last):
            wrong = f"is at version {last}, not {expected_version}"
        if wrong:
            raise WrongState(
                f"alias {name} {wrong} as expected; look at it and set it again",
                reason="ALIAS_MOVED",
                current_ref=current,
                current_version=str(last),
            )
        content = _STORED.dump_json(alias, exclude={"name", "version"})  # The path has them.
        if not self._store.create(_path(name, alias.version), content):
            raise WrongState(
                f"alias {name} was moved by someone else at this moment; look at it and set it"
                " again",
                reason="ALIAS_MOVED",
            )
        return alias

    def _last(self, name: str) -> int:
        return max(self._numbers(name), default=0)

    def _numbers(self, name: str) -> builtins.list[int]:
        files = (file.removesuffix(".json") for file in self._store.names(f"aliases/{name}"))
        return sorted(int(file) for file in files if _VERSION.fullmatch(file))

    def _read(self, name: str, version: int) -> Alias:
        path = _path(name, version)
        try:
            content = from_json(self._store.read(path)) | {"name": name, "version": version}
            alias = _STORED.validate_python(content)
            _ = alias.target  # Checks what the fields say together.
        except (ValueError, TypeError, InvalidInput) as error:
            raise Corrupted(
                f"{path} in the pool's folder is not an alias ({error}); delete it, and the change"
                " before it counts again"
            ) from None
        return alias


def _is_same(one: Alias, other: Alias) -> bool:
    return (one.refs, one.canary_percent) == (other.refs, other.canary_percent)


def _ignore(error: Corrupted) -> None:
    metrics.IGNORED_OBJECTS.labels("alias").inc()
    _log.warning("alias ignored", error=error.message)


def _path(name: str, version: int) -> str:
    return f"aliases/{name}/{version:08d}.json"
