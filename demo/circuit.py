"""The model's shape, and its weights before training: an induction circuit.

A reader of this size copies an answer by finding the place whose last words are the words that it
has just written. From random weights that is not found in thousands of steps; written down as
initial weights it only has to be refined.

The residual stream is six blocks of 32. An embedding is a unit vector in dims 1 to 31 of block 0,
with a constant in dim 0; every norm is equal, so the constant survives RMSNorm.

* Layer 0, heads 1 to 5: head j attends to the token j places before and copies its block 0 into
  block j. The constant alone makes the query and the key: on RoPE pairs with frequencies t, the
  query (A, 0) and the key (A cos jt, A sin jt) meet in phase at a distance of j.
* Layer 1, heads 0 to 2: the query is a projection of the tokens at 0 to 4 places before, the key of
  those at 1 to 5, on RoPE pairs that hardly turn. They attend to the token after the longest match
  and write it where the output reads.
* Layer 1, head 3 attends to its own position and takes the current token out.
* All that follows starts as no change.
"""

from __future__ import annotations

import math

import torch
from transformers import LlamaConfig, LlamaForCausalLM

BLOCK = 32
BLOCKS = 6
WIDTH = BLOCK * BLOCKS
HEADS = 6
HEAD = 64
LAYERS = 3
MATCH_HEADS = (0, 1, 2)
SELF_HEAD = 3
CONSTANT = 0.5
ROPE_BASE = 1e8
POSITION_SCORE = 60.0
"""A squared: what a pair of dims adds to the score of the token at just the right distance."""
MATCH_SCORE = 4.0
"""What one matching token adds to the attention's logit."""
SLOW = 0.3
"""A RoPE pair is slow when it turns by less than this, in radians, over 60 tokens."""


def config(vocabulary: int, end: int, pad: int, positions: int) -> LlamaConfig:
    """The Hugging Face configuration: 1.7 million parameters at a vocabulary of 845."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD,
        max_position_embeddings=positions,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
        dtype="float32",
    )


def initialise(model: LlamaForCausalLM, seed: int) -> None:
    """Write the circuit into the model's weights, in place."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _embed(model, random)
        for layer in model.model.layers:
            for weight in (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight):
                weight.normal_(0, 1 / math.sqrt(WIDTH), generator=random)
            layer.mlp.down_proj.weight.zero_()
        _read_before(model.model.layers[0].self_attn)
        _match(model.model.layers[1].self_attn, random)
        for layer in model.model.layers[2:]:
            _idle(layer.self_attn, random)


def _frequencies() -> torch.Tensor:
    return ROPE_BASE ** (-torch.arange(HEAD // 2, dtype=torch.float64) * 2 / HEAD)


def _rows(head: int) -> slice:
    return slice(head * HEAD, (head + 1) * HEAD)


def _columns(block: int) -> slice:
    return slice(block * BLOCK, (block + 1) * BLOCK)


def _embed(model: LlamaForCausalLM, random: torch.Generator) -> None:
    weight = model.model.embed_tokens.weight
    weight.zero_()
    words = torch.randn(weight.shape[0], BLOCK - 1, generator=random)
    weight[:, 1:BLOCK] = words / words.norm(dim=1, keepdim=True)
    weight[:, 0] = CONSTANT


def _seen(blocks: int) -> float:
    """By what RMSNorm multiplies when so many blocks hold a token."""
    return math.sqrt(WIDTH / (blocks * (1 + CONSTANT**2)))


def _at_distance(attention: torch.nn.Module, head: int, distance: int, constant: float) -> None:
    amplitude = math.sqrt(POSITION_SCORE)
    turn = distance * _frequencies()
    query = torch.cat([torch.ones(HEAD // 2), torch.zeros(HEAD // 2)])
    key = torch.cat([turn.cos(), turn.sin()])
    attention.q_proj.weight[_rows(head), 0] = amplitude / constant * query
    attention.k_proj.weight[_rows(head), 0] = (amplitude / constant * key).float()


def _carry(attention: torch.nn.Module, head: int, block: int, scale: float) -> None:
    """Values take block 0, the output puts it, scaled, into the given block."""
    seen = torch.eye(BLOCK)
    rows = slice(head * HEAD, head * HEAD + BLOCK)
    attention.v_proj.weight[rows, _columns(0)] = seen
    attention.o_proj.weight[_columns(block), rows] = scale * seen


def _clear(attention: torch.nn.Module) -> None:
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        getattr(attention, name).weight.zero_()


def _read_before(attention: torch.nn.Module) -> None:
    _clear(attention)
    for head in range(1, HEADS):
        _at_distance(attention, head, head, CONSTANT * _seen(1))
        _carry(attention, head, head, 1 / _seen(1))


def _match(attention: torch.nn.Module, random: torch.Generator) -> None:
    _clear(attention)
    slow = (60 * _frequencies() < SLOW).nonzero().flatten()
    dims = torch.cat([slow, slow + HEAD // 2])
    seen = _seen(BLOCKS)
    gain = math.sqrt(MATCH_SCORE * math.sqrt(HEAD)) / seen
    for head in MATCH_HEADS:
        for offset in range(1, BLOCKS):
            basis = torch.randn(len(dims), BLOCK - 1, generator=random)
            projection = gain * torch.linalg.qr(basis).Q
            rows = head * HEAD + dims
            now = torch.arange(BLOCK * (offset - 1) + 1, BLOCK * offset)
            attention.q_proj.weight[rows[:, None], now[None, :]] = projection
            attention.k_proj.weight[rows[:, None], (now + BLOCK)[None, :]] = projection
        _carry(attention, head, 0, 0.6)
    _at_distance(attention, SELF_HEAD, 0, CONSTANT * seen)
    _carry(attention, SELF_HEAD, 0, -1 / seen)
    for head in range(SELF_HEAD + 1, HEADS):
        _idle_head(attention, head, random)


def _idle(attention: torch.nn.Module, random: torch.Generator) -> None:
    _clear(attention)
    for head in range(HEADS):
        _idle_head(attention, head, random)


def _idle_head(attention: torch.nn.Module, head: int, random: torch.Generator) -> None:
    """Random looks, no effect yet: a gradient can find a use for it."""
    for name in ("q_proj", "k_proj", "v_proj"):
        weight = getattr(attention, name).weight
        weight[_rows(head)] = torch.randn(HEAD, WIDTH, generator=random) / math.sqrt(WIDTH)
