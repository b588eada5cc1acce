"""Looking at a study while it runs, without paying for it in false verdicts.

A study that stops as soon as its 95 % interval decides, after any of five looks, is wrong in one
case of eight. Here the looks are fixed before the run, each spends its part of the error, and its
interval is as wide as that part demands. All K repeated intervals hold together, so the same
reading rule serves at every look, and a study may stop at the first that decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import optimize, special

from tuneproof.analysis.intervals import Codes, Floats, codes_of
from tuneproof.servicekit.errors import InvalidInput

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(160)
"""On -1 … 1. Constants come out right to 1e-7 down to steps of 2 % of the information."""

SMALLEST_STEP = 0.02
"""Of the information between two looks."""

_HIGHEST = 7.5
"""Critical value of a look so early that it has no error to spend; the chance to pass it is 6e-14,
which floating point still tells from 0."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a study."""

    fraction: float
    """Of all information, above 0 to 1: the share of items whose clusters have been run."""
    spent: float
    """Two-sided error spent up to here, this look included."""
    critical: float
    """c: the repeated interval is D ± c · standard error, if that is known."""
    confidence: float
    """Of this look's interval by itself, 2Φ(c) - 1: what `intervals.interval_of` takes, so that
    Student's t stands in for the normal."""


def plan_looks(fractions: Sequence[float], confidence: float = 0.95) -> tuple[Look, ...]:
    """The critical values of looks at given fractions of the information.

    Up to the fraction t of the information each side may spend

        f(t) = 2 - 2Φ(z / √t),    Φ(z) = 1 - (1 - confidence)/4,

    which is nearly O'Brien and Fleming's boundary: almost nothing early, almost all at the end
    (Lan and DeMets 1983, Biometrika 70:659; O'Brien and Fleming 1979, Biometrics 35:549). c_k is
    such that the chance to leave ± c for the first time at look k is 2f(t_k) - 2f(t_{k-1}) if there
    is no difference. D_k ± c_k SE_k then hold at all looks together with the confidence
    asked for, whether the study stops or not (Jennison and Turnbull 1989, Journal of the Royal
    Statistical Society B 51:305). Several primary comparisons: give each its adjusted confidence.

    With few clusters a standard error is uncertain. Student's t at this look's nominal level takes
    that in to a good approximation (Jennison and Turnbull 2000, Group Sequential Methods,
    section 3.8).

    Assumptions: looks are fixed before the run; clusters come in random order (`in_looks`), so that
    what a look sees is a sample of all; estimates at two looks correlate as √(t_j/t_k).

    Args:
        fractions: rising by `SMALLEST_STEP` at least, the last one 1.
        confidence: of all intervals together, above 0 and below 1.

    Raises:
        InvalidInput: fractions or confidence are not as above.
    """
    if not 0.0 < confidence < 1.0:
        raise InvalidInput(
            f"confidence must be between 0 and 1, got {confidence}", field="confidence"
        )
    steps = [later - earlier for earlier, later in pairwise([0.0, *fractions])]
    if not steps or min(steps) < SMALLEST_STEP - 1e-9 or abs(fractions[-1] - 1.0) > 1e-9:
        raise InvalidInput(
            f"looks must lie at fractions that rise by {SMALLEST_STEP} at least and end at 1, got"
            f" {list(fractions)}: name fewer looks",
            field="looks",
        )
    error = 1.0 - confidence
    planned: list[Look] = []
    for index, fraction in enumerate(fractions):
        total = _spent(fraction, error)
        step = total - (planned[-1].spent if planned else 0.0)
        inside = _inside([look.critical for look in planned], fractions[:index])
        critical = _critical(inside, fraction, step)
        planned.append(Look(fraction, total, critical, 1.0 - 2.0 * float(special.ndtr(-critical))))
    return tuple(planned)


