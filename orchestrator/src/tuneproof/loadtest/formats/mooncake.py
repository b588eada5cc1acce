"""Traces of requests in Mooncake's JSON Lines, as aiperf and guidellm replay them.

A line has `timestamp`, `output_length`, and `text_input` or `input_length`. The unit of the
timestamp differs: milliseconds for Mooncake itself and aiperf, seconds for guidellm; no line says
which. The model is in `extra.model`, which aiperf sends along with the request.
https://github.com/ai-dynamo/aiperf/blob/main/docs/benchmark-modes/trace-replay.md
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tuneproof.loadtest.arrivals import WORDS, LoadSpec, popularity
from tuneproof.loadtest.inputs import read_lines
from tuneproof.loadtest.records import Ask, Phase
from tuneproof.servicekit.errors import InvalidInput

Unit = Literal["milliseconds", "seconds"]

_PER_SECOND: Mapping[Unit, float] = {"milliseconds": 1000.0, "seconds": 1.0}
_BLOCK = 512
"""Tokens of a block that `hash_ids` names."""
_OUTPUT = 16
"""Of a line that says none, and of a written one whose request failed."""


@dataclass(frozen=True)
class Trace:
    """Requests with their times, the first at 0."""

    asks: tuple[Ask, ...]
    """By due time; an empty model where the line names none."""

    @property
    def seconds(self) -> float:
        """How long it lasts: to its last request, and an average pause more."""
        last = self.asks[-1].due
        return last * len(self.asks) / max(1, len(self.asks) - 1) or 1.0

    @property
    def models(self) -> tuple[str, ...]:
        """The named ones, the most frequent first."""
        found = Counter(ask.model for ask in self.asks if ask.model)
        return tuple(name for name, _ in found.most_common())

    def onto(self, models: Sequence[str], spec: LoadSpec) -> Trace:
        """The same requests for other models.

        The most frequent model of the trace becomes the first of them, and a request without one
        asks the base model. If the trace names none, they get requests as `spec` says.

        Raises:
            InvalidInput: they are fewer than those of the trace.
        """
        mine = self.models
        if len(mine) > len(models):
            raise InvalidInput(
                f"the trace names {len(mine)} models, more than the {len(models)} that are served"
            )
        if mine:
            chosen = dict(zip(mine, models, strict=False))
            names = [chosen.get(ask.model, "") for ask in self.asks]
        else:
            random = np.random.default_rng([spec.seed, 4])
            known, chances = popularity(spec, models)
            drawn = random.choice(len(known), p=chances, size=len(self.asks))
            names = [known[int(each)] for each in drawn]
        pairs = zip(self.asks, names, strict=True)
        return Trace(tuple(replace(ask, model=name) for ask, name in pairs))

    def requests(self, *, base_only: bool = False) -> Iterator[Ask]:
        """Over and over, one time after the other.

        Args:
            base_only: ask the base model instead.
        """
        for turn in count():
            for ask in self.asks:
                due = ask.due + turn * self.seconds
                yield replace(ask, due=due, model="" if base_only else ask.model)


def read_trace(path: Path, unit: Unit) -> Trace:
    """The trace of a file.

    Raises:
        InvalidInput: names every line that is no request.
    """
    numbers = count(1)
    found = read_lines(path, "request", lambda line: _ask(json.loads(line), unit, next(numbers)))
    first = min(ask.due for ask in found)
    moved = (replace(ask, due=ask.due - first) for ask in found)
    return Trace(tuple(sorted(moved, key=lambda ask: ask.due)))


def _ask(line: Any, unit: Unit, number: int) -> Ask:
    if not isinstance(line, Mapping):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - a mistake in a file
    if not isinstance(stamp := line.get("timestamp"), int | float) or not 0 <= stamp < 1e15:
        raise ValueError("needs a number under 'timestamp'")
    extra = line.get("extra") or {}
    model = extra.get("model", "") if isinstance(extra, Mapping) else None
    if not isinstance(model, str):
        raise ValueError("has an 'extra' without a text under 'model'")  # noqa: TRY004
    due = stamp / _PER_SECOND[unit]
    return Ask(due, model, _prompt(line, number), _length(line, "output_length", _OUTPUT))


def _prompt(line: Mapping[str, Any], number: int) -> str:
    text = line.get("text_input")
    if isinstance(text, str) and text:
        return text
    if "input_length" not in line:
        raise ValueError("needs 'text_input' or 'input_length'")
    length = _length(line, "input_length", 1)
    blocks = line.get("hash_ids") or []
    if not isinstance(blocks, list) or not all(isinstance(one, int) for one in blocks):
        raise ValueError("has 'hash_ids' that are not a list of numbers")
    words = [word for block in blocks for word in _words(_BLOCK, block)][:length]
    if left := length - len(words):
        # What no block tells begins in its own way, so that no prefix cache answers it.
        words += [str(number), *_words(left - 1, number, 1)]
    return " ".join(words)


def _words(count: int, *seed: int) -> list[str]:
    """A word for each token; the same for the same seed."""
    random = np.random.default_rng([7, *map(abs, seed)])
    return [str(word) for word in random.choice(WORDS, size=count)]


def _length(line: Mapping[str, Any], key: str, default: int) -> int:
    found = line.get(key, default)
    if not isinstance(found, int) or not 1 <= found <= 1_000_000:
        raise ValueError(f"has no whole number from 1 under {key!r}")
    return found


def trace_of(phase: Phase, unit: Unit, *, base_model: str = "") -> str:
    """The requests of a phase as a trace, each with the model that answered it.

    In milliseconds as aiperf takes it, with the prompts; in seconds as guidellm does, with their
    lengths in words.

    Args:
        base_model: its name, for requests to it.
    """
    lines = []
    for reply in sorted(phase.replies, key=lambda reply: reply.due):
        due = round((reply.due - phase.start) * _PER_SECOND[unit], 6)
        answer = reply.answer
        model = (answer.served if answer else "") or reply.model or base_model
        line: dict[str, Any] = {"timestamp": round(due) if unit == "milliseconds" else due}
        if unit == "milliseconds":
            line["text_input"] = reply.prompt
        else:
            line["input_length"] = len(reply.prompt.split())
        line["output_length"] = max(1, answer.tokens) if answer else _OUTPUT
        lines.append(json.dumps({**line, **({"extra": {"model": model}} if model else {})}))
    return "".join(f"{line}\n" for line in lines)
