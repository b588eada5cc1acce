"""A study in the paper's shape: two models and an API baseline, two arms, three sizes, seeds."""

from __future__ import annotations

import random

from tuneproof.results import (
    Answer,
    Cell,
    CriterionGrade,
    Grade,
    ItemResult,
    Model,
    PrimaryComparison,
    Repeat,
    Retrieved,
    StudyResults,
)
from tuneproof.results.testing import results_of

MODELS = ("Llama", "Mistral")
SIZES = (200, 500, 1000)
CRITERIA = ("accuracy", "completeness")
COST = {"Llama": 1.2, "Mistral": 0.4}
"""Points that tuning costs a model at 200 pairs."""


def paper_study(*, items: int = 30, seeds: int = 2, sizes: tuple[int, ...] = SIZES) -> StudyResults:
    """The same results every time. Tuning costs more on Llama, and less with more pairs."""
    rng = random.Random(5)
    cells = [Cell(f"{model}-baseline", f"{model} baseline", "baseline", 0, 0, None, tuned=False,
                  model=model) for model in (*MODELS, "api")]  # fmt: skip
    primary = []
    for model in MODELS:
        base = f"{model}-baseline"
        cells.append(
            Cell(
                f"{model}-few",
                f"{model} few-shot",
                "few-shot",
                3,
                1,
                None,
                tuned=False,
                model=model,
            )
        )
        for arm in ("full", "short"):
            for size in sizes:
                for seed in range(1, seeds + 1):
                    name = f"{model}-{arm}-{size}-s{seed}"
                    label = f"{model} {arm} {size} #{seed}"
                    cells.append(Cell(name, label, arm, size, seed, None, model=model))
                    primary += [PrimaryComparison(name, base, one) for one in CRITERIA]
    questions = [item(number) for number in range(items)]
    answers = [answer(rng, cell, one) for one in questions for cell in cells]
    return results_of(
        questions,
        cells,
        answers,
        name="paper",
        dataset="Qasper",
        primary=tuple(primary),
        models=tuple(
            Model(name, f"sha256:{name}", f"{name}-baseline", is_api=name == "api")
            for name in (*MODELS, "api")
        ),
    )


def item(number: int) -> ItemResult:
    fact = f"The Alder {number} mast sends with {number + 20} watts over band seven."
    passages = [
        Retrieved(f"p{number}", f"doc-{number}", fact, 0.9, gold=number % 5 != 0),
        Retrieved("shared", "doc-shared", "Masts are painted grey in autumn.", 0.4, gold=False),
    ]
    return ItemResult(
        f"q{number:03d}",
        f"With what power does the Alder {number} mast send?",
        {"full": (f"It sends with {number + 20} watts over band seven.",)},
        f"doc-{number}",
        tuple(passages),
    )


def answer(rng: random.Random, cell: Cell, item: ItemResult) -> Answer:
    number = int(item.id[1:])
    text = f"It sends with {number + 20} watts over band seven."
    finish = "stop"
    if cell.tuned and cell.arm == "short":
        text = f"{number + 20} watts."
        if number % 4 == 1:
            text = f"It sends with {number + 90} kilowatts through copper tubes"
            finish = "length"
    loss = COST[cell.model] * 200 / cell.size if cell.tuned else 0.0
    scores = {
        "accuracy": 4.5 - loss + 0.1 * rng.random(),
        "completeness": 4.4 - 1.3 * loss * (1.2 if cell.arm == "short" else 0.6),
    }
    grades = {
        name: CriterionGrade(
            name,
            f"{name}@1",
            "sha256:0",
            score,
            0.2,
            tuple(Repeat(seed, round(score), "", f"reason {seed} of {item.id}") for seed in (1, 2)),
        )
        for name, score in scores.items()
    }
    overlap = {"exact_match": 0.0, "token_f1": 0.5, "rouge_l": 0.5}
    return Answer(cell.name, item.id, text, finish, 90, 9, 0.1, cell.name,
                  Grade(grades, overlap, "judge"))  # fmt: skip
