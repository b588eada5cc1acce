"""Did tuning make a cell stop using the passages? In sentences, beside the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuneproof.analysis import Change, Split, SplitCell
from tuneproof.analysis.strata import KindName
from tuneproof.report.findings import NAMED_CELLS, join
from tuneproof.report.numbers import NONE, plain, signed
from tuneproof.results import Cell, StudyResults

TITLES: Mapping[KindName, str] = {
    "retrieved": "A gold passage was retrieved",
    "missed": "No gold passage was retrieved",
    "unanswerable": "The documents do not answer",
    "unknown": "Gold not known",
    "by_heart": "The base model knows the answer without passages",
    "not_by_heart": "It does not know the answer without passages",
}

_READ = ("retrieved", "unknown")
"""The strata in which an answer should come from the passages; the first that there is is read."""


def source_lines(results: StudyResults, splits: Sequence[Split]) -> tuple[str, ...]:
    """Which cells take less, as much or more of their words from the passages than their baseline.

    Read off each cell's interval where gold was retrieved (or is not known), as exploratory
    figures: without one nothing is said. More than a few cells are counted, not named.
    """
    split = next((one for name in _READ for one in splits if one.stratum == name), None)
    labels = {cell.name: cell.label for cell in results.cells}
    groups: dict[str, list[str]] = {"less": [], "more": [], "same": []}
    for one in split.cells if split else ():
        change = one.sources
        if change.interval is None:
            continue
        low, high = change.interval.low, change.interval.high
        kind = "less" if high < 0.0 else "more" if low > 0.0 else "same"
        groups[kind].append(f"{labels[one.cell]} ({_of(change)})")
    said = {
        "less": "Smaller shares of the words come from the passages than in the baseline: {}.",
        "more": "Larger shares come from the passages: {}.",
        "same": "No difference is shown in: {}.",
    }
    total = sum(map(len, groups.values()))
    return tuple(
        said[kind].format(join(each) if total <= NAMED_CELLS else f"{len(each)} of {total} cells")
        for kind, each in groups.items()
        if each
    )


def interval_of_change(change: Change, decimals: int) -> str:
    """`−0.12 to −0.03`, or a dash without an interval."""  # noqa: RUF002
    if change.interval is None:
        return NONE
    return f"{signed(change.interval.low, decimals)} to {signed(change.interval.high, decimals)}"


def reading_of(change: Change) -> str:
    """`better` or `worse` where the interval leaves zero out, else `same`: it picks a colour."""
    if change.interval is None or change.interval.low <= 0.0 <= change.interval.high:
        return "same"
    return "worse" if change.interval.high < 0.0 else "better"


def split_rows(results: StudyResults, split: Split) -> tuple[tuple[Cell, SplitCell], ...]:
    """The rows of a split's table, in the order of the study's cells."""
    cells = {cell.name: cell for cell in results.cells}
    return tuple((cells[one.cell], one) for one in split.cells)


def _of(change: Change) -> str:
    return f"{plain(change.mean)} against {plain(change.mean_against)}"
