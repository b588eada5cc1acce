"""The memory of a training, beside what was measured on a GPU."""

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.adapters.memory import GIB, TrainingMemory, largest_micro_batch, training_memory

_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
ONE_B = _LLAMA | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "tie_word_embeddings": True,
}
EIGHT_B = _LLAMA | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
MIXTRAL: dict[str, Any] = {
    "model_type": "mixtral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def of(config: dict[str, Any], **asked: Any) -> TrainingMemory:
    """Of examples of 1,024 tokens, 128 of them the answer, as those that were measured."""
    found = training_memory(config, Hyperparameters(**asked), answer_tokens=128)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("config", "asked", "measured"),
    [
        (ONE_B, {"micro_batch_size": 16}, 26.48),
        (ONE_B, {"micro_batch_size": 16, "rank": 64}, 26.49),
        (ONE_B, {"micro_batch_size": 16, "gradient_checkpointing": True}, 4.18),
        (ONE_B, {"micro_batch_size": 8}, 13.71),
        (EIGHT_B, {"micro_batch_size": 4}, 28.63),
        (EIGHT_B, {"micro_batch_size": 4, "rank": 64}, 29.00),
        (EIGHT_B, {"micro_batch_size": 4, "gradient_checkpointing": True}, 7.63),
        (EIGHT_B, {"micro_batch_size": 16, "gradient_checkpointing": True}, 13.42),
        (EIGHT_B, {"micro_batch_size": 16}, 97.40),
    ],
)
def test_the_peaks_that_a_gpu_showed(
    config: dict[str, Any], asked: dict[str, Any], measured: float
) -> None:
    """docs/performance.md: GiB of tensors on an H200, 9 trainings of two shapes."""
    assert of(config, **asked).gib == pytest.approx(measured, rel=0.08)


def test_the_experts_of_a_mixture_stay_as_they_are() -> None:
    """Mixtral 8x7B: bitsandbytes quantises linear layers only, so 45 billion weights take 90 GB."""
    found = of(MIXTRAL, micro_batch_size=1)

    assert found.kept / 1e9 == pytest.approx(90.7, abs=0.5)
    assert found.quantised / 1e9 == pytest.approx(0.69, abs=0.02)
    # The adapter changes the attention alone: rank 16, 32 layers, q, k, v and o.
    assert found.adapter == 2 * 16 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024))


def test_without_quantisation_the_weights_keep_their_precision() -> None:
    quantised, whole = of(EIGHT_B), of(EIGHT_B, method="lora")

    assert whole.quantised == whole.dequantised == 0
    assert whole.kept / 1e9 == pytest.approx(16.06, abs=0.01)  # 8.03 billion weights
    assert whole.adapter == 2 * quantised.adapter  # float32, not bfloat16


def test_weights_in_float32_take_twice_as_much() -> None:
    found = training_memory(EIGHT_B, Hyperparameters(method="lora"), value_bytes=4)

    assert found is not None
    assert found.kept == 2 * of(EIGHT_B, method="lora").kept


def test_modules_that_are_skipped_are_not_quantised() -> None:
    whole = of(EIGHT_B)
    layer = of(EIGHT_B, skip_modules=("layers.0.mlp.down_proj",))
    kind = of(EIGHT_B, skip_modules=("down_proj",))

    one = 4096 * 14336
    assert layer.kept - whole.kept == 2 * one
    assert kind.kept - whole.kept == 32 * 2 * one
    assert whole.quantised - kind.quantised == pytest.approx(32 * one * 0.5159, rel=1e-4)


def test_an_adapter_of_fewer_modules_is_smaller() -> None:
    """One kind, the same in one of 32 layers, and a suffix that fits no more than that layer."""
    kind = of(EIGHT_B, target_modules=("q_proj",))
    layer = of(EIGHT_B, target_modules=("layers.1.self_attn.q_proj",))

    assert kind.adapter == 2 * 32 * 16 * (4096 + 4096)
    assert layer.adapter * 32 == kind.adapter
    assert kind.activations < of(EIGHT_B).activations


