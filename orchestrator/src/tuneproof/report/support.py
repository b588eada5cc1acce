"""What verdicts stand on, in words: by the judge, anchored in labels, guaranteed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tuneproof.analysis import Comparison, Comparisons, Verdict
from tuneproof.analysis.contrasts import against_wins, contrasts_of
from tuneproof.analysis.intervals import Interval
from tuneproof.analysis.preferences import Preferred, preferences_of
from tuneproof.analysis.raters import Agreement, Bias, agreements_of
from tuneproof.analysis.seeds import OverSeeds, over_seeds_of
from tuneproof.analysis.support import ByPeople, Guaranteed, Support, supports_of
from tuneproof.report.numbers import decimals_of, label_of, percent, plain, signed
from tuneproof.results import StudyResults


@dataclass(frozen=True, slots=True)
class SupportRow:
    """One primary comparison."""

    cell: str
    label: str
    """Of the cell."""
    measure: str
    """For people."""
    lines: tuple[tuple[str, str], ...]
    """Kind and sentence: `judge`, then `anchored` where there are labels, then `guaranteed`."""


def support_rows(results: StudyResults, comparisons: Comparisons) -> tuple[SupportRow, ...]:
    """One row for each primary comparison, in their order."""
    labels = {cell.name: cell.label for cell in results.cells}
    return tuple(
        SupportRow(
            one.comparison.cell,
            labels[one.comparison.cell],
            label_of(one.comparison.measure),
            tuple(_lines(one)),
        )
        for one in supports_of(results, comparisons)
    )


def seed_rows(results: StudyResults, comparisons: Comparisons) -> tuple[tuple[str, str], ...]:
    """Each recipe of several seeds: its name, and what its seeds show together."""
    rows = []
    for one in over_seeds_of(results, comparisons):
        name = " ".join(filter(None, (one.model, one.arm, str(one.size or ""))))
        means = one.found.seed_means
        decimals = one.scale.decimals
        text = (
            f"{signed(one.found.estimate.difference, decimals)} over {len(means)} seeds, from"
            f" {signed(min(means), decimals)} to {signed(max(means), decimals)}"
        )
        if one.why_not:
            text += f"; no verdict on the recipe: {one.why_not}"
        else:
            text += (
                f"; the recipe is {one.words}{_span(one.interval, decimals)}; the next seed lies"
                f" between{_span(one.next_seed, decimals)}"
            )
        rows.append((f"{name} \N{MIDDLE DOT} {label_of(one.scale.name)}", text))
    return tuple(rows)


def wins_apart(results: StudyResults, comparisons: Comparisons) -> Iterator[str]:
    """A sentence for each comparison whose mean and net win rate disagree."""
    for one in against_wins(results, comparisons):
        most, few = ("gain", "lose") if (one.difference or 0.0) < 0.0 else ("lose", "gain")
        yield (
            f"{one.cell}, {label_of(one.measure)}: more answers {most} than {few}, but the mean"
            f" goes the other way: the few that {few} do so by much."
        )


def contrast_rows(results: StudyResults) -> tuple[tuple[str, str], ...]:
    """Each contrast: its name and measure, and its figures."""
    decimals = {one.name: one.decimals for one in results.criteria}
    return tuple(
        (
            f"{one.name} \N{MIDDLE DOT} {label_of(one.measure)}",
            signed(one.value, decimals.get(one.measure, 2))
            + _span(one.interval, decimals.get(one.measure, 2)),
        )
        for one in contrasts_of(results)
    )


def preference_rows(results: StudyResults) -> tuple[tuple[str, str], ...]:
    """Each pair of cells that the judge compared: its name and criterion, and what it preferred."""
    labels = {cell.name: cell.label for cell in results.cells}
    return tuple(
        (
            f"{labels[one.cell]} or {labels[one.against]} \N{MIDDLE DOT} {label_of(one.criterion)}",
            f"net preference {signed(one.net.difference)}{_span(one.interval, 2)} over"
            f" {one.items} questions, {percent(one.ties)} ties; being shown first gains"
            f" {signed(one.position.difference)}{_span(one.position_interval, 2)}, and the"
            f" order decided {percent(one.reversed)} of the repeats"
            + (f"; {one.unscored} questions unscored" if one.unscored else ""),
        )
        for one in preferences_of(results)
    )


def preferences_apart(results: StudyResults, comparisons: Comparisons) -> Iterator[str]:
    """A sentence for each verdict that the same judge's preferences surely contradict."""
    found = {(one.cell, one.against, one.criterion): one for one in preferences_of(results)}
    for one in comparisons.primary:
        other = found.get((one.cell, one.against, one.measure))
        if other is None or other.interval is None:
            continue
        low, high = other.interval.low, other.interval.high
        if (one.verdict is Verdict.BETTER and high < 0.0) or (
            one.verdict is Verdict.WORSE and low > 0.0
        ):
            yield (
                f"{one.cell}, {label_of(one.measure)}: {one.words} by the judge's scores, but asked"
                " which answer is better the judge prefers the other"
                f" ({signed(other.net.difference)}{_span(other.interval, 2)})."
            )


