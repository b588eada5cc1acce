"""Asking an endpoint that fails in every way that endpoints fail."""

import asyncio
import email.utils
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trustme

import tuneproof_judge.endpoint as judge_endpoint
from tuneproof.servicekit.errors import Unavailable, WrongState
from tuneproof.servicekit.http import retry_after
from tuneproof.servicekit.testing import MountedSecret, certificate_files
from tuneproof.servicekit.tls import ServerTls
from tuneproof_judge.endpoint import OpenAIEndpoint
from tuneproof_judge.grade import FailureKind
from tuneproof_judge.main import endpoints_of
from tuneproof_judge.replies import CallFailed, Completion
from tuneproof_judge.settings import JudgeSettings

pytestmark = pytest.mark.timeout(30)

Make = Callable[..., OpenAIEndpoint]


async def ask(endpoint: OpenAIEndpoint, deadline: float | None = None) -> Completion:
    return await endpoint.complete(
        "Judge this.", seed=7, temperature=1.0, max_tokens=400, deadline=deadline
    )


async def failing(endpoint: OpenAIEndpoint, deadline: float | None = None) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await ask(endpoint, deadline)
    return caught.value


def in_turn(*replies):
    """A script that gives one reply after the other, the last one for ever."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


async def test_a_completion_comes_with_its_usage(fake, endpoint_of: Make, reply) -> None:
    fake.script = lambda _: reply.says("Score: 3")
    completion = await ask(endpoint_of())
    assert (completion.text, completion.finish_reason) == ("Score: 3", "stop")
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (100, 7, 64)
    assert usage.requests == 1
    body = fake.asked[0].body
    assert body["seed"] == 7
    assert body["temperature"] == 1.0
    assert body["top_p"] == 1.0
    assert body["max_tokens"] == 400
    assert body["model"] == "fake"
    assert fake.asked[0].key == "sk-very-secret"


async def test_usage_may_be_missing(fake, endpoint_of: Make, reply) -> None:
    body = b'{"choices":[{"message":{"content":"Score: 2"},"finish_reason":"stop"}],"usage":null}'
    fake.script = lambda _: reply.Reply(body=body)
    completion = await ask(endpoint_of())
    assert completion.text == "Score: 2"
    assert completion.usage.prompt_tokens == 0


async def test_429_waits_as_long_as_it_is_told(fake, endpoint_of: Make, pauses, reply) -> None:
    fake.script = in_turn(reply.fails(429, retry_after="7"), reply.says("Score: 3"))
    completion = await ask(endpoint_of())
    assert completion.text == "Score: 3"
    assert completion.usage.requests == 2
    assert len(pauses.seconds) == 1
    assert 7 <= pauses.seconds[0] <= 7.8


async def test_429_that_names_no_time_waits_longer_each_time(
    fake, endpoint_of: Make, pauses, reply
) -> None:
    fake.script = lambda _: reply.fails(429)
    failed = await failing(endpoint_of(attempts=5))
    assert failed.failure.kind is FailureKind.ENDPOINT
    assert "429" in failed.failure.detail
    assert failed.outage
    assert failed.requests == len(fake.asked) == 5
    assert len(pauses.seconds) == 4
    assert pauses.seconds == sorted(pauses.seconds)
    assert 0 < pauses.seconds[0] <= 0.5
    assert pauses.seconds[-1] >= 2


async def test_a_retry_after_of_an_hour_is_not_waited_for(
    fake, endpoint_of: Make, pauses, reply
) -> None:
    fake.script = lambda _: reply.fails(429, retry_after="3600")
    assert (await failing(endpoint_of())).requests == 1
    assert pauses.seconds == []


async def test_no_attempt_begins_after_the_deadline(fake, endpoint_of: Make, pauses, reply) -> None:
    fake.script = lambda _: reply.fails(503, retry_after="30")
    failed = await failing(endpoint_of(), deadline=asyncio.get_running_loop().time() + 20)
    assert failed.requests == 1
    assert pauses.seconds == []


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504, 529])
async def test_a_passing_failure_is_tried_again(
    fake, endpoint_of: Make, reply, status: int
) -> None:
    fake.script = in_turn(reply.fails(status), reply.fails(status), reply.says("Score: 3"))
    assert (await ask(endpoint_of())).usage.requests == 3


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_the_prompt_causes_is_not_tried_again(
    fake, endpoint_of: Make, reply, status: int
) -> None:
    fake.script = lambda _: reply.fails(status, "the context is too long")
    failed = await failing(endpoint_of())
    assert (failed.failure.kind, failed.requests) == (FailureKind.ENDPOINT, 1)
    assert not failed.outage
    assert "the context is too long" in failed.failure.detail


async def test_a_content_filter_that_answers_400_is_a_refusal(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda _: reply.fails(400, "filtered", "content_filter")
    failed = await failing(endpoint_of())
    assert (failed.failure.kind, failed.requests) == (FailureKind.REFUSED, 1)


async def test_a_server_that_hangs_is_a_timeout(fake, endpoint_of: Make, reply) -> None:
    async def hang(_):
        await asyncio.Event().wait()

    fake.script = hang
    failed = await failing(endpoint_of(timeout=0.1, attempts=2))
    assert failed.failure.kind is FailureKind.TIMEOUT
    assert failed.requests == 2
    assert not failed.outage


async def test_a_server_that_drips_is_a_timeout_though_every_byte_is_in_time(
    fake, endpoint_of: Make, reply
) -> None:
    fake.script = lambda _: reply.Reply(body=reply.says("Score: 5").body, drip=0.05)
    failed = await failing(endpoint_of(timeout=0.3, attempts=1))
    assert failed.failure.kind is FailureKind.TIMEOUT


async def test_half_an_answer_is_tried_again(fake, endpoint_of: Make, reply) -> None:
    whole = reply.says("Score: 5")
    half = reply.Reply(body=whole.body, cut_after=len(whole.body) // 2)
    fake.script = in_turn(half, half, whole)
    completion = await ask(endpoint_of())
    assert (completion.text, completion.usage.requests) == ("Score: 5", 3)
    fake.script = lambda _: half
    failed = await failing(endpoint_of())
    assert failed.failure.kind is FailureKind.ENDPOINT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>bad gateway</html>",
        b"[]",
        b'{"choices":[]}',
        b'{"choices":[{"message":{"content":5}}]}',
        b'{"choices":[{"message":{"content":"Score: 5"}},{"message":{"content":"Score: 1"}}]}',
        b'{"choices":[{"message":{"content":"Score: 5"}}]',
        b"\xff\xfe",
    ],
)
async def test_rubbish_is_an_endpoint_failure(fake, endpoint_of: Make, reply, body: bytes) -> None:
    fake.script = lambda _: reply.Reply(body=body)
    failed = await failing(endpoint_of(attempts=2))
    assert (failed.failure.kind, failed.requests) == (FailureKind.ENDPOINT, 2)
    assert not failed.outage


async def test_nobody_listens(fake, endpoint_of: Make, closed_url: str) -> None:
    failed = await failing(endpoint_of(url=closed_url))
    assert failed.outage
    assert failed.requests == 3
    assert closed_url in failed.failure.detail


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ((401, "key sk-very-secret is wrong", "invalid_api_key"), "TUNEPROOF_JUDGE_API_KEY"),
        ((403, "key sk-very-secret may not"), "TUNEPROOF_JUDGE_API_KEY"),
        ((404, "no such model", "model_not_found"), "--endpoint-model"),
        ((429, "key sk-very-secret has spent it", "insufficient_quota"), "quota"),
    ],
)
async def test_a_broken_set_up_is_said_at_once_and_without_the_key(
    fake, endpoint_of: Make, reply, error, advice: str
) -> None:
    fake.script = lambda _: reply.fails(*error)
    with pytest.raises(WrongState, match=advice) as caught:
        await ask(endpoint_of())
    assert fake.url in caught.value.message
    assert "sk-very-secret" not in caught.value.message
    assert len(fake.asked) == 1


async def test_no_more_requests_are_in_flight_than_allowed(fake, endpoint_of: Make, reply) -> None:
    async def slowly(_):
        await asyncio.sleep(0.01)
        return reply.says("Score: 3")

    fake.script = slowly
    endpoint = endpoint_of(concurrency=3)
    await asyncio.gather(*(ask(endpoint) for _ in range(12)))
    assert fake.most_under_way == 3


async def test_a_request_that_waits_to_be_repeated_takes_no_others_place(
    fake, endpoint_of: Make, reply
) -> None:
    paused, go_on = asyncio.Event(), asyncio.Event()

    async def pause(_: float) -> None:
        paused.set()
        await go_on.wait()

    fake.script = in_turn(reply.fails(500), reply.says("Score: 3"))
    endpoint = endpoint_of(concurrency=1)
    endpoint._sleep = pause
    first = asyncio.create_task(ask(endpoint))
    await paused.wait()
    assert (await ask(endpoint)).text == "Score: 3"
    go_on.set()
    assert (await first).usage.requests == 2


async def test_a_cancelled_request_is_dropped_at_the_endpoint(fake, endpoint_of: Make) -> None:
    arrived = asyncio.Event()

    async def hang(_):
        arrived.set()
        await asyncio.Event().wait()

    fake.script = hang
    task = asyncio.create_task(ask(endpoint_of()))
    await arrived.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: fake.left_early == 1)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def test_the_endpoint_is_asked_until_it_answers_and_then_no_more(
    fake, endpoint_of: Make, reply
) -> None:
    now = 0.0
    endpoint = endpoint_of(clock=lambda: now)
    good, fake.models = fake.models, reply.fails(503)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await endpoint.check_ready()
    assert fake.models_asked == 1
    fake.models, now = good, 6.0
    await endpoint.check_ready()
    # The pods of a judge left their service together when the endpoint that they share was busy.
    fake.models, now = reply.fails(503), 12.0
    await endpoint.check_ready()
    assert fake.models_asked == 2


@pytest.mark.parametrize("how", ["hangs", "drips", "has too many requests"])
async def test_a_busy_endpoint_is_not_a_dead_one(
    fake, endpoint_of: Make, reply, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(judge_endpoint, "_PROBE_SECONDS", 0.2)
    fake.models = {
        "hangs": reply.Reply(body=b" " * 2, drip=5.0),
        "drips": reply.Reply(body=b" " * 100, drip=0.1),
        "has too many requests": reply.fails(429),
    }[how]
    await endpoint_of().check_ready()


async def test_an_endpoint_that_takes_no_connection_is_a_dead_one(
    endpoint_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_endpoint, "_PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        # With its queue full the kernel answers no further connection.
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        await asyncio.sleep(0.05)
        with pytest.raises(Unavailable, match="no connection in time"):
            await endpoint_of(url=f"http://127.0.0.1:{server.getsockname()[1]}/v1").check_ready()


async def test_not_ready_tells_why_and_recovers(fake, endpoint_of: Make, reply) -> None:
    now = 0.0
    endpoint = endpoint_of(clock=lambda: now)
    good, fake.models = fake.models, reply.fails(401, "bad key sk-very-secret")
    with pytest.raises(Unavailable, match="TUNEPROOF_JUDGE_API_KEY") as caught:
        await endpoint.check_ready()
    assert "sk-very-secret" not in caught.value.message
    fake.models, now = reply.fails(500), 10.0
    with pytest.raises(Unavailable, match="HTTP 500"):
        await endpoint.check_ready()
    fake.models, now = good, 20.0
    await endpoint.check_ready()


async def test_not_ready_while_nobody_listens(endpoint_of: Make, closed_url: str) -> None:
    with pytest.raises(Unavailable, match=closed_url):
        await endpoint_of(url=closed_url).check_ready()


async def test_an_endpoint_without_a_list_of_models_is_ready(
    fake, endpoint_of: Make, reply
) -> None:
    fake.models = reply.fails(404)
    await endpoint_of().check_ready()


async def test_an_endpoint_behind_mtls_is_asked_with_a_key_and_certificates_that_change(
    fake, tmp_path: Path
) -> None:
    ca = trustme.CA()
    server = MountedSecret(tmp_path / "server", certificate_files(ca, "127.0.0.1"))
    mine = MountedSecret(tmp_path / "mine", certificate_files(ca, "judge"))
    key = MountedSecret(tmp_path / "key", {"key": b"the-first\n"})
    context = ServerTls(server.folder, client_certificates=True).context()

    def settings(**more) -> JudgeSettings:
        return JudgeSettings(endpoint_url=fake.url, endpoint_model="fake", max_attempts=1, **more)

    async with fake.running(context):
        given = settings(api_key_file=key.folder / "key", endpoint_tls_dir=mine.folder)
        async with closing_endpoint(given) as endpoint:
            await ask(endpoint)
            key.change({"key": b"the-second"})
            await ask(endpoint)
        assert [asked.key for asked in fake.asked] == ["the-first", "the-second"]
        new = trustme.CA()
        server.change(certificate_files(new, "127.0.0.1"))
        async with closing_endpoint(given) as endpoint:
            await failing(endpoint)
            mine.change(certificate_files(new, "judge"))
            await ask(endpoint)
    for wrong, message in (
        ({"api_key": "k", "api_key_file": Path("f")}, "leave one out"),
        ({"endpoint_tls_dir": Path("f"), "endpoint_url": "http://a/v1"}, "begin with https"),
    ):
        with pytest.raises(ValueError, match=message):
            JudgeSettings(**({"endpoint_url": "https://a/v1", "endpoint_model": "m"} | wrong))


@asynccontextmanager
async def closing_endpoint(settings: JudgeSettings) -> AsyncIterator[OpenAIEndpoint]:
    (endpoint,) = endpoints_of(settings)
    yield endpoint
    await endpoint.close()


async def test_credentials_in_the_url_are_not_shown(endpoint_of: Make) -> None:
    endpoint = endpoint_of(url="http://user:hunter2@127.0.0.1:9/v1")
    assert endpoint.url == "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", None), ("3", 3.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("inf", None)],
)
def test_retry_after_in_seconds(header: str, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    header = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert retry_after(header) == pytest.approx(60, abs=5)
