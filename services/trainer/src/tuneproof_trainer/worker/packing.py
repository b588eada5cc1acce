"""Rows of the training: one example each, or several that must not see one another.

In a packed row the positions begin anew with each example, and there is no attention mask. From
that transformers 5.19 builds a mask by blocks for its own attention (sdpa on a CPU and by default
on a GPU), and flash attention the boundaries. A model whose attention does neither would let
examples see one another without a word, so each base is tried before it trains on packed rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.plan.packing import pack
from tuneproof_trainer.worker.tokens import Sequences

_TRIED = 96
"""Tokens of each of the two examples that a base is tried on."""
_TOLERATED = 0.2
"""Largest change of a log-probability beside another example, to that without boundaries. Rounding
in bfloat16 moves it a little; what is seen through a missing boundary moves it all."""


def rows_of(sequences: Sequence[Sequences], asked: Hyperparameters) -> Dataset:
    """The rows of a training. With `labels` given, TRL 1.16 takes token ids as they are; with
    `seq_lengths`, positions begin anew after so many tokens."""
    if asked.packing != "bfd":
        return Dataset.from_dict(
            {
                "input_ids": [list(one.input_ids) for one in sequences],
                "labels": [list(one.labels) for one in sequences],
            }
        )
    rows = pack([len(one.input_ids) for one in sequences], asked.max_length)
    return Dataset.from_dict(
        {
            "input_ids": [
                [token for place in row for token in sequences[place].input_ids] for row in rows
            ],
            "labels": [
                [label for place in row for label in sequences[place].labels] for row in rows
            ],
            "seq_lengths": [[len(sequences[place].input_ids) for place in row] for row in rows],
        }
    )


def refuse_leaking(model: Any, sequences: Sequence[Sequences]) -> None:
    """Makes sure that the second of two examples in a row is read as if it stood alone.

    Raises:
        InvalidInput: when the base's attention sees across examples.
    """
    first, second = (list(one.input_ids[:_TRIED]) for one in (sequences[0], sequences[-1]))
    alone = _read(model, second, [*range(len(second))])
    row = first + second
    apart = _read(model, row, [*range(len(first)), *range(len(second))])[len(first) :]
    # As if it were one example: what the second would read without a boundary.
    joined = _read(model, row, [*range(len(row))])[len(first) :]
    change = float((apart - alone).abs().max())
    if change > _TOLERATED * float((joined - alone).abs().max()) + 1e-3:
        raise InvalidInput(
            f"packing lets examples see one another with this base ({model.config.model_type}, "
            f"attention {model.config._attn_implementation}): beside another example a "  # noqa: SLF001
            f"log-probability changes by {change:.3g}; set packing to none",
            field="spec.hyperparameters.packing",
        )


def _read(model: Any, tokens: list[int], positions: list[int]) -> torch.Tensor:
    """Log-probabilities of every next token, tokens by vocabulary."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([tokens], device=model.device),
            position_ids=torch.tensor([positions], device=model.device),
            use_cache=False,
        ).logits[0]
    model.train(was_training)
    return logits.float().log_softmax(-1)