def crossing_probability(bounds: Sequence[float], fractions: Sequence[float]) -> float:
    """The chance that |Z| reaches its bound at any look, if there is no difference.

    Z_k √t_k is a sum of independent normal steps with variances t_k - t_{k-1}. Its density inside
    the bounds is carried from look to look by numerical integration (Armitage, McPherson and Rowe
    1969, Journal of the Royal Statistical Society A 132:235), here with Gauss and Legendre's nodes.

    Args:
        bounds: K critical values for |Z|, above 0.
        fractions: K fractions of the information, rising.
    """
    return sum(
        _inside(bounds[:index], fractions[:index]).leaving(bounds[index], fractions[index])
        for index in range(len(bounds))
    )


def in_looks(clusters: Codes, looks: int, seed: int) -> tuple[tuple[Codes, ...], tuple[float, ...]]:
    """Which items each look adds, in whole clusters in random order, and its share of all items.

    A look ends with the cluster that brings it to k/K of the items. Where one cluster spans two
    looks there is one look fewer.

    Args:
        clusters: shape (n,), any whole numbers.
        looks: K, 1 or more.
        seed: of the order, which the study stores before the first score.

    Returns:
        the items that each look adds, as indices in rising order, and its cumulative fraction.

    Raises:
        InvalidInput: no items, or no looks.
    """
    if looks < 1 or not len(clusters):
        raise InvalidInput(f"{looks} looks at {len(clusters)} items: one of each is the least")
    codes = codes_of(clusters)
    sizes = np.bincount(codes)
    order = np.random.default_rng(seed).permutation(len(sizes))
    grown = np.cumsum(sizes[order])
    ends = np.searchsorted(grown, len(codes) * np.arange(1, looks + 1) / looks - 1e-9)
    look_of_place = np.searchsorted(np.unique(ends), np.arange(len(sizes)))
    look_of_cluster = np.empty(len(sizes), dtype=np.int64)
    look_of_cluster[order] = look_of_place
    added = tuple(
        np.flatnonzero(look_of_cluster[codes] == look) for look in range(len(np.unique(ends)))
    )
    seen = np.cumsum([len(each) for each in added]) / len(codes)
    return added, tuple(float(each) for each in seen)


def _spent(fraction: float, error: float) -> float:
    """Both sides' spending up to `fraction`."""
    quantile = -float(special.ndtri(error / 4.0))
    return min(error, 4.0 * float(special.ndtr(-quantile / math.sqrt(fraction))))


def _critical(inside: _Inside, fraction: float, step: float) -> float:
    """The bound that `step` of the error leaves; no higher than `_HIGHEST`."""
    if inside.leaving(_HIGHEST, fraction) >= step:
        return _HIGHEST
    return float(
        optimize.brentq(
            # A bound far out after a short step has a chance that floating point takes for 0.
            lambda bound: math.log(max(inside.leaving(bound, fraction), 1e-300) / step),
            1e-3,
            _HIGHEST,
            xtol=1e-10,
        )
    )


@dataclass(frozen=True, slots=True)
class _Inside:
    """The sum √t Z of the studies that have stayed within all bounds so far."""

    places: Floats
    """Shape (m,): values of the sum."""
    masses: Floats
    """Shape (m,): quadrature weight times density at each."""
    fraction: float

    def leaving(self, bound: float, fraction: float) -> float:
        """The chance to be inside so far and out of ± bound at `fraction`."""
        step = math.sqrt(fraction - self.fraction)
        reach = bound * math.sqrt(fraction)
        tails = special.ndtr((self.places - reach) / step)
        tails += special.ndtr((-self.places - reach) / step)
        return float(self.masses @ tails)


def _inside(bounds: Sequence[float], fractions: Sequence[float]) -> _Inside:
    """Carries the density through looks at `fractions` with these bounds."""
    state = _Inside(np.zeros(1), np.ones(1), 0.0)
    for bound, fraction in zip(bounds, fractions, strict=True):
        step = math.sqrt(fraction - state.fraction)
        # Far bounds hold next to nothing in their outer parts: 9 standard deviations are enough.
        reach = min(bound, 9.0) * math.sqrt(fraction)
        places = reach * _NODES
        densities = np.exp(-(((places[:, None] - state.places[None, :]) / step) ** 2) / 2.0)
        masses = reach * _WEIGHTS * (densities @ state.masses) / (step * math.sqrt(2.0 * math.pi))
        state = _Inside(places, masses, fraction)
    return state
