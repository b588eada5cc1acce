"""Loads on OpenAI endpoints that are not ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from functools import partial

import pytest
import trustme
import yaml
from aiohttp import web
from small_study import invoke

from tuneproof.loadtest import LoadSpec, OpenAIDoor, Probe, Probes, build_page, run_load
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.testing import MountedSecret, certificate_files
from tuneproof.servicekit.tls import ClientTls, ServerTls

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

ONE, TWO = ("short@sha256:" + digit * 64 for digit in "12")


@asynccontextmanager
async def endpoint(answer, tls=None):
    """An OpenAI endpoint whose stream `answer` writes; gives its base URL."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/v1"
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
        (("no json",), "does not hold JSON"),
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


async def test_an_endpoint_behind_mtls_is_loaded_with_its_name_and_a_token_of_a_file(tmp_path):
    ca = trustme.CA()
    server = MountedSecret(tmp_path / "server", certificate_files(ca, "generator.pool"))
    mine = MountedSecret(tmp_path / "mine", certificate_files(ca, "load"))
    (tmp_path / "token").write_text("secret")
    seen = set()

    async def answer(request):
        seen.add(request.headers["authorization"])
        return await streamed(PIECE, USAGE, "[DONE]")(request)

    spec = LoadSpec(rate=100.0, seconds=0.2, base_share=0.0)
    context = ServerTls(server.folder, client_certificates=True).context()
    async with endpoint(answer, context) as url:
        for name in ("", "generator.pool"):
            tls = ClientTls(mine.folder, server_name=name)
            door = OpenAIDoor(url, base_model="", token=tmp_path / "token", tls=tls)
            wrong = contextlib.nullcontext() if name else pytest.raises(Unavailable, match="valid")
            async with aclosing(door):
                with wrong:
                    assert (await run_load(door, spec, ("one",))).figures.failed == 0
    assert seen == {"Bearer secret"}


async def test_the_base_model_answers_the_same_load_beside_the_adapters():
    seen = Counter()

    async def answer(request):
        body = await request.json()
        seen[body["model"]] += 1
        return await streamed(PIECE, USAGE, "[DONE]")(request)

    spec = LoadSpec(rate=100.0, seconds=0.2, base_share=0.0, against_base=True, in_flight=2,
                    full_seconds=0.1)  # fmt: skip
    async with endpoint(answer) as url:
        door = OpenAIDoor(url, base_model="origin", token=None)
        async with aclosing(door):
            result = await run_load(door, spec, ("one", "two"))
    figures = result.figures
    quiet, base = (
        [reply for phase in result.phases if (phase.side, phase.load) == (side, "open")
         for reply in phase.replies] for side in ("quiet", "base")
    )  # fmt: skip
    assert len(quiet) == len(base)
    assert {reply.model for reply in base} == {""}
    assert seen["origin"] > len(base)
    assert figures.lora_throughput_ratio > 0
    assert figures.lora_first_token_p99_ratio > 0
    assert figures.lora_whole_p99_ratio > 0
    assert figures.throughput_ratio is None
    assert "ratio, adapters to base model" in build_page(result, [])


async def test_a_trace_is_replayed_and_results_are_written_for_other_tools(
    tmp_path, capsys, monkeypatch
):
    seen = Counter()

    async def answer(request):
        body = await request.json()
        seen[body["model"]] += 1
        return await streamed(PIECE, USAGE, "[DONE]")(request)

    rows = [
        {"timestamp": 20 * n, "text_input": f"{n} who?", "extra": {"model": "ab"[n % 2]}}
        for n in range(10)
    ]
    given, sent = tmp_path / "given.jsonl", tmp_path / "sent.jsonl"
    given.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    flags = ["--trace", str(given), "--write-trace", str(sent), "--report", str(tmp_path / "page")]
    flags += ["--benchmark-report", str(tmp_path / "reports"), "--state", str(tmp_path)]
    async with endpoint(answer) as url:
        run = partial(invoke, capsys, monkeypatch, "loadtest", "run", "--url", url, *flags)
        code, _, err = await asyncio.to_thread(run)
        assert code == 0, err
        code, _, err = await asyncio.to_thread(run, "--against-base")
        assert (code, "--base-model" in err) == (2, True)
    assert (seen["a"], seen["b"]) == (6, 6)  # each once more, to warm up
    replayed = [json.loads(line) for line in sent.read_text().splitlines()]
    assert [row["extra"]["model"] for row in replayed] == [row["extra"]["model"] for row in rows]
    for row, before in zip(replayed, rows, strict=True):
        assert row["timestamp"] == pytest.approx(before["timestamp"], abs=1)
    report = yaml.safe_load((tmp_path / "reports/quiet.yaml").read_text())
    assert report["results"]["request_performance"]["aggregate"]["requests"]["total"] == 10
