"""The base models that a trainer tunes, as far as a spec depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneproof.adapters.shapes import ATTENTION, architecture_of, has_experts
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.spec import RunSpec


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
        return ATTENTION if self.has_experts else self.linear_layers

    @property
    def has_experts(self) -> bool:
        """Whether it is a mixture of experts."""
        return has_experts(self.config)

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
