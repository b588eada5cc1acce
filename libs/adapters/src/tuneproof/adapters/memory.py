"""How much memory a training takes on its device, counted from the base's config.json alone.

The parts add up to the peak, `TrainingMemory.total`. Here h is the hidden size, a the width of all
query heads together, b that of the key heads, f that of the MLP, r the rank, and p the bytes of a
value: 2 in bfloat16, 4 in float32.

quantised     .5159 bytes a weight: 4 bits, a scale of 8 bits for each block of 64, and one of 32
              bits for 256 of those (QLoRA, arXiv 2305.14314, section 3).
kept          p bytes a weight: embeddings, output, norms, `skip_modules`, without quantisation all
              linear layers, and always the experts of a mixture, which are no linear layers to
              bitsandbytes.
adapter       r (in + out) weights for each linear layer that it changes, in p bytes over a
              quantised base (TRL 1.16 casts them), else in 4 (peft 0.21 holds them in float32).
gradients     as many bytes as the adapter.
optimiser     two moments of each of the adapter's weights: 8 bytes in 32 bits. Pages count: they
              leave the GPU only where its memory is short.
activations   What a layer keeps for each token until the backward pass:
              - 4 h by each of two norms, which compute in float32;
              - p h by each of them for the adapter's layers that read its output;
              - 2 p (a + b) by attention: queries and its output, which o_proj reads, keys and
                values;
              - 3 p f by the MLP: the gate, the activated gate and the other factor; p f more for
                an adapter of down_proj. A mixture keeps this for each expert that a token takes;
              - p r by each layer that the adapter changes;
              - with dropout each of these keeps its own input instead, in p bytes and a mask of 1
                (p on a CPU).
              With gradient checkpointing a layer keeps its input alone, p h.
backward      What the backward pass holds of one layer for each token: gradients of the MLP's three
              values and of two norms' outputs, 3 p f + 2 p h. With checkpointing instead the
              layer's activations again, and the gradients of two of the MLP's values, 2 p f.
logits        TRL 1.16 never has all of them: it projects up to 4,096 tokens of answers at once,
              onto tiles of 32,768 words whatever the vocabulary. On a GPU that is p bytes each, in
              a kernel of its own; on a CPU PyTorch's operations hold seven copies in float32 of
              what the vocabulary has of a tile. Besides, the answers' last states and their
              gradients in float32, (p + 4) h.
dequantised   the largest quantised layer in p bytes a weight.

Attention is taken to be PyTorch's fused one, which keeps no matrix of tokens by tokens. What the
allocator holds in reserve, and the device's own context, come on top: up to a fifth, mostly .5 to
2 GiB. The peaks measured on a GPU (docs/performance.md) are .95 to 1.01 of these figures. On a CPU,
in float32, the bytes of all live tensors are .96 to 1.02 of them, with dropout too
(services/trainer/tests/test_trainer_memory.py). Mixtures were not measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.adapters.shapes import ATTENTION, Architecture, architecture_of, has_experts

GIB = 2**30
LARGEST_MICRO_BATCH = 16
"""Examples per forward pass where the hyper-parameters leave it open."""
USABLE = 0.9
"""Share of a GPU's memory that a plan may take. The driver, the allocator's gaps and the plan's own
error take the rest."""

_QUANTISED = 0.5 + (1 + 4 / 256) / 64
"""Bytes of a weight in NF4 with double quantisation."""
_SMALL_MOMENTS = "paged_adamw_8bit"
_TILE_TOKENS, _TILE_WORDS = 4096, 32768
"""Of TRL 1.16's head."""
_READERS = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "gate_proj": 1, "up_proj": 1}
"""Which of a layer's two norms a linear layer reads."""


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of a training on its device, by part; see the module."""

    quantised: int
    kept: int
    adapter: int
    gradients: int
    optimiser: int
    activations: int
    backward: int
    logits: int
    dequantised: int

    @property
    def total(self) -> int:
        """The peak: the backward pass begins with all activations and the logits, and comes to the
        last layer when the logits are gone."""
        parts: dict[str, int] = asdict(self)
        largest = max(parts.pop("backward"), parts.pop("logits"))
        return sum(parts.values()) + largest

    @property
    def gib(self) -> float:
        """The peak in GiB."""
        return self.total / GIB


@dataclass(frozen=True, slots=True)
class _Base:
    """What counts of a base."""

    architecture: Architecture
    hidden: int
    inner: int
    vocabulary: int
    tied: bool
    experts: int
    """0 for a dense model."""
    experts_of_a_token: int

    @property
    def other_weights(self) -> int:
        """All but the linear layers that an adapter may change."""
        layers = self.architecture.layers
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        experts = layers * self.experts * 3 * self.hidden * self.inner
        return embeddings + (2 * layers + 1) * self.hidden + experts


def micro_batches(batch: int, most: int = LARGEST_MICRO_BATCH) -> list[int]:
    """Divisors of an effective batch size that are not above `most`, the largest first."""
    return [size for size in range(min(most, batch), 0, -1) if batch % size == 0]


def largest_micro_batch(batch: int, most: int = LARGEST_MICRO_BATCH) -> int:
    """The largest divisor of an effective batch size that is not above `most`."""
    return micro_batches(batch, most)[0]


def training_memory(
    config: dict[str, Any],
    asked: Hyperparameters,
    *,
    value_bytes: int | None = None,
    moment_bytes: int | None = None,
    tokens: int | None = None,
    answer_tokens: int | None = None,
    on_gpu: bool = True,
) -> TrainingMemory | None:
    """The memory that a training takes.

    Args:
        config: the base's config.json.
        asked: the hyper-parameters. Where they name no `target_modules`, the adapter changes what
            the trainer's default is; where they name no micro-batch, it is the largest up to 16.
        value_bytes: of the precision in which the base computes, 2 for bfloat16, 4 for float32; by
            default what the hyper-parameters say, on a GPU.
        moment_bytes: of the optimiser's two moments of a weight, 8 in 32 bits, 2 in 8 bits; by
            default what the hyper-parameters say.
        tokens: of the longest example; `max_length` by default.
        answer_tokens: of the longest answer; by default an example is all answer.
        on_gpu: whether the device is a GPU.

    Returns:
        None for a base of an unknown architecture.
    """
    base = base_of(config)
    if base is None:
        return None
    width = value_bytes or (4 if asked.precision == "fp32" else 2)
    moments = moment_bytes or (2 if asked.optimizer == _SMALL_MOMENTS else 8)
    found = base.architecture
    layers = _layers_by_kind(found, asked.target_modules or _default_targets(found, config))
    kept_whole = _layers_by_kind(found, asked.skip_modules)
    quantises = asked.method == "qlora_nf4"
    quantised = kept = 0
    for kind, (given, out) in found.shapes.items():
        whole = kept_whole[kind] if quantises else found.layers
        quantised += (found.layers - whole) * given * out
        kept += whole * given * out
    trained = sum(
        layers[kind] * asked.rank * (given + out) for kind, (given, out) in found.shapes.items()
    )
    adapter = trained * (width if quantises else 4)
    batch = asked.micro_batch_size or largest_micro_batch(asked.effective_batch_size)
    length = tokens or asked.max_length
    places = batch * length
    answered = batch * min(answer_tokens or length, length)
    tuned = frozenset(kind for kind, count in layers.items() if count)
    mask = 1 if on_gpu else width
    layer = places * _of_a_token(base, asked, tuned, width, mask)
    whole_net = layer * found.layers
    backward = places * width * (3 * base.inner + 2 * base.hidden)
    if asked.gradient_checkpointing:
        whole_net = places * width * base.hidden * found.layers
        backward = layer + places * 2 * width * base.inner
    largest = max(given * out for given, out in found.shapes.values())
    return TrainingMemory(
        quantised=round(quantised * _QUANTISED),
        kept=(kept + base.other_weights) * width,
        adapter=adapter,
        gradients=adapter,
        optimiser=trained * moments,
        activations=whole_net,
        backward=backward,
        logits=_of_logits(base, answered, width, on_gpu=on_gpu),
        dequantised=largest * width if quantised else 0,
    )


def base_of(config: dict[str, Any]) -> _Base | None:
    architecture = architecture_of(config)
    try:
        vocabulary = int(config["vocab_size"])
    except (KeyError, TypeError, ValueError):
        return None
    if architecture is None:
        return None
    experts = int(config.get("num_local_experts") or 0) if has_experts(config) else 0
    return _Base(
        architecture=architecture,
        hidden=int(config["hidden_size"]),
        inner=int(config["intermediate_size"]),
        vocabulary=vocabulary,
        # A config that leaves it out has an output of its own (transformers' Llama).
        tied=config.get("tie_word_embeddings") is True,
        experts=experts,
        experts_of_a_token=int(config.get("num_experts_per_tok") or 2) if experts else 1,
    )


def _default_targets(found: Architecture, config: dict[str, Any]) -> tuple[str, ...]:
    return ATTENTION if has_experts(config) else tuple(found.shapes)


def _layers_by_kind(found: Architecture, names: tuple[str, ...]) -> dict[str, int]:
    """In how many layers a list of module names (suffixes match at a dot) has each kind."""
    counts = dict.fromkeys(found.shapes, 0)
    for kind in counts:
        block = "self_attn" if kind in ATTENTION else "mlp"
        mine = [name for name in names if name.split(".")[-1] == kind]
        if kind in mine:
            counts[kind] = found.layers
        elif mine:
            full = [f".model.layers.{layer}.{block}.{kind}" for layer in range(found.layers)]
            counts[kind] = sum(any(each.endswith(f".{name}") for name in mine) for each in full)
    return counts


def _of_logits(base: _Base, answered: int, width: int, *, on_gpu: bool) -> int:
    """Bytes of TRL's head, for so many tokens of answers."""
    tile = min(answered, _TILE_TOKENS)
    found = tile * _TILE_WORDS * width + answered * base.hidden * (width + 4)
    return found if on_gpu else found + 7 * 4 * tile * min(base.vocabulary, _TILE_WORDS)


def _of_a_token(
    base: _Base, asked: Hyperparameters, tuned: frozenset[str], width: int, mask: int
) -> int:
    """Bytes that a layer keeps for a token; `mask` is one value's of dropout's mask."""
    shapes = base.architecture.shapes
    queries, keys = shapes["q_proj"][1], shapes["k_proj"][1]
    kept = 2 * 4 * base.hidden + 2 * width * (queries + keys)
    kept += 3 * width * base.inner * base.experts_of_a_token
    kept += width * asked.rank * len(tuned)
    if asked.dropout:
        return kept + sum((width + mask) * shapes[kind][0] for kind in tuned)
    read = {_READERS[kind] for kind in tuned if kind in _READERS}
    kept += width * base.hidden * len(read)
    return kept + (width * base.inner if "down_proj" in tuned else 0)
