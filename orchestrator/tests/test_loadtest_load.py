"""Arrivals, the two loops that ask, and objectives."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from itertools import islice, takewhile

import numpy as np
import pytest

from tuneproof.loadtest import (
    Arrivals,
    LoadSpec,
    Slo,
    Span,
    SwapSpec,
    build_page,
    checks_of,
    figures_of,
    read_slo,
    result_json,
)
from tuneproof.loadtest.arrivals import Prompts, asks
from tuneproof.loadtest.driving import drive_full, drive_open
from tuneproof.loadtest.records import Answer, Ask, Phase, Reply, Swap
from tuneproof.loadtest.trial import LoadResult
from tuneproof.servicekit.errors import InvalidInput, Unavailable

pytestmark = pytest.mark.timeout(60)

SPEC = LoadSpec(rate=50.0, seconds=1.0, base_share=0.25, skew=1.0)
ONE, TWO = ("short@sha256:" + digit * 64 for digit in "12")


def drawn(spec: LoadSpec, number: int, count: int = 4000) -> list[Ask]:
    return list(islice(asks(spec, ("a", "b"), Prompts(spec), number), count))


def test_arrivals_are_poisson_and_models_follow_zipf():
    found = drawn(SPEC, 1)
    gaps = np.diff([ask.due for ask in found])
    assert np.mean(gaps) == pytest.approx(1 / 50, rel=0.1)
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.1)
    counts = Counter(ask.model for ask in found)
    assert counts["a"] / counts["b"] == pytest.approx(2.0, rel=0.2)
    assert counts[""] / len(found) == pytest.approx(0.25, rel=0.1)


def counts_by_second(arrivals: Arrivals, seconds: int = 4000, rate: float = 5.0) -> np.ndarray:
    times = arrivals.times(rate, np.random.default_rng(1))
    within = list(takewhile(lambda due: due < seconds, times))
    assert within == sorted(within)
    return np.bincount([int(due) for due in within], minlength=seconds)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("poisson", 0.9, 1.1), ("bursty", 3.0, 9.0), ("diurnal", 2.0, 4.0)],
)
def test_every_kind_of_arrival_keeps_the_rate_and_scatters_in_its_own_way(kind, low, high):
    counts = counts_by_second(Arrivals(kind, burst=8.0, swing=0.9, period=40.0))
    assert np.mean(counts) == pytest.approx(5.0, rel=0.1)
    # Variance over mean: 1 for a Poisson process.
    assert low < np.var(counts) / np.mean(counts) < high


def test_a_day_begins_at_its_lowest_and_peaks_in_the_middle():
    day = counts_by_second(Arrivals("diurnal", swing=0.9, period=40.0)).reshape(-1, 40).mean(axis=0)
    assert day[:4].mean() == pytest.approx(5.0 * (1 - 0.9), abs=0.5)
    assert day[18:22].mean() == pytest.approx(5.0 * (1 + 0.9), rel=0.1)


def test_the_base_model_gets_the_same_times_as_the_adapters():
    alone = list(islice(asks(SPEC, (), Prompts(SPEC), 1), 200))
    assert [ask.due for ask in alone] == [ask.due for ask in drawn(SPEC, 1, 200)]
    assert {ask.model for ask in alone} == {""}


def test_both_sides_of_a_round_are_asked_alike_but_no_prompt_begins_twice_alike():
    prompts = Prompts(SPEC)
    sides = [list(islice(asks(SPEC, ("a", "b"), prompts, 1), 200)) for _ in range(2)]
    assert [(a.due, a.model) for a in sides[0]] == [(a.due, a.model) for a in sides[1]]
    assert [a.due for a in drawn(SPEC, 2, 200)] != [a.due for a in sides[0]]
    firsts = [ask.prompt.split()[0] for side in sides for ask in side]
    assert len(set(firsts)) == len(firsts)


def test_lengths_are_drawn_from_their_span():
    spec = replace(SPEC, prompt_words=Span(3, 6), answer_tokens=Span(8, 9))
    found = drawn(spec, 1, 200)
    assert {len(ask.prompt.split()) for ask in found} == {3, 4, 5, 6}
    assert {ask.max_tokens for ask in found} == {8, 9}


@pytest.mark.parametrize("text", ["0", "9-3", "x", "3-", "-3", ""])
def test_a_length_that_is_none_is_refused(text):
    with pytest.raises(InvalidInput, match="--words"):
        Span.parse(text, "--words")


class _Door:
    """Answers nobody before `enough` requests are under way."""

    def __init__(self, enough: int) -> None:
        self._left = enough
        self._open = asyncio.Event()
        self.most = self.under_way = 0

    async def ask(self, ask, *, timeout, first):
        self._left -= 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if self._left <= 0:
            self._open.set()
        await self._open.wait()
        await asyncio.sleep(0)
        self.under_way -= 1
        if ask.prompt == "refused":
            raise Unavailable("no")
        first()
        return Answer("text", 1, None)

    async def aclose(self):
        return None


async def test_an_open_loop_waits_for_no_answer_and_counts_from_the_due_time():
    dues = [0.0, 0.01, 0.02, 0.02, 0.03]
    requests = iter([*(Ask(due, "", "hi", 1) for due in dues), Ask(9.0, "", "late", 1)])
    replies = await drive_open(_Door(len(dues)), requests, seconds=1.0, timeout=5.0)
    start = replies[0].due
    assert [reply.due - start for reply in replies] == pytest.approx(dues, abs=1e-6)
    for reply in replies:
        assert reply.due <= reply.sent <= reply.first <= reply.done
        assert reply.first_seconds == reply.first - reply.due
        assert reply.whole_seconds == reply.done - reply.due


async def test_a_full_load_keeps_as_many_under_way_as_asked():
    door = _Door(7)
    requests = (Ask(0.0, "", "hi", 1) for _ in iter(int, 1))
    replies = await drive_full(door, requests, seconds=0.05, in_flight=7, timeout=5.0)
    assert door.most == 7
    assert len(replies) >= 7


async def test_a_failed_request_is_a_reply():
    requests = iter([Ask(0.0, "", "refused", 1), Ask(0.0, "", "hi", 1)])
    replies = await drive_open(_Door(2), requests, seconds=1.0, timeout=5.0)
    assert [reply.error for reply in replies] == ["no", ""]
    assert replies[0].answer is None


# Objectives


def phase_of(side: str, seconds: float, *, swaps: tuple[Swap, ...] = ()) -> Phase:
    """Ten answers of ten tokens, each after so many seconds, in ten seconds."""
    replies = tuple(
        Reply(
            *("a", "hi", float(n), float(n), n + seconds, n + seconds, Answer("x", 10, "a")),
            checked=("digest",),
        )
        for n in range(10)
    )
    return Phase(side, "open", 1, 0.0, 10.0, replies, swaps)


SWAP = Swap("live", ONE, TWO, 1.0, (("ready", 2.0),), 2.0, 0.3, 0.2, 2.5, 3.0, {"load": 0.5})


def test_figures_are_ratios_of_the_two_sides():
    figures = figures_of([phase_of("quiet", 0.5), phase_of("swap", 0.75, swaps=(SWAP,))])
    assert figures.requests == 20
    assert figures.requests_under_swap == 10
    assert figures.swaps == 1
    assert figures.p99_ratio == pytest.approx(1.5)
    assert figures.throughput_ratio == pytest.approx(1.0)
    assert figures.first_token_ratio == pytest.approx(1.5)
    assert figures.sides["swap"]["first_token"] == pytest.approx(
        {"p50": 0.75, "p95": 0.75, "p99": 0.75}
    )
    assert figures.load["declare_to_first_token"]["p50"] == pytest.approx(1.3)


def test_what_was_not_measured_is_not_met():
    figures = figures_of([phase_of("quiet", 0.5)])
    checks = {
        check.name: check
        for check in checks_of(
            Slo(p99_ratio=9.0, requests=10, first_token={"p95": 0.4, "p99": 0.6}, whole={"p50": 1}),
            figures,
        )
    }
    assert {name: check.met for name, check in checks.items()} == {
        "requests": True,
        "failed": True,
        "failed_swaps": True,
        "wrong_adapter": True,
        "first_token.p95": False,
        "first_token.p99": True,
        "whole.p50": True,
        "p99_ratio": False,
    }
    assert checks["p99_ratio"].found is None


def test_without_any_comparison_no_answer_is_called_right():
    phase = phase_of("quiet", 0.5)
    blind = replace(phase, replies=tuple(replace(r, checked=()) for r in phase.replies))
    checks = checks_of(Slo(wrong_adapter=0), figures_of([blind]))
    named = {check.name: check.met for check in checks}
    assert named == {"failed": True, "failed_swaps": True, "wrong_adapter": False}
    silent = {check.name: check.met for check in checks_of(Slo(), figures_of([blind]))}
    assert silent == {"failed": True, "failed_swaps": True}


def test_every_bad_objective_is_named(tmp_path):
    path = tmp_path / "slo.yaml"
    path.write_text("{wrong: 0, p99_ratio: much, first_token: {p98: 1}, failed: 0}")
    with pytest.raises(InvalidInput) as failed:
        read_slo(path)
    for key in ("wrong", "p99_ratio", "first_token.p98"):
        assert f"slo.yaml:1: {key}: " in failed.value.message
    path.write_text("{failed: 2, whole: {p99: 3}}")
    assert read_slo(path) == Slo(failed=2, whole={"p99": 3.0})


def test_the_page_loads_nothing_and_lets_no_server_speak_html():
    failed = replace(SWAP, alias="late", error="<script>alert(1)</script>")
    phases = (phase_of("quiet", 0.5), phase_of("swap", 0.75, swaps=(SWAP, failed)))
    result = LoadResult(
        phases, figures_of(phases), datetime.now(UTC), 0.0, SPEC, ("live",),
        swaps=SwapSpec((ONE,), (TWO,), 1.0), settings={"Address": "<b>x</b>"},
    )  # fmt: skip
    checks = checks_of(Slo(), result.figures)
    page = build_page(result, checks)
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "<b>x</b>" not in page
    assert "default-src 'none'" in unescape(page)
    assert not re.search(r"(?:src|href)=\"(?!#)", page)
    assert page.count("<polyline") >= 4
    told = result_json(result, checks)
    assert not told["met"]
    json.dumps(told, allow_nan=False)
