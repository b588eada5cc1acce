"""Anchored verdicts on real labels: EVOUNA's five systems, and NQ301's annotators and GPT-4."""

import csv
import importlib
import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tuneproof.analysis.anchoring import anchor, anchored_interval
from tuneproof.analysis.intervals import estimate, interval_of

Floats = npt.NDArray[np.float64]
ByPair = dict[tuple[str, str], tuple[Floats, Floats]]

BENCH = Path(__file__).parents[2] / "benchmarks" / "verdicts"


@pytest.fixture
def by_pair(monkeypatch: pytest.MonkeyPatch) -> ByPair:
    """People's and lexical match's differences by pair of systems."""
    monkeypatch.syspath_prepend(BENCH)
    evouna = importlib.import_module("evouna")
    if (path := evouna.path()) is None:
        pytest.skip("no EVOUNA data: benchmarks/verdicts/evouna.py says where it comes from")
    found: ByPair = evouna.differences(path)
    return found


def test_people_and_lexical_match_on_real_answers(by_pair: ByPair) -> None:
    shown = {
        pair: (len(human), round(float(human.mean()), 3), round(float(lexical.mean()), 3))
        for pair, (human, lexical) in by_pair.items()
    }
    assert shown["fid", "newbing"] == (1474, -0.096, 0.060)
    assert shown["fid", "gpt35"] == (1477, 0.047, 0.106)
    assert shown["gpt35", "gpt4"] == (1478, -0.142, -0.117)


def test_few_labels_put_a_misleading_judge_right_on_real_answers(by_pair: ByPair) -> None:
    people, lexical = by_pair["fid", "newbing"]
    truth, random, rounds = float(people.mean()), np.random.default_rng(11), 500
    anchored = judged = 0
    for _ in range(rounds):
        items = random.integers(0, len(people), 400)
        human = np.full(400, np.nan)
        human[:50] = people[items[:50]]
        interval = anchored_interval(
            anchor(lexical[items], human, np.arange(400)), 0.95, (-1.0, 1.0)
        )
        alone = interval_of(estimate(lexical[items], np.arange(400)), 0.95, (-1.0, 1.0))
        assert interval is not None
        assert alone is not None
        anchored += interval.low <= truth <= interval.high
        judged += alone.low <= truth <= alone.high
    assert anchored / rounds >= 0.93 - 4 * math.sqrt(0.93 * 0.07 / rounds)
    assert judged / rounds <= 0.05


def test_a_real_judge_anchored_in_annotators() -> None:
    by_person, by_model = (_verdicts(f"nq301/NQ301_{name}.half.tsv") for name in ("human", "gpt-4"))
    both = [key for key in by_person if key in by_model]
    assert len(both) == 727  # one answer stands in the one file only
    people = np.array([by_person[key] for key in both], dtype=np.float64)
    judge = np.array([by_model[key] for key in both], dtype=np.float64)
    questions = np.array([int(question) for question, _ in both])
    chosen = np.random.default_rng(3).permutation(len(people))[:150]
    human = np.full(len(people), np.nan)
    human[chosen] = people[chosen]
    found = anchor(judge, human, questions)
    labels = interval_of(estimate(people[chosen], questions[chosen]), 0.95, (0.0, 1.0))
    interval = anchored_interval(found, 0.95, (0.0, 1.0))
    assert interval is not None
    assert labels is not None
    assert interval.low <= people.mean() <= interval.high
    assert interval.high - interval.low < 0.9 * (labels.high - labels.low)


def _verdicts(name: str) -> dict[tuple[str, str], bool]:
    path = Path(os.environ.get("TUNEPROOF_DATA", "")) / name
    if not path.is_file():
        pytest.skip(f"{path} is missing: set TUNEPROOF_DATA to a folder that holds NQ301")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {(each["id"], each["Model answer"]): each["Acceptable?"] == "Yes" for each in rows}
