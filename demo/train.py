"""Train the demo model from nothing on one CPU thread, and write it in Hugging Face format.

    python demo/train.py --out demo/telecom-reader

A batch holds questions over passages, which grow by a curriculum, and judge's forms: mostly
questions at first, mostly forms from 55 % of the steps on. The matrices are trained by Muon, the
rest by AdamW; the learning rate decays over the last 40 %, in which half of the steps compute with
weights rounded to NF4. A checkpoint is written every few minutes; the same command goes on from it
and gives what one run would have given.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import circuit
import examples
import nf4
import prompts
import torch
import vocabulary
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM
from transformers.utils import logging

IGNORED = -100
FIRST_TRAINING_SEED = 1_000_000
"""Worlds with smaller seeds are for evaluation and for studies."""
PROMPT_SHARE, PROMPT_WEIGHT = 0.15, 0.1
"""Some prompt tokens count a little: the reader learns the manual's language sooner."""
DECISIONS = ("same", "different", "missing", "none", "1", "2", "3", "4", "5")
DECISION_WEIGHT = 4.0
"""Late in training: a form is mostly copying, and its few decisions would drown in that."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training run does."""

    steps: int
    batch: int
    judge_share: float
    """Share of forms in a batch at first."""
    late_judge_share: float
    """Share of forms in a batch late in training."""
    late_from: float
    """Share of the steps after which it is late."""
    matrix_rate: float
    rest_rate: float
    decay: float
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    seed: int
    half: bool
    """Compute the large products in bfloat16; weights stay float32."""


