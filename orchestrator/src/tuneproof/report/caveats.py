"""What a reader must know before believing the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tuneproof.analysis import Comparisons, Verdict, measures_of, repeats_by_cell
from tuneproof.report.findings import RECIPE_SEEDS, findings, speaks_of_the_recipe
from tuneproof.report.numbers import confidence, percent, phrase_of, plain
from tuneproof.report.support import disagreements, preferences_apart, wins_apart
from tuneproof.results import CriterionGrade, StudyResults

WEAK_KAPPA = 0.6
"""A judge below it is weak: the upper end of "moderate" agreement in Landis and Koch (1977,
Biometrics 33:159)."""

FEW = 0.05
"""Below this share lost repeats are a note, not a caution."""

_SAMPLING = frozenset({"temperature", "top_p", "seed"})
_OPEN = frozenset({Verdict.UNDECIDED, Verdict.UNSCORED})


@dataclass(frozen=True, slots=True)
class Caveat:
    """A sentence that keeps readers from misreading the verdict."""

    kind: Literal["caution", "note"]
    text: str


def judged_grades(results: StudyResults, cell: str = "") -> list[CriterionGrade]:
    """The judge's grades by every criterion, of one cell's answers or of all."""
    return [
        grade
        for answer in results.answers
        if answer.grade is not None and cell in {"", answer.cell}
        for grade in answer.grade.criteria.values()
    ]


def unscored_in(grades: Iterable[CriterionGrade]) -> int:
    """How many grades have no mean."""
    return sum(grade.mean is None for grade in grades)


def warnings(results: StudyResults, comparisons: Comparisons) -> tuple[Caveat, ...]:
    """All caveats, the gravest first; the same on the terminal, in the JSON and in the report."""
    cautions = [*disagreements(results, comparisons), *_nature(results), *_quality(results)]
    notes = [*results.notes, *wins_apart(results, comparisons)]
    notes += preferences_apart(results, comparisons)
    share, text = _lost_repeats(results)
    if 0.0 < share < FEW:
        notes.append(text)
    refused = {name for one in judged_grades(results) for name in one.refused_parameters}
    if left_out := ", ".join(sorted(refused & _SAMPLING)):
        notes.append(
            f"The judge's endpoint refuses {left_out}, and was asked without: it samples as it "
            "likes."
        )
    if results.judge_model and not results.judge_checks:
        notes.append("The judge was not tested on answers with known scores.")
    found = findings(results, comparisons)
    if found and not speaks_of_the_recipe(found):
        notes.append(
            "The verdicts are about these trained adapters. Another training seed may give another "
            f"adapter; a claim about fine-tuning needs {RECIPE_SEEDS} seeds or more that agree"
            " with their recipe's interval."
        )
    if (looks := results.looks) is not None:
        early = looks.taken < len(looks.fractions)
        notes.append(
            f"Look {looks.taken} of {len(looks.fractions)} that were planned, at"
            f" {percent(looks.fractions[looks.taken - 1])} of the questions"
            + (": every primary comparison is decided." if early and comparisons.decided else ".")
        )
    elif any(one.verdict in _OPEN for one in comparisons.primary):
        notes.append(
            "Do not add questions and look again until an undecided comparison is decided: every "
            "further look raises the chance of a wrong verdict above "
            f"{confidence(1.0 - comparisons.confidence)}. Plan the looks before the run "
            "(`tuneproof study run --looks 4`), or a new study from this one as its pilot "
            "(`tuneproof study plan`)."
        )
    return tuple(
        [Caveat("caution", text) for text in cautions] + [Caveat("note", text) for text in notes]
    )


def _nature(results: StudyResults) -> list[str]:
    """Cautions about every study of this kind, whatever its results."""
    found: list[str] = []
    if results.synthetic:
        found.append("Synthetic world, built to show the mechanism; no evidence about real models.")
    if results.toy_model and not results.synthetic:
        found.append(
            "Toy model on foreign text: it knows only its own small world, so its answers here "
            "mean nothing."
        )
    elif results.toy_model:
        found.append(
            "Toy model: it ships with the project to show the mechanism; its answers say nothing "
            "about other models."
        )
    if not results.judge_model:
        found.append(
            "No judge was configured: scores are lexical only. They count the words that an "
            "answer shares with the references, and ignore its meaning."
        )
    if results.self_judged:
        found.append(
            f"Self-judged: the judge {results.judge_model} is the base model under test and may "
            "favour its own wording."
        )
    if results.gold_only:
        found.append(
            "Gold-only corpus: it holds only texts with evidence, so retrieval is easier than in "
            "real use."
        )
    return found


def _quality(results: StudyResults) -> list[str]:
    """Cautions counted from the answers and from the judge's examination."""
    found = []
    expected = len(results.items) * len(results.cells)
    lost = expected - sum(not answer.error for answer in results.answers)
    if lost:
        found.append(
            f"{lost} of {expected} answers are missing or without a grade; each says why below."
        )
    judged = judged_grades(results)
    if unscored := unscored_in(judged):
        by_cell = {one.name: unscored_in(judged_grades(results, one.name)) for one in results.cells}
        found.append(
            f"{unscored} of {len(judged)} judged scores are missing "
            f"({percent(unscored / len(judged))}): fewer than half of the judge's repeats could "
            f"be read. {_by_cell(by_cell)} They are bounded both ways, never counted as zero."
        )
    share, text = _lost_repeats(results)
    if share >= FEW:
        found.append(text)
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


def _lost_repeats(results: StudyResults) -> tuple[float, str]:
    """The share of the judge's repeats without a score, and a sentence about them."""
    cells = repeats_by_cell(results)
    asked = sum(each.asked for each in cells.values())
    lost = sum(each.lost for each in cells.values())
    if not lost:
        return 0.0, ""
    by_cell = _by_cell({name: each.lost for name, each in cells.items()})
    return lost / asked, (
        f"{lost:,} of the judge's {asked:,} repeats could not be scored ({percent(lost / asked)}); "
        f"the others of the same answer count. {by_cell}"
    )


def _by_cell(counts: Mapping[str, int]) -> str:
    """`By cell: baseline 0, short-200-s1 12.`"""
    return f"By cell: {', '.join(f'{name} {count:,}' for name, count in counts.items())}."
