"""Reading a study file: every mistake with its line, all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.spec import LEXICAL_MEASURES, NAME_PATTERN, RUBRIC_PATTERN, StudySpec

Location = tuple[str | int, ...]
Mistake = tuple[Location, str]
_SHOWN = 60
_WORDS = {
    NAME_PATTERN: "expected 1 to 40 characters of a-z, 0-9 and `-`, beginning with a letter",
    RUBRIC_PATTERN: "expected a rubric's id such as accuracy@1",
}


def load_spec(path: Path) -> StudySpec:
    """Reads and checks a study file.

    Raises:
        InvalidInput: when it is missing, no YAML, or says what a study cannot be; the message has
            a line `file:line: field: what is wrong` for each mistake.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: is no UTF-8 text (byte {error.start})") from None
    return parse_spec(text, str(path))


def parse_spec(text: str, name: str) -> StudySpec:
    """Checks a study file's text.

    Args:
        name: what messages call the file.

    Raises:
        InvalidInput: as `load_spec`.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput(_explain_yaml(error, name)) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: is no YAML that can be read: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise InvalidInput(f"{name}:1: expected a study: `study: <name>` and its parts")
    mistakes = list(_duplicate_keys(root, ()))
    spec: StudySpec | None = None
    try:
        spec = StudySpec.model_validate(content)
    except ValidationError as error:
        mistakes += [_explain(each) for each in error.errors(include_url=False)]
    if spec is not None:
        mistakes += contradictions(spec)
    if spec is None or mistakes:
        raise InvalidInput("\n".join(_lines(mistakes, root, name)))
    return spec


def contradictions(spec: StudySpec) -> list[Mistake]:
    """What no field alone shows: names that clash, arms that nothing trains, missing margins."""
    found: list[Mistake] = []
    found += _baseline(spec)
    found += _repeated((arm.name for arm in spec.arms), ("arms",), "arm name")
    if spec.tuned and spec.training is None:
        found.append((("training",), "arms are tuned, so `training: {sizes: [...]}` is needed"))
    if spec.training is not None:
        found += _repeated(spec.training.sizes, ("training", "sizes"), "size")
        found += _repeated(spec.training.seeds, ("training", "seeds"), "seed")
    if spec.corpus.overlap_tokens >= spec.corpus.max_tokens:
        found.append(
            (("corpus", "overlap_tokens"), f"must be below max_tokens ({spec.corpus.max_tokens})")
        )
    if spec.judge is not None:
        found += _repeated(spec.judge.rubrics, ("judge", "rubrics"), "rubric")
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
            f"{each.arm!r} is no tuned arm; there are: {', '.join(tuned) or 'none'}",
        )
        for index, each in enumerate(spec.comparison.primary)
        if each.arm not in tuned
    ]


def _repeated(values: Any, location: Location, what: str) -> list[Mistake]:
    return [
        (location, f"{what} {value!r} stands there {count} times")
        for value, count in Counter(values).items()
        if count > 1
    ]


def _duplicate_keys(
    node: yaml.Node, location: Location, seen: frozenset[int] = frozenset()
) -> Iterator[Mistake]:
    """Keys written twice, of which YAML would silently take the last.

    Args:
        seen: the nodes on the way, for an anchor may hold itself.
    """
    if id(node) in seen:
        return
    inside = seen | {id(node)}
    if isinstance(node, yaml.MappingNode):
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, count in keys.items():
            if count > 1:
                yield (*location, name), "stands there twice"
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield from _duplicate_keys(value, (*location, key.value), inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _duplicate_keys(value, (*location, index), inside)


def _explain(error: Any) -> Mistake:
    location: Location = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return location, "is no key that a study file knows"
    if error["type"] == "missing":
        return location, "is missing"
    given = repr(error["input"])
    given = given if len(given) <= _SHOWN else f"{given[:_SHOWN]}…"
    expected = _WORDS.get(error.get("ctx", {}).get("pattern", ""))
    return location, f"{expected or error['msg'].removeprefix('Value error, ')}, got {given}"


def _lines(mistakes: Sequence[Mistake], root: yaml.Node, name: str) -> list[str]:
    placed = []
    for location, text in mistakes:
        line, path = _find(root, location)
        placed.append((line, f"{name}:{line}: {_dotted(path)}: {text}"))
    return list(dict.fromkeys(text for _, text in sorted(placed)))


def _find(root: yaml.Node, location: Location) -> tuple[int, Location]:
    """Line of the deepest node on the way, and the path without what is no key of the file
    (pydantic puts the names of alternatives into it)."""
    node, line = root, root.start_mark.line + 1
    path: list[str | int] = []
    for position, part in enumerate(location):
        child: tuple[int, yaml.Node] | None = None
        if isinstance(node, yaml.MappingNode):
            child = next(
                ((k.start_mark.line, v) for k, v in node.value if k.value == str(part)), None
            )
        elif isinstance(part, int) and _holds(node, part):
            child = node.value[part].start_mark.line, node.value[part]
        if child is not None:
            line, node = child[0] + 1, child[1]
            path.append(part)
        elif position == len(location) - 1:
            path.append(part)
    return line, tuple(path)


def _holds(node: yaml.Node, index: int) -> bool:
    return isinstance(node, yaml.SequenceNode) and index < len(node.value)


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _explain_yaml(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{name}: is no YAML: {error}"
    problem = getattr(error, "problem", None) or "cannot be read"
    return f"{name}:{mark.line + 1}:{mark.column + 1}: is no YAML: {problem}"
