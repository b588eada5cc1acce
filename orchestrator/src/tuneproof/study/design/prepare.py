"""From a study file and flags to a plan, its identities, and the services it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuneproof.data.answers import GivenAnswers, read_answers
from tuneproof.local import RetrieverOptions
from tuneproof.sdk import SERVICES, Endpoints
from tuneproof.sdk.endpoints import variable_of
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.http import without_credentials
from tuneproof.study.design.certifying import check_certificates
from tuneproof.study.design.identity import (
    Identities,
    identify,
    identify_services,
    rubrics_of_judge,
)
from tuneproof.study.design.models import ApiSpec
from tuneproof.study.design.plan import Plan, make_plan
from tuneproof.study.design.sources import Sources, resolve_sources
from tuneproof.study.design.spec import JudgeSpec, StudySpec
from tuneproof.study.design.specfile import STUDY_FILE, load_spec
from tuneproof.study.state.store import State


@dataclass(frozen=True, slots=True)
class Request:
    """What a command's flags say; where one is empty, the study file decides."""

    file: Path
    state: Path
    data: Path | None = None
    model: str = ""
    judge_url: str = ""
    judge_model: str = ""
    rubrics: Path | None = None
    retriever: RetrieverOptions = field(default_factory=RetrieverOptions)
    rubric_ids: tuple[str, ...] = ()
    targets: Mapping[str, str] = field(default_factory=dict)
    """Addresses by service, and `token`."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A study that can be run or read."""

    spec: StudySpec
    plan: Plan
    sources: Sources
    data: str
    """The data file that a flag named, in this run or an earlier one; else empty."""


def prepare(request: Request, *, remembered: Mapping[str, Any] | None = None) -> Prepared:
    """Loads study file and data, and plans.

    Args:
        remembered: the flags of the study's last run (`remember`); flags given now win.

    Raises:
        InvalidInput: the file, the data or the flags are wrong; one message lists the mistakes.
    """
    before = remembered or {}
    spec = spec_of(request.file, request.rubric_ids or before.get("rubric_ids"))
    data = str(request.data.resolve() if request.data else before.get("data", ""))
    dataset = spec.dataset.located(request.file, [Path(data)] if data else [])
    sources = resolve_sources(
        spec,
        request.file.resolve(),
        model=request.model,
        rubrics=request.rubrics,
        judge_url=request.judge_url,
        judge_model=request.judge_model,
    )
    plan = make_plan(spec, dataset.load())
    imported = _imported(plan, request.file.resolve().parent)
    bases = {base.name: base.model for base in sources.bases}
    plan = replace(plan, imported=imported, model=sources.model, bases=bases)
    return Prepared(spec, plan, sources, data)


def spec_of(file: Path, rubrics: Any) -> StudySpec:
    """The study in a file, with its paths found.

    Args:
        rubrics: to judge by instead of its own, where there are any.

    Raises:
        InvalidInput: the file has mistakes.
    """
    return _located(_with_rubrics(load_spec(file), rubrics), file.resolve().parent)


def remember(
    state: State,
    prepared: Prepared,
    request: Request,
    identities: Identities,
    looks: Mapping[str, int] | None = None,
) -> None:
    """Keeps this run's flags, so that status and report need the study file alone.

    Args:
        looks: interim looks, `planned` and `taken`; None: the study is read once.
    """
    resolved = {
        "identities": identities.to_json(),
        "data": prepared.data,
        "rubric_ids": list(request.rubric_ids),
        "looks": dict(looks) if looks else None,
    }
    state.remember_study(prepared.spec.study, resolved)


def recall(state: State, file: Path) -> dict[str, Any] | None:
    """What `remember` kept of the study in this file."""
    return state.study(load_spec(file).study)


def is_external(
    request: Request, environment: Mapping[str, str], sources: Sources | None = None
) -> bool:
    """Whether flags, environment or study file name services that this machine did not start."""
    if sources is not None and any(base.generator for base in sources.bases):
        return True
    return any(request.targets.get(name) or environment.get(variable_of(name)) for name in SERVICES)


