"""Agreement between a rater and the truth on an ordinal scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tuneproof.servicekit.errors import InvalidInput


def confusion_matrix(
    truth: Sequence[int], given: Sequence[int], levels: Sequence[int]
) -> npt.NDArray[np.int64]:
    """Counts of pairs: rows by true level, columns by given level, in the order of `levels`.

    Raises:
        InvalidInput: lengths differ, or a value is not among the levels.
    """
    if len(truth) != len(given):
        raise InvalidInput(f"{len(truth)} true values but {len(given)} given ones: give pairs")
    place = {level: index for index, level in enumerate(levels)}
    if len(place) < 2 or len(place) != len(levels):
        raise InvalidInput(f"levels must be at least two different values, got {list(levels)}")
    unknown = sorted({value for value in (*truth, *given) if value not in place})
    if unknown:
        raise InvalidInput(f"values {unknown} are not among the levels {list(levels)}")
    counts = np.zeros((len(levels), len(levels)), dtype=np.int64)
    for right, said in zip(truth, given, strict=True):
        counts[place[right], place[said]] += 1
    return counts


def weighted_kappa(truth: Sequence[int], given: Sequence[int], levels: Sequence[int]) -> float:
    """Cohen's κ with quadratic weights, -1 to 1: agreement beyond chance on an ordinal scale.

    κ = 1 - Σᵢⱼ wᵢⱼ Oᵢⱼ / Σᵢⱼ wᵢⱼ Eᵢⱼ with wᵢⱼ = (i - j)², O the observed counts and
    E = (row total · column total) / n (Cohen 1968, Psychological Bulletin 70:213). Levels count
    as equally spaced, in the order given.

    Where both raters used one and the same level throughout, κ is 0/0; the answer is then 0.0,
    because nothing beyond chance was shown.

    Args:
        truth: right levels.
        given: the rater's levels, pair by pair.
        levels: every level of the scale, lowest first, as `(1, 2, 3, 4, 5)`.

    Raises:
        InvalidInput: no pairs, lengths differ, or a value is not among the levels.
    """
    observed = confusion_matrix(truth, given, levels).astype(np.float64)
    total = observed.sum()
    if total == 0:
        raise InvalidInput("κ needs at least one pair of levels, got none")
    rank = np.arange(len(levels), dtype=np.float64)
    weight = (rank[:, None] - rank[None, :]) ** 2
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / total
    by_chance = float((weight * expected).sum())
    if by_chance == 0.0:
        return 0.0
    return float(1.0 - (weight * observed).sum() / by_chance)


def cohen_kappa(truth: Sequence[int], given: Sequence[int], levels: Sequence[int]) -> float:
    """Cohen's κ without weights, -1 to 1: agreement beyond chance on named levels (Cohen 1960,
    Educational and Psychological Measurement 20:37).

    As `weighted_kappa`, also where it is 0/0.
    """
    observed = confusion_matrix(truth, given, levels).astype(np.float64)
    total = observed.sum()
    if total == 0:
        raise InvalidInput("κ needs at least one pair of levels, got none")
    by_chance = float(observed.sum(axis=1) @ observed.sum(axis=0)) / total**2
    if by_chance == 1.0:
        return 0.0
    return float((np.trace(observed) / total - by_chance) / (1.0 - by_chance))
