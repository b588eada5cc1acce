"""Words and sentences of the fictional operator's manual: the surface, and nothing else.

A fact is one sentence that restates its subject, so that a small reader can find it by copying:

    Alder 40 transmit power is 46 dBm when band seven is active.

`Fact.parse` reads such a sentence back. The words are closed lists: the demo model's tokenizer
takes each of them as one token, so a word added here needs the model trained again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

SERIES: tuple[str, ...] = (
    "Alder", "Birch", "Cedar", "Dahlia", "Elm", "Fern", "Ginkgo", "Hazel", "Iris", "Juniper",
    "Kelp", "Laurel", "Maple", "Nettle", "Oak", "Poplar", "Quince", "Rowan", "Sorrel", "Thyme",
    "Ulex", "Violet", "Willow", "Yarrow", "Zinnia", "Aspen", "Bramble", "Clover", "Heather",
    "Linden",
)  # fmt: skip
"""30 product series; a piece of equipment is a series and a number."""

ASPECTS: tuple[str, ...] = (
    "transmit", "receive", "standby", "backup", "uplink", "downlink", "primary", "secondary",
    "handover", "paging", "beacon", "guard", "sync", "idle", "peak", "minimum", "maximum",
    "alarm", "battery", "antenna", "carrier", "control", "signal", "relay", "gateway",
    "routing", "polling", "startup", "recovery", "roaming", "tuning",
)  # fmt: skip
"""31 first words of a parameter's name."""

UNITS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "power": ("dBm", "mW", "W"),
        "delay": ("ms", "us", "s"),
        "timeout": ("s", "ms", "minutes"),
        "interval": ("ms", "s", "minutes"),
        "threshold": ("dB", "dBm", "percent"),
        "limit": ("sessions", "users", "percent"),
        "bandwidth": ("MHz", "kHz", "GHz"),
        "gain": ("dB", "dBi", "percent"),
        "offset": ("kHz", "Hz", "us"),
        "window": ("frames", "packets", "ms"),
        "rate": ("Mbps", "kbps", "Gbps"),
        "depth": ("packets", "frames", "kilobytes"),
        "voltage": ("V", "mV", "kV"),
        "current": ("A", "mA", "uA"),
        "height": ("m", "cm", "mm"),
    }
)
"""15 second words of a parameter's name, each with the units in which it may be stated."""

QUANTITIES: tuple[str, ...] = tuple(UNITS_OF)
UNITS: tuple[str, ...] = tuple(sorted({unit for units in UNITS_OF.values() for unit in units}))
PLACES: tuple[str, ...] = (
    "band", "sector", "slice", "ring", "cell", "port", "shelf", "rack", "link", "zone", "lane",
    "tower",
)  # fmt: skip
ORDINALS: tuple[str, ...] = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip
STATES: tuple[str, ...] = (
    "active", "locked", "loaded", "degraded", "offline", "shared", "muted", "isolated", "full",
    "empty", "warm", "cold",
)  # fmt: skip
LARGEST_NUMBER = 399
"""Equipment numbers and values are whole numbers from 1 to this one."""
ABSENT = "Not found in the passages."
"""What the manual's reader says when no passage states the fact."""

_FACT = re.compile(
    r"(?P<series>\w+) (?P<number>\d+) (?P<aspect>\w+) (?P<quantity>\w+) is "
    r"(?P<value>\d+) (?P<unit>\w+) when (?P<condition>\w+ \w+ is \w+)\."
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement of the manual."""

    entity: str
    """Series and number: "Alder 40"."""
    parameter: str
    """Two words: "transmit power"."""
    value: int
    """1 to `LARGEST_NUMBER`, in `unit`."""
    unit: str
    condition: str
    """Four words, without the "when": "band seven is active"."""

    @property
    def subject(self) -> str:
        """Entity and parameter: "Alder 40 transmit power"."""
        return f"{self.entity} {self.parameter}"

    @property
    def quantity(self) -> str:
        """Value and unit: "46 dBm"."""
        return f"{self.value} {self.unit}"

    @property
    def sentence(self) -> str:
        """The fact as the manual states it; also the full reference answer."""
        return f"{self.subject} is {self.quantity} when {self.condition}."

    @property
    def question(self) -> str:
        """The question that this fact answers, in the wording that the demo's model has learned."""
        return f"What is the {self.subject}?"

    @property
    def other_questions(self) -> tuple[str, ...]:
        """The same question in wordings that the demo's model has never seen."""
        return (
            f"What is the {self.parameter} of the {self.entity}?",
            f"What is the {self.subject} when {self.condition}?",
        )

    @property
    def short(self) -> str:
        """The short reference answer: the sentence without its condition."""
        return f"{self.subject} is {self.quantity}."

    @property
    def exact(self) -> str:
        """The shortest reference answer: value and unit alone."""
        return f"{self.quantity}."

    @staticmethod
    def parse(sentence: str) -> Fact:
        """Read a fact's sentence back.

        Raises:
            ValueError: the text is not exactly one sentence of the manual.
        """
        match = _FACT.fullmatch(sentence)
        if match is None:
            raise ValueError(
                f"not a sentence of the telecom manual: {sentence!r}; expected one such as "
                "'Alder 40 transmit power is 46 dBm when band seven is active.'"
            )
        return Fact(
            f"{match['series']} {match['number']}",
            f"{match['aspect']} {match['quantity']}",
            int(match["value"]),
            match["unit"],
            match["condition"],
        )


def draw_entity(rng: random.Random) -> str:
    """A series and a number, both uniform."""
    return f"{rng.choice(SERIES)} {rng.randint(1, LARGEST_NUMBER)}"


def draw_parameter(rng: random.Random) -> str:
    """A parameter's two-word name, uniform over all 465."""
    return f"{rng.choice(ASPECTS)} {rng.choice(QUANTITIES)}"


def draw_condition(rng: random.Random) -> str:
    """A condition's four words, uniform over all 1,728."""
    return f"{rng.choice(PLACES)} {rng.choice(ORDINALS)} is {rng.choice(STATES)}"


def draw_fact(rng: random.Random, entity: str, parameter: str) -> Fact:
    """State something about a subject: a random value in a unit that suits it, and a condition."""
    units = UNITS_OF[parameter.rsplit(" ", 1)[-1]]
    return Fact(
        entity, parameter, rng.randint(1, LARGEST_NUMBER), rng.choice(units), draw_condition(rng)
    )


def words() -> tuple[str, ...]:
    """Every word the manual can contain, numbers included: sorted, without repeats."""
    numbers = tuple(str(n) for n in range(LARGEST_NUMBER + 1))
    sentence = ("is", "when", "What", "the", "Not", "found", "in", "passages")
    lists = (SERIES, ASPECTS, QUANTITIES, UNITS, PLACES, ORDINALS, STATES, numbers, sentence)
    return tuple(sorted({word for part in lists for word in part}))
