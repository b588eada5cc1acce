"""Examine the demo model on worlds and forms that its training never drew.

    python demo/evaluate.py --model demo/telecom-reader

Reading: exact match with the full reference, the evidence among 2, 4 and 12 of the hardest facts of
the study's world, in float32 and on the NF4 base. Judging: the right score by criterion, greedy,
and the mean of ten draws at temperature 1.0.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from pathlib import Path

import examples
import prompts
import reader
import torch
from transformers.utils import logging

from tuneproof.analysis.agreement import weighted_kappa
from tuneproof.data.telecom import generate, judge_forms, oracle_context
from tuneproof.data.telecom_grammar import ABSENT

HERE = Path(__file__).parent
ANSWER_TOKENS, FORM_TOKENS = 24, 72
REPEATS = 10
FACTS = (2, 4, 12)
LEVELS = (1, 2, 3, 4, 5)


def reading(model: reader.Reader, seed: int, questions: int) -> dict[str, float]:
    """Exact match by the number of facts in context, over the same questions of a world."""
    world = generate(seed, documents=150)
    rng = random.Random(seed)  # noqa: S311 - no secret
    items = rng.sample(world.items, questions)
    right = {}
    for facts in FACTS:
        asked = [
            prompts.ask(item.question, oracle_context(world, item, facts, seed)) for item in items
        ]
        said = model.answer(asked, ANSWER_TOKENS)
        hits = [a == item.references["full"][0] for a, item in zip(said, items, strict=True)]
        right[f"{facts} facts"] = sum(hits) / questions
    return right


def shapes(model: reader.Reader, seed: int, questions: int) -> dict[str, float]:
    """Exact match over passages of uneven shapes, and where the fact is not there."""
    rng = random.Random(f"shapes {seed}")  # noqa: S311 - no secret
    drawn: list[examples.Example] = []
    while len(drawn) < questions:
        shape = examples.Shape(rng.choice((3, 4, 5, 6)), rng.choice((2, 3, 4)))
        drawn.append(examples.question(rng, shape))
    said = model.answer([example.prompt for example in drawn], ANSWER_TOKENS)
    pairs = [(a == e.answer, e.answer == ABSENT) for a, e in zip(said, drawn, strict=True)]
    present = [hit for hit, absent in pairs if not absent]
    absent = [hit for hit, absent in pairs if absent]
    return {
        "chapters": sum(present) / max(1, len(present)),
        "absent": sum(absent) / max(1, len(absent)),
    }


def judging(
    model: reader.Reader, seed: int, forms: int, sampled: int
) -> dict[str, Mapping[str, float]]:
    """By criterion: exact, weighted kappa, unparsed; at temperature 1.0 error, spread, unparsed."""
    examined = judge_forms(seed, forms)
    found: dict[str, Mapping[str, float]] = {}
    for criterion, template in prompts.templates().items():
        asked = [prompts.judge(template, f.question, f.reference, f.answer) for f in examined]
        truth = [form.scores[criterion] for form in examined]
        given = [reader.read_score(text) for text in model.answer(asked, FORM_TOKENS)]
        parsed = [(t, g) for t, g in zip(truth, given, strict=True) if g is not None]
        drawn = model.sample(asked[:sampled], FORM_TOKENS, REPEATS)
        found[criterion] = {
            "exact": sum(t == g for t, g in parsed) / forms,
            "kappa": weighted_kappa([t for t, _ in parsed], [g for _, g in parsed], LEVELS),
            "unparsed": (forms - len(parsed)) / forms,
            **_repeated(truth, drawn),
        }
    return found


def _repeated(truth: list[int], drawn: list[list[str]]) -> dict[str, float]:
    scores = [[reader.read_score(text) for text in texts] for texts in drawn]
    kept = [
        (right, torch.tensor([s for s in row if s is not None], dtype=torch.float64))
        for right, row in zip(truth, scores, strict=False)
    ]
    kept = [(right, row) for right, row in kept if len(row) > 1]
    if not kept:
        return {}
    rounded = [float(row.mean().round()) == right for right, row in kept]
    return {
        "mean of 10 exact": sum(rounded) / len(kept),
        "mean of 10 error": sum(abs(float(row.mean()) - t) for t, row in kept) / len(kept),
        "repeat sd": sum(float(row.std()) for _, row in kept) / len(kept),
        "unparsed at 1.0": sum(s is None for row in scores for s in row) / (10 * len(scores)),
    }


def examine(folder: Path, seed: int, questions: int, forms: int, sampled: int) -> dict[str, object]:
    """All figures of a model."""
    plain, quantised = reader.load(folder), reader.load(folder, "nf4")
    return {
        "float32": reading(plain, seed, questions),
        "nf4": reading(quantised, seed, questions),
        "shapes": shapes(plain, seed, questions),
        "judge": judging(plain, seed, forms, sampled),
    }


def _rows(found: Mapping[str, object], path: str = "") -> list[tuple[str, float]]:
    rows: list[tuple[str, float]] = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            rows += _rows(value, f"{path}{name}  ")
        elif isinstance(value, float):
            rows.append((path + name, value))
    return rows


def main() -> None:
    """Read the flags, examine, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=HERE / "telecom-reader")
    parser.add_argument("--seed", type=int, default=7, help="of the world and of the forms")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--forms", type=int, default=300)
    parser.add_argument("--sampled", type=int, default=100, help="forms judged ten times")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    flags = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(flags.seed)
    found = examine(flags.model, flags.seed, flags.questions, flags.forms, flags.sampled)
    if not flags.json:
        for name, value in _rows(found):
            print(f"{name:<40} {value:6.3f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
