"""What the study found, in sentences: the headline, a sentence for each cell, and the warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tuneproof.analysis import Comparison, Comparisons, Outcome, measures_of
from tuneproof.report.numbers import (
    decimals_of,
    interval_text,
    label_of,
    percent,
    phrase_of,
    plain,
    signed,
)
from tuneproof.results import Cell, StudyResults

Direction = Literal["better", "worse", "mixed", "equivalent", "undecided"]

WEAK_KAPPA = 0.6
"""Below it a judge is called weak: the upper end of "moderate" agreement in Landis and Koch
(1977, Biometrics 33:159)."""

FEW = 0.05
"""Below this share unreadable readings are a note, no caution."""

NAMED_ARMS = 4
"""The headline names so many cells one by one, and only counts more."""


@dataclass(frozen=True, slots=True)
class CellFinding:
    """What the primary comparisons say of one cell."""

    cell: str
    label: str
    direction: Direction
    phrase: str
    """As `loses accuracy and completeness`."""
    sentences: tuple[str, ...]
    """One for each primary comparison, with figures and interval."""


@dataclass(frozen=True, slots=True)
class Caveat:
    """A sentence without which the verdict would be misread."""

    kind: Literal["caution", "note"]
    text: str


def findings(results: StudyResults, comparisons: Comparisons) -> tuple[CellFinding, ...]:
    """A finding for each cell that a primary comparison names, in the order of the cells."""
    return tuple(
        _finding(results, cell, named)
        for cell in results.cells
        if (named := comparisons.of_cell(cell.name))
    )


def headline(found: Sequence[CellFinding]) -> str:
    """The whole study in one sentence."""
    if not found:
        return "Nothing was compared: the study names no comparison."
    if len(found) > NAMED_ARMS:
        return f"{_lead(found)}: of {len(found)} tuned cells {_counts(found)}."
    cells = "; ".join(f"\N{LEFT DOUBLE QUOTATION MARK}{one.label}\N{RIGHT DOUBLE QUOTATION MARK} "
                     f"{one.phrase}" for one in found)  # fmt: skip
    return f"{_lead(found)}: {cells}."


def warnings(results: StudyResults) -> tuple[Caveat, ...]:
    """Everything that a reader must know before believing the verdict, the gravest first."""
    cautions: list[str] = []
    if results.synthetic:
        cautions.append(
            "Synthetic world, built to show the mechanism; no evidence about real models."
        )
    if results.toy_model and not results.synthetic:
        cautions.append(
            "Toy model on text that it was not made for: it knows only its own small world, so "
            "that its answers here mean nothing."
        )
    elif results.toy_model:
        cautions.append(
            "Toy model: it ships with the project to show the mechanism; its answers say nothing "
            "about other models."
        )
    if not results.judge_model:
        cautions.append(
            "No judge was configured: scores are lexical only, that is word overlap with the "
            "references, which knows nothing of meaning."
        )
    if results.self_judged:
        cautions.append(
            f"Self-judged: the judge {results.judge_model} is the base model under test and may "
            "favour its own wording."
        )
    if results.gold_only:
        cautions.append(
            "Gold-only corpus: it holds nothing but texts with evidence, so that retrieval is "
            "easier than in earnest."
        )
    cautions += _quality(results)
    notes = list(results.notes)
    readings = _unreadable(results)
    if readings and readings[1]:
        notes.append(readings[0])
    if results.judge_model and not results.judge_checks:
        notes.append("The judge was not tried on answers whose right scores are known.")
    return tuple(
        [Caveat("caution", text) for text in cautions] + [Caveat("note", text) for text in notes]
    )


def join(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


_VERBS = {
    Outcome.BETTER: "gains {}",
    Outcome.WORSE: "loses {}",
    Outcome.EQUIVALENT: "is equivalent in {}",
    Outcome.UNDECIDED: "is undecided in {}",
    Outcome.UNSCORED: "is undecided in {} for want of scores",
    Outcome.TOO_FEW_CLUSTERS: "cannot be judged in {} (too few clusters)",
}


_UNANIMOUS: dict[Direction, str] = {
    "better": "Fine-tuning makes the answers better",
    "worse": "Fine-tuning makes the answers worse",
    "mixed": "Fine-tuning gains and loses at once",
    "equivalent": "Fine-tuning makes no difference that matters",
    "undecided": "This study cannot decide whether fine-tuning helps",
}


def _finding(results: StudyResults, cell: Cell, named: Sequence[Comparison]) -> CellFinding:
    by_outcome: dict[Outcome, list[str]] = {}
    for one in named:
        if one.outcome is not None:
            within = " (within the margin)" if one.within_margin else ""
            said = within if one.outcome in {Outcome.BETTER, Outcome.WORSE} else ""
            by_outcome.setdefault(one.outcome, []).append(phrase_of(one.measure) + said)
    phrase = join(
        [
            _VERBS[outcome].format(join(by_outcome[outcome]))
            for outcome in Outcome
            if outcome in by_outcome
        ]
    )
    labels = {one.name: one.label for one in results.cells}
    sentences = tuple(sentence_of(one, labels[one.against]) for one in named)
    return CellFinding(cell.name, cell.label, _direction(by_outcome), phrase, sentences)


def _direction(outcomes: dict[Outcome, list[str]]) -> Direction:
    if Outcome.BETTER in outcomes and Outcome.WORSE in outcomes:
        return "mixed"
    if Outcome.BETTER in outcomes:
        return "better"
    if Outcome.WORSE in outcomes:
        return "worse"
    return "equivalent" if set(outcomes) == {Outcome.EQUIVALENT} else "undecided"


def sentence_of(one: Comparison, against: str) -> str:
    """A comparison in a sentence: verdict, means, difference, interval.

    Args:
        against: label of the cell that it is compared with.
    """
    name = label_of(one.measure)
    if one.difference is None:
        return f"{name}: {one.words}; nothing could be paired with {against}."
    decimals = decimals_of(one)
    within = "no interval" if one.interval is None else f"interval {interval_text(one)}"
    return (
        f"{name}: {one.words}. {plain(one.mean, decimals)} against "
        f"{plain(one.mean_against, decimals)} of {against}, a difference of "
        f"{signed(one.difference, decimals)} ({within})."
    )


def _lead(found: Sequence[CellFinding]) -> str:
    directions = {one.direction for one in found}
    if len(directions) == 1:
        return _UNANIMOUS[found[0].direction]
    if "better" in directions:
        return "Fine-tuning helps in some cells, not in all"
    return "Fine-tuning is not shown to help"


def _counts(found: Sequence[CellFinding]) -> str:
    words: dict[Direction, str] = {
        "better": "gain",
        "worse": "lose",
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


def _quality(results: StudyResults) -> list[str]:
    """Cautions counted from the answers and from the judge's examination."""
    found = []
    expected = len(results.items) * len(results.cells)
    lost = expected - sum(not answer.error for answer in results.answers)
    if lost:
        found.append(
            f"{lost} of {expected} answers are missing or without a grade; the reasons stand "
            "beside them."
        )
    criteria = [
        score
        for answer in results.answers
        if answer.grade is not None
        for score in answer.grade.criteria.values()
    ]
    unscored = sum(score.mean is None for score in criteria)
    if unscored:
        found.append(
            f"{unscored} of {len(criteria)} judged scores are missing "
            f"({percent(unscored / len(criteria))}): the judge's text could not be read. They "
            "count as unscored, bounded both ways, never as zero."
        )
    readings = _unreadable(results)
    if readings and not readings[1]:
        found.append(readings[0])
    cut = sum(answer.finish_reason == "length" for answer in results.answers)
    if cut:
        found.append(f"{cut} of {len(results.answers)} answers were cut at the length limit.")
    asked = set(measures_of(results).judged)
    found += [
        f"The judge agrees poorly with known scores in {phrase_of(check.criterion)} "
        f"(weighted \N{GREEK SMALL LETTER KAPPA} {plain(check.weighted_kappa)}): its grades "
        "there count for little."
        for check in results.judge_checks
        if check.criterion in asked and check.weighted_kappa < WEAK_KAPPA
    ]
    return found


def _unreadable(results: StudyResults) -> tuple[str, bool] | None:
    """How many of the judge's readings have no score, and whether these are few."""
    failed = [
        repeat.score is None
        for answer in results.answers
        if answer.grade is not None
        for score in answer.grade.criteria.values()
        for repeat in score.repeats
    ]
    if not any(failed):
        return None
    share = sum(failed) / len(failed)
    text = (
        f"{sum(failed):,} of the judge's {len(failed):,} readings could not be scored "
        f"({percent(share)}); the others of the same answer count."
    )
    return text, share < FEW