def shape_at(rng: random.Random, progress: float) -> examples.Shape:
    """The curriculum: one passage of two facts at first, up to six passages from 20 % on."""
    if progress < 0.04:
        return examples.Shape(1, 2)
    if progress < 0.10:
        return examples.Shape(rng.randint(1, 3), rng.randint(1, 3))
    if progress < 0.20:
        return examples.Shape(rng.randint(1, 4), rng.randint(1, 3))
    passages = rng.choice((1, 2, 3, 4, 4, 4, 5, 6))
    facts = rng.choice((1, 2, 3, 3, 4, 6))
    return examples.Shape(passages, min(facts, 18 // passages))


def rate_at(plan: Plan, step: int) -> float:
    """The learning rate's factor: 20 steps up, level, then linearly down to zero."""
    left = (plan.steps - step) / (plan.steps * plan.decay)
    return min(1.0, (step + 1) / 20, left)


def half(layer: torch.nn.Linear, values: torch.Tensor) -> torch.Tensor:
    """The layer's product in bfloat16, twice as fast where the processor knows how.

    Float32 outside: [..., in] to [..., out].
    """
    product = torch.nn.functional.linear(values.bfloat16(), layer.weight.bfloat16())
    return product.float()


class Batches:
    """Draws the batch of a step; what it draws depends on the seed and the step alone."""

    def __init__(self, plan: Plan, tokenizer: Tokenizer) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._templates = prompts.templates()
        self._decisions = torch.tensor([tokenizer.token_to_id(f" {word}") for word in DECISIONS])

    def draw(self, step: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Two parts, questions and forms: (tokens, targets, weights), each [rows, length]."""
        seed = FIRST_TRAINING_SEED + self._plan.seed * 10_000_000 + step
        rng = random.Random(seed)  # noqa: S311 - no secret
        shape = shape_at(rng, step / self._plan.steps)
        late = step >= self._plan.steps * self._plan.late_from
        share = self._plan.late_judge_share if late else self._plan.judge_share
        forms = round(self._plan.batch * share)
        asked = [examples.question(rng, shape) for _ in range(self._plan.batch - forms)]
        judged = [examples.form(rng, self._templates) for _ in range(forms)]
        parts = [self._encode(rng, part) for part in (asked, judged)]
        if late:
            _, targets, weights = parts[1]
            decided = torch.isin(targets, self._decisions) & (weights == 1.0)
            weights[decided] = DECISION_WEIGHT
        return parts

    def _encode(
        self, rng: random.Random, part: list[examples.Example]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        texts = [
            f"{vocabulary.USER}\n{turn.prompt}{vocabulary.END}{vocabulary.ASSISTANT}\n"
            for turn in part
        ]
        starts = [len(e.ids) for e in self._tokenizer.encode_batch(texts)]
        texts = [
            text + turn.answer + vocabulary.END for text, turn in zip(texts, part, strict=True)
        ]
        rows = [e.ids for e in self._tokenizer.encode_batch(texts)]
        longest = max(map(len, rows))
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        weights = torch.zeros(len(rows), longest)
        for index, (row, start) in enumerate(zip(rows, starts, strict=True)):
            tokens[index, : len(row)] = torch.tensor(row)
            weights[index, start : len(row)] = 1.0
            for place in range(1, start):
                if rng.random() < PROMPT_SHARE:
                    weights[index, place] = PROMPT_WEIGHT
        return tokens[:, :-1], tokens[:, 1:], weights[:, 1:]


class Training:
    """A model, its optimisers, and where they are in the plan."""

    def __init__(self, plan: Plan, tokenizer: Tokenizer) -> None:
        self.plan = plan
        shape = circuit.config(
            tokenizer.get_vocab_size(),
            end=vocabulary.SPECIAL.index(vocabulary.END),
            pad=vocabulary.SPECIAL.index(vocabulary.PAD),
            positions=vocabulary.CONTEXT_TOKENS,
        )
        self.model = LlamaForCausalLM(shape)
        circuit.initialise(self.model, plan.seed)
        self.step = 0
        self._batches = Batches(plan, tokenizer)
        inner = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n]
        rest = [p for n, p in self.model.named_parameters() if p.ndim != 2 or "embed" in n]
        self._optimisers = (
            torch.optim.Muon(inner, lr=plan.matrix_rate, weight_decay=0.0, momentum=0.95),
            torch.optim.AdamW(rest, lr=plan.rest_rate, weight_decay=0.0, betas=(0.9, 0.95)),
        )
        self._rates = (plan.matrix_rate, plan.rest_rate)
        self._rounded = nf4.quantised(self.model)
        if plan.half:
            for layer in self._rounded:
                layer.forward = partial(half, layer)

    def advance(self) -> list[float]:
        """One step; the mean loss per answer token of questions and of forms."""
        late = self.step >= self.plan.steps * (1 - self.plan.decay)
        layers = self._rounded if late and self.step % 2 else []
        losses = []
        with nf4.felt(layers):
            for tokens, targets, weights in self._batches.draw(self.step):
                logits = self.model(input_ids=tokens, use_cache=False).logits
                counted = weights > 0
                each = torch.nn.functional.cross_entropy(
                    logits[counted], targets[counted], reduction="none"
                )
                answer = weights[counted] >= 1.0
                share = tokens.shape[0] / self.plan.batch
                loss = (each * weights[counted]).sum() / answer.sum()
                (loss * share).backward()
                losses.append(float(each[answer].detach().mean()))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser, rate in zip(self._optimisers, self._rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * rate_at(self.plan, self.step)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return losses

    def save(self, path: Path) -> None:
        """Write a checkpoint; a crash leaves the old one or the new one."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        for optimiser, kept in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)


def write(model: LlamaForCausalLM, folder: Path) -> None:
    """The folder that transformers and vLLM load; the weights come last, in one move."""
    vocabulary.save(folder)
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tensors = {n: t.contiguous() for n, t in model.state_dict().items() if n != "lm_head.weight"}
    part = folder / "model.safetensors.part"
    save_file(tensors, part, metadata={"format": "pt"})
    part.replace(folder / "model.safetensors")


def run(training: Training, checkpoint: Path, seconds: float) -> None:
    """Train to the plan's end, telling how it goes about twice a minute."""
    began, told, kept = time.monotonic(), time.monotonic(), time.monotonic()
    first = training.step
    recent: list[list[float]] = []
    while training.step < training.plan.steps:
        recent.append(training.advance())
        now = time.monotonic()
        if now - told > seconds or training.step == training.plan.steps:
            pace = (now - began) / (training.step - first)
            left = pace * (training.plan.steps - training.step)
            means = [sum(column) / len(column) for column in zip(*recent, strict=True)]
            print(
                f"step {training.step}/{training.plan.steps}  loss questions {means[0]:.4f} "
                f"forms {means[-1]:.4f}  {pace:.2f} s a step, {left / 60:.1f} min left",
                flush=True,
            )
            told, recent = now, []
        if now - kept > 120:
            training.save(checkpoint)
            kept = now


def main() -> None:
    """Read the flags, train, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained model")
    parser.add_argument(
        "--checkpoint", type=Path, help="file to resume from (default: OUT.checkpoint)"
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--judge-share", type=float, default=0.3)
    parser.add_argument("--late-judge-share", type=float, default=0.65)
    # 3,000 steps change over at 1,646, as did the run that made the committed weights.
    parser.add_argument("--late-from", type=float, default=0.5486)
    parser.add_argument("--matrix-rate", type=float, default=0.004, help="Muon's learning rate")
    parser.add_argument("--rest-rate", type=float, default=0.001, help="AdamW's learning rate")
    parser.add_argument("--decay", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--float32", action="store_true", help="no bfloat16: slower, for processors without it"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-seconds", type=float, default=30.0)
    flags = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(flags.threads)
    plan = Plan(
        steps=flags.steps,
        batch=flags.batch,
        judge_share=flags.judge_share,
        late_judge_share=flags.late_judge_share,
        late_from=flags.late_from,
        matrix_rate=flags.matrix_rate,
        rest_rate=flags.rest_rate,
        decay=flags.decay,
        seed=flags.seed,
        half=not flags.float32,
    )
    training = Training(plan, vocabulary.build())
    checkpoint = flags.checkpoint or flags.out.with_suffix(".checkpoint")
    if checkpoint.exists():
        training.load(checkpoint)
        print(f"going on from step {training.step}")
    run(training, checkpoint, flags.report_seconds)
    write(training.model, flags.out)
    checkpoint.unlink(missing_ok=True)
    print(json.dumps({"model": str(flags.out), "steps": training.step}))


if __name__ == "__main__":
    main()
