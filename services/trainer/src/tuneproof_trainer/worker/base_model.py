"""Loads the base model, quantised or not, and counts the quantised layers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.errors import InvalidInput

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class LoadedBase:
    """The frozen base, on its device."""

    model: Any
    """A transformers PreTrainedModel."""
    device: str
    """As cpu, or the GPU's name."""
    on_gpu: bool
    compute_dtype: torch.dtype
    quantised_layers: int
    linear_layers: int
    """Without the output layer."""

    @property
    def precision(self) -> str:
        """The precision of the base's linear layers, in words."""
        kept = str(self.compute_dtype).removeprefix("torch.")
        if not self.quantised_layers:
            return kept
        return (
            f"nf4 (double quantised) in {self.quantised_layers} of {self.linear_layers} linear "
            f"layers, {kept} elsewhere"
        )


def load_base(folder: Path, asked: Hyperparameters, device: str) -> LoadedBase:
    """Loads the base for a training.

    Args:
        device: auto, cpu or cuda.

    Raises:
        InvalidInput: when device is cuda and the machine lacks a GPU, or a named module is not
            one of this model's linear layers.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("--device is cuda, but this machine shows no GPU", field="device")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    own = _choose_gpu() if on_gpu else 0
    dtype = _DTYPES.get(asked.precision, torch.bfloat16 if on_gpu else torch.float32)
    layers, output, parameters = _layers(folder)
    _match(asked.target_modules, layers, "target_modules")
    skipped = _match(asked.skip_modules, layers, "skip_modules")
    _match(asked.target_parameters, parameters, "target_parameters", "3-D parameter")
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=_quantisation(asked, skipped, output, dtype),
        device_map={"": own} if on_gpu else None,
    )
    model.config.use_cache = False
    quantised = _keep_layout(model)
    name = torch.cuda.get_device_name(own) if on_gpu else "cpu"
    return LoadedBase(model, name, on_gpu, dtype, quantised, len(layers))


def _choose_gpu() -> int:
    """The number of this process's GPU, which is the current one from now on.

    Raises:
        InvalidInput: when the machine has fewer GPUs than processes.
    """
    own, seen = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= seen:
        raise InvalidInput(
            f"--devices is {os.environ['LOCAL_WORLD_SIZE']}, but this machine shows {seen} GPUs",
            field="devices",
        )
    torch.cuda.set_device(own)
    return own


def _keep_layout(model: Any) -> int:
    """Counts the quantised layers, and keeps them as they are stored. On CPUs with AVX512-BF16
    bitsandbytes 0.50 lays the weights of such a layer out anew when it is read without gradients,
    as in a validation, and computes in bfloat16; the next training step then fails on their shape.
    """
    quantised = [each for each in model.modules() if type(each).__name__ == "Linear4bit"]
    for layer in quantised:
        layer.support_avx512bf16_for_cpu = False
    return len(quantised)


def _quantisation(
    asked: Hyperparameters, skipped: list[str], output: list[str], dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    if asked.method != "qlora_nf4":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # transformers 5.19 leaves the output unquantised only while this list is not given.
        llm_int8_skip_modules=[*skipped, *output] if skipped else None,
    )


def _layers(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Full names of the linear layers but the output, of the output, and of the 3-D parameters
    (experts), without loading weights."""
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    output = empty.get_output_embeddings()
    linear = [
        (name, module)
        for name, module in empty.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    return (
        [name for name, module in linear if module is not output],
        [name for name, module in linear if module is output],
        [name for name, each in empty.named_parameters() if each.dim() == 3],
    )


def _match(
    wanted: tuple[str, ...], layers: list[str], field: str, noun: str = "linear layer"
) -> list[str]:
    """Full names that the wanted ones are suffixes of, at a dot."""
    found: list[str] = []
    for name in wanted:
        matches = [layer for layer in layers if layer == name or layer.endswith(f".{name}")]
        if not matches:
            kinds = sorted({layer.split(".")[-1] for layer in layers})
            raise InvalidInput(
                f"{field} holds {name!r}, which is not a {noun} of the base; its kinds are "
                f"{kinds}, a full name is as {layers[0] if layers else 'none'}",
                field=f"spec.hyperparameters.{field}",
            )
        found += matches
    return found
