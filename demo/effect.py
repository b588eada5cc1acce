"""Does the demo model show what the demo is about? Tune it on 200 answers and see.

    python demo/effect.py --model demo/telecom-reader

Two adapters are trained on the NF4 base, with full and with short references, on questions with
their passages; each then answers questions of another world. The scores are those of the rule, not
of the judge, so that what is seen is the tuning's doing.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import prompts
import reader
import torch
from peft import LoraConfig, get_peft_model
from transformers.utils import logging

from tuneproof.data.items import Dataset, Item
from tuneproof.data.telecom import generate, oracle_context, score

FACTS = 12
BATCH = 16
TUNING_SEED, TEST_SEED = 8, 7


def _asked(world: Dataset, items: Sequence[Item], seed: int) -> list[str]:
    return [prompts.ask(item.question, oracle_context(world, item, FACTS, seed)) for item in items]


def _rows(model: reader.Reader, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    both = model.tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )
    return both["input_ids"], both["assistant_masks"]


def tune(
    model: reader.Reader, pairs: Sequence[tuple[str, str]], rate: float, epochs: int, seed: int
) -> reader.Reader:
    """A LoRA adapter of rank 16, alpha 32, on all linear layers; loss on the answers alone."""
    torch.manual_seed(seed)
    settings = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model.model, settings)
    tuned.train()
    trained = [p for p in tuned.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    rows = [_rows(model, prompt, answer) for prompt, answer in pairs]
    order = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(epochs):
        order.shuffle(rows)
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            width = max(len(tokens) for tokens, _ in batch)
            tokens = torch.zeros(len(batch), width, dtype=torch.long)
            counted = torch.zeros(len(batch), width, dtype=torch.bool)
            for index, (row, mask) in enumerate(batch):
                tokens[index, : len(row)] = torch.tensor(row)
                counted[index, : len(row)] = torch.tensor(mask, dtype=torch.bool)
            logits = tuned(input_ids=tokens[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(
                logits[counted[:, 1:]], tokens[:, 1:][counted[:, 1:]]
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad()
    return reader.Reader(tuned.eval(), model.tokenizer)


def measure(model: reader.Reader, questions: int) -> dict[str, float]:
    """Mean scores by the rule, 1 to 5, and exact matches with either reference."""
    world = generate(TEST_SEED, documents=150)
    rng = random.Random(TEST_SEED)  # noqa: S311 - no secret
    items = rng.sample(world.items, questions)
    said = model.answer(_asked(world, items, TEST_SEED), tokens=24)
    full = [item.references["full"][0] for item in items]
    short = [item.references["short"][0] for item in items]
    scores = [score(reference, answer) for reference, answer in zip(full, said, strict=True)]
    return {
        "accuracy": sum(s["accuracy"] for s in scores) / questions,
        "completeness": sum(s["completeness"] for s in scores) / questions,
        "exact full": sum(a == r for a, r in zip(said, full, strict=True)) / questions,
        "exact short": sum(a == r for a, r in zip(said, short, strict=True)) / questions,
    }


def main() -> None:
    """Read the flags, tune, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "telecom-reader")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    world = generate(TUNING_SEED, documents=150)
    rng = random.Random(flags.seed)  # noqa: S311 - no secret
    items = rng.sample(world.items, flags.examples)
    asked = _asked(world, items, TUNING_SEED)
    found = {"base": measure(reader.load(flags.model), flags.questions)}
    for style in ("full", "short"):
        answers = [item.references[style][0] for item in items]
        base = reader.load(flags.model, "nf4")
        began = time.monotonic()
        tuned = tune(
            base, list(zip(asked, answers, strict=True)), flags.rate, flags.epochs, flags.seed
        )
        seconds = time.monotonic() - began
        found[style] = {**measure(tuned, flags.questions), "seconds of training": seconds}
    for arm, figures in found.items():
        print(arm, "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
