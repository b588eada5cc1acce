"""The hyper-parameters of a training: names, defaults and bounds.

The study file, the client's RunSpec and the trainer all hold this class. The contract's message
`Hyperparameters` has the same field names, by which `servicekit.messages` translates.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

Rank = Annotated[int, Field(ge=1, le=512)]
Alpha = Annotated[float, Field(gt=0)]
LearningRate = Annotated[float, Field(gt=0)]
Epochs = Annotated[float, Field(ge=0)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]


class Hyperparameters(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What a training is set to. The field's meaning stands in trainer.proto too."""

    method: Literal["qlora_nf4", "lora"] = "qlora_nf4"
    """LoRA over a base in 4-bit NormalFloat, or over the base as it is."""
    rank: Rank = 16
    """Of the adapter's matrices."""
    alpha: Alpha = 32
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """In the adapter."""
    target_modules: tuple[str, ...] = ()
    """Module names, as `q_proj`; empty: every linear layer but the output, of a mixture of experts
    the attention."""
    skip_modules: tuple[str, ...] = ()
    """Module names (suffixes match) that stay unquantised."""
    learning_rate: LearningRate = 2e-4
    """After the warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after the warm-up."""
    warmup_ratio: float = Field(default=0.03, ge=0, le=1)
    """Share of the steps over which the learning rate rises."""
    max_grad_norm: float = Field(default=0.3, gt=0)
    """Gradients above this norm are scaled down to it."""
    epochs: Epochs = 1
    """Passes over the data; 0: as many as `max_steps` takes."""
    max_steps: int = Field(default=0, ge=0)
    """Optimiser steps at most; 0: no limit."""
    effective_batch_size: BatchSize = 16
    """Examples per optimiser step."""
    micro_batch_size: int = Field(default=0, ge=0)
    """Examples per forward pass, a divisor of `effective_batch_size`; 0: the largest up to 16 that
    fits into the device's memory."""
    max_length: int = Field(default=1024, ge=2)
    """Longest example in tokens; a longer one is refused, never cut."""
    gradient_checkpointing: bool = False
    """Less memory for more time."""
    preset: Literal["practical", "paper"] | None = None
    """Where the values come from that are not given; see `PRESETS`."""
    use_rslora: bool = False
    """The update is scaled by alpha / sqrt(rank) (arXiv 2312.03732)."""
    target_parameters: tuple[str, ...] = ()
    """3-D parameters of a mixture of experts, as mlp.experts.gate_up_proj (suffixes match). No
    generator serves such an adapter."""
    packing: Literal["none", "padding_free", "bfd"] = "none"
    """`padding_free`: the examples of a micro-batch in one row; `bfd`: rows filled up to
    `max_length`, each of which counts as one example of the batch sizes."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the computation; auto: bfloat16 on a GPU, float32 on a CPU."""
    optimizer: Literal["auto", "adamw_torch", "paged_adamw_32bit", "paged_adamw_8bit"] = "auto"
    """auto: paged_adamw_32bit on a GPU, adamw_torch on a CPU."""
    validation_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the examples that only validate."""
    validation_steps: int = Field(default=0, ge=0)
    """Optimiser steps between two validations; 0: ten validations in all."""
    early_stopping_patience: int = Field(default=0, ge=0)
    """Validations without a lower loss after which the training ends, with the adapter of the
    lowest; 0: it goes on to its end and keeps the last."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What happens to an example above `max_length`; it is never cut."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        return with_preset(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _has_an_end(self) -> Hyperparameters:
        if not self.epochs and not self.max_steps:
            raise ValueError("epochs and max_steps are both 0: nothing would be trained")
        return self

    def content(self) -> dict[str, Any]:
        """What decides a training, as JSON, for keys of finished work. A field that came later is
        left out at its default, and the preset always: its values are there. So the keys of older
        work stay the same."""
        values = self.model_dump(mode="json")
        plain = Hyperparameters().model_dump(mode="json")
        return {
            name: value
            for name, value in values.items()
            if name in _FIRST or (name != "preset" and value != plain[name])
        }


PRESETS: dict[str, dict[str, Any]] = {
    "practical": {
        "method": "qlora_nf4",
        "rank": 16,
        "alpha": 32.0,
        "dropout": 0.05,
        "learning_rate": 2e-4,
        "schedule": "cosine",
        "warmup_ratio": 0.03,
        "max_grad_norm": 0.3,
        "epochs": 2.0,
        "effective_batch_size": 16,
    },
    # Dettmers et al. 2023, arXiv 2305.14314, section 4 and appendix B, models up to 13B.
    "paper": {
        "method": "qlora_nf4",
        "rank": 64,
        "alpha": 16.0,
        "dropout": 0.1,
        "learning_rate": 2e-4,
        "schedule": "constant",
        "warmup_ratio": 0.03,
        "max_grad_norm": 0.3,
        "epochs": 1.0,
        "effective_batch_size": 16,
    },
}
"""Values by preset. They hold where a field is not given."""

_FIRST = frozenset(
    {
        "method",
        "rank",
        "alpha",
        "dropout",
        "target_modules",
        "skip_modules",
        "learning_rate",
        "schedule",
        "warmup_ratio",
        "max_grad_norm",
        "epochs",
        "max_steps",
        "effective_batch_size",
        "micro_batch_size",
        "max_length",
        "gradient_checkpointing",
    }
)
"""The fields of the first version."""


def with_preset(given: dict[str, Any]) -> dict[str, Any]:
    """Hyper-parameters by name, with those of their preset where they are not given. `max_steps`
    takes the place of the preset's epochs."""
    values = PRESETS.get(str(given.get("preset")), {})
    if given.get("max_steps"):
        values = {name: value for name, value in values.items() if name != "epochs"}
    return {**values, **given}


def out_of_bounds(hyperparameters: Hyperparameters) -> Iterator[tuple[str, str]]:
    """Pairs of a field and a sentence for each number that breaks its bounds, of values that were
    made without validation (`model_construct`), as those of a message."""
    for name, field in Hyperparameters.model_fields.items():
        value = getattr(hyperparameters, name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        bounds: dict[str, float] = {}
        for each in field.metadata:
            bounds |= asdict(each)
        # A bound's name (ge, gt, le, lt) is that of its operator.
        if not math.isfinite(value) or not all(
            getattr(operator, bound)(value, limit) for bound, limit in bounds.items()
        ):
            yield name, f"{name} is {value:g}, not {_range(**bounds)}"


def _range(
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> str:
    if gt is not None:
        return f"a finite number above {gt:g}"
    if le is not None:
        return f"{ge:g} to {le:g}"
    if lt is not None:
        return f"{ge:g} to below {lt:g}"
    return f"a finite number of {ge:g} or more"
