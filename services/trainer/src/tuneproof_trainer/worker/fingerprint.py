"""Takes the fingerprint of a trained adapter: see `tuneproof.adapters.fingerprint`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForCausalLM

from tuneproof.adapters.fingerprint import (
    PROBES,
    Fingerprint,
    Probe,
    Reading,
    prompt_of,
    tokens_of,
)
from tuneproof_trainer.worker.base_model import LoadedBase

_SHARE_OF_MEMORY = 0.5
"""Of what is free: the base is loaded a second time, unquantised, only if it takes less."""


def take_fingerprint(base: LoadedBase, tokenizer: Any, folder: Path, adapter: Path) -> Fingerprint:
    """Reads what the adapter does over the base it was trained on, and, where that was quantised
    and memory allows, over the unquantised one, onto which the saved files are loaded anew.

    Args:
        base: its model holds the trained adapter's layers.
        folder: of the base model.
        adapter: the folder with the adapter as saved.
    """
    probes = probes_of(tokenizer)
    readings = [reading_of(base.model, probes, "nf4" if base.quantised_layers else _name(base))]
    if base.quantised_layers and _fits(folder, on_gpu=base.on_gpu):
        try:
            plain = AutoModelForCausalLM.from_pretrained(
                folder, dtype=base.compute_dtype, device_map={"": 0} if base.on_gpu else None
            )
            beside = PeftModel.from_pretrained(plain, adapter)
            readings.append(reading_of(beside, probes, _name(base)))
        except (torch.OutOfMemoryError, MemoryError) as error:
            # The training is done; that reading is not worth it.
            print(f"no fingerprint over the unquantised base: {error}")
    return Fingerprint(probes=probes, readings=tuple(readings))


def probes_of(tokenizer: Any) -> tuple[Probe, ...]:
    """The questions as the generator asks them, and the first tokens of the texts after them."""
    return tuple(
        Probe(
            question=question,
            prompt=tuple(prompt_of(tokenizer, question)),
            tokens=tuple(tokens_of(tokenizer, text)),
        )
        for question, text in PROBES
    )


def _name(base: LoadedBase) -> str:
    return str(base.compute_dtype).removeprefix("torch.")


def reading_of(model: Any, probes: tuple[Probe, ...], precision: str) -> Reading:
    """The log-probabilities of the probes' tokens with a model's adapter and without it."""
    model.eval()
    adapted = tuple(_scores(model, probe) for probe in probes)
    with _without_adapter(model):
        plain = tuple(_scores(model, probe) for probe in probes)
    return Reading(precision=precision, base=plain, adapted=adapted)


@torch.no_grad()  # type: ignore[untyped-decorator]
def likeliest(model: Any, probes: tuple[Probe, ...]) -> list[int]:
    """The likeliest next token at every position of the probes."""
    found: list[int] = []
    for probe in probes:
        ids = torch.tensor([[*probe.prompt, *probe.tokens]], device=model.device)
        found += model(input_ids=ids).logits[0].argmax(-1).tolist()
    return found


@contextmanager
def _without_adapter(model: Any) -> Iterator[None]:
    """As peft's `disable_adapter`, which the model inside of a PeftModel lacks."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@torch.no_grad()  # type: ignore[untyped-decorator]
def _scores(model: Any, probe: Probe) -> tuple[float, ...]:
    """The log-probabilities of a probe's tokens, in float32."""
    ids = torch.tensor([[*probe.prompt, *probe.tokens]], device=model.device)
    logits = model(input_ids=ids).logits[0, len(probe.prompt) - 1 : -1].float()
    wanted = ids[0, len(probe.prompt) :, None]
    return tuple(logits.log_softmax(-1).gather(-1, wanted)[:, 0].tolist())


def _fits(folder: Path, *, on_gpu: bool) -> bool:
    """Whether the unquantised base takes less than half of the memory that is free."""
    needed = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if on_gpu:
        free, _ = torch.cuda.mem_get_info()
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        needed *= 2  # Stored in 16 bits, computed in 32.
    return bool(needed < _SHARE_OF_MEMORY * free)
