"""The red team against the demo's judge, a small model that reads by a rubric of its own."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tuneproof.data.telecom_grammar import draw_entity, draw_fact, draw_parameter

from ..conftest import Running, tuneproof

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ITEMS = 10


def items() -> list[dict[str, str]]:
    """Facts of the telecom manual; the wrong answer states another number."""
    rng, found = random.Random(11), []
    for _ in range(ITEMS):
        fact = draw_fact(rng, draw_entity(rng), draw_parameter(rng))
        wrong = replace(fact, value=fact.value % 399 + 1)
        found.append(
            {"question": fact.question, "reference": fact.sentence, "wrong": wrong.sentence}
        )
    return found


def test_the_demos_judge_is_measured_under_attack(running: Running, tmp_path: Path) -> None:
    path, out = tmp_path / "items.jsonl", tmp_path / "redteam.json"
    path.write_text("\n".join(map(json.dumps, items())))
    options = ["--rubric", "telecom-accuracy@1", "--out", str(out)]
    where = ["--state", str(running.state)]
    done = tuneproof("judge", "redteam", str(path), *options, *where, timeout=250)
    found = json.loads(out.read_text())
    assert not found["blind"], done.stdout + done.stderr
    assert done.returncode == 0
    asked = sum(each["answers"] + each["unscored"] for each in found["outcomes"])
    assert asked == ITEMS * len(found["outcomes"])
    assert f"{found['rate']:.3f}" in done.stdout
