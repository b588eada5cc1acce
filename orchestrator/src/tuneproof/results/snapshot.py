"""A study's results as one JSON value, and back: for another machine, another day, another tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tuneproof.results.study import StudyResults
from tuneproof.servicekit.errors import InvalidInput

SCHEMA = "tuneproof.results/1"
"""Changes when a field goes or changes its meaning; a new field does not change it."""
_RESULTS: TypeAdapter[StudyResults] = TypeAdapter(StudyResults)


def results_json(results: StudyResults, design: Mapping[str, Any]) -> dict[str, Any]:
    """All that a study found, its answers and the judge's texts included.

    Args:
        design: the study file's values, defaults included.
    """
    found = _RESULTS.dump_python(results, mode="json")
    return {"schema": SCHEMA, "design": dict(design), "results": found}


def results_from_json(value: Mapping[str, Any], where: str) -> StudyResults:
    """The way back from `results_json`.

    Args:
        where: the file, for messages.

    Raises:
        InvalidInput: it is of another version, or something is missing in it.
    """
    if value.get("schema") != SCHEMA:
        raise InvalidInput(
            f"{where} is of the schema {value.get('schema')!r}, this program reads {SCHEMA!r}:"
            " write it again with `tuneproof study export --format json`"
        )
    try:
        return _RESULTS.validate_python(value["results"])
    except (KeyError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        place = ".".join(map(str, first["loc"])) if first else "results"
        told = first["msg"] if first else "is missing"
        raise InvalidInput(
            f"{where} does not hold the results of a study: {place}: {told}"
        ) from None
