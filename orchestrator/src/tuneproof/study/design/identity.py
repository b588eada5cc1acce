"""What stands behind the services, as content: model, judge, rubrics.

Keys of finished work hold these, so that work is found again without asking a service, and is
done again when a model's files or a rubric change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tuneproof.servicekit.digests import sha256_of_file, sha256_of_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.spec import StudySpec

_MODEL_SUFFIXES = frozenset(
    {".json", ".jinja", ".safetensors", ".bin", ".model", ".txt", ".tiktoken", ".py"}
)


@dataclass(frozen=True, slots=True)
class RubricIdentity:
    """A rubric as the study uses it."""

    id: str
    criterion: str
    digest: str
    """`sha256:<hex>` of its content, in the file's or in the judge's own way; empty for one that
    comes with the judge, whose id carries its version."""


@dataclass(frozen=True, slots=True)
class Identities:
    """Everything behind the services that can change an answer or a score."""

    model_name: str
    """Under which the base model is served."""
    model: str
    """Content of the base model: `sha256:<hex>` over its files, or what is known of it."""
    judge: str
    """The judge's model; empty where none is asked."""
    judge_name: str
    rubrics: tuple[RubricIdentity, ...]
    self_judged: bool
    """The judge is the base model under test."""
    toy: bool

    @property
    def criteria(self) -> tuple[str, ...]:
        """In the rubrics' order."""
        return tuple(rubric.criterion for rubric in self.rubrics)

    def to_json(self) -> dict[str, Any]:
        """The form that the state keeps."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Identities:
        """The way back from `to_json`."""
        rubrics = tuple(RubricIdentity(**rubric) for rubric in value["rubrics"])
        return Identities(**{**value, "rubrics": rubrics})

    def with_rubrics(self, rubrics: Iterable[RubricIdentity]) -> Identities:
        """The same with these rubrics."""
        return replace(self, rubrics=tuple(rubrics))


@dataclass(frozen=True, slots=True)
class Sources:
    """Where model, judge and rubrics come from: the study file with the flags over it."""

    model: str
    """A folder, or a Hugging Face id; empty when only the services know."""
    rubrics: Path | None
    """Folder of rubric files."""
    judge_url: str
    judge_model: str
    toy: bool


def resolve_sources(
    spec: StudySpec,
    folder: Path,
    *,
    model: str = "",
    rubrics: Path | None = None,
    judge_url: str = "",
    judge_model: str = "",
) -> Sources:
    """Puts the flags over the file's own words.

    Args:
        folder: of the study file; its paths are relative to it.

    Raises:
        InvalidInput: the judge's endpoint and model are not given together.
    """
    if bool(judge_url) != bool(judge_model):
        raise InvalidInput("--judge-url and --judge-model belong together: give both or none")
    declared = spec.services.model
    if declared and (folder / declared).is_dir():
        declared = str((folder / declared).resolve())
    given = str(Path(model).resolve()) if model and Path(model).is_dir() else model
    declared_rubrics = folder / spec.services.rubrics if spec.services.rubrics else None
    return Sources(
        model=given or declared,
        rubrics=found.resolve() if (found := rubrics or declared_rubrics) else None,
        judge_url=judge_url,
        judge_model=judge_model,
        toy=spec.services.toy and (not given or given == declared),
    )


def identify(spec: StudySpec, sources: Sources) -> Identities:
    """Says from files alone what is behind services that are started from these sources.

    Raises:
        InvalidInput: there is no model, its folder holds none, or a rubric file is broken.
    """
    if not sources.model:
        raise InvalidInput(
            "no base model is named: say --model FOLDER_OR_ID, or `services: {model: …}` in the"
            " study file"
        )
    model = identify_model(sources.model)
    judged = spec.judge is not None
    own = judged and not sources.judge_url
    external = f"{sources.judge_model} at {sources.judge_url}"
    return Identities(
        model_name=Path(sources.model).name,
        model=model,
        judge=(model if own else external) if judged else "",
        judge_name=(sources.judge_model or Path(sources.model).name) if judged else "",
        rubrics=identify_rubrics(spec, sources.rubrics),
        self_judged=own,
        toy=sources.toy,
    )


def identify_model(model: str) -> str:
    """The content of a base model: the digest over a folder's files, or the Hugging Face id.

    Raises:
        InvalidInput: a path that is no model folder.
    """
    folder = model_folder(model)
    if folder is None:
        return f"hub:{model}"
    files = {path.name: sha256_of_file(path) for path in model_files(folder)}
    return sha256_of_json(files)


def model_folder(model: str) -> Path | None:
    """The folder of a base model; None for a Hugging Face id, about which only the hub knows.

    Raises:
        InvalidInput: a path that is no model folder.
    """
    folder = Path(model)
    if not folder.is_dir():
        if model.startswith((".", "/", "~")):
            raise InvalidInput(f"the model folder {model} does not exist; see --model")
        return None
    if not (folder / "config.json").is_file():
        raise InvalidInput(
            f"{model} holds no config.json, so it is no model folder; give one in Hugging Face"
            " format"
        )
    return folder


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that a server reads; its README, for one, is none."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and path.suffix in _MODEL_SUFFIXES
    )


def identify_rubrics(spec: StudySpec, folder: Path | None) -> tuple[RubricIdentity, ...]:
    """The study's rubrics: by content where their file is known, else by id alone.

    Raises:
        InvalidInput: the folder is missing, or a file in it is no rubric.
    """
    if spec.judge is None:
        return ()
    known = read_rubrics(folder) if folder is not None else {}
    found = []
    for rubric_id in spec.judge.rubrics:
        content = known.get(rubric_id)
        criterion = str(content["criterion"]) if content else rubric_id.partition("@")[0]
        digest = sha256_of_json(content) if content else ""
        found.append(RubricIdentity(rubric_id, criterion, digest))
    criteria = [rubric.criterion for rubric in found]
    if len(set(criteria)) < len(criteria):
        raise InvalidInput(
            f"the rubrics {', '.join(spec.judge.rubrics)} score {', '.join(criteria)}:"
            " name one rubric for each criterion",
            field="judge.rubrics",
        )
    return tuple(found)


def read_rubrics(folder: Path) -> dict[str, dict[str, Any]]:
    """The rubric files of a folder, by id, as they stand there.

    Raises:
        InvalidInput: the folder is missing, or a file in it is no rubric.
    """
    if not folder.is_dir():
        raise InvalidInput(f"the rubrics folder {folder} does not exist; see --rubrics")
    found: dict[str, dict[str, Any]] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path}: is no YAML: {error}") from None
        if not isinstance(content, dict) or not {"id", "criterion"} <= set(content):
            raise InvalidInput(f"{path}: is no rubric: it needs `id` and `criterion`")
        scale = content.get("scale")
        if isinstance(scale, dict):
            content["scale"] = {str(score): anchor for score, anchor in scale.items()}
        found[str(content["id"])] = content
    return found
