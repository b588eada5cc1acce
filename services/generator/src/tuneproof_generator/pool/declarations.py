"""The declared set: the adapters that every replica of the pool should serve."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from pydantic import AwareDatetime, TypeAdapter

from tuneproof.adapters import AdapterRef, ObjectStore
from tuneproof.servicekit.errors import Corrupted, InvalidInput, NotFound
from tuneproof_generator import metrics
from tuneproof_generator.pool.store import StoredRef

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Declaration:
    """One adapter that the pool should serve."""

    ref: StoredRef
    required: bool
    """Readiness waits for it."""
    time: AwareDatetime
    request_id: str = ""
    allow_no_effect: bool = False
    """It may change nothing."""


_STORED = TypeAdapter(Declaration)


class Declarations:
    """The declared set in the pool's folder. Its calls block; run them in a thread."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def list(self, known: Iterable[Declaration] = ()) -> builtins.list[Declaration]:
        """All declarations, sorted by reference.

        Args:
            known: what is served now. A declaration that cannot be read is logged and taken from
                here, or left out: a damaged object removes no adapter and adds none.

        Raises:
            Unavailable: when the store does not answer.
        """
        before = {_path(declaration.ref): declaration for declaration in known}
        found = []
        for name in self._store.names("adapters"):
            for file in self._store.names(f"adapters/{name}"):
                path = f"adapters/{name}/{file}"
                try:
                    declaration = self._read(path)
                except Corrupted as error:
                    metrics.IGNORED_OBJECTS.labels("declaration").inc()
                    _log.warning("declaration ignored", error=error.message)
                    declaration = before.get(path)
                if declaration is not None:
                    found.append(declaration)
        return sorted(found, key=lambda declaration: declaration.ref)

    def get(self, ref: AdapterRef) -> Declaration | None:
        """An adapter's declaration; None when it does not exist or cannot be read."""
        try:
            return self._read(_path(ref))
        except Corrupted:
            return None

    def put(self, declaration: Declaration) -> None:
        """Adds a declaration, or replaces the one of the same adapter."""
        self._store.write(_path(declaration.ref), _STORED.dump_json(declaration))

    def delete(self, ref: AdapterRef) -> None:
        """Takes an adapter out of the set."""
        self._store.delete(_path(ref))

    def _read(self, path: str) -> Declaration | None:
        if path.rsplit("/", 1)[1].startswith("."):
            return None  # A write under way.
        try:
            declaration = _STORED.validate_json(self._store.read(path))
        except NotFound:
            return None  # Removed between the listing and the reading.
        except (ValueError, InvalidInput) as error:
            raise Corrupted(f"{path} in the pool's folder is not a declaration: {error}") from None
        if _path(declaration.ref) != path:
            raise Corrupted(f"{path} in the pool's folder names another adapter, {declaration.ref}")
        return declaration


def _path(ref: AdapterRef) -> str:
    return f"adapters/{ref.name}/{ref.hex}.json"
