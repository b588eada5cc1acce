"""Arrivals, what they are held against, objectives, and endpoints that are not ours."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from itertools import islice

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.loadtest import (
    LoadSpec,
    OpenAIDoor,
    Probe,
    Probes,
    Slo,
    Span,
    SwapSpec,
    Truth,
    build_page,
    checks_of,
    figures_of,
    read_probes,
    read_slo,
    result_json,
    run_load,
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


# What may have answered


def reply_of(served: str | None, *, sent: float, first: float, text: str = "one one") -> Reply:
    answer = Answer(text, 2, served)
    return Reply("live", "hi", sent, sent, first, first + 1, answer)


def moved() -> Truth:
    truth = Truth(Probes([Probe(ONE, None, re.compile("(one ?)+"))]))
    truth.points("live", ONE)
    truth.moving("live", TWO, 10.0)
    truth.moved("live", 11.0)
    return truth


@pytest.mark.parametrize(
    ("served", "sent", "first", "right"),
    [
        (ONE, 1.0, 2.0, True),
        (TWO, 1.0, 2.0, False),
        (TWO, 9.0, 10.5, True),  # it was resolved after the move was sent
        (ONE, 10.5, 12.0, True),  # before the move was confirmed
        (ONE, 11.5, 12.0, False),
        (TWO, 11.5, 12.0, True),
        ("", 10.5, 10.7, False),
    ],
)
def test_an_alias_means_what_it_pointed_to_between_sending_and_first_token(
    served, sent, first, right
):
    judged = moved().judge(reply_of(served, sent=sent, first=first))
    assert (judged.wrong == "") is right
    assert "digest" in judged.checked


def test_replicas_that_lag_may_answer_as_before_for_so_long():
    truth = Truth(Probes(), lag=5.0)
    truth.points("live", ONE)
    truth.moving("live", TWO, 10.0)
    truth.moved("live", 11.0)
    assert not truth.judge(reply_of(ONE, sent=15.0, first=15.5)).wrong
    assert truth.judge(reply_of(ONE, sent=16.5, first=17.0)).wrong


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=8), st.data())
def test_at_every_moment_an_alias_means_one_adapter_or_the_two_of_a_move(gaps, data):
    truth, now, moves = Truth(Probes()), 0.0, []
    truth.points("live", "r0")
    for number, gap in enumerate(gaps, 1):
        truth.moving("live", f"r{number}", now + gap)
        moves.append((now + gap, now + 1.5 * gap))
        now += 1.5 * gap
        truth.moved("live", now)
    at = data.draw(st.floats(0.0, now + 1.0))
    allowed = truth.allowed("live", at, at)
    started = sum(at >= start for start, _ in moves)
    ended = sum(at > end for _, end in moves)
    assert allowed == {f"r{n}" for n in range(ended, started + 1)}


@pytest.mark.parametrize(
    ("served", "text", "wrong", "checked"),
    [
        (ONE, "one one one", False, ("digest", "text")),
        (ONE, "one two", True, ("digest", "text")),
        (None, "one", False, ("text",)),
        (None, "two", True, ("text",)),
    ],
)
def test_an_answer_is_held_against_what_its_adapter_says(served, text, wrong, checked):
    judged = moved().judge(reply_of(served, sent=1.0, first=2.0, text=text))
    assert bool(judged.wrong) is wrong
    assert judged.checked == checked


def test_a_probe_is_found_by_reference_then_name_then_prompt():
    def said(text):
        return re.compile(text)

    probes = Probes(
        [
            Probe("short", None, said("name")),
            Probe("short", "hi", said("name and prompt")),
            Probe(ONE, None, said("reference")),
            Probe("base", None, said("base")),
        ]
    )
    assert probes.expectation(ONE, "hi") == said("reference")
    assert probes.expectation(TWO, "hi") == said("name and prompt")
    assert probes.expectation(TWO, "ho") == said("name")
    assert probes.expectation("", "hi") == said("base")
    assert probes.expectation("other@sha256:0", "hi") is None
    assert probes.prompts == ("hi",)


def test_every_bad_probe_is_named(tmp_path):
    path = tmp_path / "probes.jsonl"
    good = json.dumps({"adapter": "base", "expect": "x"})
    path.write_text(f'{good}\n{{"adapter": "a"}}\nno\n{{"adapter": "a", "expect": "("}}\n')
    with pytest.raises(InvalidInput) as failed:
        read_probes(path)
    assert [f":{n}:" in failed.value.message for n in (1, 2, 3, 4)] == [False, True, True, True]
    path.write_text(good)
    assert read_probes(path).expectation("", "anything") == re.compile("x", re.DOTALL)


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
        assert f"slo.yaml: {key}: " in failed.value.message
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


# Endpoints that are not ours


@asynccontextmanager
async def endpoint(answer):
    """An OpenAI endpoint whose stream `answer` writes; gives its base URL."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def streamed(*lines: str, headers=None):
    async def answer(request):
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        body = await request.json()
        for line in lines:
            await response.write(f"data: {line.replace('MODEL', body['model'])}\n\n".encode())
        return response

    return answer


