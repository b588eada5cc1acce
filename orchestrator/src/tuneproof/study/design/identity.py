"""What stands behind the services, as content: model, judge, rubrics.

Keys of finished work hold these, so that a study finds work again without asking a service, and
does it again when a model's files or a rubric change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuneproof.results import Measure
from tuneproof.rubrics import Rubric, RubricShelf
from tuneproof.sdk import Endpoints, GeneratorClient, JudgeClient
from tuneproof.servicekit.digests import sha256_of_file, sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, NotFound, WrongState
from tuneproof.study.design.spec import StudySpec

_MODEL_SUFFIXES = frozenset(
    {".json", ".jinja", ".safetensors", ".bin", ".model", ".txt", ".tiktoken", ".py"}
)


@dataclass(frozen=True, slots=True)
class Identities:
    """Everything behind the services that can change an answer or a score."""

    model_name: str
    """Under which the base model is served."""
    model: str
    """Content of the base model: `sha256:<hex>` over its files, or what is known of it."""
    judge: str
    """The judge's model; empty without a judge."""
    judge_name: str
    rubrics: tuple[Rubric, ...]
    self_judged: bool
    """The judge is the base model under test."""
    toy: bool

    @property
    def criteria(self) -> tuple[str, ...]:
        """In the rubrics' order."""
        return tuple(rubric.criterion for rubric in self.rubrics)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What the rubrics measure, in their order."""
        return tuple(
            Measure(rubric.criterion, rubric.low, rubric.high, rubric.unit, rubric.decimals)
            for rubric in self.rubrics
        )

    def to_json(self) -> dict[str, Any]:
        """The form that the state keeps."""
        rubrics = [rubric.model_dump(mode="json", by_alias=True) for rubric in self.rubrics]
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "rubrics": rubrics}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Identities:
        """The way back from `to_json`.

        Raises:
            WrongState: an older version wrote it.
        """
        try:
            rubrics = tuple(Rubric.model_validate(rubric) for rubric in value["rubrics"])
        except ValidationError:
            raise WrongState(
                "an older version ran this study: run `tuneproof study run` once; answers and"
                " adapters are kept"
            ) from None
        return Identities(**{**value, "rubrics": rubrics})


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


def identify(
    spec: StudySpec, sources: Sources, rubrics: tuple[Rubric, ...] | None = None
) -> Identities:
    """What stands behind services that are started from these sources, read from files.

    Args:
        rubrics: the study's, where they are known; by default those of the files.

    Raises:
        InvalidInput: there is no model, its folder holds none, or a rubric is broken or missing.
    """
    if not sources.model:
        raise InvalidInput(
            "no base model is named: say --model FOLDER_OR_ID, or `services: {model: …}` in the"
            " study file"
        )
    model = _content_of(sources.model)
    judged = spec.judge is not None
    own = judged and not sources.judge_url
    external = f"{sources.judge_model} at {sources.judge_url}"
    return Identities(
        model_name=Path(sources.model).name,
        model=model,
        judge=(model if own else external) if judged else "",
        judge_name=(sources.judge_model or Path(sources.model).name) if judged else "",
        rubrics=_rubrics_of_files(spec, sources.rubrics) if rubrics is None else rubrics,
        self_judged=own,
        toy=sources.toy,
    )


async def identify_services(spec: StudySpec, endpoints: Endpoints, sources: Sources) -> Identities:
    """Asks generator and judge what they are.

    A generator knows its model's name and the digests of config, tokenizer and chat template, not
    of the weights: new weights need a new name, or other files.

    Raises:
        Unavailable: one cannot be reached.
        NotFound: the judge lacks a rubric of the study.
    """
    async with GeneratorClient(endpoints.target("generator"), token=endpoints.token) as generator:
        pool = await generator.pool()
    content = [pool.base_model, pool.config_digest, pool.tokenizer_digest]
    model = sha256_of_json([*content, pool.chat_template_digest, pool.dtype])
    judged = spec.judge is not None
    target = endpoints.target("judge")
    return Identities(
        model_name=pool.base_model,
        model=model,
        judge=f"{sources.judge_model} behind {target}" if judged else "",
        judge_name=sources.judge_model if judged else "",
        rubrics=await rubrics_of_judge(spec, endpoints),
        self_judged=False,
        toy=spec.services.toy and Path(spec.services.model).name == pool.base_model,
    )


async def rubrics_of_judge(spec: StudySpec, endpoints: Endpoints) -> tuple[Rubric, ...]:
    """The study's rubrics as the judge has them.

    Raises:
        Unavailable: the judge cannot be reached.
        NotFound: it lacks one of them.
        InvalidInput: two of them score the same criterion.
    """
    if spec.judge is None:
        return ()
    async with JudgeClient(endpoints.target("judge"), token=endpoints.token) as judge:
        known = {rubric.id: rubric for rubric in await judge.rubrics()}
    lacking = [name for name in spec.judge.rubrics if name not in known]
    if lacking:
        raise NotFound(
            f"the judge lacks the rubric {', '.join(lacking)}; it has {', '.join(sorted(known))}"
        )
    return _one_a_criterion([known[name] for name in spec.judge.rubrics])


def _content_of(model: str) -> str:
    """The content of a base model: the digest over a folder's files, or the Hugging Face id.

    Raises:
        InvalidInput: the path is not a model folder.
    """
    folder = model_folder(model)
    if folder is None:
        return f"hub:{model}"
    files = {path.name: sha256_of_file(path) for path in model_files(folder)}
    return sha256_of_json(files)


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


def _rubrics_of_files(spec: StudySpec, folder: Path | None) -> tuple[Rubric, ...]:
    """The study's rubrics: those that come with tuneproof, and those of the folder.

    Raises:
        InvalidInput: the folder is missing, a file in it is not a rubric, a rubric is neither built
            in nor in the folder, or two score the same criterion.
    """
    if spec.judge is None:
        return ()
    shelf = RubricShelf.load(folder)
    try:
        return _one_a_criterion([shelf.get(name) for name in spec.judge.rubrics])
    except NotFound as error:
        where = f"built in and in {folder}" if folder is not None else "built in"
        raise InvalidInput(
            f"{error.message} ({where}); see --rubrics", field="judge.rubrics"
        ) from None


def _one_a_criterion(rubrics: Sequence[Rubric]) -> tuple[Rubric, ...]:
    """The same rubrics.

    Raises:
        InvalidInput: two of them score the same criterion.
    """
    criteria = [rubric.criterion for rubric in rubrics]
    if len(set(criteria)) < len(criteria):
        raise InvalidInput(
            f"the rubrics {', '.join(rubric.id for rubric in rubrics)} score"
            f" {', '.join(criteria)}: name one rubric for each criterion",
            field="judge.rubrics",
        )
    return tuple(rubrics)
