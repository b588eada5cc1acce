"""Files that are one JSON value, and values in the form of a pydantic model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from tuneproof.data.reading.records import Mistake
from tuneproof.servicekit.errors import InvalidInput

T = TypeVar("T")


def json_of(path: Path, what: str) -> Any:
    """The value in a file.

    Args:
        what: what the file should be, as in `a BioASQ golden file`.

    Raises:
        InvalidInput: naming the file, and for broken JSON line and column.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path} is not UTF-8 text (byte {error.start}); is it {what}, unpacked?"
        ) from None
    except json.JSONDecodeError as error:
        cut_off = not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated")
        raise InvalidInput(
            f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
            + ("; the file seems to be cut off, fetch it again" if cut_off else "")
        ) from None
    except (RecursionError, ValueError):  # the latter of a number with too many digits
        raise InvalidInput(f"{path} is not {what}: its JSON cannot be read") from None


def in_form(form: TypeAdapter[T], value: Any, where: str) -> T | Mistake:
    """A value as the form has it, or its first mistake with the field; a text is read as JSON."""
    try:
        if isinstance(value, str):
            return form.validate_json(value)
        return form.validate_python(value)
    except ValidationError as error:
        first, *more = error.errors(include_url=False, include_input=False, include_context=False)
        field = ".".join(map(str, first["loc"]))
        others = f" (and {len(more)} more mistakes there)" if more else ""
        return Mistake(where, (f"{field}: " if field else "") + first["msg"] + others)