PIECE = '{"choices": [{"delta": {"content": "MODEL "}}]}'
USAGE = '{"choices": [], "usage": {"completion_tokens": 2}}'


async def loaded(answer, *, models=("one", "two"), probes=None, ours=False):
    spec = LoadSpec(rate=100.0, seconds=0.2, base_share=0.0)
    async with endpoint(answer) as url:
        door = OpenAIDoor(url, base_model="", token="k", of_generator=ours)
        async with aclosing(door):
            return await run_load(door, spec, models, probes=probes)


async def test_any_openai_endpoint_is_loaded_and_its_answers_are_checked_by_probes():
    answer = streamed(
        '{"choices": [{"delta": {"role": "assistant"}}]}', PIECE, PIECE, USAGE, "[DONE]"
    )
    probes = Probes([Probe(name, None, re.compile(f"{name} {name}")) for name in ("one", "two")])
    figures = (await loaded(answer, probes=probes)).figures
    assert (figures.failed, figures.wrong_adapter) == (0, 0)
    assert figures.checked_text == figures.requests > 5
    assert figures.checked_digest == 0
    assert figures.throughput_ratio is None
    assert figures.sides["quiet"]["tokens_per_second"] > 0
    crossed = Probes([Probe("one", None, re.compile("two two"))])
    assert (await loaded(answer, probes=crossed)).figures.wrong_adapter > 0


async def test_the_adapter_named_in_the_header_is_compared_where_the_name_means_one():
    answer = streamed(PIECE, "[DONE]", headers={"x-tuneproof-adapter": TWO})
    figures = (await loaded(answer, models=(ONE, TWO))).figures
    assert figures.checked_digest == figures.requests
    assert 0 < figures.wrong_adapter < figures.requests
    alias = (await loaded(answer, models=("live",))).figures
    assert (alias.checked_digest, alias.wrong_adapter) == (0, 0)


async def test_no_header_is_the_base_model_at_our_door_and_nothing_known_elsewhere():
    answer = streamed(PIECE, "[DONE]")
    elsewhere = (await loaded(answer, models=(ONE,))).figures
    assert (elsewhere.checked_digest, elsewhere.wrong_adapter) == (0, 0)
    ours = (await loaded(answer, models=(ONE,), ours=True)).figures
    assert ours.wrong_adapter == ours.checked_digest == ours.requests


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((PIECE, USAGE), "ended without"),
        (('{"choices": [{"delta": {}}]}', "[DONE]"), "empty"),
        (("no json",), "no JSON"),
        ((PIECE, '{"error": {"message": "broken"}}'), "broken"),
    ],
)
async def test_an_answer_that_is_none_is_a_failure(lines, said):
    with pytest.raises(Unavailable, match=said):
        await loaded(streamed(*lines), models=("one",))


async def test_a_refusal_tells_status_and_text():
    async def refuse(request):
        return web.Response(status=503, text="full")

    with pytest.raises(Unavailable, match="503: full"):
        await loaded(refuse, models=("one",))
