"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuneproof.data import bioasq
from tuneproof.data.items import Dataset
from tuneproof.servicekit.errors import InvalidInput


def load_dataset(spec: Mapping[str, Any]) -> Dataset:
    """Loads or generates a data set.

    Args:
        spec: `name` and what that data set needs:

            - `telecom`: `seed`, `documents`, and optionally `facts_per_document`
            - `bioasq`: `path` of a golden file, or a list of paths

    Raises:
        InvalidInput: for an unknown name, missing, unknown or wrong values (all in one message),
            or a file that cannot be read.
    """
    name = spec.get("name")
    if not isinstance(name, str) or name not in _LOADERS:
        raise InvalidInput(
            f"there is no data set {name!r}; known: {', '.join(sorted(_LOADERS))}",
            field="dataset.name",
        )
    load, required, optional = _LOADERS[name]
    values = {key: value for key, value in spec.items() if key != "name" and value is not None}
    known = {**required, **optional}
    mistakes = [f"{key} is missing: {known[key][1]}" for key in required if key not in values]
    for key, value in values.items():
        if key not in known:
            mistakes.append(f"{key} is not known; known: {', '.join(known)}")
        elif not known[key][0](value):
            mistakes.append(f"{key} is {value!r}: give {known[key][1]}")
    if mistakes:
        raise InvalidInput(f"data set {name}: {'; '.join(mistakes)}", field="dataset")
    return load(values)


def _telecom(values: Mapping[str, Any]) -> Dataset:
    from tuneproof.data import telecom  # noqa: PLC0415 - not paid for by other data sets

    return telecom.generate(**values)


def _bioasq(values: Mapping[str, Any]) -> Dataset:
    path = values["path"]
    return bioasq.load(*([path] if isinstance(path, str | Path) else path))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_path(value: object) -> bool:
    many = value if isinstance(value, list | tuple) else [value]
    return bool(many) and all(isinstance(one, str | Path) and str(one) for one in many)


_Known = Mapping[str, tuple[Callable[[object], bool], str]]
"""By key: the test of a value, and what it should be."""

_LOADERS: dict[str, tuple[Callable[[Mapping[str, Any]], Dataset], _Known, _Known]] = {
    "telecom": (
        _telecom,
        {
            "seed": (_is_seed, "a whole number, 0 or more"),
            "documents": (_is_count, "how many documents, 1 or more"),
        },
        {"facts_per_document": (_is_count, "a whole number, 1 or more")},
    ),
    "bioasq": (
        _bioasq,
        {"path": (_is_path, "the path of a BioASQ golden file (JSON), or a list of them")},
        {},
    ),
}
