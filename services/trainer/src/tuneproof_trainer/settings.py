"""Settings of the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tuneproof.servicekit.settings import ServiceSettings, settings_config


class TrainerSettings(ServiceSettings):
    """Tunes LoRA adapters, each in a process of its own."""

    model_config = settings_config("trainer")

    model: str = Field(
        ...,
        description="The base model: a folder in Hugging Face format, or a model id of the hub.",
    )
    revision: str = Field(
        "",
        description="Branch, tag or commit of a model id at the hub; empty is its main branch. Only"
        " a commit never changes. Provenance names the commit.",
    )
    model_name: str = Field(
        "",
        description="Name under which specs ask for the base; if empty, the folder's or the id.",
    )
    more_models: str = Field(
        "",
        description="Further bases that specs may ask for, as `name=model`, separated by commas;"
        " `name=id@revision` takes a revision at the hub. With several bases every spec names one.",
    )
    artifacts: str = Field(
        ...,
        description="The artifact store, a folder or s3://bucket/prefix: training data is read "
        "from it, and adapters go to its registry.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where workers train; auto takes a GPU if there is one."
    )
    devices: int = Field(
        1,
        ge=1,
        le=64,
        description="GPUs that share each training, or processes on a CPU, of this machine or of"
        " each pod; they divide the effective batch.",
    )
    device_memory_gib: float = Field(
        0.0,
        ge=0,
        description="Memory of a GPU in GiB, by which the micro-batch is chosen; 0 asks nvidia-smi"
        " on this machine.",
    )
    workers: int = Field(
        1, ge=1, le=64, description="Runs that train at the same time; the others wait in a queue."
    )
    threads: int = Field(
        1,
        ge=1,
        le=512,
        description="CPU threads of each worker. The same number gives the same adapter.",
    )
    max_attempts: int = Field(
        3,
        ge=1,
        description="A run fails once so many of its workers in a row ended early without a later"
        " checkpoint than before.",
    )
    stop_seconds: float = Field(
        30.0,
        ge=0,
        description="Seconds between SIGTERM and SIGKILL for a worker: time to save a checkpoint.",
    )
    scratch: Path | None = Field(
        None,
        description="Local folder for the files of running workers, as large as a few checkpoints;"
        " the system's temporary folder if empty.",
    )
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="Minutes between two checkpoints of a run; 0: by steps alone."
    )
    checkpoint_steps: int = Field(
        0, ge=0, description="Optimiser steps between two checkpoints; 0: by time alone."
    )
    keep_checkpoints: int = Field(
        2, ge=1, description="How many of its newest checkpoints a run that has not ended keeps."
    )
    replica: str = Field(
        "", description="Name of this trainer in the runs that it starts; the host's if empty."
    )
    lease_seconds: float = Field(
        30.0,
        gt=0,
        description="A worker that gives no sign of life for so long is lost: it is stopped, and"
        " any trainer on the store starts the run again. A worker renews its sign ten times as"
        " often.",
    )
    sync_seconds: float = Field(
        2.0, gt=0, description="Seconds between two looks at the runs in the artifact store."
    )
    watch_seconds: float = Field(
        0.25, gt=0, description="Seconds between two looks at a watched run."
    )

    executor: Literal["local", "kubernetes"] = Field(
        "local",
        description="Where workers run: as processes of this machine, or as Jobs of a Kubernetes"
        " cluster. Jobs go on while the trainer restarts. Needs the extra `kubernetes`.",
    )
    profile: str = Field(
        "cpu",
        description="What the pod of a worker asks of its node: h100, a100, cpu, or a name of the"
        " file of profiles. It decides the device, in place of --device.",
    )
    profiles_file: Path | None = Field(
        None,
        description="YAML file with profiles of your own, and with the volumes and variables of"
        " every worker's pod. A worker looks for base and artifacts where the trainer has them.",
    )
    nodes: int = Field(
        1,
        ge=1,
        le=64,
        description="Pods that share each training, each with --devices; their processes speak by"
        " TCP.",
    )
    worker_image: str = Field(
        "", description="Image of workers; that of the trainer's own pod if empty."
    )
    namespace: str = Field(
        "", description="Namespace of the Jobs; that of the trainer's own pod if empty."
    )
    queue: str = Field(
        "",
        description="LocalQueue of Kueue. Jobs are made suspended with its label, and Kueue starts"
        " them; without it they start at once.",
    )
    job_ttl_seconds: int = Field(
        3600, ge=0, description="Seconds that an ended Job stays in the cluster, for its pod's log."
    )

    tensorboard: Path | None = Field(
        None,
        description="Folder that gets each run's losses as TensorBoard's events, in a subfolder of"
        " the run's id; none if empty. Needs the package tensorboard.",
    )
    mlflow: str = Field(
        "",
        description="Tracking URI of MLflow, which gets each run's losses and settings; none if"
        " empty. Needs the package mlflow-skinny.",
    )

    @model_validator(mode="after")
    def _can_make_jobs(self) -> TrainerSettings:
        if self.nodes > 1 and self.executor != "kubernetes":
            raise ValueError("nodes above 1 need the executor kubernetes")
        if self.executor == "kubernetes" and not find_spec("kubernetes"):
            raise ValueError(
                "kubernetes is not installed: pip install 'tuneproof-trainer[kubernetes]'"
            )
        return self

    @model_validator(mode="after")
    def _can_report(self) -> TrainerSettings:
        asked = {"tensorboard": self.tensorboard, "mlflow": self.mlflow}
        if missing := [name for name, value in asked.items() if value and not find_spec(name)]:
            names = " and ".join(missing)
            extras = ",".join(missing)
            raise ValueError(f"{names} is not installed: pip install 'tuneproof-trainer[{extras}]'")
        return self

    @field_validator("more_models")
    @classmethod
    def _are_named(cls, value: str) -> str:
        names = list(_named(value))
        if wrong := [f"{name}={model}" for name, model in names if not name or not model]:
            raise ValueError(f"{', '.join(wrong)} is not name=model")
        if len({name for name, _ in names}) < len(names):
            raise ValueError("two bases have one name")
        return value

    @property
    def bases(self) -> dict[str, tuple[str, str]]:
        """Model and revision of every base by the name under which specs ask for it; the first name
        may be empty, for that of the folder or id."""
        found = {self.model_name: (self.model, self.revision)}
        for name, model in _named(self.more_models):
            is_id = not Path(model).expanduser().is_dir()
            model_id, _, revision = model.partition("@") if is_id else (model, "", "")
            found[name] = model_id, revision
        return found


def _named(text: str) -> Iterator[tuple[str, str]]:
    """Name and model of each entry of `more_models`."""
    for entry in filter(None, map(str.strip, text.split(","))):
        name, _, model = entry.partition("=")
        yield name.strip(), model.strip()


def is_folder(url: str) -> bool:
    """Whether an artifact store is a folder of this machine."""
    return urlsplit(url).scheme in ("", "file")
