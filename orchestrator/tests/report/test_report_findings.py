"""Sentences, figures, marks of difference, plots and JSON."""

import json
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tuneproof.analysis import Verdict, compare
from tuneproof.report import findings, headline, report_json, warnings
from tuneproof.report.answers.differences import mark
from tuneproof.report.findings import CellFinding, Direction
from tuneproof.report.numbers import (
    MINUS,
    decimals_of,
    duration,
    interval_text,
    margin_text,
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
    assert short.sentences[1].startswith("Completeness: worse, by judge demo-model. ")
    assert f"({interval_text(completeness).join(('interval ', ''))})" in short.sentences[1]
    assert "Short references, 200\N{RIGHT DOUBLE QUOTATION MARK} loses" in headline([short, full])


def cell(direction: Direction, seed: int = 1, arm: str = "a") -> CellFinding:
    return CellFinding("c", "C", arm, 200, seed, ("judge gpt-x",), direction, "does so", ())


@pytest.mark.parametrize(
    ("directions", "start"),
    [
        (["better"], "The base model with another prompt answers better, by judge gpt-x: "),
        (["undecided"], "This study cannot decide whether another prompt helps, by "),
        (["better", "worse"], "Some prompts answer better, others do not, by "),
        (["worse", "undecided"], "Another prompt is not shown to help, by "),
    ],
)
def test_without_a_tuned_cell_the_headline_is_about_prompts(
    directions: list[Direction], start: str
) -> None:
    said = headline([replace(cell(direction), tuned=False) for direction in directions])
    assert said.startswith(start)


def test_beside_tuned_cells_the_others_do_not_lead() -> None:
    said = headline([cell("worse"), replace(cell("better", arm="few-shot"), tuned=False)])
    assert said.startswith("The tuned adapter answers worse, by judge gpt-x: ")


@pytest.mark.parametrize(
    ("directions", "start"),
    [
        (["better"], "The tuned adapter answers better, by judge gpt-x: "),
        (["better", "better"], "The tuned adapters answer better, by judge gpt-x: "),
        (["slightly_better"], "The tuned adapter answers slightly better, by "),
        (["partly_better"], "The tuned adapter answers better by some measures only, by "),
        (["better", "worse"], "Some tuned adapters answer better, others do not, by "),
        (["worse"], "The tuned adapter answers worse, by "),
        (["mixed"], "The tuned adapter gains and loses at once, by "),
        (["equivalent"], "The tuned adapter makes no difference that matters, by "),
        (["undecided"], "This study cannot decide whether fine-tuning helps, by "),
        (["worse", "undecided"], "Fine-tuning is not shown to help, by "),
        (["slightly_better", "undecided"], "Fine-tuning is not shown to help, by "),
        ([], "Nothing was compared"),
    ],
)
def test_the_headline_follows_the_cells(directions: list[Direction], start: str) -> None:
    assert headline([cell(direction) for direction in directions]).startswith(start)


@pytest.mark.parametrize(
    ("direction", "start"),
    [
        ("better", "Fine-tuning makes the answers better, by judge gpt-x: "),
        ("worse", "Fine-tuning makes the answers worse, by "),
        ("mixed", "Fine-tuning gains and loses at once, by "),
        ("equivalent", "Fine-tuning makes no difference that matters, by "),
    ],
)
def test_only_recipes_with_their_own_verdict_speak_of_fine_tuning(
    direction: Direction, start: str
) -> None:
    seeds = [replace(cell(direction, seed), recipe=True) for seed in (1, 2, 3)]
    assert headline(seeds).startswith(start)
    lone = [*seeds, cell(direction, 1, "b")]
    assert headline(lone).startswith("The tuned adapters ")


def test_many_cells_are_counted() -> None:
    kinds: list[Direction] = ["worse", "worse", "better", "undecided", "mixed"]
    said = headline([cell(kind) for kind in kinds])
    assert said.endswith("of 5 tuned cells 1 gain, 2 lose, 1 gain and lose and 1 are undecided.")


def tuned_by(study: StudyResults, *changes: dict[str, object]) -> CellFinding:
    """The finding of the first tuned cell, its comparisons changed so."""
    comparisons = compare(study)
    first = tuple(
        replace(one, **change)  # type: ignore[arg-type]
        for one, change in zip(comparisons.of_cell(study.cells[1].name), changes, strict=True)
    )
    return findings(study, replace(comparisons, primary=first))[0]


BETTER = {"verdict": Verdict.BETTER, "within_margin": False, "words": "better"}
WITHIN = {"verdict": Verdict.BETTER, "within_margin": True, "words": "better, within the margin"}
OPEN = {"verdict": Verdict.UNDECIDED, "within_margin": False, "words": "undecided"}


def test_the_headline_says_no_more_than_its_weakest_part(study: StudyResults) -> None:
    assert tuned_by(study, BETTER, BETTER).direction == "better"
    assert tuned_by(study, BETTER, WITHIN).direction == "slightly_better"
    beside = tuned_by(study, WITHIN, OPEN)
    assert beside.direction == "partly_better"
    assert beside.phrase == "gains accuracy (within the margin) and is undecided in completeness"
    assert headline([beside]).startswith(
        "The tuned adapter answers better by some measures only, by judge demo-model: "
    )


def test_looking_again_is_warned_of_where_something_is_undecided(study: StudyResults) -> None:
    comparisons = compare(study)
    first = comparisons.primary[0]
    for change, warned in ((OPEN, True), (BETTER, False)):
        changed = replace(comparisons, primary=(replace(first, **change),))  # type: ignore[arg-type]
        said = " ".join(caveat.text for caveat in warnings(study, changed))
        assert ("Do not add questions and look again" in said) is warned
        assert "above 5 %" in said or not warned


def test_what_the_judges_endpoint_refuses_is_told(study: StudyResults) -> None:
    first, *rest = study.answers
    assert first.grade is not None
    criteria = {
        name: replace(score, refused_parameters=("max_tokens", "seed", "temperature"))
        for name, score in first.grade.criteria.items()
    }
    first = replace(first, grade=replace(first.grade, criteria=criteria))
    found = warnings(replace(study, answers=(first, *rest)), compare(study))
    told = [each.text for each in found if "refuses" in each.text]
    (text,) = told
    assert text.startswith("The judge's endpoint refuses seed, temperature, and was asked without")
    assert not [one for one in warnings(study, compare(study)) if "refuses" in one.text]


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
    text = " ".join(
        caveat.text for caveat in warnings(broken, compare(broken)) if caveat.kind == "caution"
    )
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


def test_rounding_never_hides_what_the_gate_reads(study: StudyResults) -> None:
    one = compare(study).primary[0]
    assert one.interval is not None
    near = replace(one, margin=0.25, interval=replace(one.interval, low=-0.2496, high=0.4))
    assert interval_text(near) == f"{MINUS}0.2496 to +0.4000"
    assert margin_text(near) == "0.25"
    assert margin_text(replace(near, margin=0.125)) == "0.125"


def test_json_has_its_documented_shape(study: StudyResults) -> None:
    comparisons = compare(study)
    written = json.loads(json.dumps(report_json(study, comparisons), allow_nan=False))
    assert list(written) == [
        "schema", "study", "verdict", "warnings", "intervals", "comparisons", "exploratory",
        "support", "agreement", "contrasts", "preferences", "recipes", "cells", "models", "strata",
        "failures", "checks", "retrieval", "provenance", "stage_seconds", "prices",
    ]  # fmt: skip
    assert written["schema"] == "tuneproof.report/2"
    assert (written["study"]["items"], written["study"]["clusters"]) == (80, 55)
    assert written["verdict"]["cells"][0]["direction"] == "worse"
    first = written["comparisons"][0]
    assert set(first) == {
        "cell", "against", "measure", "scale", "by", "items", "clusters", "mean", "mean_against",
        "difference", "standard_error", "degrees_of_freedom", "interval", "scored_interval",
        "margin", "verdict", "within_margin", "words", "non_inferior", "unscored",
        "unscored_against", "bounds",
    }  # fmt: skip
    assert first["by"] == "judge demo-model"
    assert first["scale"] == {
        "name": "accuracy", "low": 1, "high": 5, "unit": "points", "decimals": 2,
    }  # fmt: skip
    assert set(first["interval"]) == {"low", "high", "confidence", "method"}
    assert first["difference"] == comparisons.primary[0].difference
    assert first["verdict"] == "worse"
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
    assert {one["verdict"] for one in written["comparisons"]} == {"undecided_unscored"}
    assert written["comparisons"][0]["difference"] is None
