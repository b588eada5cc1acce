"""The paper's three questions, and what a study says to each: in the layout of its tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneproof.analysis import (
    Comparisons,
    Recipe,
    Verdict,
    means_by_cell,
    measures_of,
    recipes_of,
)
from tuneproof.report.findings import RECIPE_SEEDS, join
from tuneproof.report.numbers import label_of, phrase_of, plain, signed
from tuneproof.report.paper import FIGURES, PaperFigure, words_of
from tuneproof.results import StudyResults

PAPER_WORDS = "; ".join(map(words_of, FIGURES))
"""All of the paper's figures that we know, in words."""

NAMED_CURVES = 3
"""Most arms and models of a measure that get a sentence each."""


@dataclass(frozen=True, slots=True)
class Score:
    """One measure in one row: before, after, and the difference."""

    before: str
    after: str
    difference: str
    words: str = ""
    """What the seeds' verdicts say; empty where there is none."""
    verdict: str = ""
    """Theirs, where all seeds have the same one; it picks the colour."""


@dataclass(frozen=True, slots=True)
class Row:
    """A recipe, or a figure of the paper."""

    dataset: str
    model: str
    arm: str
    size: str
    seeds: str
    scores: tuple[Score | None, ...]
    """By measure, as in `Questions.measures`; None where there is no figure."""


@dataclass(frozen=True, slots=True)
class Question:
    """One of the paper's questions."""

    title: str
    asks: str
    lines: tuple[str, ...]
    """What the study says; where it cannot answer, why."""
    answered: bool


@dataclass(frozen=True, slots=True)
class Questions:
    """RQ1 to RQ3 with their figures."""

    measures: tuple[str, ...]
    helps: Question
    sizes: Question
    models: Question
    rows: tuple[Row, ...]
    """Every recipe."""
    paper: tuple[Row, ...]
    """The paper's figures by these measures."""
    paper_words: str
    """All of them, in words."""
    by_model: tuple[Row, ...]
    """Each model over the arms and sizes that all tuned models share; empty for one model."""


def questions_of(
    results: StudyResults, comparisons: Comparisons, measures: Sequence[str]
) -> Questions:
    """What the study says to the paper's questions.

    Args:
        measures: whose scores are shown.
    """
    recipes = recipes_of(results, comparisons, measures)
    tuned = [one for one in recipes if one.tuned]
    decimals = {name: measures_of(results).of(name).decimals for name in measures}
    shared = _shared(tuned)
    by_model = _by_model(results, tuned, shared, decimals)
    return Questions(
        measures=tuple(measures),
        helps=_helps(results, comparisons, tuned, decimals),
        sizes=_sizes(tuned, decimals),
        models=_models(tuned, decimals),
        rows=_rows(results, recipes, decimals),
        paper=paper_rows(measures),
        paper_words=PAPER_WORDS,
        by_model=by_model,
    )


def verdict_counts(results: StudyResults, comparisons: Comparisons) -> Counter[Verdict]:
    """The verdicts of the tuned cells' primary comparisons."""
    cells = {cell.name for cell in results.cells if cell.tuned}
    return Counter(
        one.verdict for one in comparisons.primary if one.cell in cells and one.verdict is not None
    )


def words_of_counts(counts: Mapping[Verdict, int]) -> str:
    """`3 worse, 2 equivalent and 1 undecided`."""
    return join([f"{counts[one]} {_WORDS[one]}" for one in Verdict if counts.get(one)])


def curves_of(tuned: Sequence[Recipe]) -> dict[tuple[str, str, str], list[Recipe]]:
    """Recipes of two sizes or more by model, arm and measure, the smallest size first."""
    curves: dict[tuple[str, str, str], list[Recipe]] = {}
    for one in tuned:
        curves.setdefault((one.model, one.arm, one.measure), []).append(one)
    return {at: curve for at, curve in curves.items() if len(curve) > 1}


def changes_by_model(tuned: Sequence[Recipe], measure: str) -> dict[str, float]:
    """What tuning changes on average, by model, over the arms and sizes that all tuned models
    share; empty where they share none."""
    shared = _shared(tuned)
    mine = [one for one in tuned if one.measure == measure and (one.arm, one.size) in shared]
    return {
        model: _mean_difference([one for one in mine if one.model == model])
        for model in dict.fromkeys(one.model for one in mine)
    }


def name_of(model: str) -> str:
    """A model for people."""
    return model or "the base model"


