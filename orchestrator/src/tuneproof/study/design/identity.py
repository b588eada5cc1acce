"""What stands behind the services, as content: model, judge, rubrics.

Keys of finished work hold these, so that a study finds work again without asking a service, and
does it again when a model's files or a rubric change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuneproof.results import Measure
from tuneproof.rubrics import Rubric, RubricShelf
from tuneproof.sdk import Endpoints, GeneratorClient, JudgeClient
from tuneproof.servicekit.digests import sha256_of_file, sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, NotFound, WrongState
from tuneproof.servicekit.http import without_credentials
from tuneproof.study.design.sources import (
    BaseSource,
    Sources,
    model_files,
    model_folder,
    wrong_base,
)
from tuneproof.study.design.spec import StudySpec


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model of the study as content."""

    name: str
    """What the study calls it; empty where the file lists none."""
    served: str
    """The name under which it is served."""
    content: str
    """`sha256:<hex>` over a base's files, or what is known of it."""


@dataclass(frozen=True, slots=True)
class Identities:
    """Everything behind the services that can change an answer or a score."""

    model_name: str
    """Under which the base model is served; of several, the first."""
    model: str
    """Content of the base model: `sha256:<hex>` over its files, or what is known of it."""
    judge: str
    """The judge's model; empty without a judge."""
    judge_name: str
    rubrics: tuple[Rubric, ...]
    self_judged: bool
    """The judge is the base model under test, or one of them."""
    toy: bool
    models: tuple[ModelIdentity, ...] = ()
    """Those that the file lists, in its order."""
    judging: str = ""
    """What the study calls the base that judges; empty where another model does, and where the file
    lists none."""

    def of(self, model: str) -> ModelIdentity:
        """A model by what the study calls it."""
        listed = {each.name: each for each in self.models}
        return listed.get(model) or ModelIdentity("", self.model_name, self.model)

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
        return {**values, "rubrics": rubrics, "models": [asdict(each) for each in self.models]}

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
        models = tuple(ModelIdentity(**each) for each in value.get("models", ()))
        return Identities(**{**value, "rubrics": rubrics, "models": models})


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
    bases = [ModelIdentity(one.name, one.served_name, _content_of(one)) for one in sources.bases]
    judged = spec.judge is not None
    own = judged and not sources.judge_url
    external = f"{sources.judge_model} at {sources.judge_url}"
    judging = bases[sources.bases.index(sources.judging)]
    return Identities(
        model_name=bases[0].served,
        model=bases[0].content,
        judge=(judging.content if own else external) if judged else "",
        judge_name=(sources.judge_model or judging.served) if judged else "",
        rubrics=_rubrics_of_files(spec, sources.rubrics) if rubrics is None else rubrics,
        self_judged=own,
        toy=sources.toy,
        models=_listed(spec, bases),
        judging=judging.name if own else "",
    )


async def identify_services(spec: StudySpec, endpoints: Endpoints, sources: Sources) -> Identities:
    """Asks generators and judge what they are.

    A generator knows its model's name and the digests of config, tokenizer and chat template, not
    of the weights: new weights need a new name, or other files.

    Raises:
        Unavailable: one cannot be reached.
        NotFound: the judge lacks a rubric of the study.
        WrongState: a generator serves another base than the study file says.
    """
    bases = []
    for base in sources.bases:
        async with GeneratorClient.of(endpoints, base.generator) as generator:
            pool = await generator.pool()
        if base.name and (problem := wrong_base(pool, base)):
            raise WrongState(problem)
        content = [pool.base_model, pool.config_digest, pool.tokenizer_digest]
        digest = sha256_of_json([*content, pool.chat_template_digest, pool.dtype])
        bases.append(ModelIdentity(base.name, pool.base_model, digest))
    judged = spec.judge is not None
    target = endpoints.name_of(endpoints.target("judge"))
    return Identities(
        model_name=bases[0].served,
        model=bases[0].content,
        judge=f"{sources.judge_model} behind {target}" if judged else "",
        judge_name=sources.judge_model if judged else "",
        rubrics=await rubrics_of_judge(spec, endpoints),
        self_judged=False,
        toy=spec.services.toy
        and bool(spec.models or Path(spec.services.model).name == bases[0].served),
        models=_listed(spec, bases),
    )


def _listed(spec: StudySpec, bases: Sequence[ModelIdentity]) -> tuple[ModelIdentity, ...]:
    """The models that the file lists; an API model is what its endpoint calls it."""
    if not spec.models:
        return ()
    found = {base.name: base for base in bases}
    found |= {
        api.name: ModelIdentity(
            api.name, api.model, f"{api.model} at {without_credentials(api.url)}"
        )
        for api in spec.apis
    }
    return tuple(found[model.name] for model in spec.models)


async def rubrics_of_judge(spec: StudySpec, endpoints: Endpoints) -> tuple[Rubric, ...]:
    """The study's rubrics as the judge has them.

    Raises:
        Unavailable: the judge cannot be reached.
        NotFound: it lacks one of them.
        InvalidInput: two of them score the same criterion.
    """
    if spec.judge is None:
        return ()
    async with JudgeClient.of(endpoints) as judge:
        known = {rubric.id: rubric for rubric in await judge.rubrics()}
    lacking = [name for name in spec.judge.rubrics if name not in known]
    if lacking:
        raise NotFound(
            f"the judge lacks the rubric {', '.join(lacking)}; it has {', '.join(sorted(known))}"
        )
    return _one_a_criterion([known[name] for name in spec.judge.rubrics])


def _content_of(base: BaseSource) -> str:
    """The content of a base model: the digest over a folder's files, or the Hugging Face id.

    Raises:
        InvalidInput: the path is not a model folder, or one with a revision.
    """
    folder = model_folder(base.model)
    if folder is None:
        return f"hub:{base.model}{'@' if base.revision else ''}{base.revision}"
    if base.revision:
        raise InvalidInput(
            f"{base.place}: {folder} is a folder; a revision is for ids of the hub: leave it out"
        )
    files = {path.name: sha256_of_file(path) for path in model_files(folder)}
    return sha256_of_json(files)


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
