"""The end of a study on the terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tuneproof.analysis import Comparisons, Verdict, compare
from tuneproof.cli.verdict_table import show_outcome
from tuneproof.report import findings, headline, warnings
from tuneproof.report.numbers import MINUS
from tuneproof.results import StudyResults


def shown(study: StudyResults, comparisons: Comparisons, width: int = 120) -> str:
    file = io.StringIO()
    show_outcome(study, comparisons, Console(file=file, width=width))
    return file.getvalue()


def test_the_terminal_warns_as_the_report_does(study: StudyResults) -> None:
    comparisons = compare(study)
    text = shown(study, comparisons)
    for caveat in warnings(study, comparisons):
        assert f"{caveat.kind.capitalize()}: {caveat.text}\n" in text
    assert f"{headline(findings(study, comparisons))}\n" in text
    assert "demo: verdicts by judge demo-model (95 % together, bonferroni)" in text
    assert "  short-references-200-seed1: 0 unscored, 6 of 1,600 repeats lost\n" in text


def test_the_terminal_never_rounds_a_verdict_away(study: StudyResults) -> None:
    comparisons = compare(study)
    one = comparisons.primary[0]
    assert one.interval is not None
    near = replace(
        one,
        verdict=Verdict.BETTER,
        words="better",
        difference=0.107,
        interval=replace(one.interval, low=0.0004, high=0.2136),
    )
    text = shown(study, replace(comparisons, primary=(near,)))
    assert "+0.0004 to +0.2136" in text
    assert f"{MINUS}0.0" not in text.partition("verdicts")[2].partition("better")[0]


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_cuts_no_word_off(study: StudyResults, width: int) -> None:
    text = shown(study, compare(study), width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert text.count("undecided") >= 2


def test_a_verdict_by_word_overlap_beside_a_judge_s_says_so(study: StudyResults) -> None:
    named = (study.primary[0], replace(study.primary[0], measure="token_f1"))
    both = replace(study, primary=named, margin={"accuracy": 0.25, "token_f1": 0.05})
    text = shown(both, compare(both), 160)
    assert "verdicts by judge demo-model and word overlap" in text
    assert "worse, by word overlap" in text
