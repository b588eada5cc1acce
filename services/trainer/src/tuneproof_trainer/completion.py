"""Filling in a spec's defaults, and listing all that contradicts in it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tuneproof.adapters.ref import DIGEST_PATTERN, NAME_PATTERN
from tuneproof.adapters.shapes import ATTENTION, architecture_of, has_experts
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.spec import Method, RunSpec

_LARGEST_MICRO_BATCH = 16
_MODULE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


@dataclass(frozen=True)
class Base:
    """The base model a trainer tunes, as far as a spec depends on it."""

    name: str
    config: dict[str, Any]
    """Its config.json."""

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """Last names of its linear layers, sorted; empty when the architecture is not known."""
        architecture = architecture_of(self.config)
        return tuple(sorted(architecture.shapes)) if architecture else ()

    @property
    def default_targets(self) -> tuple[str, ...]:
        """What an adapter changes where the spec does not say: every linear layer, but of a mixture
        of experts only the attention. peft 0.21's `all-linear` includes the experts
        (`target_parameters`), and the generator admits no such adapter. Empty: all-linear."""
        return ATTENTION if has_experts(self.config) else self.linear_layers

    @property
    def longest_context(self) -> int | None:
        """Tokens, where the config says."""
        value = self.config.get("max_position_embeddings")
        return value if type(value) is int else None


def complete(spec: RunSpec, base: Base) -> RunSpec:
    """The spec with every default filled in.

    Raises:
        InvalidInput: with every mistake in it.
    """
    batch = spec.effective_batch_size or 16
    full = spec.model_copy(
        update={
            "base_model": spec.base_model or base.name,
            "rank": spec.rank or 16,
            "alpha": spec.alpha or 32.0,
            "target_modules": tuple(sorted(spec.target_modules)) or base.default_targets,
            "skip_modules": tuple(sorted(spec.skip_modules)),
            "epochs": spec.epochs or (0.0 if spec.max_steps else 1.0),
            "effective_batch_size": batch,
            "micro_batch_size": spec.micro_batch_size or _micro_batch(batch),
            "learning_rate": spec.learning_rate or 2e-4,
            "max_grad_norm": spec.max_grad_norm or 0.3,
            "max_length": spec.max_length or min(1024, base.longest_context or 1024),
        }
    )
    mistakes = [*_names(full, base), *_modules(full, base), *_numbers(full, base)]
    if mistakes:
        raise InvalidInput(
            "the spec cannot be run: " + "; ".join(sentence for _, sentence in mistakes),
            field=f"spec.{mistakes[0][0]}",
            fields=",".join(f"spec.{field}" for field, _ in mistakes),
        )
    return full


def _micro_batch(batch: int) -> int:
    return max(size for size in range(1, _LARGEST_MICRO_BATCH + 1) if batch % size == 0)


def _names(spec: RunSpec, base: Base) -> Iterator[tuple[str, str]]:
    if spec.base_model != base.name:
        yield "base_model", f"base_model {spec.base_model!r} is not here; there is {base.name!r}"
    if not NAME_PATTERN.fullmatch(spec.adapter_name):
        yield (
            "adapter_name",
            f"adapter_name {spec.adapter_name!r} does not match {NAME_PATTERN.pattern}",
        )
    path = PurePosixPath(spec.data_path)
    if not spec.data_path:
        yield "data.path", "data.path is empty"
    elif path.is_absolute() or ".." in path.parts or "\\" in spec.data_path or "\0" in str(path):
        yield (
            "data.path",
            f"data.path {spec.data_path!r} leads out of the artifact store; give it relative to it",
        )
    if not DIGEST_PATTERN.fullmatch(spec.data_digest):
        yield (
            "data.digest",
            f"data.digest {spec.data_digest!r} is not `sha256:` and 64 hexadecimal digits",
        )


def _modules(spec: RunSpec, base: Base) -> Iterator[tuple[str, str]]:
    lists = (
        ("lora.target_modules", spec.target_modules),
        ("quantization.skip_modules", spec.skip_modules),
    )
    for field, modules in lists:
        odd = [module for module in modules if not _MODULE.fullmatch(module)]
        if odd:
            yield field, f"{field} holds {odd}, which are no module names"
        if len(set(modules)) < len(modules):
            yield field, f"{field} names a module twice"
    known = base.linear_layers
    strange = [
        module for module in spec.target_modules if known and module.split(".")[-1] not in known
    ]
    if strange:
        yield (
            "lora.target_modules",
            f"lora.target_modules holds {strange}; the base's linear layers are {list(known)}",
        )
    if spec.skip_modules and spec.method is not Method.QLORA_NF4:
        yield (
            "quantization.skip_modules",
            "quantization.skip_modules is given, but method LORA quantises nothing",
        )


def _numbers(spec: RunSpec, base: Base) -> Iterator[tuple[str, str]]:
    bounds = (
        ("lora.rank", spec.rank, 1, 512),
        ("effective_batch_size", spec.effective_batch_size, 1, 65536),
        ("max_length", spec.max_length, 2, base.longest_context or 1 << 24),
        ("seed", spec.seed, 0, 2**32 - 1),
        ("warmup_ratio", spec.warmup_ratio, 0, 1),
    )
    for field, value, least, most in bounds:
        if not least <= value <= most:
            yield field, f"{field} is {value:g}, not {least} to {most}"
    positive = (
        ("lora.alpha", spec.alpha),
        ("learning_rate", spec.learning_rate),
        ("max_grad_norm", spec.max_grad_norm),
    )
    for field, number in positive:
        if not (math.isfinite(number) and number > 0):
            yield field, f"{field} is {number:g}, not a finite number above 0"
    if not 0 <= spec.dropout < 1:
        yield "lora.dropout", f"lora.dropout is {spec.dropout:g}, not 0 to below 1"
    if not (math.isfinite(spec.epochs) and spec.epochs >= 0):
        yield "epochs", f"epochs is {spec.epochs:g}, not a finite number of 0 or more"
    batch = f"effective_batch_size {spec.effective_batch_size}"
    if spec.effective_batch_size % spec.micro_batch_size:
        yield (
            "micro_batch_size",
            f"micro_batch_size is {spec.micro_batch_size}, which does not divide {batch}",
        )