def test_dropout_keeps_an_input_for_each_layer() -> None:
    plain, dropped = of(EIGHT_B, micro_batch_size=1), of(EIGHT_B, micro_batch_size=1, dropout=0.1)

    # Six layers read h values, down_proj f = 3.5 h, in 2 bytes with a mask of 1; without dropout
    # two norms' outputs and one input of f values are kept.
    more = 4096 * (3 * (6 + 3.5) - 2 * (2 + 3.5))
    assert dropped.activations - plain.activations == 1024 * 32 * more


def test_moments_of_eight_bits() -> None:
    found = training_memory(EIGHT_B, Hyperparameters(), moment_bytes=2)

    assert found is not None
    assert 4 * found.optimiser == of(EIGHT_B).optimiser


def test_what_the_hyper_parameters_say_of_precision_and_optimiser_holds() -> None:
    plain = of(EIGHT_B)
    small = of(EIGHT_B, optimizer="paged_adamw_8bit")
    wide = of(EIGHT_B, precision="fp32")

    assert 4 * small.optimiser == plain.optimiser
    assert wide.kept == 2 * plain.kept
    assert wide.quantised == plain.quantised


def test_shorter_examples_and_answers_take_less() -> None:
    asked = Hyperparameters(micro_batch_size=4, max_length=2048)
    longest, half = (
        training_memory(EIGHT_B, asked, tokens=tokens, answer_tokens=64) for tokens in (None, 1024)
    )
    whole = training_memory(EIGHT_B, asked)

    assert longest is not None
    assert half is not None
    assert whole is not None
    assert longest.activations == 2 * half.activations
    assert longest.logits == half.logits
    # All 8,192 tokens are answer, not 256; no more than 4,096 meet the vocabulary at once.
    assert longest.logits == 256 * (32768 * 2 + 4096 * 6)
    assert whole.logits == 4096 * 32768 * 2 + 8192 * 4096 * 6


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "mamba", "vocab_size": 10}, "another architecture"),
        ({key: value for key, value in EIGHT_B.items() if key != "vocab_size"}, "no vocabulary"),
        (EIGHT_B | {"vocab_size": None}, "a vocabulary of nothing"),
        (EIGHT_B | {"hidden_size": "wide"}, "a width that is no number"),
        ({}, "an empty config"),
    ],
)
def test_a_base_that_is_not_known_has_no_figure(config: dict[str, Any], why: str) -> None:
    assert training_memory(config, Hyperparameters()) is None, why


@given(
    batch=st.integers(1, 64),
    rank=st.integers(1, 128),
    length=st.integers(2, 4096),
    checkpointing=st.booleans(),
)
def test_more_of_anything_never_takes_less(
    batch: int, rank: int, length: int, *, checkpointing: bool
) -> None:
    def take(**more: int) -> int:
        asked: dict[str, Any] = {
            "effective_batch_size": 64,
            "micro_batch_size": batch,
            "rank": rank,
            "max_length": length,
            "gradient_checkpointing": checkpointing,
        }
        found = training_memory(EIGHT_B, Hyperparameters(**{**asked, **more}))
        assert found is not None
        assert all(part >= 0 for part in asdict(found).values())
        return found.total

    assert take() < take(micro_batch_size=batch + 1)
    assert take() < take(rank=rank + 1)
    assert take() < take(max_length=length + 1)


@given(batch=st.integers(1, 65536))
def test_the_largest_micro_batch_divides_the_batch(batch: int) -> None:
    found = largest_micro_batch(batch)

    assert batch % found == 0
    assert all(batch % larger for larger in range(found + 1, 17))


def test_a_micro_batch_left_open_is_the_largest() -> None:
    assert of(EIGHT_B) == of(EIGHT_B, micro_batch_size=16)


def test_gib_is_the_total() -> None:
    found = of(ONE_B)

    assert found.gib * GIB == found.total
