"""A spec's defaults that depend on the base, and all the mistakes in a spec at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tuneproof.adapters.hyperparameters import Hyperparameters, out_of_bounds
from tuneproof.adapters.ref import DIGEST_PATTERN, NAME_PATTERN
from tuneproof.adapters.shapes import ATTENTION, architecture_of, has_experts
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.spec import RunSpec

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
        """What an adapter changes by default: every linear layer, but of a mixture of experts only
        the attention. peft 0.21's `all-linear` includes the experts (`target_parameters`), and the
        generator refuses such adapters. Empty: all-linear."""
        return ATTENTION if has_experts(self.config) else self.linear_layers

    @property
    def longest_context(self) -> int | None:
        """Tokens, where the config says."""
        value = self.config.get("max_position_embeddings")
        return value if type(value) is int else None


def base_of(spec: RunSpec, bases: Mapping[str, Base]) -> Base:
    """The base that a spec asks for. Where there is one only, that one: `complete` tells the
    mistake in its name together with the others.

    Args:
        bases: those that this trainer tunes, by name.

    Raises:
        InvalidInput: there are several, and the spec names none of them.
    """
    if spec.base_model in bases:
        return bases[spec.base_model]
    if len(bases) == 1:
        return next(iter(bases.values()))
    asked = f"is {spec.base_model!r}" if spec.base_model else "is empty"
    names = ", ".join(map(repr, sorted(bases)))
    raise InvalidInput(
        f"the spec cannot be run: base_model {asked}; this trainer's bases are {names}",
        field="spec.base_model",
    )


def complete(spec: RunSpec, base: Base) -> RunSpec:
    """The spec with every default filled in.

    Args:
        base: that of the spec; see `base_of`.

    Raises:
        InvalidInput: with every mistake in it.
    """
    full = spec.model_copy(
        update={
            "base_model": spec.base_model or base.name,
            "hyperparameters": _completed(spec.hyperparameters, base),
        }
    )
    mistakes = [*_names(full, base), *_settings(full.hyperparameters, base)]
    if mistakes:
        raise InvalidInput(
            "the spec cannot be run: " + "; ".join(sentence for _, sentence in mistakes),
            field=f"spec.{mistakes[0][0]}",
            fields=",".join(f"spec.{field}" for field, _ in mistakes),
        )
    return full


def _completed(asked: Hyperparameters, base: Base) -> Hyperparameters:
    """With the defaults that depend on the base or on one another."""
    given = asked.model_fields_set
    return asked.model_copy(
        update={
            "target_modules": tuple(sorted(asked.target_modules)) or base.default_targets,
            "skip_modules": tuple(sorted(asked.skip_modules)),
            "epochs": 0 if asked.max_steps and "epochs" not in given else asked.epochs,
            "micro_batch_size": asked.micro_batch_size or _micro_batch(asked.effective_batch_size),
            "max_length": asked.max_length
            if "max_length" in given
            else min(asked.max_length, base.longest_context or asked.max_length),
        }
    )


def _micro_batch(batch: int) -> int:
    return max(size for size in range(1, _LARGEST_MICRO_BATCH + 1) if batch % size == 0)


def _names(spec: RunSpec, base: Base) -> Iterator[tuple[str, str]]:
    if spec.base_model != base.name:
        yield (
            "base_model",
            f"base_model {spec.base_model!r} is not this trainer's base, {base.name!r}",
        )
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
    if spec.seed >= 2**32:
        yield "seed", f"seed is {spec.seed}, not 0 to {2**32 - 1}"


def _settings(given: Hyperparameters, base: Base) -> Iterator[tuple[str, str]]:
    for field, sentence in (
        *out_of_bounds(given),
        *_modules(given, base),
        *_combinations(given, base),
    ):
        yield f"hyperparameters.{field}", sentence


def _modules(given: Hyperparameters, base: Base) -> Iterator[tuple[str, str]]:
    lists = (("target_modules", given.target_modules), ("skip_modules", given.skip_modules))
    for field, modules in lists:
        odd = [module for module in modules if not _MODULE.fullmatch(module)]
        if odd:
            yield field, f"{field} holds {odd}, which are not module names"
        if len(set(modules)) < len(modules):
            yield field, f"{field} names a module twice"
    known = base.linear_layers
    strange = [
        module for module in given.target_modules if known and module.split(".")[-1] not in known
    ]
    if strange:
        yield (
            "target_modules",
            f"target_modules holds {strange}; the base's linear layers are {list(known)}",
        )
    if given.skip_modules and given.method != "qlora_nf4":
        yield "skip_modules", "skip_modules is given, but method LORA quantises nothing"


def _combinations(given: Hyperparameters, base: Base) -> Iterator[tuple[str, str]]:
    longest = base.longest_context
    if longest is not None and given.max_length > longest:
        yield "max_length", f"max_length is {given.max_length:g}, not 2 to {longest}"
    if not given.epochs and not given.max_steps:
        yield "epochs", "epochs and max_steps are both 0: nothing would be trained"
    if given.effective_batch_size % given.micro_batch_size:
        batch = f"effective_batch_size {given.effective_batch_size}"
        yield (
            "micro_batch_size",
            f"micro_batch_size is {given.micro_batch_size}, which does not divide {batch}",
        )
