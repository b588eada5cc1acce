"""Loss curves in characters and as SVG."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from tuneproof.cli.runs.curves import Curve, chart
from tuneproof.cli.runs.drawing import draw, ticks
from tuneproof.cli.runs.figures import figures_of, smoothed, validation_loss_of
from tuneproof.cli.runs.following import shown_on
from tuneproof.cli.runs.tables import lasting, summary_of
from tuneproof.sdk import Hyperparameters, RunInfo, RunProgress, RunSpec

LOSSES = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf]),
    ),
    max_size=30,
)
RUN = RunInfo(
    id="r",
    spec=RunSpec("short", "d", "sha256:ab", hyperparameters=Hyperparameters()),
    state="running",
    reason="",
    progress=RunProgress(2, 4, 1.5, 100.0, 8.0),
    adapter_ref="",
    losses=((1, 2.0), (2, 1.5)),
    validation_losses=(),
    create_time=None,
    start_time=None,
    end_time=None,
    provenance={},
)


@given(st.lists(LOSSES, min_size=1, max_size=4), st.integers(5, 120), st.integers(1, 30))
def test_every_chart_fits_its_width(losses, width, height):
    curves = [Curve(f"c{number}", sorted(points)) for number, points in enumerate(losses)]
    lines = chart(curves, width=width, height=height)
    assert lines
    assert max(map(len, lines)) <= max(width, 30)


def test_a_falling_loss_falls():
    lines = chart([Curve("a", [(1, 3.0), (2, 2.0), (3, 1.0)])], width=40, height=5)
    assert lines[0].startswith("   3.000 ┤")
    assert lines[4].startswith("   1.000 ┤")
    left, right = lines[0], lines[4]
    assert len(left) < len(right)  # The highest loss is at the left, the lowest at the right.
    assert lines[-1].split() == ["1", "step", "3"]


def test_several_curves_have_their_own_marks():
    lines = chart([Curve("a", [(1, 1.0), (9, 1.0)]), Curve("b", [(1, 2.0), (9, 2.0)])], width=40)
    assert [line.split() for line in lines[-2:]] == [["●", "a"], ["+", "b"]]
    assert lines[0].count("+") > 20
    assert "●" not in lines[0]


def test_without_losses_it_says_so():
    assert chart([Curve("a", [(1, math.nan)])]) == ["no loss yet"]
    assert ElementTree.fromstring(draw([Curve("a", [])], "loss")) is not None


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5))
@example(-1e-05, 35001.0)
def test_ticks_hold_their_values(low, width):
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 10
    assert found == sorted(found)
    invisible = 1e-6 * max(1, width, abs(low))
    assert found[0] <= low + invisible
    assert found[-1] >= low + width - invisible


def test_names_in_a_drawing_are_text():
    drawing = ElementTree.fromstring(draw([Curve("<a&b>", [(1, 1.0), (2, 0.5)])], "loss"))
    texts = [each.text for each in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "<a&b>" in texts


def test_smoothing_is_the_mean_of_the_last_steps():
    assert smoothed(((1, 4.0), (2, 2.0), (3, 0.0)), 2) == ((1, 4.0), (2, 3.0), (3, 1.0))
    assert smoothed((), 3) == ()


def test_the_validation_loss_is_that_of_the_adapter_kept():
    run = replace(RUN, validation_losses=((1, 3.0), (2, 1.0), (3, 2.0)))
    assert validation_loss_of(RUN) is None
    assert validation_loss_of(run) == 2.0
    patient = replace(run.spec, hyperparameters=Hyperparameters(early_stopping_patience=2))
    assert validation_loss_of(replace(run, spec=patient)) == 1.0


def test_tokens_per_second_are_those_of_the_whole_training():
    assert figures_of(RUN).tokens_per_second == 100.0
    facts = {
        "train_seconds": "10.0",
        "rows": "20",
        "prompt_tokens": "1500",
        "answer_tokens": "500",
        "steps": "3",
    }
    # A pass over 20 examples by 16 has two steps; the third step sees 16 again.
    assert figures_of(replace(RUN, provenance=facts)).tokens_per_second == pytest.approx(360.0)


def test_a_summary_tells_what_is_worth_knowing():
    assert summary_of(replace(RUN, phase="training")).startswith("running  step 2/4")
    assert summary_of(replace(RUN, phase="committing")).startswith("running (committing)  step")
    bad = replace(RUN, warning="no checkpoint could be saved: the disk is full")
    assert summary_of(bad).endswith("the disk is full")


def test_on_a_terminal_the_curve_is_live():
    console = Console(file=StringIO(), force_terminal=True, width=80, height=30)
    with shown_on(console) as show:
        show(RUN)
        show(replace(RUN, losses=(*RUN.losses, (3, 1.0))))
    shown = console.file.getvalue()
    assert "step 2/4  loss 1.500  100 tokens/s  about 8 s left" in shown
    assert "┤" in shown


def test_elsewhere_a_line_comes_now_and_then():
    console = Console(file=StringIO(), width=120)
    times = iter([0.0, 1.0, 2.0, 5.0])
    with shown_on(console, clock=lambda: next(times)) as show:
        for state in ("queued", "running", "running", "running"):
            show(replace(RUN, state=state))
    assert len(console.file.getvalue().splitlines()) == 3


@pytest.mark.parametrize(
    ("seconds", "words"), [(8.4, "8 s"), (89, "89 s"), (240, "4 min"), (9000, "2.5 h")]
)
def test_times_are_short(seconds, words):
    assert lasting(seconds) == words
