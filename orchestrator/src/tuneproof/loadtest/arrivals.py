"""Which model gets which prompt, and when: random arrivals over adapters of uneven popularity."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuneproof.loadtest.records import Ask
from tuneproof.servicekit.errors import InvalidInput

_SPAN = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")
WORDS = (
    *("answer", "bridge", "carry", "change", "colour", "common", "count", "early", "example"),
    *("figure", "follow", "ground", "happen", "island", "language", "letter", "light", "machine"),
    *("measure", "minute", "morning", "mountain", "music", "number", "often", "paper", "pattern"),
    *("people", "picture", "power", "problem", "question", "record", "river", "round", "second"),
    *("sentence", "simple", "small", "sound", "south", "stand", "start", "story", "street"),
    *("table", "thing", "think", "travel", "under", "voice", "water", "weather", "winter"),
)


@dataclass(frozen=True, slots=True)
class Span:
    """A length, drawn evenly from `low` to `high`."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str, field: str) -> Span:
        """Reads `24` or `8-64`.

        Raises:
            InvalidInput: another text, or a length below 1.
        """
        found = _SPAN.fullmatch(text.strip())
        low = int(found[1]) if found else 0
        high = int(found[2] or low) if found else 0
        if not 1 <= low <= high:
            raise InvalidInput(f"{field} is {text!r}: write 24, or 8-64 for lengths between them")
        return cls(low, high)

    def draw(self, random: np.random.Generator) -> int:
        return int(random.integers(self.low, self.high + 1))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When requests come; on average as many as `LoadSpec.rate` says."""

    kind: Literal["poisson", "bursty", "diurnal"] = "poisson"
    """A constant rate; one that switches between calm and bursts (a Markov-modulated Poisson
    process of two states); one that swings like a day's, from its lowest point on."""
    burst: float = 5.0
    """Rate in a burst over the rate between bursts."""
    burst_share: float = 0.2
    """Of the time, in bursts."""
    burst_seconds: float = 2.0
    """Average length of a burst."""
    swing: float = 0.8
    """From the average to the highest rate, as a share of the average."""
    period: float = 60.0
    """Seconds of a "day"."""

    def times(self, rate: float, random: np.random.Generator) -> Iterator[float]:
        """Due times without end.

        Args:
            rate: requests a second, on average.
        """
        match self.kind:
            case "poisson":
                return _poisson(rate, random)
            case "bursty":
                return self._bursty(rate, random)
            case "diurnal":
                return self._diurnal(rate, random)

    def _bursty(self, rate: float, random: np.random.Generator) -> Iterator[float]:
        calm = rate / (1.0 + self.burst_share * (self.burst - 1.0))
        rates = (calm, calm * self.burst)
        calm_seconds = self.burst_seconds * (1.0 - self.burst_share) / self.burst_share
        lengths = (calm_seconds, self.burst_seconds)
        state = int(random.random() < self.burst_share)
        now, change = 0.0, float(random.exponential(lengths[state]))
        while True:
            due = now + float(random.exponential(1.0 / rates[state]))
            if due < change:
                now = due
                yield due
            else:  # Memoryless: what was left of the pause counts anew.
                now, state = change, 1 - state
                change += float(random.exponential(lengths[state]))

    def _diurnal(self, rate: float, random: np.random.Generator) -> Iterator[float]:
        # Thinning (Lewis and Shedler, 1979).
        highest = rate * (1.0 + self.swing)
        for due in _poisson(highest, random):
            now = rate * (1.0 - self.swing * math.cos(2.0 * math.pi * due / self.period))
            if random.random() * highest < now:
                yield due


def _poisson(rate: float, random: np.random.Generator) -> Iterator[float]:
    due = 0.0
    while True:
        due += float(random.exponential(1.0 / rate))
        yield due


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """The load of every phase."""

    rate: float
    """Requests a second of an open phase, on average."""
    seconds: float
    """Length of an open phase."""
    arrivals: Arrivals = Arrivals()
    """Of the open phases."""
    against_base: bool = False
    """Add phases in which the base model answers the same load."""
    in_flight: int = 0
    """Requests under way in a full phase; 0: no full phases."""
    full_seconds: float = 0.0
    """Length of a full phase."""
    rounds: int = 1
    """Each has every phase once."""
    skew: float = 1.0
    """Zipf's exponent over the adapters; 0: all get equally many requests."""
    base_share: float = 0.1
    """Share of requests to the base model."""
    probe_share: float = 0.2
    """Share of requests with a prompt of the probes, if they have prompts."""
    prompt_words: Span = Span(40, 40)
    answer_tokens: Span = Span(16, 16)
    timeout: float = 60.0
    """Seconds that a request may take."""
    seed: int = 0


class Prompts:
    """Prompts that never repeat their beginning, so that no prefix cache answers for the engine.

    Args:
        given: the user's, in the order of the file, over and over; none: they are made up.
        probes: prompts of the probes.
    """

    def __init__(self, spec: LoadSpec, given: Sequence[str] = (), probes: Sequence[str] = ()):
        self._spec = spec
        self._given = given
        self._probes = probes
        self._random = np.random.default_rng([spec.seed, 1])
        self._count = 0

    def next(self) -> str:
        """The next prompt."""
        if self._probes and self._random.random() < self._spec.probe_share:
            return self._probes[int(self._random.integers(len(self._probes)))]
        self._count += 1
        if self._given:
            return self._given[(self._count - 1) % len(self._given)]
        words = self._spec.prompt_words.draw(self._random) - 1
        chosen = self._random.choice(WORDS, size=max(words, 0))
        return " ".join([str(self._count), *chosen])


def popularity(spec: LoadSpec, models: Sequence[str]) -> tuple[Sequence[str], Sequence[float]]:
    """The models, an empty name for the base model among them, and how often each is asked."""
    if not models:
        return [""], [1.0]
    weights = np.arange(1, len(models) + 1, dtype=float) ** -spec.skew
    chances = np.append(weights / weights.sum() * (1.0 - spec.base_share), spec.base_share)
    return [*models, ""], chances.tolist()


def asks(spec: LoadSpec, models: Sequence[str], prompts: Prompts, number: int) -> Iterator[Ask]:
    """Requests without end; both sides of round `number` get the same times and models.

    Args:
        models: the most popular first; the base model comes on top.
    """
    random = np.random.default_rng([spec.seed, 2, number])
    names, chances = popularity(spec, models)
    # From a generator of their own, so that a side without adapters gets the same times.
    for due in spec.arrivals.times(spec.rate, np.random.default_rng([spec.seed, 3, number])):
        model = names[int(random.choice(len(names), p=chances))]
        yield Ask(due, model, prompts.next(), spec.answer_tokens.draw(random))
