"""Variances for clusters against pyfixest, whose own compilation takes most of the time."""

import numpy as np
import pandas as pd
import pyfixest
import pytest

from tuneproof.analysis.intervals import cluster_robust
from tuneproof.analysis.weighted import hajek

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]


def variances(
    values: np.ndarray, clusters: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float]:
    """The mean of a regression on a constant, and its variances CRV1 and CRV3, both without the
    factor G/(G - 1) that it gives them."""
    data = pd.DataFrame({"value": values, "cluster": clusters, "weight": weights})
    fit = pyfixest.feols("value ~ 1", data=data, weights="weight", vcov={"CRV1": "cluster"})
    raw = float(fit.se().iloc[0]) ** 2
    fit.vcov({"CRV3": "cluster"})
    groups = len(set(clusters))
    share = (groups - 1) / groups
    return float(fit.coef().iloc[0]), raw * share, float(fit.se().iloc[0]) ** 2 * share


def test_clusters_of_one_size_have_the_variance_of_both_estimators() -> None:
    values, clusters = np.random.default_rng(1).normal(size=42), np.repeat(np.arange(14), 3)
    mean, raw, jackknife = variances(values, clusters, np.ones(42))
    assert cluster_robust(values, clusters) == pytest.approx((mean, raw * 14 / 13), rel=1e-9)
    assert jackknife == pytest.approx(raw * (14 / 13) ** 2, rel=1e-9)


@pytest.mark.parametrize("sizes", [[1, 2, 3, 4] * 5, [30, *[1] * 12]])
@pytest.mark.parametrize("unequal", [False, True])
def test_the_bias_reduced_variance_lies_between_its_raw_and_its_jackknife(
    sizes: list[int], unequal: bool
) -> None:
    # With leverages h, the three weigh each cluster's square by 1, 1/(1 - h) and 1/(1 - h)².
    random = np.random.default_rng(2)
    values, clusters = random.normal(size=sum(sizes)), np.repeat(np.arange(len(sizes)), sizes)
    chances = random.uniform(0.2, 1.0, len(values)) if unequal else np.ones(len(values))
    mean, raw, jackknife = variances(values, clusters, 1 / chances)
    found = hajek(values, clusters, chances)
    assert found.difference == pytest.approx(mean, rel=1e-9)
    assert found.standard_error is not None
    assert raw < found.standard_error**2 < np.sqrt(raw * jackknife) * (1 + 1e-9)
