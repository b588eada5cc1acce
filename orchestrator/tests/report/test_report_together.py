"""Several studies in one report: the paper's questions data set by data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from browsing import opened, violations, width_of
from html_page import Page
from paper_study import paper_study
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab

from tuneproof.analysis import compare
from tuneproof.report import report_json
from tuneproof.report.numbers import MINUS
from tuneproof.report.together import Part, build_joint_report, joint_json, names_of
from tuneproof.report.together.over import headline_of, over_sets
from tuneproof.results import Measure, StudyResults

QASPER = "Qasper"
BIOASQ = "BioASQ"
TELECOM = "telecom"


def part_of(study: StudyResults, report: str = "") -> Part:
    return Part(study, compare(study), report)


def lifted(study: StudyResults) -> StudyResults:
    """The same study, where tuned cells answer almost perfectly, the better with more pairs."""
    sizes = {cell.name: cell.size for cell in study.cells}
    tuned = {cell.name for cell in study.cells if cell.tuned}
    answers = []
    for answer in study.answers:
        assert answer.grade is not None
        number = int(answer.item[1:])
        criteria = {
            name: replace(one, mean=4.9 + sizes[answer.cell] / 10_000 - 0.01 * number)
            for name, one in answer.grade.criteria.items()
        }
        moved = replace(answer, grade=replace(answer.grade, criteria=criteria))
        answers.append(moved if answer.cell in tuned else answer)
    return replace(study, answers=tuple(answers))


def without_tuning(study: StudyResults) -> StudyResults:
    """Its untuned cells alone."""
    cells = tuple(cell for cell in study.cells if not cell.tuned)
    kept = {cell.name for cell in cells}
    answers = tuple(answer for answer in study.answers if answer.cell in kept)
    return replace(study, cells=cells, answers=answers, primary=())


@pytest.fixture(scope="module")
def parts() -> tuple[Part, ...]:
    """Tuning costs on Qasper, wins on BioASQ (of one model), and is not tried on the third."""
    qasper = paper_study(items=30, sizes=(200, 500))
    bioasq = lifted(qasper)
    llama = {cell.name for cell in bioasq.cells if cell.model == "Llama"}
    bioasq = replace(
        bioasq,
        name="paper-bioasq",
        dataset=BIOASQ,
        cells=tuple(cell for cell in bioasq.cells if cell.name in llama),
        answers=tuple(answer for answer in bioasq.answers if answer.cell in llama),
        primary=tuple(one for one in bioasq.primary if one.cell in llama),
        models=bioasq.models[:1],
    )
    telecom = replace(without_tuning(qasper), name="paper-telecom", dataset=TELECOM)
    return (
        part_of(qasper, "paper.html"),
        part_of(bioasq, "paper-bioasq.html"),
        part_of(telecom, "paper-telecom.html"),
    )


def test_each_data_set_has_its_rows(parts: Sequence[Part]) -> None:
    over = over_sets(parts)
    assert over.measures == ("accuracy", "completeness")
    assert [one.dataset for one in over.helps.sets] == [QASPER, BIOASQ, TELECOM]
    rows = [row for one in over.helps.sets for row in one.rows]
    assert {row.dataset for row in rows if row.arm == "short"} == {QASPER, BIOASQ}
    at = {(row.dataset, row.model, row.arm, row.size): row for row in rows}
    worse, better = (at[one, "Llama", "short", "200"].scores[0] for one in (QASPER, BIOASQ))
    assert worse is not None
    assert better is not None
    assert worse.verdict == "worse"
    assert better.verdict == "better"
    assert worse.difference.startswith(MINUS)
    assert better.difference.startswith("+")


def test_verdicts_are_counted_over_data_sets_and_never_averaged(parts: Sequence[Part]) -> None:
    over = over_sets(parts)
    tuned = len(parts[0].comparisons.primary) + len(parts[1].comparisons.primary)
    assert re.fullmatch(
        rf"Over 3 data sets, {tuned} comparisons of tuned cells were named before the runs:"
        r" \d+ better, \d+ worse(, \d+ equivalent)?( and \d+ undecided)?\.",
        over.helps.lines[0],
    )
    said = {one.dataset: one.question.lines for one in over.helps.sets}
    assert said[TELECOM] == ("This study tunes no model: it cannot answer RQ1.",)
    assert over.helps.lines[1] == f"{TELECOM}: nothing is tuned there."


def test_what_sizes_and_models_say_together(parts: Sequence[Part]) -> None:
    over = over_sets(parts)
    assert over.sizes.lines[0] == (
        "Accuracy rises from the fewest pairs to the most in 4 of 4 arms and models on Qasper and"
        " 2 of 2 arms and models on BioASQ."
    )
    # BioASQ has one tuned model: it says nothing about models.
    assert over.models.lines[0] == "Accuracy suffers most, or gains least, with Llama on Qasper."
    assert [one.question.answered for one in over.models.sets] == [True, False, False]


def test_the_headline_says_of_which_data_sets_it_holds(parts: Sequence[Part]) -> None:
    first, second, third = headline_of(parts).split("; ")
    assert first.endswith(f"on {QASPER}, by judge judge")
    assert second.startswith("the tuned adapters answer better on BioASQ, by")
    assert third == "nothing was compared on telecom."
    alike = [parts[1], replace(parts[1], results=replace(parts[1].results, dataset="Llamas"))]
    together = "The tuned adapters answer better on BioASQ and Llamas, by judge judge."
    assert headline_of(alike) == together


def test_two_studies_of_one_data_set_are_told_apart(parts: Sequence[Part]) -> None:
    again = replace(parts[0], results=replace(parts[0].results, name="again"))
    assert names_of([parts[0], again, parts[1]]) == ("Qasper (paper)", "Qasper (again)", BIOASQ)


def test_a_measure_that_a_study_lacks_is_left_open(parts: Sequence[Part]) -> None:
    answers = []
    for answer in parts[1].results.answers:
        assert answer.grade is not None
        criteria = {"accuracy": answer.grade.criteria["accuracy"]}
        answers.append(replace(answer, grade=replace(answer.grade, criteria=criteria)))
    fewer = replace(
        parts[1].results,
        answers=tuple(answers),
        criteria=(Measure("accuracy", 1, 5, "points"),),
        primary=tuple(one for one in parts[1].results.primary if one.measure == "accuracy"),
    )
    over = over_sets([part_of(fewer), parts[0]])
    assert over.measures == ("accuracy", "completeness")
    assert all(row.scores[0] for row in over.helps.sets[0].rows if row.arm == "short")
    assert not any(row.scores[1] for row in over.helps.sets[0].rows)
    assert all(row.scores[1] for row in over.helps.sets[1].rows if row.arm == "short")


def test_the_page_is_whole_and_links_to_each_study(parts: Sequence[Part]) -> None:
    page = Page(build_joint_report(parts))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = page.values("href")
    assert {"paper.html", "paper-bioasq.html", "paper-telecom.html"} <= set(links)
    assert {one[1:] for one in links if one.startswith("#")} <= set(ids)
    assert not [one for one in (*links, *page.values("src")) if "//" in one]
    for part in parts:
        for one in part.comparisons.primary:
            label = next(cell.label for cell in part.results.cells if cell.name == one.cell)
            assert label in page.text
    assert "other data, models and judge, so only the direction compares" in page.text
    assert "nothing is averaged over data sets" in page.text
    assert build_joint_report(parts) == build_joint_report(parts)


def test_text_of_a_study_is_escaped(parts: Sequence[Part]) -> None:
    evil = "<script>alert(1)</script>\"'&"
    results = replace(parts[0].results, dataset=evil, judge_model=evil)
    page = Page(build_joint_report([part_of(results, "x.html"), parts[1]]))
    assert len(page.scripts) == 1
    assert evil in page.text


def test_a_caveat_of_all_stands_once_and_one_of_some_names_them(parts: Sequence[Part]) -> None:
    noted = replace(parts[1].results, notes=("Its documents are short.",))
    page = Page(build_joint_report([parts[0], part_of(noted), parts[2]]))
    assert page.text.count("The judge was not tested on answers with known scores.") == 1
    assert "BioASQ: Its documents are short." in page.text


def test_machines_get_every_report_and_the_questions(parts: Sequence[Part]) -> None:
    value = joint_json(parts)
    assert value["schema"] == "tuneproof.reports/1"
    assert list(value["studies"]) == [QASPER, BIOASQ, TELECOM]
    assert value["studies"][BIOASQ] == report_json(parts[1].results, parts[1].comparisons)
    rows = value["questions"]["helps"]["sets"][0]["rows"]
    assert rows[0].keys() == {"dataset", "model", "arm", "size", "seeds", "scores"}


@pytest.fixture(scope="module")
def address(parts: Sequence[Part], tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("report") / "together.html"
    file.write_text(build_joint_report(parts), "utf-8")
    return file.as_uri()


def test_it_has_a_plot_of_each_tuned_data_set(page: Tab) -> None:
    assert page.locator(".dose h4").count() == 2 * 2 + 2  # by measure and model
    assert page.locator(".set-name").all_text_contents() == [QASPER, BIOASQ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_fits_its_window_and_axe_finds_no_violation(
    browser: Browser, address: str, scheme: Literal["light", "dark"], width: int
) -> None:
    with opened(browser, address, scheme=scheme, width=width) as page:
        assert width_of(page) <= width
        assert violations(page) == []