def disagreements(results: StudyResults, comparisons: Comparisons) -> Iterator[str]:
    """A sentence for each verdict of the judge that people do not bear out."""
    if not results.labels:
        return
    labels = {cell.name: cell.label for cell in results.cells}
    for one in supports_of(results, comparisons):
        found, people = one.comparison, one.anchored
        if people is not None and people.reading.verdict is not found.verdict:
            yield (
                f"{labels[found.cell]}, {label_of(found.measure)}: {found.words} by the judge,"
                f" {people.words} by people on {people.labels} labelled pairs. The labels count."
            )


def support_json(results: StudyResults, comparisons: Comparisons) -> dict[str, Any]:
    """The same for machines: `support` by comparison, `agreement` by criterion."""
    return {
        "support": [_support(one) for one in supports_of(results, comparisons)],
        "agreement": [_agreement(one) for one in agreements_of(results)],
        "contrasts": contrasts_of(results),
        "preferences": [_preferred(one) for one in preferences_of(results)],
        "recipes": [_recipe(one) for one in over_seeds_of(results, comparisons)],
    }


def agreement_lines(results: StudyResults) -> Iterator[str]:
    """A sentence for each criterion that people labelled, and one for each group's bias."""
    for one in agreements_of(results):
        people = f"{one.raters} {'person' if one.raters == 1 else 'people'}"
        kappas = [f"judge and people {plain(one.judge_kappa)}"]
        if one.between_kappa is not None:
            kappas.append(f"people among themselves {plain(one.between_kappa)}")
        if one.self_kappa is not None:
            kappas.append(f"people with themselves {plain(one.self_kappa)}")
        yield (
            f"{label_of(one.criterion)}, {one.answers} answers labelled by {people}: weighted"
            f" \N{GREEK SMALL LETTER KAPPA} {', '.join(kappas)}"
        )
        for what, biases in (("", one.by_arm), (" answers", one.by_length)):
            told = "; ".join(f"{each.group}{what} {_bias(each)}" for each in biases)
            yield f"  the judge's score minus people's: {told}"
        if (slope := one.per_doubling) is not None:
            yield (
                f"  for each doubling of the answer's length the judge adds {signed(slope.value)}"
                f" points (\N{PLUS-MINUS SIGN}{2.0 * slope.standard_error:.2f}) beyond people"
            )


def _lines(one: Support) -> Iterator[tuple[str, str]]:
    found = one.comparison
    decimals = decimals_of(found)
    said = f"{found.words}, by {found.by}{_span(found.interval, decimals)}"
    if one.tipping is not None and found.by.startswith("judge"):
        side = "the cell" if one.tipping > 0 else "what it is compared with"
        size = plain(abs(one.tipping), decimals)
        said += f"; falls if the judge favours {side} by {size} more than people do"
    yield "judge" if found.by.startswith("judge") else "words", said
    if one.anchored is not None:
        yield "anchored", _people(one.anchored, decimals)
    if one.guaranteed is not None:
        yield "guaranteed", _bounds(one.guaranteed, found, decimals)


