"""The memory of a generator, beside published sizes, and the page that shows it."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters.memory import GIB
from tuneproof.adapters.serving import serving_memory

PAGE = Path(__file__).parents[3] / "docs/operations.md"
_SEVEN_B: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
BASES: dict[str, dict[str, Any]] = {
    "Llama 2 7B": _SEVEN_B | {"model_type": "llama", "intermediate_size": 11008},
    "Llama 2 13B": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
    "Mistral 7B": _SEVEN_B
    | {"model_type": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8},
    "Mixtral 8x7B": _SEVEN_B
    | {
        "model_type": "mixtral",
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
}


@pytest.mark.parametrize(
    ("base", "parameters"),
    [
        # As the models' own pages count them. Mixtral's routers, a million, are left out.
        ("Llama 2 7B", 6_738_415_616),
        ("Llama 2 13B", 13_015_864_320),
        ("Mistral 7B", 7_241_732_096),
        ("Mixtral 8x7B", 46_702_792_704 - 1_048_576),
    ],
)
def test_weights_are_as_many_as_the_model_has(base: str, parameters: int) -> None:
    memory = serving_memory(BASES[base])
    assert memory is not None
    assert memory.weights == 2 * parameters


def test_a_token_of_llama_2_7b_takes_half_a_mebibyte_and_a_quarter_of_it_with_grouped_keys() -> (
    None
):
    contexts = [serving_memory(BASES[name]) for name in ("Llama 2 7B", "Mistral 7B")]
    assert [each and each.context for each in contexts] == [2**19, 2**17]


@given(
    gpus=st.sampled_from([1, 2, 4, 8]),
    slots=st.integers(1, 32),
    rank=st.sampled_from([8, 16, 64]),
    gib=st.integers(8, 192),
)
def test_what_fits_fills_the_share_and_no_more(gpus: int, slots: int, rank: int, gib: int) -> None:
    memory = serving_memory(BASES["Mistral 7B"], gpus=gpus, slots=slots, rank=rank)
    assert memory is not None
    tokens = memory.tokens(gib)
    used = memory.weights + memory.slots + tokens * memory.context
    if tokens:
        assert used <= gib * GIB * 0.9 < used + memory.context
    else:
        assert memory.weights + memory.slots + memory.context > gib * GIB * 0.9


def test_an_unknown_architecture_is_not_guessed() -> None:
    assert serving_memory({"model_type": "mamba", "vocab_size": 10}) is None


def rows() -> list[str]:
    """The table of the page: bases on GPUs of 80 GB, rank 64."""
    found = []
    for base, gpus, slots in (
        ("Llama 2 7B", 1, 4),
        ("Llama 2 7B", 1, 16),
        ("Llama 2 13B", 1, 4),
        ("Mistral 7B", 1, 4),
        ("Mistral 7B", 1, 16),
        ("Mixtral 8x7B", 1, 4),
        ("Mixtral 8x7B", 2, 4),
    ):
        memory = serving_memory(BASES[base], gpus=gpus, slots=slots, rank=64)
        assert memory is not None
        # 80 GB, as nvidia-smi tells of an H100 and an A100: 79.6 GiB and 80 GiB. The smaller one.
        tokens = memory.tokens(79.6)
        cells = (
            base,
            gpus,
            slots,
            f"{memory.weights / GIB:.1f}",
            f"{memory.slots / GIB:.1f}",
            f"{memory.context / 2**10:.0f}",
            f"{tokens:,}" if tokens else "does not fit",
            f"{tokens // 4096}",
            f"{16 * memory.adapter / GIB:.1f}",
        )
        found.append(f"| {' | '.join(map(str, cells))} |")
    return found


def test_the_page_shows_these_numbers() -> None:
    table = re.findall(r"^\| (?:Llama|Mistral|Mixtral).*$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert table == rows(), "\n" + "\n".join(rows())
