"""YAML files that people write: read, checked by a model, every mistake with its line.

A `FileKind` says what a file must hold: a study, a rubric, the objectives of a load test. Its
errors have one line for each mistake, `file:line: field: what is wrong`, in the file's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tuneproof.servicekit.errors import InvalidInput

Location = tuple[str | int, ...]
"""Keys and list indices from the file's root to a field."""
Mistake = tuple[Location, str]
"""Where it is, and what is wrong there."""
Model = TypeVar("Model", bound=BaseModel)

_SHOWN = 60


@dataclass(frozen=True)
class FileKind(Generic[Model]):
    """One kind of file."""

    model: type[Model]
    noun: str
    """As in `is not a key of a study file`, article included."""
    expected: str
    """What to write where the file holds something else, as ``a study: `study: <name>` …``."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """Words for a text that does not match a regular expression, by the expression."""
    contradictions: Callable[[Model], Iterable[Mistake]] = lambda _: ()
    """What no field alone shows; called for files whose fields are right."""

    def load(self, path: Path) -> Model:
        """Reads and checks a file.

        Raises:
            InvalidInput: when it is missing, is not YAML, or holds what the model does not accept.
        """
        try:
            return self.parse(path.read_bytes(), str(path))
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None

    def parse(self, content: str | bytes, name: str) -> Model:
        """Checks a file's content.

        Args:
            name: what messages call the file.

        Raises:
            InvalidInput: as `load`.
        """
        root, value = _read(content, name)
        if not isinstance(root, yaml.MappingNode):
            raise InvalidInput(f"{name}:1: expected {self.expected}")
        mistakes = list(_repeated_keys(root, ()))
        model: Model | None = None
        try:
            model = self.model.model_validate(value)
        except ValidationError as error:
            mistakes += [self._explain(each) for each in error.errors(include_url=False)]
        else:
            mistakes += self.contradictions(model)
        if model is None or mistakes:
            raise InvalidInput("\n".join(_lines(mistakes, root, name)))
        return model

    def place(self, path: Path, location: Location) -> str:
        """Where a field is, as mistakes are told: `file:line: field`.

        Raises:
            InvalidInput: as `load`.
        """
        root, _ = _read(path.read_bytes(), str(path))
        line, field_path = _find(root, location) if root is not None else (1, "")
        return ": ".join([f"{path}:{line}", *([field_path] if field_path else [])])

    def _explain(self, error: Any) -> Mistake:
        location: Location = tuple(error["loc"])
        if error["type"] == "extra_forbidden":
            return location, f"is not a key of {self.noun}"
        if error["type"] == "missing":
            return location, "is missing"
        given = repr(error["input"])
        given = given if len(given) <= _SHOWN else f"{given[:_SHOWN]}…"
        expected = self.patterns.get(error.get("ctx", {}).get("pattern", ""))
        return location, f"{expected or error['msg'].removeprefix('Value error, ')}, got {given}"


def repeated(values: Iterable[Any], location: Location, what: str) -> list[Mistake]:
    """A mistake for each value that a list holds more than once."""
    return [
        (location, f"{what} {value!r} appears {count} times")
        for value, count in Counter(values).items()
        if count > 1
    ]


def _read(content: str | bytes, name: str) -> tuple[yaml.Node | None, Any]:
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        return yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name}: is not UTF-8 text (byte {error.start})") from None
    except yaml.YAMLError as error:
        raise InvalidInput(_explain_yaml(error, name)) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: cannot be read as YAML: {error}") from None


def _explain_yaml(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{name}: is not YAML: {error}"
    problem = getattr(error, "problem", None) or "cannot be read"
    return f"{name}:{mark.line + 1}:{mark.column + 1}: is not YAML: {problem}"


def _repeated_keys(
    node: yaml.Node, location: Location, seen: frozenset[int] = frozenset()
) -> Iterator[Mistake]:
    """Keys written twice, of which YAML silently takes the last.

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
                yield (*location, name), "appears twice"
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield from _repeated_keys(value, (*location, key.value), inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _repeated_keys(value, (*location, index), inside)


def _lines(mistakes: Sequence[Mistake], root: yaml.Node, name: str) -> list[str]:
    placed = []
    for location, text in mistakes:
        line, path = _find(root, location)
        placed.append((line, ": ".join([f"{name}:{line}", *([path] if path else []), text])))
    return list(dict.fromkeys(text for _, text in sorted(placed)))


def _find(root: yaml.Node, location: Location) -> tuple[int, str]:
    """Line of the deepest node on the way, and the way as people write it. Leaves out what pydantic
    adds to the file's keys: the names of alternatives, `[key]` for a wrong key, and the index of a
    single value that stands for a list."""
    node, line = root, root.start_mark.line + 1
    path = ""
    for position, part in enumerate(location):
        child: tuple[int, yaml.Node] | None = None
        if isinstance(node, yaml.MappingNode):
            child = next(
                ((k.start_mark.line, v) for k, v in node.value if k.value == str(part)), None
            )
        elif isinstance(node, yaml.SequenceNode) and part in range(len(node.value)):
            child = node.value[part].start_mark.line, node.value[part]
        within_list = isinstance(node, yaml.SequenceNode)
        if child is not None:
            line, node = child[0] + 1, child[1]
        elif position < len(location) - 1 or part == "[key]" or isinstance(part, int):
            continue
        path += f"[{part}]" if within_list else f".{part}" if path else str(part)
    return line, path
