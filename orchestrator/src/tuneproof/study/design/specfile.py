"""Reading a study file: every mistake with its line, all at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from pydantic import ValidationError

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.adapters.ref import NAME_PATTERN as ADAPTER_NAME
from tuneproof.data.sources import NAME_PATTERN
from tuneproof.servicekit.yamlfile import FileKind, Location, Mistake, repeated
from tuneproof.study.design.arms import GRID, ArmSpec
from tuneproof.study.design.model_mistakes import model_mistakes
from tuneproof.study.design.models import (
    ADDRESS_PATTERN,
    URL_PATTERN,
    VARIABLE_PATTERN,
    BaseSpec,
)
from tuneproof.study.design.plan import sizes_of
from tuneproof.study.design.spec import (
    LEXICAL_MEASURES,
    RUBRIC_PATTERN,
    DataSpec,
    JudgeSpec,
    StudySpec,
)


def contradictions(spec: StudySpec) -> list[Mistake]:
    """What no field alone shows: names that clash, arms that nothing trains, missing margins."""
    found: list[Mistake] = []
    found += _arms(spec)
    found += repeated((arm.name for arm in spec.arms), ("arms",), "arm name")
    found += model_mistakes(spec)
    if spec.tuned and spec.training is None:
        found.append((("training",), "arms are tuned, so `training: {sizes: [...]}` is needed"))
    if spec.training is not None:
        found += repeated(spec.training.sizes, ("training", "sizes"), "size")
        found += repeated(spec.training.seeds, ("training", "seeds"), "seed")
    found += _settings(spec)
    if spec.corpus.overlap_tokens >= spec.corpus.max_tokens:
        found.append(
            (("corpus", "overlap_tokens"), f"must be below max_tokens ({spec.corpus.max_tokens})")
        )
    if spec.judge is not None:
        found += repeated(spec.judge.rubrics, ("judge", "rubrics"), "rubric")
        found += _judge(spec.judge)
    for name in ("judge", "length"):
        if getattr(spec.checks, name) is not None and spec.judge is None:
            found.append((("checks", name), "there is no judge to check: name `judge: {rubrics}`"))
    found += _costs(spec)
    if spec.judge is None:
        found += [
            (("comparison", "margin"), f"no judge scores the answers: give a margin for {measure}")
            for measure in _primary_measures(spec)
            if measure not in spec.comparison.margin and measure in LEXICAL_MEASURES
        ]
    return found + _primary(spec)


def _settings(spec: StudySpec) -> Iterator[Mistake]:
    """Hyper-parameters that no training of a study can have."""
    shared = spec.training.hyperparameters if spec.training is not None else Hyperparameters()
    given: list[tuple[Location, Hyperparameters]] = [(("training", "hyperparameters"), shared)]
    for place, model in enumerate(spec.models):
        if isinstance(model, BaseSpec) and model.hyperparameters.model_fields_set:
            given.append((("models", place, "hyperparameters"), model.tuned_by(shared)))
    for at, values in given:
        if values.target_parameters:
            yield (
                (*at, "target_parameters"),
                "makes adapters that no generator serves: leave it out",
            )
        for name in ("early_stopping_patience", "validation_steps"):
            if getattr(values, name) and not values.validation_share:
                yield (*at, name), "needs examples to validate on: give validation_share, too"
        if values.skip_modules and values.method == "lora":
            yield (*at, "skip_modules"), "has no use, because method lora quantises nothing"


def _judge(judge: JudgeSpec) -> Iterator[Mistake]:
    if judge.joint:
        if len(judge.rubrics) < 2:
            yield ("judge", "joint"), "has no use with one rubric: leave it out"
        if judge.mode != "sampled":
            yield ("judge", "joint"), "goes with the mode sampled only"
        if judge.certificates:
            what = "certificates are about a form for each rubric: leave out one of the two"
            yield ("judge", "joint"), what
    if judge.settled_after == 1:
        yield ("judge", "settled_after"), "one score always agrees with itself: give 2 or more"
    elif judge.settled_after >= judge.repeats:
        yield ("judge", "settled_after"), f"must be below `repeats` ({judge.repeats})"


def _costs(spec: StudySpec) -> list[Mistake]:
    costs, place = spec.costs, ("costs",)
    tokens = {"prompt_tokens": costs.prompt_tokens, "completion_tokens": costs.completion_tokens}
    given = [name for name, value in tokens.items() if value is not None]
    found: list[Mistake] = []
    if len(given) == 1:
        (other,) = tokens.keys() - set(given)
        found.append(((*place, given[0]), f"needs `{other}` beside it; 0 if it costs nothing"))
    if given and costs.gpu_hour is not None:
        found.append(((*place, "gpu_hour"), "leave out `gpu_hour`, or the prices of tokens"))
    if costs.gpu_hour is not None and not costs.timed:
        found.append(((*place, "timed"), "must be 1 or more where `gpu_hour` prices the answers"))
    return found


def _primary_measures(spec: StudySpec) -> set[str]:
    return {each.measure for each in spec.comparison.primary or ()} or {"token_f1"}


def _arms(spec: StudySpec) -> list[Mistake]:
    """The baseline is the base model with its passages; every other arm differs from it."""
    baseline = spec.comparison.baseline
    names = [arm.name for arm in spec.arms]
    found: list[Mistake] = []
    if baseline not in names:
        found.append(
            (
                ("comparison", "baseline"),
                f"{baseline!r} is not an arm; there are: {', '.join(names)}",
            )
        )
    for index, arm in enumerate(spec.arms):
        place = ("arms", index)
        if arm.name == baseline:
            set_here = {
                "tune": arm.tune,
                "examples": arm.examples,
                "import": arm.imported,
                "context": arm.context == "none",
            }
            found += [
                ((*place, key), f"{arm.name!r} is the baseline: leave out `{key}`")
                for key, value in set_here.items()
                if value
            ]
        elif arm.imported is not None:
            clash = {"tune": arm.tune, "examples": arm.examples, "context": arm.context == "none"}
            told = "has the answers of another system: leave out {}, or make two arms of it"
            found += [
                ((*place, key), f"{arm.name!r} {told.format(f'`{key}`')}")
                for key, value in clash.items()
                if value
            ]
        elif arm.tune is None and arm.examples is None and arm.context == "retrieved":
            told = "is the baseline again: give it `tune`, `examples`, `import` or `context: none`"
            found.append((place, f"{arm.name!r} {told}"))
        elif arm.tune is not None and arm.examples is not None:
            told = "is tuned and has examples: make two arms of it"
            found.append(((*place, "examples"), f"{arm.name!r} {told}"))
        found += _tuning(arm, place, spec) + _examples(arm, place, spec)
    return found


def _tuning(arm: ArmSpec, place: Location, spec: StudySpec) -> list[Mistake]:
    if arm.tune is None:
        return []
    here = (*place, "tune")
    found: list[Mistake] = []
    if arm.tune.raft is not None and arm.tune.context == "none":
        found.append(((*here, "raft"), "needs passages in the prompt: leave out `context: none`"))
    grid = (*here, "hyperparameters")
    for name in GRID:
        values = getattr(arm.tune.hyperparameters, name)
        shown = [list(value) for value in values] if name == "target_modules" else values
        found += repeated(map(str, shown), (*grid, name), f"{name.replace('_', ' ')}")
    try:
        recipes = [each for model in _bases(spec) for each in _recipes(arm, spec, model)]
    except ValidationError as error:
        told = error.errors()[0]["msg"].removeprefix("Value error, ")
        return [*found, (grid, f"with those of the study: {told}")]
    ends = f"-{max(spec.sizes, default=0)}-s{max(spec.seeds)}"
    longest = max((recipe for recipe, _ in recipes), key=len) + ends
    if not ADAPTER_NAME.fullmatch(longest):
        found.append(((*place, "name"), f"the cell {longest!r} needs a shorter name than this"))
    return found


def _bases(spec: StudySpec) -> list[str]:
    """Names of the bases; the only one's is empty where the file lists none."""
    return [base.name for base in spec.bases] or [""]