def check_addresses(prepared: Prepared, endpoints: Endpoints) -> None:
    """Where the services run already, each of several bases needs its own generator.

    Raises:
        InvalidInput: one lacks its address, with all that do.
    """
    bases = prepared.sources.bases
    lacking = [base for base in bases if not base.generator]
    if len(bases) > 1 and lacking:
        told = "lacks `generator: host:port`: name it, or start the services here with --up"
        raise InvalidInput("\n".join(f"{base.place}: {base.name!r} {told}" for base in lacking))
    for base in bases:
        if base.generator and not base.trainer and not endpoints.trainer:
            told = "lacks `trainer: host:port`, and no flag or variable names one"
            raise InvalidInput(f"{base.place}: {base.name!r} {told}")


def check_keys(spec: StudySpec, file: Path, environment: Mapping[str, str]) -> None:
    """API models need their keys before anything is paid for.

    Raises:
        InvalidInput: a variable is not set, with all that are not.
    """
    missing = [
        f"{STUDY_FILE.place(file, ('models', index, 'key'))}: the variable {model.key} is not set:"
        f" set it to the key of {without_credentials(model.url)}"
        for index, model in enumerate(spec.models)
        if isinstance(model, ApiSpec) and model.key and not environment.get(model.key)
    ]
    if missing:
        raise InvalidInput("\n".join(missing))


async def identities_for(
    prepared: Prepared, request: Request, endpoints: Endpoints, *, external: bool
) -> Identities:
    """What answers and what judges: from files where they are known, else from the services."""
    spec, sources = prepared.spec, prepared.sources
    if external and not request.model:
        found = await identify_services(spec, endpoints, sources)
    elif external:
        found = identify(spec, sources, await rubrics_of_judge(spec, endpoints))
    else:
        found = identify(spec, sources)
    prepared.plan.primary(found.measures)
    check_certificates(spec, found)
    return found


def _located(spec: StudySpec, folder: Path) -> StudySpec:
    """With the paths of certificates and `forgetting`, relative to the study file's folder."""
    if spec.judge is not None and spec.judge.certificates:
        paths = tuple(folder / path for path in spec.judge.certificates)
        judge = spec.judge.model_copy(update={"certificates": paths})
        spec = spec.model_copy(update={"judge": judge})
    forgetting = spec.forgetting
    if forgetting is None:
        return spec
    program, *rest = forgetting.command
    found: dict[str, Any] = {}
    if "/" in program:
        found["command"] = (str(folder / program), *rest)
    if forgetting.include is not None:
        found["include"] = folder / forgetting.include
        if not found["include"].is_dir():
            raise InvalidInput(f"forgetting.include: there is no folder {found['include']}")
    if (folder / forgetting.tokenizer).is_dir() and forgetting.tokenizer:
        found["tokenizer"] = str((folder / forgetting.tokenizer).resolve())
    return spec.model_copy(update={"forgetting": forgetting.model_copy(update=found)})


def _imported(plan: Plan, folder: Path) -> dict[str, GivenAnswers]:
    """The answers of other systems, by arm; their paths are relative to the study file's folder."""
    test, known = [item.id for item in plan.test], {item.id for item in plan.dataset.items}
    return {
        arm.name: read_answers(
            folder / arm.imported.path,
            id_field=arm.imported.id,
            answer_field=arm.imported.answer,
            test=test,
            known=known,
        )
        for arm in plan.spec.arms
        if arm.imported is not None
    }


def _with_rubrics(spec: StudySpec, rubrics: Any) -> StudySpec:
    if not rubrics:
        return spec
    judge = spec.judge.model_dump() if spec.judge is not None else {}
    wanted = JudgeSpec.model_validate({**judge, "rubrics": tuple(rubrics)})
    return spec.model_copy(update={"judge": wanted})
