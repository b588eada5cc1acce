"""The judge's taste for length: the same content, shorter and longer.

Padding and trimming are measured apart, for a judge may reward the one and not punish the other.
Neither changes the content. A padded answer says all of it a second time. A trimmed one is an
answer with an empty opening and close, as models write them, of which both are taken away. What a
study's own answers say is never cut: a program cannot tell which of their words carry content.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from tuneproof.results import Grade, LengthProbe, Measure
from tuneproof.study.design.plan import Plan
from tuneproof.study.steps.checks import Question

_FEWEST_WORDS = 4
"""Of the part of a reference that is judged; shorter references are judged whole."""

_AGAIN = "In other words:"
_OPENING = "Thank you for your question. Here is the answer that you asked for:"
_CLOSE = "I hope that this answers your question. Please ask again if you need anything else."

ProbeKind = Literal["padded", "trimmed"]


@dataclass(frozen=True, slots=True)
class Probe:
    """One content in two lengths."""

    asked: Question
    kind: ProbeKind
    short: str
    long: str
    cluster: str


def probes_of(plan: Plan) -> tuple[Probe, ...]:
    """The first half of each of the first references: bare, said twice, and in empty words.

    Half of a right answer is neither right nor wrong throughout, so the scale leaves room on both
    sides. No passage is shown: what is said alone shall count. Empty without a judge or a probe.
    """
    check = plan.spec.checks.length
    if check is None or plan.spec.judge is None:
        return ()
    found = []
    for item in plan.test[: check.answers]:
        references = item.references[plan.spec.references]
        words = references[0].split()
        half = " ".join(words[: max(len(words) // 2, min(len(words), _FEWEST_WORDS))])
        asked = Question(item.id, item.question, references, ())
        longer: dict[ProbeKind, str] = {
            "padded": f"{half}\n\n{_AGAIN} {half}",
            "trimmed": f"{_OPENING}\n\n{half}\n\n{_CLOSE}",
        }
        found += [
            Probe(asked, kind, half, text, plan.clusters[item.id]) for kind, text in longer.items()
        ]
    return tuple(found)


def length_probes(
    measure: Measure, probes: Sequence[Probe], grades: Sequence[tuple[Grade | None, Grade | None]]
) -> list[LengthProbe]:
    """`length_probe` of each kind that has answers."""
    found = []
    for kind in get_args(ProbeKind):
        of_kind = [place for place, probe in enumerate(probes) if probe.kind == kind]
        one = length_probe(
            measure, [probes[place] for place in of_kind], [grades[place] for place in of_kind]
        )
        if one is not None:
            found.append(replace(one, kind=kind))
    return found


def length_probe(
    measure: Measure, probes: Sequence[Probe], grades: Sequence[tuple[Grade | None, Grade | None]]
) -> LengthProbe | None:
    """What a criterion's score gains for each doubling of the words, the content being the same.

    The mean over probes of (long - short)/log2(words of long by words of short), with its standard
    error by CR2 over document clusters. None where no probe is scored in both lengths.

    Args:
        grades: of short and long, probe by probe; None where there is none yet.
    """
    from tuneproof.analysis.intervals import estimate  # noqa: PLC0415 - scipy is slow to load

    gains, clusters, judged = [], [], 0
    codes: dict[str, int] = {}
    for probe, both in zip(probes, grades, strict=True):
        means = [_mean(grade, measure.name) for grade in both]
        judged += None not in both
        if means[0] is not None and means[1] is not None:
            doublings = math.log2(len(probe.long.split()) / max(len(probe.short.split()), 1))
            gains.append((means[1] - means[0]) / doublings)
            clusters.append(codes.setdefault(probe.cluster, len(codes)))
    if not gains:
        return None
    found = estimate(np.array(gains), np.array(clusters, dtype=np.int64))
    unscored = judged - len(gains)
    return LengthProbe(
        measure.name, len(gains), unscored, found.difference, found.standard_error, found.clusters
    )


def _mean(grade: Grade | None, criterion: str) -> float | None:
    known = grade.criteria.get(criterion) if grade is not None else None
    return None if known is None else known.mean