def _helps(
    results: StudyResults,
    comparisons: Comparisons,
    tuned: Sequence[Recipe],
    decimals: dict[str, int],
) -> Question:
    title, asks = "RQ1", "Does fine-tuning improve the answers of a RAG system over the baseline?"
    if not tuned:
        return Question(title, asks, ("This study tunes no model: it cannot answer RQ1.",), False)
    said = verdict_counts(results, comparisons)
    lines = []
    if said:
        number = said.total()
        lines.append(
            f"Of {number} comparison{'s' if number > 1 else ''} of tuned cells named before the"
            f" run: {words_of_counts(said)}."
        )
    changes = [
        f"{phrase_of(name)} by {signed(_mean_difference(mine), digits)}"
        for name, digits in decimals.items()
        if (mine := [one for one in tuned if one.measure == name])
    ]
    number = len({(one.model, one.arm, one.size) for one in tuned})
    over = f" on average over {number} recipes" if number > 1 else ""
    lines.append(f"Tuning changes {join(changes)}{over}.")
    return Question(title, asks, tuple(lines), True)


_WORDS = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.EQUIVALENT: "equivalent",
    Verdict.UNDECIDED: "undecided",
    Verdict.UNSCORED: "undecided because of unscored answers",
    Verdict.TOO_FEW_CLUSTERS: "without an interval (too few clusters)",
    Verdict.NOT_TESTED: "not tested",
}


def _sizes(tuned: Sequence[Recipe], decimals: dict[str, int]) -> Question:
    title, asks = "RQ2", "How does the number of tuning pairs matter?"
    if not tuned:
        return Question(title, asks, ("This study tunes no model: it cannot answer RQ2.",), False)
    rising = curves_of(tuned)
    lines = []
    for measure, digits in decimals.items():
        mine = {at: curve for at, curve in rising.items() if at[2] == measure}
        if len(mine) > NAMED_CURVES:
            lines.append(_in_short(measure, list(mine.values()), digits))
            continue
        for (model, arm, _), curve in mine.items():
            first, last = curve[0], curve[-1]
            of = f"{arm} on {model}" if model else arm
            lines.append(
                f"{label_of(measure)} of {of}: {plain(first.mean, digits)} at {first.size:,} pairs,"
                f" {plain(last.mean, digits)} at {last.size:,}"
                f" ({signed(last.mean - first.mean, digits)})."
            )
    if rising:
        lines.append(_seeds(list(rising.values()), decimals))
    if not lines:
        sizes = sorted({one.size for one in tuned})
        line = f"Each arm is tuned on one number of pairs ({join([f'{n:,}' for n in sizes])})"
        return Question(title, asks, (f"{line}: this study cannot answer RQ2.",), False)
    return Question(title, asks, tuple(lines), True)


def _in_short(measure: str, curves: Sequence[Sequence[Recipe]], digits: int) -> str:
    """One measure of many arms and models, from their smallest to their largest size."""
    changes = [curve[-1].mean - curve[0].mean for curve in curves]
    up = sum(change > 0.0 for change in changes)
    return (
        f"{label_of(measure)} rises with the number of pairs in {up} of {len(changes)} curves: from"
        f" the fewest to the most it changes by {signed(min(changes), digits)} to"
        f" {signed(max(changes), digits)}."
    )


def _seeds(curves: Sequence[Sequence[Recipe]], decimals: dict[str, int]) -> str:
    """How far the seeds of one size lie apart."""
    fewest = min(len(one.seeds) for curve in curves for one in curve)
    if fewest == 1:
        return "With one seed, the size is not told apart from the luck of the draw."
    widest: dict[str, float] = {}
    for one in (one for curve in curves for one in curve):
        widest[one.measure] = max(one.spread, widest.get(one.measure, 0.0))
    parts = [f"{plain(far, decimals[name])} in {phrase_of(name)}" for name, far in widest.items()]
    few = "" if fewest >= RECIPE_SEEDS else f"; {fewest} seeds tell little"
    return f"Seeds of one size differ by up to {join(parts)}{few}."


def _models(tuned: Sequence[Recipe], decimals: dict[str, int]) -> Question:
    title, asks = "RQ3", "Does tuning hurt some models more than others?"
    models = list(dict.fromkeys(one.model for one in tuned))
    if len(models) < 2:
        what = "no model" if not models else "one model only"
        line = f"This study tunes {what}: it cannot answer RQ3."
        return Question(title, asks, (line,), False)
    if not _shared(tuned):
        line = "No arm is tuned on all models at one size: this study cannot answer RQ3."
        return Question(title, asks, (line,), False)
    lines = []
    for measure, digits in decimals.items():
        changes = changes_by_model(tuned, measure)
        parts = [f"{signed(change, digits)} on {model}" for model, change in changes.items()]
        if parts:
            lines.append(f"Tuning changes {phrase_of(measure)} by {join(parts)}.")
    return Question(title, asks, tuple(lines), True)


