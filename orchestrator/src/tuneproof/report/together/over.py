"""What several studies say to the paper's questions, data set by data set.

Each study has questions, margins and comparisons of its own, so each keeps its verdicts and its
intervals, which hold together within that study. Here they stand side by side and are counted.
Nothing is averaged over data sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tuneproof.analysis import Comparisons, Recipe, Verdict, measures_of, recipes_of
from tuneproof.report.answers import shown_measures
from tuneproof.report.findings import findings, join, lead_of
from tuneproof.report.numbers import label_of
from tuneproof.report.questions import (
    Question,
    Questions,
    Row,
    Score,
    changes_by_model,
    curves_of,
    name_of,
    paper_rows,
    questions_of,
    verdict_counts,
    words_of_counts,
)
from tuneproof.results import StudyResults


@dataclass(frozen=True, slots=True)
class Part:
    """One study of a joint report."""

    results: StudyResults
    comparisons: Comparisons
    report: str = ""
    """Address of its own report, relative to the joint one's; empty: there is none."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one data set's study says to a question."""

    dataset: str
    question: Question
    rows: tuple[Row, ...]
    """Its recipes in RQ1, its models in RQ3; scores by `Over.measures`."""


@dataclass(frozen=True, slots=True)
class OverSets:
    """One question over all data sets."""

    title: str
    asks: str
    lines: tuple[str, ...]
    """What all say together."""
    sets: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """RQ1 to RQ3 over all data sets."""

    measures: tuple[str, ...]
    """Of all studies, in the order of the first that has them."""
    helps: OverSets
    sizes: OverSets
    models: OverSets
    paper: tuple[Row, ...]
    """The paper's figures by these measures."""


@dataclass(frozen=True, slots=True)
class _OfStudy:
    """A study, its name on the page, and what its report finds."""

    name: str
    part: Part
    measures: tuple[str, ...]
    found: Questions
    tuned: tuple[Recipe, ...]


def names_of(parts: Sequence[Part]) -> tuple[str, ...]:
    """A name for each data set, unique: with the study's where two studies have one data set."""
    times = Counter(part.results.dataset for part in parts)
    return tuple(
        dataset if times[dataset] == 1 else f"{dataset} ({part.results.name})"
        for part in parts
        for dataset in [part.results.dataset]
    )


def shown_of(part: Part) -> tuple[str, ...]:
    """The measures that a study's own report shows."""
    return shown_measures(part.results, measures_of(part.results))


def headline_of(parts: Sequence[Part]) -> str:
    """All data sets in one sentence: those of which the same can be said, together."""
    by_lead: dict[tuple[str, str], list[str]] = {}
    for name, part in zip(names_of(parts), parts, strict=True):
        found = findings(part.results, part.comparisons)
        lead = lead_of(found) if found else "Nothing was compared"
        scorers = list(dict.fromkeys(by for one in found for by in one.by))
        by_lead.setdefault((lead, f", by {join(scorers)}" if scorers else ""), []).append(name)
    said = [f"{lead} on {join(names)}{by}" for (lead, by), names in by_lead.items()]
    first, *others = said
    return "; ".join([first, *(text[0].lower() + text[1:] for text in others)]) + "."


def over_sets(parts: Sequence[Part]) -> Over:
    """The paper's questions over the data sets of several studies."""
    studies = tuple(map(_of_study, names_of(parts), parts))
    measures = tuple(dict.fromkeys(name for one in studies for name in one.measures))
    first = studies[0].found
    return Over(
        measures=measures,
        helps=OverSets(
            first.helps.title,
            first.helps.asks,
            tuple(_helps(studies)),
            tuple(
                Said(one.name, one.found.helps, _rows(one.found.rows, one, measures))
                for one in studies
            ),
        ),
        sizes=OverSets(
            first.sizes.title,
            first.sizes.asks,
            tuple(_sizes(studies, measures)),
            tuple(Said(one.name, one.found.sizes, ()) for one in studies),
        ),
        models=OverSets(
            first.models.title,
            first.models.asks,
            tuple(_models(studies, measures)),
            tuple(
                Said(one.name, one.found.models, _rows(one.found.by_model, one, measures))
                for one in studies
            ),
        ),
        paper=paper_rows(measures),
    )


def _of_study(name: str, part: Part) -> _OfStudy:
    measures = shown_of(part)
    recipes = recipes_of(part.results, part.comparisons, measures)
    return _OfStudy(
        name,
        part,
        measures,
        questions_of(part.results, part.comparisons, measures),
        tuple(one for one in recipes if one.tuned),
    )


def _helps(studies: Sequence[_OfStudy]) -> Iterator[str]:
    counts: Counter[Verdict] = Counter()
    for one in studies:
        counts += verdict_counts(one.part.results, one.part.comparisons)
    if counts:
        yield (
            f"Over {len(studies)} data sets, {counts.total()} comparisons of tuned cells were named"
            f" before the runs: {words_of_counts(counts)}."
        )
    without = [one.name for one in studies if not one.found.helps.answered]
    if without:
        yield f"{join(without)}: nothing is tuned there."


def _sizes(studies: Sequence[_OfStudy], measures: Sequence[str]) -> Iterator[str]:
    for measure in measures:
        parts = []
        for one in studies:
            curves = [curve for at, curve in curves_of(one.tuned).items() if at[2] == measure]
            up = sum(curve[-1].mean > curve[0].mean for curve in curves)
            if curves:
                parts.append(f"{up} of {len(curves)} arms and models on {one.name}")
        if parts:
            yield f"{label_of(measure)} rises from the fewest pairs to the most in {join(parts)}."


def _models(studies: Sequence[_OfStudy], measures: Sequence[str]) -> Iterator[str]:
    for measure in measures:
        lowest: dict[str, list[str]] = {}
        for one in studies:
            changes = changes_by_model(one.tuned, measure)
            if len(changes) > 1:
                model = min(changes, key=changes.__getitem__)
                lowest.setdefault(name_of(model), []).append(one.name)
        if lowest:
            parts = [f"{model} on {join(names)}" for model, names in lowest.items()]
            yield f"{label_of(measure)} suffers most, or gains least, with {join(parts)}."


def _rows(rows: Sequence[Row], one: _OfStudy, measures: Sequence[str]) -> tuple[Row, ...]:
    return tuple(
        replace(row, dataset=one.name, scores=_aligned(row.scores, one.measures, measures))
        for row in rows
    )


def _aligned(
    scores: Sequence[Score | None], have: Sequence[str], want: Sequence[str]
) -> tuple[Score | None, ...]:
    """Scores of some measures at the places of others."""
    found = dict(zip(have, scores, strict=True))
    return tuple(found.get(name) for name in want)
