"""Sentences, figures, marks of difference, plots and JSON."""

import json
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tuneproof.analysis import compare
from tuneproof.report import findings, headline, report_json, warnings
from tuneproof.report.differences import mark
from tuneproof.report.findings import CellFinding, Direction
from tuneproof.report.numbers import (
    MINUS,
    decimals_of,
    duration,
    interval_text,
    percent,
    plain,
    signed,
)
from tuneproof.report.plots import axis_of, forests, scatter, sparkline
from tuneproof.results import StudyResults


def test_the_loss_of_the_short_reference_cell_is_in_its_sentence(study: StudyResults) -> None:
    comparisons = compare(study)
    short, full = findings(study, comparisons)
    assert (short.direction, short.phrase) == ("worse", "loses accuracy and completeness")
    assert full.direction == "undecided"
    completeness = comparisons.primary[1]
    assert short.sentences[1].startswith("Completeness: worse. ")
    assert f"({interval_text(completeness).join(('interval ', ''))})" in short.sentences[1]
    assert "Short references, 200\N{RIGHT DOUBLE QUOTATION MARK} loses" in headline([short, full])


@pytest.mark.parametrize(
    ("directions", "start"),
    [
        (["better", "better"], "Fine-tuning makes the answers better:"),
        (["better", "worse"], "Fine-tuning helps in some cells, not in all:"),
        (["worse"], "Fine-tuning makes the answers worse:"),
        (["mixed"], "Fine-tuning gains and loses at once:"),
        (["equivalent"], "Fine-tuning makes no difference that matters:"),
        (["undecided"], "This study cannot decide whether fine-tuning helps:"),
        (["worse", "undecided"], "Fine-tuning is not shown to help:"),
        ([], "Nothing was compared"),
    ],
)
def test_the_headline_follows_the_cells(directions: list[Direction], start: str) -> None:
    found = [CellFinding("a", "A", direction, "does so", ()) for direction in directions]
    assert headline(found).startswith(start)


def test_many_cells_are_counted() -> None:
    kinds: list[Direction] = ["worse", "worse", "better", "undecided", "mixed"]
    said = headline([CellFinding(str(i), "A", kind, "", ()) for i, kind in enumerate(kinds)])
    assert said.endswith("of 5 tuned cells 1 gain, 2 lose, 1 gain and lose and 1 are undecided.")


def test_warnings_count_what_is_missing(study: StudyResults) -> None:
    first, second, *rest = study.answers
    assert second.grade is not None
    unscored = {
        name: replace(score, mean=None, standard_deviation=None)
        for name, score in second.grade.criteria.items()
    }
    broken = replace(
        study,
        answers=(
            replace(first, grade=None, error="judge is down", finish_reason="length"),
            replace(second, grade=replace(second.grade, criteria=unscored)),
            *rest,
        ),
        judge_checks=(replace(study.judge_checks[0], weighted_kappa=0.41),),
    )
    text = " ".join(caveat.text for caveat in warnings(broken) if caveat.kind == "caution")
    assert "1 of 240 answers are missing or without a grade" in text
    assert "2 of 478 judged scores are missing" in text
    assert "1 of 240 answers were cut" in text
    assert "agrees poorly with known scores in accuracy" in text


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")))
def test_marks_hold_both_answers(old: list[str], new: list[str]) -> None:
    segments = mark(" ".join(old), " ".join(new))
    said = [word for one in segments if one.kind != "missing" for word in one.text.split()]
    assert said == new
    if old:
        was = [word for one in segments if one.kind != "added" for word in one.text.split()]
        assert was == old


@given(
    st.floats(-5, 5).map(lambda value: round(value, 6)),
    st.floats(0, 9).map(lambda value: round(value, 6)),
)
def test_an_axis_holds_its_values_between_round_ticks(low: float, width: float) -> None:
    axis = axis_of(low, low + width)
    assert axis.low <= low + 1e-6
    assert axis.high >= low + width - 1e-6
    assert 2 <= len(axis.ticks) <= 11
    assert 0 < axis.at(low) <= axis.at(low + width) < 100


