"""Settings of the local services."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuneproof.servicekit.errors import InvalidInput

Store = Literal["lancedb", "weaviate"]

SERVICES = ("retriever", "trainer", "generator", "judge")
"""In the order of their start."""

PREFERRED_PORTS = {
    "retriever": 47801,
    "generator": 47802,
    "trainer": 47803,
    "judge": 47804,
    "openai": 47880,
}
"""A state folder gets these ports if they are free at its first start."""


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How to start the services."""

    state: Path
    """Folder of everything that the services keep: corpora, artifacts, caches, logs."""
    model: str
    """The base model: a folder in Hugging Face format, or a Hugging Face id."""
    judge_url: str = ""
    """Base URL of an OpenAI-compatible endpoint for the judge; empty: the generator's own."""
    judge_model: str = ""
    """The judge's model at that endpoint; empty: the base model."""
    rubrics: Path | None = None
    """Folder with extra rubric files."""
    store: Store = "lancedb"
    """Where corpora live: a folder of the state, or a Weaviate server that runs already."""
    weaviate_url: str = ""
    """HTTP address of that server."""
    weaviate_grpc: str = ""
    """Its gRPC address, host:port; empty: port 50051 of the same host."""

    def __post_init__(self) -> None:
        if (self.store == "weaviate") != bool(self.weaviate_url):
            raise InvalidInput(
                "--store weaviate and --weaviate-url belong together: give both or none"
            )

    @property
    def model_name(self) -> str:
        """The name under which the base model is served: the last part of folder or id."""
        return Path(self.model).name

    @property
    def artifacts(self) -> Path:
        """The artifact store that trainer, generator and orchestrator share."""
        return self.state / "artifacts"

    @property
    def self_judged(self) -> bool:
        """Whether the judge is the base model under test."""
        return not self.judge_url


def flags_of(options: LocalOptions, ports: Mapping[str, int]) -> dict[str, list[str]]:
    """Each service's own flags.

    Args:
        ports: by `<service>` and, for the OpenAI door, `openai`.
    """
    state = options.state
    openai = f"127.0.0.1:{ports['openai']}"
    model = ["--model", options.model, "--model-name", options.model_name]
    artifacts = ["--artifacts", str(options.artifacts)]
    judge = ["--endpoint-url", options.judge_url or f"http://{openai}/v1"]
    judge += ["--endpoint-model", options.judge_model or options.model_name]
    if options.rubrics:
        judge += ["--rubrics", str(options.rubrics)]
    retriever = ["--store-dir", str(state / "corpora")]
    if options.store == "weaviate":
        retriever = ["--store", options.store, "--weaviate-url", options.weaviate_url]
        retriever += ["--weaviate-grpc", options.weaviate_grpc] if options.weaviate_grpc else []
    return {
        "retriever": retriever,
        "trainer": [*model, *artifacts],
        "generator": [
            *model,
            *artifacts,
            *["--cache-dir", str(state / "generator")],
            *["--openai-bind", openai],
            *["--threads", str(max(1, (os.cpu_count() or 1) // 2))],
        ],
        "judge": judge,
    }
