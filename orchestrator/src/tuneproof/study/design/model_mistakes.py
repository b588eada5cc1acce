"""What no key of a study file alone shows about its models."""

from __future__ import annotations

from collections.abc import Iterator

from tuneproof.servicekit.yamlfile import Location, Mistake, repeated
from tuneproof.study.design.models import ApiSpec, BaseSpec
from tuneproof.study.design.spec import StudySpec


def model_mistakes(spec: StudySpec) -> Iterator[Mistake]:
    """Models that clash, and names of models that the file lacks."""
    yield from repeated((model.name for model in spec.models), ("models",), "model name")
    bases = [base.name for base in spec.bases]
    if spec.models and not bases:
        yield ("models",), "names API models only: add a base, which has `model` and no `url`"
    if spec.models and spec.services.model:
        yield ("services", "model"), "`models` names the models: leave this out"
    if spec.services.judge is not None and spec.services.judge not in bases:
        yield ("services", "judge"), _unknown(spec.services.judge, bases, "a base")
    yield from _claims(spec)
    yield from _prices(spec)
    yield from _uses(spec, bases)


def _prices(spec: StudySpec) -> Iterator[Mistake]:
    """Prices of API models without their other half."""
    for index, model in enumerate(spec.models):
        if isinstance(model, ApiSpec) and (model.input_price is None) != (
            model.output_price is None
        ):
            both = ("input_price", "output_price")
            given, other = both if model.output_price is None else both[::-1]
            yield ("models", index, given), f"needs `{other}` beside it; 0 if it costs nothing"


def _uses(spec: StudySpec, bases: list[str]) -> Iterator[Mistake]:
    """Arms and comparisons of models."""
    for index, arm in enumerate(spec.arms):
        place: Location = ("arms", index, "models")
        if arm.models and arm.name == spec.comparison.baseline:
            yield place, f"{arm.name!r} is the baseline, which every model has: leave out `models`"
        yield from repeated(arm.models, place, "model")
        for name in arm.models:
            if name not in bases:
                yield place, _unknown(name, bases, "a base")
    apis = [api.name for api in spec.apis]
    for index, each in enumerate(spec.comparison.primary or ()):
        place = ("comparison", "primary", index)
        if each.model is not None and each.model not in bases:
            yield (*place, "model"), _unknown(each.model, bases, "a base")
        if each.against is not None and each.against not in apis:
            yield (*place, "against"), _unknown(each.against, apis, "an API model")


def _claims(spec: StudySpec) -> Iterator[Mistake]:
    """Generators that two bases name; each serves one."""
    owners: dict[str, str] = {}
    for index, model in enumerate(spec.models):
        if not isinstance(model, BaseSpec) or model.generator is None:
            continue
        owner = owners.setdefault(model.generator, model.name)
        if owner != model.name:
            told = (
                f"{model.generator} is the generator of {owner!r} already: a generator serves one"
            )
            yield ("models", index, "generator"), f"{told} base; a trainer may serve several"


def _unknown(name: str, known: list[str], what: str) -> str:
    return f"{name!r} is not {what} of `models`; there are: {', '.join(known) or 'none'}"
