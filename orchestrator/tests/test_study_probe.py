"""The judge's taste for length: the same content in two lengths, shown beside the checks."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace

import pytest
from fakes import served
from html_page import Page
from small_study import SmallStudy, invoke

from tuneproof.analysis import compare
from tuneproof.report import build_report, report_json
from tuneproof.results import CriterionGrade, Grade, LengthProbe, Measure
from tuneproof.study.steps.checks import Question
from tuneproof.study.steps.probing import Probe, length_probe

pytestmark = pytest.mark.timeout(60)

SCALE = Measure("accuracy", 1, 5, "points")


def probe(item: int, cluster: str) -> Probe:
    asked = Question(f"q{item}", "?", ("a b c d",), ())
    return Probe(asked, "padded", "a b", "a b In other words: a b", cluster)


def grade(score: float | None) -> Grade:
    return Grade({"accuracy": CriterionGrade("accuracy", "a@1", "", score, None, ())}, {}, "j")


def test_points_for_each_doubling_over_probes_scored_in_both_lengths() -> None:
    probes = [probe(item, f"d{item // 2}") for item in range(6)]
    grades = [(grade(3.0), grade(3.5))] * 4 + [(grade(3.0), grade(None)), (grade(3.0), None)]
    found = length_probe(SCALE, probes, grades)
    assert found is not None
    doublings = math.log2(7 / 2)
    assert found.points == pytest.approx(0.5 / doublings)
    assert (found.answers, found.unscored, found.clusters) == (4, 1, 2)
    assert found.standard_error == 0.0
    assert length_probe(SCALE, probes[:1], [(None, None)]) is None


def test_a_study_probes_its_judge(tmp_path, capsys, monkeypatch) -> None:
    small = SmallStudy(tmp_path)
    small.edit("judge: {forms: 6}}", "judge: {forms: 6}, length: {answers: 5}}")
    world = small.world()

    async def run():
        async with served(world) as target:
            return await small.run(target)

    results = asyncio.run(run())
    assert [(one.criterion, one.kind) for one in results.length_probes] == [
        (criterion, kind)
        for criterion in ("accuracy", "completeness")
        for kind in ("padded", "trimmed")
    ]
    assert {one.answers for one in results.length_probes} == {5}
    # This judge counts words of the reference; it does not care how often they come.
    assert {one.points for one in results.length_probes} == {0.0}
    texts = [text for _, text in world.graded if "In other words:" in text]
    assert len(texts) >= 5
    # Trimming takes away what it put there, and nothing else: what is left is judged too.
    wrapped = [text for _, text in world.graded if text.startswith("Thank you")]
    assert len(wrapped) == 5
    assert {text.split("\n\n")[1] for text in wrapped} <= {text for _, text in world.graded}
    assert all(one.forms for one in results.judge_checks)
    asked = sum(world.grades.values())
    assert asyncio.run(run()).length_probes == results.length_probes
    assert sum(world.grades.values()) == asked

    report = ["study", "report", str(small.file), "--state", str(small.state), "--json"]
    code, out, _ = invoke(capsys, monkeypatch, *report)
    assert code == 0
    assert len(json.loads(out)["checks"]["length"]) == 4
    shown = replace(
        results, length_probes=(LengthProbe("accuracy", 5, 0, 0.123, 0.04, 5),), judge_checks=()
    )
    page = Page(build_report(shown, compare(shown))).text
    assert "+0.12 ± 0.04" in page
    assert report_json(shown, compare(shown))["checks"]["length"][0]["points"] == 0.123


def test_a_probe_needs_a_judge(tmp_path, capsys, monkeypatch) -> None:
    small = SmallStudy(tmp_path)
    text = small.file.read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("judge:", "checks:"))]
    small.file.write_text("\n".join([*lines, "checks: {length: {}}"]))
    small.edit("{accuracy: 0.25, completeness: 0.25}", "{token_f1: 0.1}")
    code, _, err = invoke(capsys, monkeypatch, "study", "plan", str(small.file))
    assert code == 2
    assert "checks.length: there is no judge to check" in err
