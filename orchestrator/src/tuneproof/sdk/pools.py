"""A generator's pool, its adapters and aliases, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """What one replica of a generator serves."""

    base_model: str
    config_digest: str
    tokenizer_digest: str
    chat_template_digest: str
    dtype: str
    """Precision of the weights as served, as `float32`."""
    max_model_len: int
    """Longest prompt and answer together, in tokens."""
    max_lora_rank: int
    max_loras: int
    """Adapters that one batch can hold."""
    max_cpu_loras: int
    """Adapters that the pool can hold."""
    engine_version: str
    replica: str
    process_id: int
    start_time: datetime | None
    openai_url: str
    live_replicas: tuple[str, ...] = ()
    """Names of the replicas whose lease has not expired."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of an adapter's state."""

    state: str
    reason: str
    time: datetime | None


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """An adapter on one replica."""

    state: str
    reason: str
    lease_expire_time: datetime | None
    """The status counts until then."""


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """An adapter in a generator's pool."""

    ref: str
    """`name@sha256:<hex>`."""
    state: str
    """On the replica that answered: `pending`, `fetching`, `verifying`, `loading`, `ready`,
    `draining`, `failed`; `removed` in a watch, where it is gone and only its ref is known."""
    reason: str = ""
    required: bool = False
    """Readiness of the service waits for it."""
    rank: int = 0
    size_bytes: int = 0
    aliases: tuple[str, ...] = ()
    transitions: tuple[Transition, ...] = ()
    """Oldest first."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """`fetch`, `verify`, `load`, `warm`."""
    replicas: Mapping[str, ReplicaInfo] = field(default_factory=dict)
    """By name, the live ones."""
    last_used_time: datetime | None = None
    """End of the last request on the replica that answered; None: there was none."""
    running_requests: int = 0
    residency: str = ""
    """Where the weights are: `none`, `host`, `slot`; empty where it cannot be known."""
    trained_precision: str = ""
    """Of the base in training, in words; `PoolInfo.dtype` is that of serving."""
    fingerprint: str = ""
    """What comparing its effect with that in training found, in words."""

    @property
    def ready(self) -> bool:
        """Whether every live replica serves it."""
        return self.state == "ready" and all(
            replica.state == "ready" for replica in self.replicas.values()
        )


@dataclass(frozen=True, slots=True)
class AliasInfo:
    """A name that points to an adapter."""

    name: str
    ref: str
    version: int
    """Counts the alias's changes from 1."""
    reason: str
    set_time: datetime | None
    set_by: str = ""
    """The name of the token that set it, or the caller's address where no token is asked."""
    canary_ref: str = ""
    """Serves `canary_percent` of the requests; empty: `ref` serves all."""
    canary_percent: int = 0

    @property
    def target(self) -> tuple[str, str, int]:
        """What it points to: ref, canary, and the canary's percent."""
        return self.ref, self.canary_ref, self.canary_percent
