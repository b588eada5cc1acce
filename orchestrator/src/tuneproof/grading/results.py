"""The file of grades: a line of JSON for each answer, in the order in which they came."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from tuneproof.results import Grade
from tuneproof.rubrics import Rubric
from tuneproof.sdk import GradeInput
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, WrongState
from tuneproof.servicekit.locks import locked

Line = Mapping[str, Any]
_COUNTED = ("prompt_tokens", "completion_tokens", "cached_tokens", "requests")


def keys_of(inputs: Mapping[str, GradeInput], rubrics: Sequence[Rubric]) -> dict[str, str]:
    """By id, a digest of all that decides on the grade."""
    digests = [rubric.digest for rubric in rubrics]
    return {name: sha256_of_json([digests, asdict(one)]) for name, one in inputs.items()}


@dataclass
class Cost:
    """What some grades took together."""

    usage: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    """Tokens and requests."""
    price: float | None = 0.0
    """None where the judge told none for some grade."""
    currency: str = ""

    def add(self, used: Mapping[str, Any]) -> None:
        """One more grade's."""
        for name in _COUNTED:
            self.usage[name] += used[name]
        price = used["price"]
        self.price = None if None in (self.price, price) else self.price + price
        self.currency = self.currency or used["currency"]

    def __str__(self) -> str:
        tokens = self.usage["prompt_tokens"] + self.usage["completion_tokens"]
        price = "" if self.price is None else f", {self.price:,.4f} {self.currency}"
        return f"{tokens:,} tokens{price}"


class Results:
    """What is in the file, and what joins it; see `opened`."""

    def __init__(self, path: Path, keys: Mapping[str, str], file: IO[str]) -> None:
        self.path = path
        self.lines: dict[str, Line] = {}
        """By id."""
        self.cost = Cost()
        """Of all of them."""
        self._keys = keys
        self._file = file

    @classmethod
    @contextmanager
    def opened(cls, path: Path, keys: Mapping[str, str]) -> Iterator[Results]:
        """Holds the file while the block runs.

        What a killed run left of a line is cut off: its answer counts as not graded.

        Args:
            keys: as `keys_of` makes them.

        Raises:
            WrongState: another process holds the file, or it has an answer's grade by other texts,
                rubrics or options.
            InvalidInput: it is no file of grades.
        """
        hidden = path.with_name(f".{path.name}.lock")
        with locked(hidden, lambda by: WrongState(f"{path} is being written by {by}")):
            lines = list(_whole_lines(path))
            with path.open("a", encoding="utf-8") as file:
                found = cls(path, keys, file)
                for number, line in enumerate(lines, 1):
                    if keys.get(line["id"], line["key"]) != line["key"]:
                        raise WrongState(
                            f"{path}, line {number}: {line['id']!r} was graded with other texts,"
                            " rubrics or options; name another file with --out"
                        )
                    if line["id"] in keys:
                        found._take(line)
                yield found

    def add(self, name: str, grade: Grade) -> None:
        """Writes a grade.

        Raises:
            WrongState: it is by another model than those before.
        """
        before = next(iter(self.lines.values()), None)
        if before is not None and before["judge_model"] != grade.judge_model:
            raise WrongState(
                f"{self.path} holds grades by {before['judge_model']}, and the judge now asks"
                f" {grade.judge_model}: name another file with --out, or start that judge again"
            )
        line = {"id": name, "key": self._keys[name], **asdict(grade)}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        self._take(line)

    def _take(self, line: Line) -> None:
        self.lines[line["id"]] = line
        self.cost.add(line["usage"])


def _whole_lines(path: Path) -> Iterator[Line]:
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    for number, text in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            line = json.loads(text)
            _ = line["id"], line["key"], line["criteria"], line["judge_model"], line["usage"]
        except (ValueError, KeyError, TypeError):
            raise InvalidInput(f"{path}, line {number}: is not a grade", field="out") from None
        yield line
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
