"""Settings of the generator."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from tuneproof.servicekit.settings import Address, ServiceSettings, settings_config

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


class GeneratorSettings(ServiceSettings):
    """Generates with vLLM and hot-loads LoRA adapters."""

    model_config = settings_config("generator")

    model: str = Field(
        description="Base model: a folder in Hugging Face format, or a model id of the hub.",
        min_length=1,
    )
    revision: str = Field(
        "",
        description="Branch, tag or commit of a model id at the hub; empty is its main branch. Only"
        " a commit never changes.",
    )
    model_name: str = Field(
        "",
        description="Name under which the base model is served and its pool is kept; empty is the"
        " last part of model.",
    )
    artifacts: str = Field(
        description="URL of the artifact store with the adapter registry: a folder, or"
        " s3://bucket/prefix. Every replica of a pool names the same.",
        min_length=1,
    )
    cache_dir: Path = Field(
        Path("~/.cache/tuneproof/generator"),
        description="Folder for adapters in use; this process alone may use it.",
    )
    replica: str = Field(
        default_factory=socket.gethostname,
        description="Name of this replica in its pool; no two may share it. The host's name by"
        " default.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$",
    )
    lease_seconds: float = Field(
        15.0,
        ge=0.5,
        le=3600,
        description="How long this replica counts as alive after its last heartbeat. For as long"
        " after a replica died, no alias can move to an adapter that was not READY there.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Precision of the weights; auto is float32 on a CPU, else the model's own.",
    )
    max_model_len: int | None = Field(
        None, ge=16, description="Tokens of prompt and answer together; the model's own if unset."
    )
    max_lora_rank: int = Field(
        16,
        ge=1,
        le=512,
        description="Largest rank of an adapter; a larger one costs speed for all.",
    )
    max_loras: int = Field(
        4,
        ge=1,
        description="Slots: different adapters in one batch. More adapters in use take turns.",
    )
    slot_seconds: float = Field(
        1.0,
        ge=0,
        description="How long a busy adapter keeps its slot while others wait for one; shorter is"
        " fairer, longer gives more tokens per second.",
    )
    max_cpu_loras: int = Field(
        16,
        ge=1,
        description="Capacity: adapters in host memory. A declaration beyond it is refused, or"
        " evicts an idle adapter.",
    )
    max_num_seqs: int = Field(
        64, ge=1, description="Requests in one batch; more of them wait in the engine's queue."
    )
    stream_interval: int = Field(
        1, ge=1, description="Tokens between two deltas of a stream; more cost less CPU time."
    )
    block_size: int | None = Field(
        None,
        ge=16,
        description="Tokens of a prefix cache block; a shorter prompt is never reused. 32 on a CPU,"
        " vLLM's choice elsewhere, if unset.",
    )
    cpu_cache_mib: int = Field(1024, ge=16, description="KV cache on a CPU, in MiB.")
    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="Share of a GPU's memory that the engine takes."
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs over which the model is split.")
    threads: int = Field(
        0, ge=0, description="Threads of the engine on a CPU; 0 leaves it to OpenMP."
    )
    openai_bind: Address = Field(
        "127.0.0.1:0",
        description="host:port of the OpenAI API; port 0 takes a free one. It takes the same tokens"
        " and certificates as gRPC.",
    )
    max_n: int = Field(
        64,
        ge=1,
        le=16384,
        description="Largest n of a request to the OpenAI API: answers to one prompt. Each"
        " of them takes one of max_num_seqs.",
    )
    keep_alive_seconds: int = Field(
        75,
        ge=1,
        description="How long an idle connection to the OpenAI API stays open. Set it above the"
        " idle time of a load balancer in front: else requests fail on connections just closed.",
    )
    fetch_seconds: float = Field(
        600.0,
        gt=0,
        description="How long the registry may take to give one adapter; after that the adapter"
        " FAILED, and is tried again.",
    )
    reconcile_seconds: float = Field(
        5.0, gt=0, description="Time between two reads of the pool's folder for others' changes."
    )
    store_seconds: float = Field(
        10.0,
        gt=0,
        description="How long one read or write of an object in the pool's folder may take.",
    )

    @field_validator("model_name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if value and not _NAME.fullmatch(value):
            raise ValueError(
                "a model name has 1 to 128 characters of letters, digits, `.`, `_`, `/` and `-`,"
                " beginning with a letter or digit"
            )
        return value

    @model_validator(mode="after")
    def _openai_only_with_authentication(self) -> GeneratorSettings:
        self.require_authentication("openai_bind", self.openai_bind)
        return self

    @model_validator(mode="after")
    def _slots_fit(self) -> GeneratorSettings:
        if self.max_cpu_loras < self.max_loras:
            raise ValueError(
                f"max_cpu_loras {self.max_cpu_loras} is below max_loras {self.max_loras}: every"
                " adapter of a batch is in host memory too"
            )
        return self

    @property
    def served_name(self) -> str:
        """The name under which the base model is served."""
        return self.model_name or Path(self.model.rstrip("/")).name