def test_the_forest_draws_what_the_table_says(study: StudyResults) -> None:
    comparisons = compare(study)
    (forest,) = forests(study, comparisons)
    assert [row.words for row in forest.rows] == [one.words for one in comparisons.primary]
    for row, one in zip(forest.rows, comparisons.primary, strict=True):
        assert one.interval is not None
        assert row.low is not None
        assert row.high is not None
        assert row.low < row.point < row.high
        assert (row.high < forest.zero) == (one.interval.high < 0)


def test_the_scatter_has_every_scored_answer(study: StudyResults) -> None:
    drawn = scatter(study)
    assert drawn is not None
    assert drawn.measure == "Completeness"
    assert len(drawn.dots) == len(study.answers)
    assert len(drawn.means) == len(study.cells)
    assert drawn.means[1].x < drawn.means[0].x  # short answers lie to the left
    assert drawn.means[1].y > drawn.means[0].y  # and lower: pixels count from the top


def test_a_sparkline_is_thinned_and_ends_at_the_last_loss() -> None:
    points = sparkline([(step, 5.0 - step / 1000) for step in range(5000)]).split()
    assert len(points) <= 170
    assert points[0] == "0.00,2.00"
    assert points[-1] == "100.00,28.00"
    assert sparkline([(1, 2.0)]) == ""


def test_figures_read_as_people_write_them() -> None:
    assert (plain(-1.234), signed(0.5), signed(-0.001)) == (f"{MINUS}1.23", "+0.50", "0.00")
    assert (percent(0.003), percent(0.999), percent(0.5)) == ("under 1 %", "over 99 %", "50 %")
    assert (duration(0.42), duration(37.2), duration(245)) == ("0.42 s", "37 s", "4 min 5 s")
    assert (plain(None), duration(7800)) == ("\N{EN DASH}", "2 h 10 min")


def test_rounding_never_hides_on_which_side_of_zero_an_interval_lies(study: StudyResults) -> None:
    one = compare(study).primary[0]
    assert one.interval is not None
    near = replace(one, interval=replace(one.interval, low=-0.31, high=-0.0004))
    assert decimals_of(near) == 4
    assert interval_text(near) == f"{MINUS}0.3100 to {MINUS}0.0004"


def test_json_has_its_documented_shape(study: StudyResults) -> None:
    comparisons = compare(study)
    written = json.loads(json.dumps(report_json(study, comparisons), allow_nan=False))
    assert list(written) == [
        "schema", "study", "verdict", "warnings", "intervals", "comparisons", "exploratory",
        "cells", "checks", "retrieval", "provenance", "stage_seconds",
    ]  # fmt: skip
    assert written["schema"] == "tuneproof.report/1"
    assert (written["study"]["items"], written["study"]["clusters"]) == (80, 55)
    assert written["verdict"]["cells"][0]["direction"] == "worse"
    first = written["comparisons"][0]
    assert set(first) == {
        "cell", "against", "measure", "items", "clusters", "mean", "mean_against", "difference",
        "standard_error", "interval", "margin", "outcome", "within_margin", "words",
        "non_inferior", "unscored", "unscored_against", "bounds", "needed_items",
    }  # fmt: skip
    assert set(first["interval"]) == {"low", "high", "confidence", "method"}
    assert first["difference"] == comparisons.primary[0].difference
    assert first["outcome"] == "worse"
    baseline = written["cells"][0]
    assert (baseline["name"], baseline["answers"], baseline["errors"]) == ("baseline", 80, 0)
    assert set(baseline["means"]["token_f1"]) == {
        "mean", "standard_deviation", "scored", "unscored",
    }  # fmt: skip
    assert len(written["checks"]["judge"][0]["confusion"]) == 5


def test_json_of_a_study_without_a_single_score_is_still_json(study: StudyResults) -> None:
    dead = replace(
        study,
        answers=tuple(
            replace(answer, grade=None, error="judge is down") for answer in study.answers
        ),
    )
    written = json.loads(json.dumps(report_json(dead, compare(dead)), allow_nan=False))
    assert {one["outcome"] for one in written["comparisons"]} == {"undecided_unscored"}
    assert written["comparisons"][0]["difference"] is None
