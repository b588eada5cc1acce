"""The trained model, asked: batches of prompts in, texts out, in float32 or on an NF4 base."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nf4
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

ROWS = 64
"""Prompts computed at once."""
_FORM = re.compile(r"Score: ([1-5])")


def load(folder: Path, precision: str = "float32") -> Reader:
    """The model in a folder.

    Args:
        precision: `float32`, or `nf4` for the double-quantised base on which adapters are trained,
            without the modules that the model card excepts.

    Raises:
        ValueError: another precision.
    """
    if precision not in {"float32", "nf4"}:
        raise ValueError(f"precision is {precision!r}; it must be float32 or nf4")
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=[*nf4.SKIPPED, "lm_head"],
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=quantisation if precision == "nf4" else None,
    )
    return Reader(model.eval(), AutoTokenizer.from_pretrained(folder, padding_side="left"))


@dataclass(frozen=True, slots=True)
class Reader:
    """A loaded model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def answer(self, prompts: Sequence[str], tokens: int) -> list[str]:
        """The likeliest completion of each user message, token by token, of at most so many."""
        return self._complete(prompts, tokens, {"do_sample": False})

    def sample(self, prompts: Sequence[str], tokens: int, repeats: int) -> list[list[str]]:
        """Completions drawn at temperature 1.0: so many of each user message."""
        drawn = self._complete(
            [prompt for prompt in prompts for _ in range(repeats)],
            tokens,
            {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
        )
        return [drawn[i : i + repeats] for i in range(0, len(drawn), repeats)]

    def _complete(
        self, prompts: Sequence[str], tokens: int, how: dict[str, bool | float]
    ) -> list[str]:
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        texts = [""] * len(prompts)
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            batch = self.tokenizer.apply_chat_template(
                [[{"role": "user", "content": prompts[row]}] for row in rows],
                add_generation_prompt=True,
                padding=True,
                return_tensors="pt",
                return_dict=True,
            )
            with torch.inference_mode():
                out = self.model.generate(**batch, max_new_tokens=tokens, **how)
            width = batch["input_ids"].shape[1]
            done = self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
            for row, text in zip(rows, done, strict=True):
                texts[row] = text
        return texts


def read_score(completion: str) -> int | None:
    """The score that a form ends with; None unless it has exactly one, 1 to 5, at its end."""
    if completion.count("Score:") != 1:
        return None
    match = _FORM.search(completion)
    return int(match[1]) if match and match.end() == len(completion) else None
