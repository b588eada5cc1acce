"""What the study found, in sentences: the headline, and a sentence for each comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tuneproof.analysis import (
    Comparison,
    Comparisons,
    Verdict,
)
from tuneproof.report.numbers import (
    decimals_of,
    interval_text,
    label_of,
    phrase_of,
    plain,
    signed,
)
from tuneproof.results import Cell, StudyResults

Direction = Literal[
    "better",
    "slightly_better",
    "partly_better",
    "worse",
    "slightly_worse",
    "partly_worse",
    "mixed",
    "equivalent",
    "undecided",
]
"""What the primary comparisons of a cell say together, and never more than the weakest of them.

`better`: all of them are better, and none only within the margin. `slightly_better`: all are
better, one or more within the margin. `partly_better`: some are better, others equivalent or
undecided. `mixed`: some are better, some worse.
"""

RECIPE_SEEDS = 3
"""Training seeds of an arm from which on a headline speaks of fine-tuning, and not only of the
adapters that were trained."""

NAMED_CELLS = 4
"""The headline names up to so many cells one by one; more it only counts."""


@dataclass(frozen=True, slots=True)
class CellFinding:
    """What the primary comparisons say of one cell."""

    cell: str
    label: str
    arm: str
    size: int
    seed: int
    by: tuple[str, ...]
    """Who or what scored: `judge <model>`, `word overlap`."""
    direction: Direction
    phrase: str
    """As `loses accuracy and completeness`."""
    sentences: tuple[str, ...]
    """One for each primary comparison, with figures and interval."""


def findings(results: StudyResults, comparisons: Comparisons) -> tuple[CellFinding, ...]:
    """A finding for each cell that a primary comparison names, in the order of the cells."""
    return tuple(
        _finding(results, cell, named)
        for cell in results.cells
        if (named := comparisons.of_cell(cell.name))
    )


def headline(found: Sequence[CellFinding]) -> str:
    """The whole study in one sentence; it says no more than its weakest part."""
    if not found:
        return "Nothing was compared: the study names no comparison."
    lead = f"{_lead(found)}, by {join(list(dict.fromkeys(by for one in found for by in one.by)))}"
    if len(found) > NAMED_CELLS:
        return f"{lead}: of {len(found)} tuned cells {_counts(found)}."
    cells = "; ".join(f"\N{LEFT DOUBLE QUOTATION MARK}{one.label}\N{RIGHT DOUBLE QUOTATION MARK} "
                      f"{one.phrase}" for one in found)  # fmt: skip
    return f"{lead}: {cells}."


def join(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


_VERBS = {
    Verdict.BETTER: "gains {}",
    Verdict.WORSE: "loses {}",
    Verdict.EQUIVALENT: "is equivalent in {}",
    Verdict.UNDECIDED: "is undecided in {}",
    Verdict.UNSCORED: "is undecided in {} because of unscored answers",
    Verdict.TOO_FEW_CLUSTERS: "cannot be compared in {} (too few clusters)",
}

_ADAPTERS: dict[Direction, tuple[str, str]] = {
    "better": ("The tuned adapter answers better", "The tuned adapters answer better"),
    "slightly_better": (
        "The tuned adapter answers slightly better",
        "The tuned adapters answer slightly better",
    ),
    "partly_better": (
        "The tuned adapter answers better by some measures only",
        "The tuned adapters answer better by some measures only",
    ),
    "worse": ("The tuned adapter answers worse", "The tuned adapters answer worse"),
    "slightly_worse": (
        "The tuned adapter answers slightly worse",
        "The tuned adapters answer slightly worse",
    ),
    "partly_worse": (
        "The tuned adapter answers worse by some measures",
        "The tuned adapters answer worse by some measures",
    ),
    "mixed": (
        "The tuned adapter gains and loses at once",
        "The tuned adapters gain and lose at once",
    ),
    "equivalent": (
        "The tuned adapter makes no difference that matters",
        "The tuned adapters make no difference that matters",
    ),
}
"""Of one adapter, and of several."""

_RECIPES: dict[Direction, str] = {
    "better": "Fine-tuning makes the answers better",
    "slightly_better": "Fine-tuning makes the answers slightly better",
    "partly_better": "Fine-tuning makes the answers better by some measures only",
    "worse": "Fine-tuning makes the answers worse",
    "slightly_worse": "Fine-tuning makes the answers slightly worse",
    "partly_worse": "Fine-tuning makes the answers worse by some measures",
    "mixed": "Fine-tuning gains and loses at once",
    "equivalent": "Fine-tuning makes no difference that matters",
}
"""Of an arm whose every seed says the same."""


def _finding(results: StudyResults, cell: Cell, named: Sequence[Comparison]) -> CellFinding:
    by_verdict: dict[Verdict, list[str]] = {}
    for one in named:
        if one.verdict is not None:
            within = " (within the margin)" if one.within_margin else ""
            said = within if one.verdict in {Verdict.BETTER, Verdict.WORSE} else ""
            by_verdict.setdefault(one.verdict, []).append(phrase_of(one.measure) + said)
    phrase = join(
        [
            _VERBS[verdict].format(join(by_verdict[verdict]))
            for verdict in Verdict
            if verdict in by_verdict
        ]
    )
    labels = {one.name: one.label for one in results.cells}
    return CellFinding(
        cell=cell.name,
        label=cell.label,
        arm=cell.arm,
        size=cell.size,
        seed=cell.seed,
        by=tuple(dict.fromkeys(one.by for one in named)),
        direction=_direction(named),
        phrase=phrase,
        sentences=tuple(sentence_of(one, labels[one.against]) for one in named),
    )


def _direction(named: Sequence[Comparison]) -> Direction:
    verdicts = {one.verdict for one in named}
    slight = any(one.within_margin for one in named)
    if {Verdict.BETTER, Verdict.WORSE} <= verdicts:
        return "mixed"
    if verdicts == {Verdict.BETTER}:
        return "slightly_better" if slight else "better"
    if verdicts == {Verdict.WORSE}:
        return "slightly_worse" if slight else "worse"
    if Verdict.BETTER in verdicts:
        return "partly_better"
    if Verdict.WORSE in verdicts:
        return "partly_worse"
    return "equivalent" if verdicts == {Verdict.EQUIVALENT} else "undecided"


def sentence_of(one: Comparison, against: str) -> str:
    """A comparison in a sentence: verdict, who judged, means, difference, interval.

    Args:
        against: label of the cell that it is compared with.
    """
    said = f"{label_of(one.measure)}: {one.words}, by {one.by}"
    if one.difference is None:
        return f"{said}; nothing could be paired with {against}."
    decimals = decimals_of(one)
    within = "no interval" if one.interval is None else f"interval {interval_text(one)}"
    if one.interval != one.scored_interval:
        within += ", whatever the unscored answers are worth"
    return (
        f"{said}. {plain(one.mean, decimals)} against "
        f"{plain(one.mean_against, decimals)} of {against}, a difference of "
        f"{signed(one.difference, decimals)} ({within})."
    )


def _lead(found: Sequence[CellFinding]) -> str:
    directions = {one.direction for one in found}
    if directions == {"undecided"}:
        return "This study cannot decide whether fine-tuning helps"
    if len(directions) == 1:
        if speaks_of_the_recipe(found):
            return _RECIPES[found[0].direction]
        return _ADAPTERS[found[0].direction][len(found) > 1]
    if "better" in directions:
        return "Some tuned adapters answer better, others do not"
    return "Fine-tuning is not shown to help"


def speaks_of_the_recipe(found: Sequence[CellFinding]) -> bool:
    """Whether each arm was trained, at each size, with enough seeds to speak of more than these
    adapters."""
    seeds: dict[tuple[str, int], set[int]] = {}
    for one in found:
        seeds.setdefault((one.arm, one.size), set()).add(one.seed)
    return all(len(each) >= RECIPE_SEEDS for each in seeds.values())


def _counts(found: Sequence[CellFinding]) -> str:
    words: dict[Direction, str] = {
        "better": "gain",
        "slightly_better": "gain slightly",
        "partly_better": "gain in part",
        "worse": "lose",
        "slightly_worse": "lose slightly",
        "partly_worse": "lose in part",
        "mixed": "gain and lose",
        "equivalent": "are equivalent",
        "undecided": "are undecided",
    }
    counted = [
        f"{count} {word}"
        for direction, word in words.items()
        if (count := sum(one.direction == direction for one in found))
    ]
    return join(counted)
