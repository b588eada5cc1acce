"""Reading a study file: every mistake with its line, all at once."""

from __future__ import annotations

from tuneproof.data.sources import NAME_PATTERN
from tuneproof.servicekit.yamlfile import FileKind, Mistake, repeated
from tuneproof.study.design.spec import LEXICAL_MEASURES, RUBRIC_PATTERN, DataSpec, StudySpec


def contradictions(spec: StudySpec) -> list[Mistake]:
    """What no field alone shows: names that clash, arms that nothing trains, missing margins."""
    found: list[Mistake] = []
    found += _baseline(spec)
    found += repeated((arm.name for arm in spec.arms), ("arms",), "arm name")
    if spec.tuned and spec.training is None:
        found.append((("training",), "arms are tuned, so `training: {sizes: [...]}` is needed"))
    if spec.training is not None:
        found += repeated(spec.training.sizes, ("training", "sizes"), "size")
        found += repeated(spec.training.seeds, ("training", "seeds"), "seed")
    if spec.corpus.overlap_tokens >= spec.corpus.max_tokens:
        found.append(
            (("corpus", "overlap_tokens"), f"must be below max_tokens ({spec.corpus.max_tokens})")
        )
    if spec.judge is not None:
        found += repeated(spec.judge.rubrics, ("judge", "rubrics"), "rubric")
    if spec.checks.judge is not None and spec.judge is None:
        found.append((("checks", "judge"), "there is no judge to check: name `judge: {rubrics}`"))
    if spec.judge is None:
        found += [
            (("comparison", "margin"), f"no judge scores the answers: give a margin for {measure}")
            for measure in _primary_measures(spec)
            if measure not in spec.comparison.margin and measure in LEXICAL_MEASURES
        ]
    return found + _unknown_arms(spec)


def _primary_measures(spec: StudySpec) -> set[str]:
    if spec.comparison.primary is None:
        return {"token_f1"}
    return {each.measure for each in spec.comparison.primary}


def _baseline(spec: StudySpec) -> list[Mistake]:
    """The baseline is an arm of the file and is not tuned; every other arm is."""
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
        if arm.name == baseline and arm.tune is not None:
            found.append(
                (("arms", index, "tune"), f"{arm.name!r} is the baseline: leave out `tune`")
            )
        if arm.name != baseline and arm.tune is None:
            found.append(
                (("arms", index), f"{arm.name!r} is neither tuned nor the baseline: give it `tune`")
            )
    return found


def _unknown_arms(spec: StudySpec) -> list[Mistake]:
    if spec.comparison.primary is None:
        return []
    tuned = [arm.name for arm in spec.tuned]
    return [
        (
            ("comparison", "primary", index, "arm"),
            f"{each.arm!r} is not a tuned arm; there are: {', '.join(tuned) or 'none'}",
        )
        for index, each in enumerate(spec.comparison.primary)
        if each.arm not in tuned
    ]


_PATTERNS = {
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
