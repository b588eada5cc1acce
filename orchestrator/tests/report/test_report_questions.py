"""The paper's questions, over models, arms, sizes and seeds; what a study cannot answer."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from paper_study import paper_study

from tuneproof.analysis import compare, recipes_of
from tuneproof.report import build_report
from tuneproof.report.dose import dose_response
from tuneproof.report.numbers import MINUS
from tuneproof.report.page import colours_of
from tuneproof.report.questions import questions_of
from tuneproof.results import StudyResults

CRITERIA = ("accuracy", "completeness")


@pytest.fixture(scope="module")
def paper() -> StudyResults:
    return paper_study()


def test_rows_are_recipes_in_the_paper_s_layout(paper: StudyResults) -> None:
    found = questions_of(paper, compare(paper), CRITERIA)
    tuned = [row for row in found.rows if row.arm in ("full", "short")]
    assert [(row.model, row.arm, row.size) for row in tuned] == [
        (model, arm, size)
        for model in ("Llama", "Mistral")
        for arm in ("full", "short")
        for size in ("200", "500", "1,000")
    ]
    assert {row.seeds for row in tuned} == {"2"}
    first = tuned[0].scores[0]
    assert first is not None
    assert float(first.before) - float(first.after) == pytest.approx(1.2, abs=0.03)
    assert first.difference.startswith(MINUS)
    assert (first.words, first.verdict) == ("worse", "worse")
    few = next(row for row in found.rows if row.arm == "few-shot")
    assert few.size == "3 in the prompt"


def test_the_paper_s_figures_stand_beside_the_study_s(paper: StudyResults) -> None:
    found = questions_of(paper, compare(paper), CRITERIA)
    assert [
        (row.model, row.size, *(one and (one.before, one.after) for one in row.scores))
        for row in found.paper
    ] == [
        ("Llama 2", "200", ("4.38", "3.14"), ("4.55", "2.35")),
        ("Mixtral", "1,000", ("4.04", "3.28"), None),
    ]
    page = build_report(paper, compare(paper))
    assert "other data, models and judge, so only the direction compares" in page
    assert "Mixtral on Qasper at 1,000 pairs: accuracy 4.04 → 3.28" in page


def test_what_a_study_over_models_sizes_and_seeds_says(paper: StudyResults) -> None:
    found = questions_of(paper, compare(paper), CRITERIA)
    assert found.helps.answered
    assert re.match(
        r"Of 48 comparisons of tuned cells named before the run: \d+ worse and \d+ undecided\.$",
        found.helps.lines[0],
    )
    assert found.helps.lines[1].startswith(f"Tuning changes accuracy by {MINUS}0.43 and ")
    assert found.sizes.answered
    assert found.sizes.lines[0].startswith(
        "Accuracy rises with the number of pairs in 4 of 4 curves: from the fewest to the most it"
    )
    assert found.sizes.lines[2].endswith("; 2 seeds tell little.")
    assert found.models.answered
    assert "on Llama and" in found.models.lines[0]
    by_model = {row.model: row.scores[0] for row in found.by_model}
    assert set(by_model) == {"Llama", "Mistral", "api"}
    assert by_model["api"] is not None
    assert by_model["api"].after == ""
    losses = {name: score.difference for name, score in by_model.items() if score}
    # On average over 200, 500 and 1,000 pairs: 1.2 and 0.4 times (1 + 2/5 + 1/5) / 3.
    assert losses == {"Llama": f"{MINUS}0.64", "Mistral": f"{MINUS}0.22", "api": ""}


def without(study: StudyResults, cells: set[str]) -> StudyResults:
    return replace(
        study,
        cells=tuple(cell for cell in study.cells if cell.name not in cells),
        models=tuple(one for one in study.models if one.baseline not in cells),
        answers=tuple(one for one in study.answers if one.cell not in cells),
        primary=tuple(one for one in study.primary if one.cell not in cells),
    )


def test_few_curves_get_a_sentence_each(paper: StudyResults) -> None:
    short = without(paper, {cell.name for cell in paper.cells if cell.arm == "short"})
    lines = questions_of(short, compare(short), CRITERIA).sizes.lines
    assert [line.partition(":")[0] for line in lines[:4]] == [
        "Accuracy of full on Llama",
        "Accuracy of full on Mistral",
        "Completeness of full on Llama",
        "Completeness of full on Mistral",
    ]
    assert re.search(r"3\.\d\d at 200 pairs, 4\.\d\d at 1,000 \(\+0\.96\)\.$", lines[0])


def test_a_section_says_what_the_study_cannot_answer(paper: StudyResults) -> None:
    one_size = paper_study(items=12, sizes=(200,), seeds=1)
    mistral = {cell.name for cell in one_size.cells if cell.model == "Mistral"}
    alone = without(one_size, mistral)
    found = questions_of(alone, compare(alone), CRITERIA)
    assert found.helps.answered
    assert found.sizes.lines == (
        "Each arm is tuned on one number of pairs (200): this study cannot answer RQ2.",
    )
    assert found.models.lines == ("This study tunes one model only: it cannot answer RQ3.",)

    untuned = without(paper, {cell.name for cell in paper.cells if cell.tuned})
    found = questions_of(untuned, compare(untuned), CRITERIA)
    for question in (found.helps, found.sizes, found.models):
        assert not question.answered
        assert len(question.lines) == 1
        assert "cannot answer" in question.lines[0]
    assert dose_response(untuned, compare(untuned), CRITERIA, colours_of(untuned)) is None
    assert "cannot answer RQ1" in build_report(untuned, compare(untuned))


def test_every_seed_is_a_dot_and_more_pairs_lie_to_the_right(paper: StudyResults) -> None:
    dose = dose_response(paper, compare(paper), CRITERIA, colours_of(paper))
    assert dose is not None
    assert [panel.title for panel in dose.panels] == [
        f"{measure} · {model}"
        for measure in ("Accuracy", "Completeness")
        for model in ("Llama", "Mistral")
    ]
    for panel in dose.panels:
        assert len(panel.dots) == 2 * 3 * 2
        assert len(panel.lines) == 2 * 2
        assert [tick.text for tick in panel.ticks] == ["200", "500", "1,000"]
        at = [tick.at for tick in panel.ticks]
        # Equal ratios are equally far apart: 200 to 500 is farther than 500 to 1,000.
        assert (at[1] - at[0]) / (at[2] - at[1]) == pytest.approx(math.log(2.5) / math.log(2), 0.01)
        assert panel.baseline is not None
        assert all(dot.y > panel.baseline for dot in panel.dots)
    assert "full, 200 pairs, seed 2: 3." in dose.panels[0].dots[1].title


def test_a_recipe_s_mean_counts_each_seed_once(paper: StudyResults) -> None:
    comparisons = compare(paper)
    scored = {(one.cell, one.measure): one for one in comparisons.primary}
    for one in recipes_of(paper, comparisons, CRITERIA):
        if not one.tuned:
            continue
        means = [scored[seed.cell, one.measure].mean or 0.0 for seed in one.seeds]
        assert one.mean == pytest.approx(sum(means) / 2)
        assert one.spread == pytest.approx(max(means) - min(means))
        assert one.difference == pytest.approx(one.mean - one.mean_against)


def test_a_study_of_many_cells_gives_a_colour_to_each_arm(paper: StudyResults) -> None:
    colours = colours_of(paper)
    assert {cell.arm: colours[cell.name] for cell in paper.cells} == {
        "baseline": 0,
        "few-shot": 1,
        "full": 2,
        "short": 3,
    }