def _people(people: ByPeople, decimals: int) -> str:
    found = people.found
    by = "one person" if people.raters == 1 else f"{people.raters} people"
    return (
        f"{people.words}, by {by} on {people.labels} of {found.pairs} pairs"
        f"{_span(people.interval, decimals)}; beside people the judge favours the cell by"
        f" {signed(found.bias.difference, decimals)}"
    )


def _bounds(found: Guaranteed, compared: Comparison, decimals: int) -> str:
    severe = found.severe
    kept = "above" if found.lower > -(compared.margin or 0.0) else "not shown to be above"
    return (
        f"{signed(found.lower, decimals)} or more on average by {compared.by}, {kept}"
        f" \N{MINUS SIGN}\N{GREEK SMALL LETTER DELTA}; {severe.losses} of {severe.items} answers"
        f" lose {found.points:g} {compared.scale.unit} or more, so at most"
        f" {100.0 * severe.upper:.1f} % of all questions"
    )


def _span(interval: Interval | None, decimals: int) -> str:
    if interval is None:
        return ""
    return f" ({signed(interval.low, decimals)} to {signed(interval.high, decimals)})"


def _bias(one: Bias) -> str:
    return f"{signed(one.estimate.difference)}{_span(one.interval, 2)}"


def _support(one: Support) -> dict[str, Any]:
    found, people, bounds = one.comparison, one.anchored, one.guaranteed
    return {
        "cell": found.cell,
        "against": found.against,
        "measure": found.measure,
        "tipping_point": one.tipping,
        "anchored": people
        and {
            "verdict": people.reading.verdict,
            "within_margin": people.reading.within_margin,
            "words": people.words,
            "difference": people.found.estimate.difference,
            "standard_error": people.found.estimate.standard_error,
            "degrees_of_freedom": people.found.estimate.degrees_of_freedom,
            "interval": people.interval,
            "judge_weight": people.found.judge_weight,
            "judge_bias": people.found.bias.difference,
            "labels": people.labels,
            "clusters": people.found.estimate.clusters,
            "pairs": people.found.pairs,
            "identical": people.found.identical,
            "raters": people.raters,
        },
        "guaranteed": bounds
        and {"lower": bounds.lower, "points": bounds.points, "severe_loss": bounds.severe},
    }


def _preferred(one: Preferred) -> dict[str, Any]:
    return {
        "cell": one.cell,
        "against": one.against,
        "criterion": one.criterion,
        "net": one.net.difference,
        "interval": one.interval,
        "position": one.position.difference,
        "position_interval": one.position_interval,
        "ties": one.ties,
        "reversed": one.reversed,
        "items": one.items,
        "unscored": one.unscored,
    }


def _recipe(one: OverSeeds) -> dict[str, Any]:
    found = one.found
    return {
        "model": one.model,
        "arm": one.arm,
        "size": one.size,
        "measure": one.scale.name,
        "difference": found.estimate.difference,
        "standard_error": found.estimate.standard_error,
        "degrees_of_freedom": found.estimate.degrees_of_freedom,
        "seed_means": found.seed_means,
        "seed_variance": found.seed_variance,
        "interval": one.interval,
        "next_seed": one.next_seed,
        "verdict": one.reading.verdict if one.interval else None,
        "words": one.words,
    }


def _agreement(one: Agreement) -> dict[str, Any]:
    def told(biases: Sequence[Bias]) -> list[dict[str, Any]]:
        return [
            {
                "group": each.group,
                "bias": each.estimate.difference,
                "answers": each.estimate.items,
                "interval": each.interval,
            }
            for each in biases
        ]

    return {
        "criterion": one.criterion,
        "raters": one.raters,
        "answers": one.answers,
        "judge_kappa": one.judge_kappa,
        "between_kappa": one.between_kappa,
        "self_kappa": one.self_kappa,
        "by_arm": told(one.by_arm),
        "by_length": told(one.by_length),
        "per_doubling": one.per_doubling,
    }
