"""Which adapter serves a request, by the name that the request gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tuneproof.servicekit.errors import NotFound, Unavailable
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.local_adapter import LocalAdapter
from tuneproof_generator.engine.protocol import LoadedAdapter
from tuneproof_generator.pool.routes import Routes


class Resolver:
    """Finds adapters by reference or alias.

    Args:
        base_model: the name under which the base is served.
        held: the adapters of this replica, by reference.
        check_known: raises Unavailable until what the pool declares is known here.
    """

    def __init__(
        self,
        base_model: str,
        held: Mapping[str, LocalAdapter],
        routes: Routes,
        check_known: Callable[[], None],
    ) -> None:
        self._base_model = base_model
        self._held = held
        self._routes = routes
        self._check_known = check_known

    def serving(self, model: str) -> LoadedAdapter | None:
        """What serves a request for a model; None for the base model, which never stands in for an
        adapter.

        Raises:
            NotFound: for a name that is neither base, nor adapter, nor alias.
            Unavailable: for an adapter that is not READY, or when it is not known yet which are
                declared.
        """
        if model in ("", self._base_model):
            return None
        local = self._held.get(ref := self._routes.pick(model))
        if local is None:
            self._check_known()
            raise NotFound(self._unknown(model, ref), model=model)
        record = local.record
        if record.state is not AdapterState.READY or local.loaded is None:
            because = f" ({record.reason})" if record.reason else ""
            raise Unavailable(
                f"adapter {record.ref} is {record.state}, not READY{because}; see GetAdapter",
                retry_after=None if record.state is AdapterState.FAILED else 1.0,
                adapter=record.ref,
                state=record.state,
            )
        return local.loaded

    def find(self, name: str) -> LocalAdapter:
        """One adapter, in whatever state.

        Raises:
            NotFound: when there is none.
        """
        alias = self._routes.table.get(name)
        local = self._held.get(ref := alias.ref if alias else name)
        if local is None:
            raise NotFound(self._unknown(name, ref), adapter=name)
        return local

    def _unknown(self, name: str, ref: str) -> str:
        if name in self._routes.table:
            return f"alias {name} points to {ref}, which is not declared; declare it first"
        return (
            f"{name!r} is not the base model {self._base_model!r}, nor an alias, nor a declared"
            " adapter; see ListAdapters and ListAliases"
        )
