"""What the study found, in sentences: the headline, and a sentence for each comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tuneproof.analysis import Comparison, Comparisons, Verdict
from tuneproof.analysis.seeds import over_seeds_of
from tuneproof.report.numbers import decimals_of, interval_text, label_of, phrase_of, plain, signed
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
"""What the primary comparisons of a cell say together, never more than the weakest of them.

`better`: all are better, none only within the margin. `slightly_better`: all are better, at least
one within the margin. `partly_better`: some are better, others equivalent or undecided. `mixed`:
some are better, some worse.
"""

RECIPE_SEEDS = 3
"""Fewest training seeds of an arm for a headline about fine-tuning, not only about its adapters."""

NAMED_CELLS = 4
"""Most cells that the headline names; it counts a larger number."""


@dataclass(frozen=True, slots=True)
class CellFinding:
    """What the primary comparisons say about one cell."""

    cell: str
    label: str
    arm: str
    size: int
    seed: int
    by: tuple[str, ...]
    """Who or what scored: `judge <model>`, `word overlap`."""
    direction: Direction
    phrase: str
    """For example `loses accuracy and completeness`."""
    sentences: tuple[str, ...]
    """One for each primary comparison, with figures and interval."""
    tuned: bool = True
    """An adapter answers; else the base model does, with another prompt."""
    imported: bool = False
    """Another system answered."""
    model: str = ""
    """Name of the cell's model."""
    recipe: bool = False
    """Its recipe, over three seeds or more, has the verdicts of each of its seeds."""


def findings(results: StudyResults, comparisons: Comparisons) -> tuple[CellFinding, ...]:
    """A finding for each cell that a primary comparison names, in the order of the cells."""
    recipes = _recipes_alike(results, comparisons)
    return tuple(
        _finding(results, cell, named, recipe=(cell.model, cell.arm, cell.size) in recipes)
        for cell in results.cells
        if (named := comparisons.of_cell(cell.name))
    )


def headline(found: Sequence[CellFinding]) -> str:
    """The whole study in one sentence; it says no more than its weakest part."""
    if not found:
        return "Nothing was compared: the study names no comparison."
    lead = f"{lead_of(found)}, by {join(list(dict.fromkeys(by for one in found for by in one.by)))}"
    if len(found) > NAMED_CELLS:
        tuned = "tuned " if all(one.tuned for one in found) else ""
        return f"{lead}: of {len(found)} {tuned}cells {_counts(found)}."
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
    Verdict.NOT_TESTED: "is not tested in {}",
}

_SUBJECTS = {
    "adapter": ("The tuned adapter", "answers", "s"),
    "adapters": ("The tuned adapters", "answer", ""),
    "recipe": ("Fine-tuning", "makes the answers", "s"),
    "prompt": ("The base model with another prompt", "answers", "s"),
    "system": ("Another system", "answers", "s"),
}
_LEADS: dict[Direction, str] = {
    "better": "{answers} better",
    "slightly_better": "{answers} slightly better",
    "partly_better": "{answers} better by some measures only",
    "worse": "{answers} worse",
    "slightly_worse": "{answers} slightly worse",
    "partly_worse": "{answers} worse by some measures",
    "mixed": "gain{s} and lose{s} at once",
    "equivalent": "make{s} no difference that matters",
}


def _finding(
    results: StudyResults, cell: Cell, named: Sequence[Comparison], *, recipe: bool
) -> CellFinding:
    by_verdict: dict[Verdict, list[str]] = {}
    for one in named:
        if one.verdict is not None:
            within = " (within the margin)" if one.within_margin else ""
            said = within if one.verdict in {Verdict.BETTER, Verdict.WORSE} else ""
            by_verdict.setdefault(one.verdict, []).append(phrase_of(one.measure) + said)
    phrases = [_VERBS[one].format(join(by_verdict[one])) for one in Verdict if one in by_verdict]
    labels = {one.name: one.label for one in results.cells}
    return CellFinding(
        cell=cell.name,
        label=cell.label,
        arm=cell.arm,
        size=cell.size,
        seed=cell.seed,
        by=tuple(dict.fromkeys(one.by for one in named)),
        direction=_direction(named),
        phrase=join(phrases),
        sentences=tuple(sentence_of(one, labels[one.against]) for one in named),
        tuned=cell.tuned,
        imported=cell.imported,
        model=cell.model,
        recipe=recipe,
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
        return f"{said}; no answer could be paired with one of {against}."
    decimals = decimals_of(one)
    within = "no interval" if one.interval is None else f"interval {interval_text(one)}"
    if one.interval != one.scored_interval:
        within += ", whatever the unscored answers are worth"
    return (
        f"{said}. {plain(one.mean, decimals)} against "
        f"{plain(one.mean_against, decimals)} of {against}, a difference of "
        f"{signed(one.difference, decimals)} ({within})."
    )


def lead_of(found: Sequence[CellFinding]) -> str:
    """What the tuned cells say together; where none is tuned, what the others say."""
    tuned = [one for one in found if one.tuned]
    others = not tuned and all(one.imported for one in found)
    subject = "fine-tuning" if tuned else "another system" if others else "another prompt"
    directions = {one.direction for one in tuned or found}
    if directions == {"undecided"}:
        return f"This study cannot decide whether {subject} helps"
    if len(directions) == 1:
        few = "adapter" if len(tuned) == 1 else "adapters"
        untuned = "system" if others else "prompt"
        kind = ("recipe" if speaks_of_the_recipe(tuned) else few) if tuned else untuned
        what, answers, s = _SUBJECTS[kind]
        return f"{what} {_LEADS[(tuned or found)[0].direction].format(answers=answers, s=s)}"
    if "better" in directions:
        return f"Some {'tuned adapters' if tuned else 'prompts'} answer better, others do not"
    return f"{subject.capitalize()} is not shown to help"


def speaks_of_the_recipe(found: Sequence[CellFinding]) -> bool:
    """Whether every tuned cell's recipe has its own verdict, and that is the cell's."""
    return all(one.recipe for one in found if one.tuned)


def _recipes_alike(results: StudyResults, comparisons: Comparisons) -> set[tuple[str, str, int]]:
    """Recipes of enough seeds that have, by every measure, the one verdict of all their seeds."""
    cells = {cell.name: cell for cell in results.cells}
    seeds: dict[tuple[str, str, int, str], set[Verdict | None]] = {}
    for one in comparisons.primary:
        cell = cells[one.cell]
        seeds.setdefault((cell.model, cell.arm, cell.size, one.measure), set()).add(one.verdict)
    alike: dict[tuple[str, str, int], list[bool]] = {}
    for recipe in over_seeds_of(results, comparisons, fewest=RECIPE_SEEDS):
        key = recipe.model, recipe.arm, recipe.size
        same = seeds[(*key, recipe.scale.name)] == {recipe.reading.verdict}
        alike.setdefault(key, []).append(same)
    return {key for key, each in alike.items() if all(each)}


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
    counts = Counter(one.direction for one in found)
    return join([f"{counts[one]} {word}" for one, word in words.items() if counts[one]])
