"""What differs between two studies: their design, their verdicts and means, their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Place = tuple[str, str]
"""A cell with a measure, or with an item."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A primary comparison, as far as two of them are compared."""

    words: str
    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two; a part is None where nothing is known of it."""

    name: str
    design: Mapping[str, Any] | None
    """The study file's values."""
    provenance: Mapping[str, str] | None = None
    cells: tuple[str, ...] | None = None
    verdicts: Mapping[Place, Verdict] | None = None
    """By cell and measure."""
    means: Mapping[Place, float | None] | None = None
    """By cell and measure."""
    answers: Mapping[Place, str | None] | None = None
    """By cell and item; None: there is no answer."""


@dataclass(frozen=True, slots=True)
class Change:
    """A value that differs; None on a side that lacks it."""

    what: str
    """A path in the study file, or a name of the provenance."""
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class PlaceChange:
    """A verdict, mean or answer that differs; None on a side that lacks it."""

    cell: str
    of: str
    """The measure, or the item."""
    a: Any
    b: Any


@dataclass(frozen=True)
class Differences:
    """What differs; a part is None where one side does not know it."""

    a: str
    b: str
    design: tuple[Change, ...] | None
    provenance: tuple[Change, ...] | None
    only_a: tuple[str, ...]
    """Cells that only one side has."""
    only_b: tuple[str, ...]
    verdicts: tuple[PlaceChange, ...] | None
    """Those with other words, difference or interval, of cells that both have."""
    means: tuple[PlaceChange, ...] | None
    answers: tuple[PlaceChange, ...] | None
    compared: Mapping[str, int]
    """Answers that were compared, by cell."""

    @property
    def same(self) -> bool:
        """Whether nothing differs of what both sides know."""
        parts = (self.design, self.provenance, self.verdicts, self.means, self.answers)
        return not any([*parts, self.only_a, self.only_b])


def differences(a: Side, b: Side) -> Differences:
    """Compares two sides part by part."""
    cells_a, cells_b = a.cells or (), b.cells or ()
    known = a.cells is not None and b.cells is not None
    both = set(cells_a) & set(cells_b)
    compared: dict[str, int] = {}
    for cell, _ in {**(a.answers or {})}.keys() | {**(b.answers or {})}.keys():
        if cell in both and a.answers is not None and b.answers is not None:
            compared[cell] = compared.get(cell, 0) + 1
    return Differences(
        a.name,
        b.name,
        design=_changes(_leaves(a.design), _leaves(b.design)),
        provenance=_changes(a.provenance, b.provenance),
        only_a=tuple(cell for cell in cells_a if cell not in both) if known else (),
        only_b=tuple(cell for cell in cells_b if cell not in both) if known else (),
        verdicts=_of_places(a.verdicts, b.verdicts, both),
        means=_of_places(a.means, b.means, both),
        answers=_of_places(a.answers, b.answers, both),
        compared={cell: compared[cell] for cell in cells_a if cell in compared},
    )


def _changes(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> tuple[Change, ...] | None:
    if a is None or b is None:
        return None
    names = dict.fromkeys([*a, *b])
    return tuple(
        Change(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)
    )


def _of_places(
    a: Mapping[Place, Any] | None, b: Mapping[Place, Any] | None, cells: set[str]
) -> tuple[PlaceChange, ...] | None:
    if a is None or b is None:
        return None
    places = [place for place in dict.fromkeys([*a, *b]) if place[0] in cells]
    return tuple(
        PlaceChange(*place, a.get(place), b.get(place))
        for place in places
        if a.get(place) != b.get(place)
    )


def _leaves(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else dict(leaves(value))


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a study file by their path, as `arms.short.tune.references`.

    Parts of a list go by their names, so that a new arm is one change; else by their place.
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and value and all(isinstance(p, Mapping) for p in value):
        for place, part in enumerate(value):
            yield from leaves(part, f"{name}.{part.get('name', place)}")
    else:
        yield name, list(value) if isinstance(value, tuple) else value
