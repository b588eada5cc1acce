"""The models of a study file: bases, which the study tunes and serves, and API models.

A *base* has a generator and a trainer: those of this machine, one base after the other, or those at
its addresses. An *API model* answers the baseline's prompts at an OpenAI-compatible endpoint, and
nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.data.sources import Name
from tuneproof.study.design.section import Section

ADDRESS_PATTERN = r"^[^\s]+:[0-9]{1,5}$"
URL_PATTERN = r"^https?://[^\s/]+"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
Address = Annotated[str, StringConstraints(pattern=ADDRESS_PATTERN)]
Variable = Annotated[str, StringConstraints(pattern=VARIABLE_PATTERN)]


class ServingSpec(Section):
    """Settings of the generator that `--up` starts for a base; the others are its defaults."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """Precision of the weights."""
    max_model_len: int | None = Field(default=None, ge=16)
    """Tokens of prompt and answer together."""
    max_lora_rank: int | None = Field(default=None, ge=1, le=512)
    max_loras: int | None = Field(default=None, ge=1)
    """Different adapters in one batch."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Requests in one batch."""
    tensor_parallel: int | None = Field(default=None, ge=1)
    """GPUs over which the model is split."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    cpu_cache_mib: int | None = Field(default=None, ge=16)

    @property
    def flags(self) -> list[str]:
        """As the generator takes them."""
        given = self.model_dump(exclude_none=True)
        return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


class BaseSpec(Section):
    """A base model."""

    name: Name
    """What the study calls it."""
    model: str = Field(min_length=1)
    """Folder, relative to the study file, or a Hugging Face id."""
    revision: str = ""
    """Branch, tag or commit of an id."""
    generator: Address | None = None
    """Of its generator; not read under `--up`."""
    trainer: Address | None = None
    """Of its trainer, which may serve several bases; not read under `--up`."""
    serving: ServingSpec = ServingSpec()
    hyperparameters: Hyperparameters = Hyperparameters()
    """Of its trainings, where `training` says otherwise."""

    def tuned_by(self, study: Hyperparameters) -> Hyperparameters:
        """Its hyper-parameters.

        Args:
            study: those that hold where this base has none of its own.
        """
        own = self.hyperparameters.model_dump(exclude_unset=True)
        return Hyperparameters.model_validate({**study.model_dump(), **own}) if own else study


class ApiSpec(Section):
    """A model at an OpenAI-compatible endpoint: a baseline to compare with."""

    name: Name
    """What the study calls it."""
    url: Annotated[str, StringConstraints(pattern=URL_PATTERN)]
    """Base URL; it usually ends in /v1."""
    model: str = Field(min_length=1)
    """Its name there."""
    key: Variable | None = None
    """Environment variable of the key."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer, hidden reasoning included; without it, that of `generation`."""
    input_price: float | None = Field(default=None, ge=0)
    """Of a million prompt tokens, in the currency of `costs`."""
    output_price: float | None = Field(default=None, ge=0)
    """Of a million completion tokens."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests in flight."""
    request_seconds: float = Field(default=120.0, gt=0)
    """For one request."""
    answer_seconds: float = Field(default=900.0, gt=0)
    """For one answer, repeated requests and pauses included."""


def _kind_of(value: Any) -> str:
    has_url = "url" in value if isinstance(value, dict) else isinstance(value, ApiSpec)
    return "api" if has_url else "base"


ModelSpec = Annotated[
    Annotated[BaseSpec, Tag("base")] | Annotated[ApiSpec, Tag("api")], Discriminator(_kind_of)
]
"""A model with a `url` is an API model."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


SomeModels = Annotated[tuple[Name, ...], BeforeValidator(_as_list)]
"""Names of models; a single one needs no brackets."""
