"""Interim looks: which test questions a study asks before each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tuneproof.results import Looks
from tuneproof.study.design.plan import Plan


def plan_at(plan: Plan, looks: Mapping[str, Any] | None) -> Plan:
    """The plan with the questions of the looks taken so far.

    Questions join in whole clusters in an order by chance, drawn with the seed of the split: it is
    fixed before the first score.

    Args:
        looks: `planned` and `taken`, as the state keeps them; None: all questions at once.
    """
    if looks is None:
        return plan
    from tuneproof.analysis.looks import in_looks  # noqa: PLC0415 - scipy takes long to load

    codes = np.unique([plan.clusters[item.id] for item in plan.test], return_inverse=True)[1]
    added, fractions = in_looks(codes.astype(np.int64), looks["planned"], plan.spec.split.seed)
    taken = min(looks["taken"], len(added))
    places = {int(place) for part in added[:taken] for place in part}
    asked = tuple(item for place, item in enumerate(plan.test) if place in places)
    return replace(plan, asked_first=asked, looks=Looks(looks["planned"], taken, fractions))
