"""What the paper found, to stand beside a study's own figures: Barnett et al. 2024, "Fine-Tuning or
Fine-Failing? Debunking Performance Myths in Large Language Models", arXiv 2406.11201."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """Scores of the paper, from 1 to 5: the baseline's, and the tuned model's."""

    model: str
    dataset: str
    """Empty where we do not know it."""
    size: int
    """Question-answer pairs that the model was tuned on."""
    scores: Mapping[str, tuple[float, float]]
    """Baseline and tuned, by criterion."""


FIGURES = (
    PaperFigure("Llama 2", "", 200, {"accuracy": (4.38, 3.14), "completeness": (4.55, 2.35)}),
    PaperFigure("Mixtral", "Qasper", 1000, {"accuracy": (4.04, 3.28)}),
)


def words_of(figure: PaperFigure) -> str:
    """`Mixtral on Qasper at 1,000 pairs: accuracy 4.04 → 3.28`."""
    of = f"{figure.model} on {figure.dataset}" if figure.dataset else figure.model
    scores = ", ".join(
        f"{name} {before:.2f} \N{RIGHTWARDS ARROW} {after:.2f}"
        for name, (before, after) in figure.scores.items()
    )
    return f"{of} at {figure.size:,} pairs: {scores}"
