"""Which point of a sweep is trained next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.sweeps.spec import Range, SweepSpec, as_number

Point = Mapping[str, Any]
"""Hyper-parameters that vary, by name."""

_DIGITS = 3
"""Significant digits of a number that Optuna chooses."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point to train."""

    point: Point
    token: Any = None
    """The search's own."""


class Search(Protocol):
    """Proposes points. Told the same losses in the same order, it proposes the same."""

    def propose(self) -> Proposal | None:
        """The next point; None when there is no other."""

    def tell(self, proposal: Proposal, loss: float | None) -> None:
        """What came of a point: its validation loss, or None where its run failed."""


def search_of(spec: SweepSpec) -> Search:
    """The search that a sweep asks for.

    Raises:
        InvalidInput: it asks for Optuna, which is not installed.
    """
    return GridSearch(spec) if spec.method == "grid" else OptunaSearch(spec)


class GridSearch:
    """Every combination, the last name varying fastest."""

    def __init__(self, spec: SweepSpec) -> None:
        self._points = self._all({name: spec.values(name) for name in spec.search})

    def propose(self) -> Proposal | None:
        return next(self._points, None)

    def tell(self, proposal: Proposal, loss: float | None) -> None:
        """A grid learns nothing."""

    @staticmethod
    def _all(search: Mapping[str, Sequence[Any]]) -> Iterator[Proposal]:
        for values in product(*search.values()):
            yield Proposal(dict(zip(search, values, strict=True)))


class OptunaSearch:
    """Optuna's tree-structured Parzen estimator, seeded.

    Its study is in memory: a sweep that goes on tells it the finished runs again, and gets the same
    proposals.
    """

    def __init__(self, spec: SweepSpec) -> None:
        try:
            import optuna  # noqa: PLC0415 - an optional package
        except ImportError:
            raise InvalidInput(
                "`method: optuna` needs the package optuna: pip install 'tuneproof[sweep]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._failed = optuna.trial.TrialState.FAIL
        self._study = optuna.create_study(
            direction="minimize", sampler=optuna.samplers.TPESampler(seed=spec.seed)
        )
        self._search = spec.search
        self._values = {name: spec.values(name) for name in spec.search}
        self._choices: dict[str, Any] = {
            name: _distribution(optuna.distributions, name, asked)
            for name, asked in spec.search.items()
        }

    def propose(self) -> Proposal | None:
        trial = self._study.ask(self._choices)
        return Proposal(
            {name: self._value(name, trial.params[name]) for name in self._search}, trial
        )

    def tell(self, proposal: Proposal, loss: float | None) -> None:
        if loss is None:
            self._study.tell(proposal.token, state=self._failed)
        else:
            self._study.tell(proposal.token, loss)

    def _value(self, name: str, chosen: float) -> Any:
        asked = self._search[name]
        if isinstance(asked, Range):
            return as_number(name, float(f"{chosen:.{_DIGITS}g}"))
        return self._values[name][int(chosen)]


def _distribution(kinds: Any, name: str, asked: Any) -> Any:
    if not isinstance(asked, Range):
        # By place: a choice of Optuna's must be a plain value, and lists of modules are none.
        return kinds.CategoricalDistribution(tuple(range(len(asked))))
    low, high = as_number(name, asked.low), as_number(name, asked.high)
    if isinstance(low, int):
        return kinds.IntDistribution(low, high, log=asked.log)
    return kinds.FloatDistribution(low, high, log=asked.log)
