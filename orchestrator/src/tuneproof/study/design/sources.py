"""Where models, judge and rubrics come from: the study file with the flags over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuneproof.adapters.base import identify_base
from tuneproof.sdk import PoolInfo
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.spec import StudySpec
from tuneproof.study.design.specfile import STUDY_FILE

_MODEL_SUFFIXES = frozenset(
    {".json", ".jinja", ".safetensors", ".bin", ".model", ".txt", ".tiktoken", ".py"}
)


@dataclass(frozen=True, slots=True)
class BaseSource:
    """Where a base model comes from, and where it is served."""

    name: str
    """What the study calls it; empty where the file lists none."""
    model: str
    """A folder, or a Hugging Face id; empty when only the services know."""
    revision: str = ""
    """Of an id."""
    generator: str = ""
    trainer: str = ""
    """Addresses; empty: those of the flags, the environment or this machine."""
    serving: tuple[str, ...] = ()
    """Flags of the generator that this machine starts for it."""
    place: str = ""
    """In the study file, for messages: `study.yaml:12: models[1].model`."""

    @property
    def served_name(self) -> str:
        """The name under which this machine serves it."""
        return self.name or Path(self.model).name

    def is_served_as(self, name: str) -> bool:
        """Whether a generator elsewhere may serve it under this name."""
        return name in {self.name, self.model, Path(self.model).name}


@dataclass(frozen=True, slots=True)
class Sources:
    """Where models, judge and rubrics come from: the study file with the flags over it."""

    bases: tuple[BaseSource, ...]
    """One at least; the only one where the file lists none."""
    rubrics: Path | None
    """Folder of rubric files."""
    judge_url: str
    judge_model: str
    toy: bool
    judge_base: str = ""
    """What the study calls the base that judges where no other judge is named."""

    @property
    def model(self) -> str:
        """The first base: a folder, or a Hugging Face id; empty when only the services know."""
        return self.bases[0].model

    def of(self, model: str) -> BaseSource:
        """A base by what the study calls it; the first for an empty name."""
        return next((base for base in self.bases if base.name == model), self.bases[0])

    @property
    def judging(self) -> BaseSource:
        """The base that judges where no other judge is named."""
        return self.of(self.judge_base)


def resolve_sources(
    spec: StudySpec,
    file: Path,
    *,
    model: str = "",
    rubrics: Path | None = None,
    judge_url: str = "",
    judge_model: str = "",
) -> Sources:
    """Puts the flags over the file's own words.

    Args:
        file: the study file; its paths are relative to its folder.

    Raises:
        InvalidInput: the judge's endpoint and model are not given together, or a model is given to
            a study that lists its own.
    """
    if bool(judge_url) != bool(judge_model):
        raise InvalidInput("--judge-url and --judge-model belong together: give both or none")
    if model and spec.models:
        raise InvalidInput(f"{file} lists its models under `models`: leave out --model")
    folder = file.parent
    declared = _here(spec.services.model, folder)
    given = str(Path(model).resolve()) if model and Path(model).is_dir() else model
    declared_rubrics = folder / spec.services.rubrics if spec.services.rubrics else None
    listed = tuple(
        BaseSource(
            base.name,
            _here(base.model, folder),
            base.revision,
            base.generator or "",
            base.trainer or "",
            tuple(base.serving.flags),
            STUDY_FILE.place(file, ("models", spec.models.index(base), "model")),
        )
        for base in spec.bases
    )
    return Sources(
        bases=listed or (BaseSource("", given or declared),),
        rubrics=found.resolve() if (found := rubrics or declared_rubrics) else None,
        judge_url=judge_url,
        judge_model=judge_model,
        toy=spec.services.toy and (not given or given == declared),
        judge_base=(spec.services.judge or listed[0].name) if listed else "",
    )


def _here(model: str, folder: Path) -> str:
    """A model with the path of its folder, where it is one."""
    return str((folder / model).resolve()) if model and (folder / model).is_dir() else model


def model_folder(model: str) -> Path | None:
    """The folder of a base model; None for a Hugging Face id, about which only the hub knows.

    Raises:
        InvalidInput: the path is not a model folder.
    """
    folder = Path(model)
    if not folder.is_dir():
        if model.startswith((".", "/", "~")):
            raise InvalidInput(f"the model folder {model} does not exist; see --model")
        return None
    if not (folder / "config.json").is_file():
        raise InvalidInput(
            f"{model} lacks config.json, so it is not a model folder; give one in Hugging Face"
            " format"
        )
    return folder


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that a server reads, which leaves out its README, say."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and path.suffix in _MODEL_SUFFIXES
    )


def wrong_base(pool: PoolInfo, base: BaseSource) -> str:
    """Why a pool does not serve a base of the study file; empty where it does, as far as is known.

    A folder of this machine is compared by its digests.
    """
    if not base.is_served_as(pool.base_model):
        return (
            f"{base.place}: the generator at {base.generator or 'this machine'} serves"
            f" {pool.base_model!r}, not {base.model!r}: correct the address, or start a generator"
            " with that model there"
        )
    folder = Path(base.model)
    if not folder.is_dir() or not pool.config_digest:
        return ""
    mine = identify_base(folder)
    differing = [
        what
        for what, digest, served in (
            ("config", mine.config_digest, pool.config_digest),
            ("tokenizer", mine.tokenizer_digest, pool.tokenizer_digest),
            ("chat template", mine.chat_template_digest, pool.chat_template_digest),
        )
        if digest != served
    ]
    if not differing:
        return ""
    return (
        f"{base.place}: the generator serves {pool.base_model!r} with another"
        f" {' and '.join(differing)} than {folder} has: start it with this folder"
    )