def _shared(tuned: Sequence[Recipe]) -> set[tuple[str, int]]:
    """Arms and sizes that every tuned model has."""
    by_model: dict[str, set[tuple[str, int]]] = {}
    for one in tuned:
        by_model.setdefault(one.model, set()).add((one.arm, one.size))
    return set.intersection(*by_model.values()) if by_model else set()


def _mean_difference(recipes: Sequence[Recipe]) -> float:
    return math.fsum(one.difference for one in recipes) / len(recipes)


def _rows(
    results: StudyResults, recipes: Sequence[Recipe], decimals: dict[str, int]
) -> tuple[Row, ...]:
    found = {(one.model, one.arm, one.size, one.measure): one for one in recipes}
    rows = []
    for model, arm, size in dict.fromkeys((one.model, one.arm, one.size) for one in recipes):
        mine = [found.get((model, arm, size, name)) for name in decimals]
        first = next(one for one in mine if one is not None)
        rows.append(
            Row(
                dataset=results.dataset,
                model=name_of(model),
                arm=arm,
                size=_size(first),
                seeds=str(len(first.seeds)) if size else "\N{EN DASH}",
                scores=tuple(
                    None if one is None else _score(one, decimals[one.measure]) for one in mine
                ),
            )
        )
    return tuple(rows)


def _size(one: Recipe) -> str:
    if not one.size:
        return "none"
    return f"{one.size:,}" if one.tuned else f"{one.size:,} in the prompt"


def _score(one: Recipe, digits: int) -> Score:
    verdicts = [seed.verdict for seed in one.seeds if seed.verdict is not None]
    counts = Counter(verdicts)
    same = len(counts) == 1 and len(verdicts) == len(one.seeds)
    words = "exploratory"
    if same:
        words = _WORDS[verdicts[0]]
    elif verdicts:
        words = ", ".join(f"{counts[each]} {_WORDS[each]}" for each in Verdict if counts[each])
    return Score(
        before=plain(one.mean_against, digits),
        after=plain(one.mean, digits),
        difference=signed(one.difference, digits),
        words=words,
        verdict=str(verdicts[0]) if same else "",
    )


def paper_rows(measures: Sequence[str]) -> tuple[Row, ...]:
    """The paper's figures by these measures."""
    return tuple(
        _paper_row(figure, measures) for figure in FIGURES if figure.scores.keys() & set(measures)
    )


def _paper_row(figure: PaperFigure, measures: Sequence[str]) -> Row:
    scores = []
    for name in measures:
        pair = figure.scores.get(name)
        scores.append(
            None
            if pair is None
            else Score(plain(pair[0]), plain(pair[1]), signed(pair[1] - pair[0]))
        )
    return Row(
        figure.dataset or "\N{EN DASH}", figure.model, "", f"{figure.size:,}", "", tuple(scores)
    )


def _by_model(
    results: StudyResults,
    tuned: Sequence[Recipe],
    shared: set[tuple[str, int]],
    decimals: dict[str, int],
) -> tuple[Row, ...]:
    """Each model's baseline, and its mean over what all tuned models share."""
    if len(results.models) < 2:
        return ()
    means = means_by_cell(results)
    rows = []
    for model, base in ((each.name, each.baseline) for each in results.models):
        scores: list[Score | None] = []
        for name, digits in decimals.items():
            mine = [
                one
                for one in tuned
                if one.model == model and one.measure == name and (one.arm, one.size) in shared
            ]
            if mine:
                before = math.fsum(one.mean_against for one in mine) / len(mine)
                after = math.fsum(one.mean for one in mine) / len(mine)
                scores.append(
                    Score(
                        plain(before, digits), plain(after, digits), signed(after - before, digits)
                    )
                )
            elif base in means and means[base][name].mean is not None:
                scores.append(Score(plain(means[base][name].mean, digits), "", ""))
            else:
                scores.append(None)
        recipes = len(shared) if any(one.model == model for one in tuned) else 0
        rows.append(Row(results.dataset, name_of(model), "", str(recipes), "", tuple(scores)))
    return tuple(rows)
