"""Figures and names as people read them."""

from __future__ import annotations

from dataclasses import replace

from tuneproof.analysis import Comparison, Comparisons, read
from tuneproof.analysis.families import Adjustment
from tuneproof.results import ANSWER_WORDS

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
"""Stands for a missing figure."""

_LABELS = {
    "exact_match": "Exact match",
    "token_f1": "Token F1",
    "rouge_l": "ROUGE-L",
    "bert_score": "BERTScore",
    ANSWER_WORDS.name: "Words in the answer",
}


def label_of(measure: str) -> str:
    """A measure's name for people: `token_f1` is Token F1, `completeness` Completeness."""
    return _LABELS.get(measure) or measure.replace("_", " ").capitalize()


def phrase_of(measure: str) -> str:
    """A measure's name inside a sentence: criteria in lower case."""
    return _LABELS.get(measure) or measure.replace("_", " ")


def plain(value: float | None, decimals: int = 2) -> str:
    """A figure with a fixed number of decimals and a true minus sign; a dash for None."""
    if value is None:
        return NONE
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", MINUS)


def signed(value: float | None, decimals: int = 2) -> str:
    """As `plain`, with a plus sign before what is above zero."""
    text = plain(value, decimals)
    return f"+{text}" if value is not None and float(f"{value:.{decimals}f}") > 0.0 else text


def percent(value: float | None) -> str:
    """A share as a whole percentage; only exact shares read `0 %` or `100 %`."""
    if value is None:
        return NONE
    if 0.0 < value < 0.005:
        return "under 1 %"
    if 0.995 <= value < 1.0:
        return "over 99 %"
    return f"{100.0 * value:.0f} %"


def confidence(value: float) -> str:
    """A confidence as `95 %` or `98.75 %`."""
    return f"{100.0 * value:.4f}".rstrip("0").rstrip(".") + " %"


def shared(comparisons: Comparisons) -> str:
    """How the primary comparisons share the error, in a sentence."""
    count, together = len(comparisons.primary), confidence(comparisons.confidence)
    look = f" at {comparisons.look}" if comparisons.look else ""
    if count == 1:
        return f"Its interval is at {confidence(comparisons.adjusted_confidence)}{look}."
    match comparisons.adjustment:
        case Adjustment.HOLM:
            text = (
                f"All {count} words hold together at {together} (Holm{look}): what is better or"
                " worse leaves its share of the error to the others, so intervals differ in"
                " confidence"
            )
        case Adjustment.SEQUENCE:
            text = (
                f"All {count} words hold together at {together}, because they are read in this"
                f" order{look} while each is better, or each worse; what comes later is not tested"
            )
        case _:
            each = confidence(comparisons.adjusted_confidence)
            text = f"Each interval at {each}{look}, so that all {count} hold together at {together}"
            text += " (Bonferroni)"
    return f"{text}."


def duration(seconds: float) -> str:
    """`0.42 s`, `37 s`, `4 min 5 s`, `2 h 10 min`."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def decimals_of(comparison: Comparison) -> int:
    """The fewest decimals, at least the measure's own, at which rounding keeps the verdict.

    An interval from 0.004 to 0.21 is above zero, but 0.00 to 0.21 is not. The same holds for the
    margin and for the gate's question.
    """
    fewest = comparison.scale.decimals
    interval = comparison.interval
    if interval is None:
        return fewest
    margin = comparison.margin or 0.0
    exact = read(interval, margin), interval.low > -margin
    for decimals in range(fewest, fewest + 4):
        low, high = round(interval.low, decimals), round(interval.high, decimals)
        if (read(replace(interval, low=low, high=high), margin), low > -margin) == exact:
            return decimals
    return fewest + 4


def margin_text(comparison: Comparison) -> str:
    """δ with all its decimals; a dash without a margin."""
    margin = comparison.margin
    if margin is None:
        return NONE
    decimals = comparison.scale.decimals
    return plain(margin, decimals) if round(margin, decimals) == margin else f"{margin:g}"


def interval_text(comparison: Comparison) -> str:
    """`−2.10 to −1.56`, or a dash without an interval."""  # noqa: RUF002
    interval = comparison.interval
    if interval is None:
        return NONE
    decimals = decimals_of(comparison)
    return f"{signed(interval.low, decimals)} to {signed(interval.high, decimals)}"
