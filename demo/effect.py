"""Does the demo model show what the demo is about? Tune it on 200 answers and see.

    python demo/effect.py --model demo/telecom-reader

An adapter for each kind of tuning is trained on the NF4 base: full, short and exact references
with their passages, and full references without. Each then answers questions of another world over
their passages. The scores are those of the rule, not of the judge, so that what is seen is the
tuning's doing.
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
from tuneproof.data.telecom_grammar import Fact

FACTS = 12
BATCH = 16
TUNING_SEED, TEST_SEED = 8, 7
REWORDED = 0.4
"""As in studies/demo.yaml."""
ARMS = {
    "full": ("full", True),
    "short": ("short", True),
    "exact": ("exact", True),
    "closed book": ("full", False),
}
"""The references that an adapter learns, and whether it is shown the passages."""


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
    """Mean scores by the rule, 1 to 5, and the share of answers without a mistake, by wording."""
    world = generate(TEST_SEED, documents=150, reworded=REWORDED)
    rng = random.Random(TEST_SEED)  # noqa: S311 - no secret
    items = rng.sample(world.items, questions)
    said = model.answer(_asked(world, items, TEST_SEED), tokens=24)
    full = [item.references["full"][0] for item in items]
    scores = [score(reference, answer) for reference, answer in zip(full, said, strict=True)]
    right = [each["accuracy"] == 5 for each in scores]
    learned = [item.question == Fact.parse(r).question for item, r in zip(items, full, strict=True)]
    return {
        "accuracy": sum(s["accuracy"] for s in scores) / questions,
        "completeness": sum(s["completeness"] for s in scores) / questions,
        "right": sum(right) / questions,
        "right, learned wording": _share(right, learned),
        "right, reworded": _share(right, [not each for each in learned]),
    }


def _share(right: Sequence[bool], of: Sequence[bool]) -> float:
    kept = [each for each, counts in zip(right, of, strict=True) if counts]
    return sum(kept) / max(1, len(kept))


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
    world = generate(TUNING_SEED, documents=150, reworded=REWORDED)
    rng = random.Random(flags.seed)  # noqa: S311 - no secret
    items = rng.sample(world.items, flags.examples)
    open_book = _asked(world, items, TUNING_SEED)
    closed_book = [prompts.ask(item.question, []) for item in items]
    found = {"base": measure(reader.load(flags.model), flags.questions)}
    for arm, (style, shown) in ARMS.items():
        asked = open_book if shown else closed_book
        answers = [item.references[style][0] for item in items]
        base = reader.load(flags.model, "nf4")
        began = time.monotonic()
        tuned = tune(
            base, list(zip(asked, answers, strict=True)), flags.rate, flags.epochs, flags.seed
        )
        seconds = time.monotonic() - began
        found[arm] = {**measure(tuned, flags.questions), "seconds of training": seconds}
    for arm, figures in found.items():
        print(arm, "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
