"""A study as it comes out of a run: 80 items, three cells, ten readings of each answer."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tuneproof.results import (
    Answer,
    Cell,
    CriterionGrade,
    Grade,
    ItemResult,
    JudgeCheck,
    ReaderCheck,
    Repeat,
    RetrievalQuality,
    Retrieved,
    StudyResults,
    Training,
)
from tuneproof.results.testing import results_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CRITERIA = ("accuracy", "completeness")
SERIES = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir")
PARAMETERS = ("transmit power", "carrier bandwidth", "handover margin", "antenna tilt")
UNITS = ("dBm", "MHz", "dB", "degrees")
CONDITIONS = ("band seven is active", "two cells share one mast", "the outer ring is closed")


def judged(rng: random.Random, target: float, *, repeats: int = 10) -> CriterionGrade:
    looks = []
    for seed in range(repeats):
        score = min(5, max(1, round(rng.gauss(target, 0.4))))
        readable = rng.random() > 0.004
        text = f"value same ; condition {'named' if score > 3 else 'missing'} ; score {score}"
        looks.append(
            Repeat(seed, score, "", text) if readable else Repeat(seed, None, "no_form", "value")
        )
    scores = [look.score for look in looks if look.score is not None]
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)) ** 0.5
    return CriterionGrade("", "", "sha256:" + "ab" * 32, mean, spread, tuple(looks))


def graded(rng: random.Random, text: str, reference: str, scores: dict[str, float]) -> Grade:
    mine, theirs = text.split(), reference.split()
    shared = len(set(mine) & set(theirs))
    overlap = 2 * shared / (len(set(mine)) + len(set(theirs))) if shared else 0.0
    return Grade(
        criteria={
            name: replace(judged(rng, score), criterion=name, rubric=f"telecom-{name}@1")
            for name, score in scores.items()
        },
        lexical={
            "exact_match": float(mine == theirs),
            "token_f1": overlap,
            "rouge_l": overlap * 0.95,
        },
        judge_model="demo-model",
    )


def training(rng: random.Random, name: str) -> Training:
    losses = [(step, 2.4 * 0.94**step + 0.1 + 0.05 * rng.random()) for step in range(1, 40)]
    return Training(
        run_id="run-7c1f",
        adapter_ref=f"{name}@sha256:" + "5d" * 32,
        spec={
            "method": "qlora_nf4",
            "rank": 16,
            "learning_rate": 1e-3,
            "skip_modules": ["lm_head", "layers.0.self_attn.q_proj"],
        },
        losses=tuple(losses),
        provenance={"base digest": "sha256:" + "1e" * 32, "precision at training": "nf4"},
        examples=200,
        seconds=74.2,
    )


def item(rng: random.Random, index: int) -> tuple[ItemResult, str, str]:
    unit = rng.randrange(4)
    entity = f"{SERIES[index % 6]} {index + 11}"
    value = f"{rng.randrange(10, 90)} {UNITS[unit]}"
    full = f"the {entity} {PARAMETERS[unit]} is {value} when {rng.choice(CONDITIONS)} ."
    short = f"{value} ."
    hit = rng.random() < 0.9
    passages = [
        Retrieved(f"p{index}-{place}", f"doc-{index % 55:03d}", f"{full} {full}", 0.9, gold=True)
        if hit and place == 1
        else Retrieved(
            f"p{index}-{place}",
            f"doc-{rng.randrange(55, 90):03d}",
            f"the {rng.choice(SERIES)} {place + 70} {PARAMETERS[unit]} is {place + 3} {UNITS[unit]}"
            f" when {rng.choice(CONDITIONS)} .",
            0.8 - place / 10,
            gold=False,
        )
        for place in range(4)
    ]
    result = ItemResult(
        id=f"tel-{index:04d}",
        question=f"what is the {entity} {PARAMETERS[unit]} ?",
        references={"full": (full,), "short": (short,)},
        cluster=f"doc-{index % 55:03d}",
        retrieved=tuple(passages),
    )
    return result, full, short


@pytest.fixture(scope="session")
def study() -> StudyResults:
    rng = random.Random(11)
    drawn = [item(rng, index) for index in range(80)]
    cells = (
        Cell("baseline", "Baseline", "baseline", 0, 0, None),
        *(
            Cell(f"{arm}-200-seed1", label, arm, 200, 1, training(rng, arm))
            for arm, label in (
                ("short-references", "Short references, 200"),
                ("full-references", "Full references, 200"),
            )
        ),
    )
    answers = []
    for result, full, short in drawn:
        for cell in cells:
            wrong = rng.random() < (0.45 if cell.arm == "short-references" else 0.12)
            text = short if cell.arm == "short-references" else full
            if wrong:
                text = text.replace(text.split()[-2], "dBW") if cell.size else f"{full[:-1]}only ."
            accuracy = 2.0 if wrong else 4.8
            complete = 2.1 if cell.arm == "short-references" else accuracy
            grade = graded(rng, text, full, {"accuracy": accuracy, "completeness": complete})
            answers.append(
                Answer(
                    cell.name,
                    result.id,
                    text,
                    "stop",
                    190,
                    len(text.split()),
                    0.08,
                    cell.name,
                    grade,
                )
            )
    check = JudgeCheck(
        criterion="accuracy",
        forms=300,
        from_cells=0,
        unscored=1,
        exact=0.91,
        weighted_kappa=0.93,
        mean_absolute_error=0.17,
        confusion=(
            (58, 3, 0, 0, 0),
            (2, 50, 4, 0, 0),
            (0, 3, 57, 2, 0),
            (0, 0, 2, 55, 3),
            (0, 0, 0, 4, 56),
        ),
        levels=(1, 2, 3, 4, 5),
        repeat_sd=0.38,
    )
    return results_of(
        [result for result, _, _ in drawn],
        cells,
        answers,
        criteria=CRITERIA,
        name="demo",
        description="Does tuning on short or on full references help a small reader?",
        dataset="telecom (seed 7, 150 documents)",
        synthetic=True,
        toy_model=True,
        judge_model="demo-model",
        self_judged=True,
        retrieval=RetrievalQuality(4, 80, 0.91, 0.84, 0.9, 1.0, "passage"),
        reader_checks=(ReaderCheck(12, 100, 0.94),),
        judge_checks=(check, replace(check, criterion="completeness", weighted_kappa=0.88)),
        notes=("Greedy decoding, the same four passages for every cell.",),
        provenance={
            "corpus digest": "sha256:" + "c0" * 32,
            "base model": "demo-model, float32",
            "precision trained, served": "nf4, float32",
            "tuneproof": "0.1.0",
        },
        stage_seconds={"ingest": 3.1, "train": 148.4, "answer": 21.0, "judge": 92.5},
    )


@pytest.fixture
def page(browser: "Browser", address: str) -> "Iterator[Page]":
    """The page at a module's `address`, in a browser."""
    from browsing import opened

    with opened(browser, address) as page:
        yield page