def _recipes(arm: ArmSpec, spec: StudySpec, model: str) -> list[tuple[str, Hyperparameters]]:
    return arm.recipes(spec.hyperparameters_of(model))


def _examples(arm: ArmSpec, place: Location, spec: StudySpec) -> list[Mistake]:
    if arm.examples is None or arm.examples.choose == "random":
        return []
    here = (*place, "examples")
    if not spec.sizes:
        told = "needs pairs to search, so `training: {sizes: [...]}` is needed"
        return [((*here, "choose"), told)]
    if arm.examples.k > min(spec.sizes):
        told = f"shows more pairs than the smallest of training.sizes has ({min(spec.sizes)})"
        return [((*here, "k"), told)]
    return []


def _primary(spec: StudySpec) -> list[Mistake]:
    """Primary comparisons name arms and sizes that the study has."""
    arms = {arm.name: arm for arm in spec.compared}
    sizes = {name: sizes_of(arm, spec) for name, arm in arms.items()}
    for arm in arms.values():
        with suppress(ValidationError):  # `_tuning` tells it
            for model in _bases(spec):
                sizes |= {name: sizes[arm.name] for name, _ in _recipes(arm, spec, model)}
    found: list[Mistake] = []
    for index, each in enumerate(spec.comparison.primary or ()):
        place = ("comparison", "primary", index)
        if each.arm == spec.comparison.baseline and each.against is not None:
            continue  # A base without tuning against an API model.
        if each.arm not in sizes:
            told = f"is not an arm to compare; there are: {', '.join(sizes) or 'none'}"
            found.append(((*place, "arm"), f"{each.arm!r} {told}"))
        elif each.size is not None and each.size not in sizes[each.arm]:
            has = ", ".join(map(str, sizes[each.arm])) or "none"
            found.append(((*place, "size"), f"{each.arm!r} has cells of the sizes {has}"))
        only = next((arm.models for arm in spec.arms if arm.name == each.arm), ())
        if only and each.model is not None and each.model not in only:
            told = f"{each.arm!r} has cells of {', '.join(only)} only"
            found.append(((*place, "model"), told))
    return found


_PATTERNS = {
    ADDRESS_PATTERN: "expected host:port",
    URL_PATTERN: "expected a URL such as https://host/v1",
    VARIABLE_PATTERN: "expected the name of an environment variable",
    NAME_PATTERN: "expected 1 to 40 characters of a-z, 0-9 and `-`, beginning with a letter",
    RUBRIC_PATTERN: "expected a rubric's id such as accuracy@1",
}
STUDY_FILE = FileKind(
    StudySpec,
    noun="a study file",
    expected="a study: `study: <name>` and its parts",
    patterns=_PATTERNS,
    contradictions=contradictions,
)
"""What a study file must hold."""

load_spec = STUDY_FILE.load

DATA_FILE = FileKind(
    DataSpec,
    noun="a study file",
    expected="a study, or `dataset: {name: …}` and perhaps `split: {…}`",
    patterns=_PATTERNS,
)
"""What commands about data need of it."""
