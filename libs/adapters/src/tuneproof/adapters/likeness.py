"""Whether an engine does with an adapter what training did: its readings against a fingerprint.

Three differences are told apart. The *base* differs: other weights are served than were trained on.
The *effect* is missing: the base answers in the adapter's name. The effect is *another* one: a part
of the adapter is not applied. Effects are compared, not log-probabilities, because most of what a
precision changes, it changes with and without the adapter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuneproof.adapters.fingerprint import Fingerprint, Reading, Scores, mean_difference


@dataclass(frozen=True)
class Tolerance:
    """How far an honest engine's readings may be from the fingerprint's; means over tokens, in
    nats. docs/adapters.md has the measurement; benchmarks/fingerprint.py makes it again."""

    base: float
    """Between the log-probabilities of the base."""
    effect: float
    """Between the effects, and on top of it"""
    share: float
    """this share of the fingerprint's effect."""
    nothing: float
    """An effect up to this is none: as much comes from rounding alone."""


_EXACT = Tolerance(base=0.01, effect=0.002, share=0.01, nothing=0.0005)
_ROUNDED = Tolerance(base=0.25, effect=0.15, share=0.1, nothing=0.02)
_QUANTISED = Tolerance(base=2.5, effect=0.25, share=1.0, nothing=0.02)
_VISIBLE = 5
"""An effect of so many times `nothing` is told from none for sure."""


def tolerance_of(reading: str, served: str) -> Tolerance:
    """What may differ between two precisions of the base.

    Args:
        reading: of the fingerprint's reading: `nf4`, `float32`, `bfloat16`.
        served: of the engine: `float32`, `bfloat16`, `float16`.
    """
    kinds = {reading, served}
    if kinds == {"float32"}:
        return _EXACT
    return _ROUNDED if kinds <= {"float32", "bfloat16", "float16"} else _QUANTISED


@dataclass(frozen=True)
class Likeness:
    """An engine's readings beside a fingerprint's."""

    reading: Reading
    """The fingerprint's, over the precision nearest to the engine's."""
    served: str
    """The engine's precision."""
    effect: float
    """In the engine; mean over tokens, in nats, as are the next two."""
    base_difference: float
    effect_difference: float

    @property
    def tolerance(self) -> Tolerance:
        """What may differ between these precisions."""
        return tolerance_of(self.reading.precision, self.served)

    @property
    def _nothing(self) -> float:
        """It comes from the engine's rounding, whatever the reading is."""
        return tolerance_of(self.served, self.served).nothing

    @property
    def is_visible(self) -> bool:
        """Whether the fingerprint's effect is large enough to be seen in the engine's precision."""
        return self.reading.effect > _VISIBLE * self._nothing

    @property
    def effect_limit(self) -> float:
        """How far the effects may differ, in nats."""
        return self.tolerance.effect + self.tolerance.share * self.reading.effect

    @property
    def problem(self) -> str:
        """Why the adapter must not be served so, and what to do; empty when nothing is wrong."""
        allowed, precisions = self.tolerance, f"{self.reading.precision} and {self.served}"
        if not math.isfinite(self.base_difference + self.effect):
            return "the engine gives log-probabilities that are not finite"
        if self.base_difference > allowed.base:
            return (
                f"another base: without the adapter the log-probabilities differ by"
                f" {self.base_difference:.4g} nat a token from those in training, above the"
                f" {allowed.base:g} that {precisions} explain. Serve the weights that it was"
                " trained on (their revision), or train it on these"
            )
        if self.effect <= self._nothing and self.is_visible:
            return (
                f"no effect: the engine answers as the base does (they differ by {self.effect:.2g}"
                f" nat a token); in training the adapter moved it by {self.reading.effect:.4g}."
                " The names of its modules do not match the served model's, or the engine does not"
                " adapt these modules"
            )
        if self.effect_difference > self.effect_limit:
            return (
                f"another effect: the adapter moves the log-probabilities by {self.effect:.4g} nat"
                f" a token, in training by {self.reading.effect:.4g}; they differ by"
                f" {self.effect_difference:.4g}, above the {self.effect_limit:.4g} that"
                f" {precisions} explain. A part of its modules is not applied, or its scale is"
                " another one"
            )
        return ""

    @property
    def words(self) -> str:
        """What was found, for one that may be served."""
        found = (
            f"its effect is {self.effect:.4g} nat a token, within {self.effect_difference:.2g} of"
            f" training's over {self.reading.precision} (at most {self.effect_limit:.2g})"
        )
        if not self.is_visible:
            return f"{found}; so small an effect cannot be told from none in {self.served}"
        return found


def compare(fingerprint: Fingerprint, base: Scores, adapted: Scores, served: str) -> Likeness:
    """Compares an engine's readings of a fingerprint's probes with the fingerprint.

    Args:
        base: the engine's log-probabilities without the adapter.
        adapted: with it.
        served: the engine's precision, as `float32`.
    """
    reading = fingerprint.nearest
    return Likeness(
        reading,
        served,
        effect=mean_difference(adapted, base),
        base_difference=mean_difference(base, reading.base),
        effect_difference=mean_difference(
            _effects(adapted, base), _effects(reading.adapted, reading.base)
        ),
    )


def _effects(adapted: Scores, base: Scores) -> Scores:
    return tuple(
        tuple(left - right for left, right in zip(row, beside, strict=True))
        for row, beside in zip(adapted, base, strict=True)
    )
