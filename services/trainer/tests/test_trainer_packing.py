"""Packed rows: the same loss and gradients as one example a row, and no look across a boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneproof.servicekit.errors import InvalidInput

from .training_runs import Trained, example

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

EXAMPLES = [
    example(" ".join(f"w{(n * k) % 50}" for k in range(1, 3 + n)), f"w{n} w{n + 1}", n)
    for n in range(1, 13)
]


def largest_difference(one: Trained, other: Trained) -> float:
    mine, theirs = one.tensors(), other.tensors()
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def test_without_padding_the_training_is_the_same(base_folder: Path, tmp_path: Path) -> None:
    """Micro-batches of three unlike lengths in one row: losses and weights agree to rounding."""
    plain = Trained(base_folder, tmp_path / "plain", EXAMPLES, max_steps=6)
    free = Trained(base_folder, tmp_path / "free", EXAMPLES, max_steps=6, packing="padding_free")
    assert free.losses == pytest.approx(plain.losses, abs=1e-4)
    assert largest_difference(free, plain) < 1e-4
    assert free.result.rows == plain.result.rows == 12
    assert free.steps[-1].tokens_per_second > 0


def test_filled_rows_hold_every_example_once(base_folder: Path, tmp_path: Path) -> None:
    """One step over all rows is one step over all examples."""
    plain = Trained(
        base_folder,
        tmp_path / "plain",
        EXAMPLES,
        max_steps=1,
        effective_batch_size=12,
        micro_batch_size=4,
    )
    packed = Trained(
        base_folder,
        tmp_path / "packed",
        EXAMPLES,
        max_steps=1,
        packing="bfd",
        max_length=64,
        effective_batch_size=3,
        micro_batch_size=3,
    )
    assert packed.result.rows == 3
    assert packed.losses == pytest.approx(plain.losses, abs=1e-4)
    repeated = Trained(
        base_folder,
        tmp_path / "again",
        EXAMPLES,
        max_steps=1,
        packing="bfd",
        max_length=64,
        effective_batch_size=3,
        micro_batch_size=3,
    )
    assert repeated.digest == packed.digest


def test_an_answer_does_not_see_the_example_before_it(base_folder: Path) -> None:
    """sdpa of transformers 5.19 builds its mask from the positions; were these to go on,
    the second example would see the first."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    first, second = list(range(6, 20)), list(range(25, 32))

    def read(tokens: list[int], positions: list[int]) -> Any:
        with torch.no_grad():
            return model(
                input_ids=torch.tensor([tokens]),
                position_ids=torch.tensor([positions]),
                use_cache=False,
            ).logits[0, -len(second) :]

    alone = read(second, [*range(7)])
    assert torch.allclose(read(first + second, [*range(14), *range(7)]), alone, atol=1e-5)
    assert not torch.allclose(read(first + second, [*range(21)]), alone, atol=1e-2)


def test_a_base_whose_attention_ignores_boundaries_is_refused(
    base_folder: Path, tmp_path: Path
) -> None:
    """One that builds its mask from the tokens alone, as some models of the hub do."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneproof_trainer.worker.packing import refuse_leaking
    from tuneproof_trainer.worker.tokens import tokenise

    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    sequences = tokenise(tokenizer, EXAMPLES, max_length=64, path="x")
    refuse_leaking(model, sequences)
    original = model.forward

    def with_mask(input_ids: Any, **more: Any) -> Any:
        return original(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **more)

    model.forward = with_mask
    with pytest.raises(InvalidInput, match="packing lets examples see one another"):
        refuse_leaking(model, sequences)
