"""The embedder on a TEI server: order, limits, prompts, tokens, and a server that fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from tuneproof.servicekit.errors import (
    Internal,
    InvalidInput,
    Overloaded,
    TuneproofError,
    Unavailable,
    WrongState,
)
from tuneproof_retriever import tei
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder
from tuneproof_retriever.embedders.tei_embedder import Prompts, TeiEmbedder, open_tei_embedder
from tuneproof_retriever.endpoint import Endpoint

from .tei_fake import (
    DIMENSION,
    Fault,
    TeiFake,
    cut_off,
    drip,
    half,
    hang,
    overloaded,
    running,
    status,
    vector_of,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]


NO_PROMPTS = Prompts()


async def at_once(_seconds: float) -> None:
    """A pause that takes no time."""
    await asyncio.sleep(0)


@asynccontextmanager
async def embedder_on(
    fake: TeiFake,
    *,
    prompts: Prompts = NO_PROMPTS,
    model: str = "",
    revision: str = "",
    api_key: str = "",
    request_timeout: float = 30.0,
) -> AsyncIterator[TeiEmbedder]:
    endpoint = Endpoint("TEI", fake.url, api_key, "KEY", request_timeout=request_timeout)
    embedder = await open_tei_embedder(
        endpoint, prompts=prompts, model=model, revision=revision, patience=0.3, sleep=at_once
    )
    fake.asked.clear()
    try:
        yield embedder
    finally:
        await embedder.close()


def in_seconds(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def refusal(call: object) -> TuneproofError:
    with pytest.raises(TuneproofError) as caught:
        await call
    return caught.value


def rows(texts: Sequence[str]) -> list[object]:
    return [pytest.approx(vector_of(text), abs=1e-6) for text in texts]


async def test_a_thousand_texts_come_back_in_order_and_are_asked_for_once() -> None:
    draw = random.Random(4)
    texts = [f"text {number} " + "word " * draw.randint(0, 40) for number in range(1000)]
    async with running(busy_seconds=0.001) as fake, embedder_on(fake) as embedder:
        vectors = await embedder.embed_passages(texts)
        assert [*vectors] == rows(texts)
        assert sorted(fake.texts()) == sorted(texts)
        for asked in fake.asked:
            if asked.path == "/embed":
                assert len(asked.body["inputs"]) <= fake.max_client_batch_size
        assert 8 < fake.most_at_once <= fake.max_concurrent_requests
        assert (await embedder.embed_passages([])).shape == (0, DIMENSION)


async def test_a_thousand_texts_in_a_storm_of_overload() -> None:
    texts = [f"text {number}" for number in range(1000)]
    async with running() as fake, embedder_on(fake) as embedder:
        fake.faults = [overloaded() for _ in range(300)]
        vectors = await embedder.embed_passages(texts)
        assert [*vectors] == rows(texts)
        assert not fake.faults


async def test_a_server_with_fewer_permits_than_a_batch_is_served_in_smaller_ones() -> None:
    """TEI counts the texts of a batch against `max_concurrent_requests`, not the requests."""
    texts = [f"text {number}" for number in range(40)]
    async with (
        running(max_concurrent_requests=3, busy_seconds=0.001) as fake,
        embedder_on(fake) as embedder,
    ):
        assert [*await embedder.embed_passages(texts)] == rows(texts)
        assert sorted(fake.texts()) == sorted(texts), "nothing was refused and sent again"


async def test_overload_is_told_at_the_deadline_with_the_server_s_own_delay() -> None:
    async with running() as fake, embedder_on(fake) as embedder:
        fake.faults = [overloaded() for _ in range(100_000)]
        error = await refusal(embedder.embed_query("a", deadline=in_seconds(0.3)))
        assert isinstance(error, Overloaded)
        assert "Model is overloaded" in error.message
        assert len(fake.texts()) > 1
        fake.faults = [overloaded(**{"Retry-After": "7"})]
        error = await refusal(embedder.embed_query("a", deadline=in_seconds(5)))
        assert isinstance(error, Overloaded)
        assert error.retry_after == 7


async def test_every_request_says_that_nothing_may_be_truncated() -> None:
    async with running(auto_truncate=True) as fake, embedder_on(fake) as embedder:
        await embedder.embed_passages(["a", "b"])
        await embedder.embed_query("c")
        asked = [each.body for each in fake.asked if each.path == "/embed"]
        assert [each["truncate"] for each in asked] == [False, False]
        assert all(each["normalize"] for each in asked)


async def test_a_text_that_is_too_long_is_refused_though_the_server_would_truncate() -> None:
    async with running(auto_truncate=True) as fake, embedder_on(fake) as embedder:
        assert embedder.identity.max_tokens == 62
        fits, too_long = "word " * 62, "word " * 63
        assert [*await embedder.embed_passages([fits])] == rows([fits])
        error = await refusal(embedder.embed_passages([fits, too_long]))
        assert isinstance(error, InvalidInput)
        assert "must have less than 64 tokens. Given: 65" in error.message
        error = await refusal(embedder.embed_query(too_long))
        assert isinstance(error, InvalidInput)
        assert error.field == "query"
        assert "query has 63 tokens, more than the 62" in error.message


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (400, InvalidInput, "HTTP 400"),
        (413, InvalidInput, "HTTP 413: too much"),
        (422, InvalidInput, "HTTP 422"),
        (401, WrongState, "set KEY"),
        (403, WrongState, "set KEY"),
        (404, WrongState, "does not know"),
    ],
)
async def test_a_refusal_is_told_at_once(code: int, kind: type[TuneproofError], words: str) -> None:
    async with running() as fake, embedder_on(fake) as embedder:
        fake.faults = [status(code, "too much")]
        error = await refusal(embedder.embed_passages(["a"]))
        assert isinstance(error, kind)
        assert words in error.message
        assert len(fake.texts()) == 1


async def test_texts_over_the_server_s_size_of_a_body_are_divided_or_refused() -> None:
    async with (
        running(max_input_length=100_000, max_batch_tokens=10**9, max_client_batch_size=8) as fake,
        embedder_on(fake) as embedder,
    ):
        texts = [f"{number} " + "x" * 400_000 for number in range(8)]
        assert [*await embedder.embed_passages(texts)] == rows(texts)
        assert len([each for each in fake.asked if each.path == "/embed"]) >= 4
        error = await refusal(embedder.embed_passages(["x" * 2_100_000]))
        assert isinstance(error, InvalidInput)
        assert "HTTP 413" in error.message


@pytest.mark.parametrize("fault", [cut_off, half, status(503), status(424), status(500)])
async def test_a_request_that_fails_is_sent_again(fault: Fault) -> None:
    texts = [f"text {number}" for number in range(100)]
    async with running() as fake, embedder_on(fake) as embedder:
        fake.faults = [fault] * 3
        assert [*await embedder.embed_passages(texts)] == rows(texts)
        assert not fake.faults


@pytest.mark.parametrize("fault", [hang, drip])
async def test_a_server_that_is_too_slow_is_asked_again(fault: Fault) -> None:
    async with running() as fake, embedder_on(fake, request_timeout=0.2) as embedder:
        fake.faults = [fault]
        assert [await embedder.embed_query("a")] == rows(["a"])
        fake.faults = [fault] * 1000
        error = await refusal(embedder.embed_query("b", deadline=in_seconds(0.5)))
        assert isinstance(error, Unavailable)
        assert "did not answer within" in error.message
        fake.faults = []


async def test_a_server_that_restarts_is_waited_for() -> None:
    texts = [f"text {number}" for number in range(200)]
    async with running(busy_seconds=0.005) as fake, embedder_on(fake) as embedder:
        work = asyncio.create_task(embedder.embed_passages(texts))
        while len(fake.asked) < 5:
            await asyncio.sleep(0.001)
        await fake.stop()
        with pytest.raises(Unavailable, match="does not answer"):
            await embedder.check_ready()
        await fake.start()
        assert [*await work] == rows(texts)
        await embedder.check_ready()


async def test_a_server_that_restarts_with_another_model_is_refused() -> None:
    async with running() as fake, embedder_on(fake) as embedder:
        await fake.stop()
        fake.model_sha = "d4e5f6"
        await fake.start()
        error = await refusal(embedder.embed_query("a"))
        assert isinstance(error, WrongState)
        assert "d4e5f6" in error.message
        with pytest.raises(Unavailable, match="restart the retriever"):
            await embedder.check_ready()


async def test_another_model_under_a_live_connection_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tei, "_CONFIRMED_SECONDS", 0.0)
    async with running() as fake, embedder_on(fake) as embedder:
        await embedder.embed_query("a")
        fake.model_dtype = "float32"
        assert isinstance(await refusal(embedder.embed_query("b")), WrongState)


async def test_a_server_that_is_not_there_at_the_start_is_told() -> None:
    fake = TeiFake(port=1)
    with pytest.raises(Unavailable, match=r"TEI at http://127\.0\.0\.1:1 does not answer"):
        async with embedder_on(fake):
            pass


async def test_an_unhealthy_server_is_not_ready() -> None:
    async with running() as fake, embedder_on(fake) as embedder:
        await embedder.check_ready()
        fake.healthy = False
        with pytest.raises(Unavailable, match="not healthy"):
            await embedder.check_ready()


async def test_the_identity_is_of_model_revision_type_and_prompts_not_of_the_address() -> None:
    async def identity(
        prompts: Prompts = NO_PROMPTS, revision: str = "", **settings: object
    ) -> str:
        settings = {"prompts": {"query": "query: ", "other": "query: "}, **settings}
        async with (
            running(**settings) as fake,
            embedder_on(fake, prompts=prompts, revision=revision) as embedder,
        ):
            assert embedder.identity.id == fake.model_id
            assert embedder.identity.dimension == DIMENSION
            return embedder.identity.digest

    same = await identity()
    assert await identity(max_client_batch_size=3) == same
    assert await identity(model_sha=None, revision="a1b2c3") == same
    others = {
        await identity(model_id="org/other"),
        await identity(model_sha="d4e5f6"),
        await identity(model_sha=None),
        await identity(model_dtype="float32"),
        await identity(Prompts(query="query")),
        await identity(Prompts(passage="query")),
        await identity(default_prompt="query: "),
    }
    assert len(others | {same}) == 8
    assert await identity(Prompts(query="query")) == await identity(Prompts(query="other"))


async def test_a_model_revision_or_kind_that_was_not_asked_for_is_refused() -> None:
    async with running() as fake:
        for wrong in ({"model": "org/other"}, {"revision": "d4e5f6"}):
            with pytest.raises(InvalidInput, match=next(iter(wrong.values()))):
                async with embedder_on(fake, **wrong):
                    pass
        with pytest.raises(InvalidInput, match="Available prompts"):
            async with embedder_on(fake, prompts=Prompts(query="missing")):
                pass
    async with running(kind="reranker") as fake:
        with pytest.raises(InvalidInput, match="a model for reranker, not for embedding"):
            async with embedder_on(fake):
                pass


async def test_prompts_are_named_and_take_their_room() -> None:
    prompts = {"query": "represent this question: ", "passage": "text: "}
    async with (
        running(prompts=prompts) as fake,
        embedder_on(fake, prompts=Prompts("query", "passage")) as embedder,
    ):
        assert embedder.identity.max_tokens == 64 - 2 - 4
        assert [await embedder.embed_query("a")] == rows(["represent this question: a"])
        assert [*await embedder.embed_passages(["a"])] == rows(["text: a"])


async def test_the_key_is_sent_and_this_machine_s_own_token_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_private")
    for key, sent in (("secret", "Bearer secret"), ("", "Bearer none")):
        async with running(api_key=key) as fake, embedder_on(fake, api_key=key) as embedder:
            await embedder.embed_query("a")
            await embedder.offsets(["a"])
            await embedder.check_ready()
            assert {each.key for each in fake.asked} == {sent}
    async with running(api_key="secret") as fake:
        with pytest.raises(WrongState, match="set KEY"):
            async with embedder_on(fake, api_key="wrong"):
                pass


async def test_a_machine_without_the_hub_asks_its_own_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """huggingface_hub's HTTP client refuses all URLs then; our images say HF_HUB_OFFLINE=1."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    async with running() as fake, embedder_on(fake) as embedder:
        assert [await embedder.embed_query("a")] == rows(["a"])
        await embedder.check_ready()


TEXTS = [
    "plain words, and 3.5 dB.",
    "Größe «naïve» — 測試 句子。 emoji 👍🏽 end",
    "cafe\u0301 \u00a0 \u2009tail ",
    " \n\t",
    "",
]


@pytest.mark.parametrize("default_prompt", ["", "größe: "])
async def test_tokens_are_those_of_the_model_in_code_points(
    embedder: SentenceEmbedder, default_prompt: str
) -> None:
    long = "".join(f"word{number} größe. " for number in range(3000))
    async with running(default_prompt=default_prompt) as fake, embedder_on(fake) as remote:
        assert len(long) > fake.max_input_length * 250
        for texts in (TEXTS, [long, *TEXTS, long]):
            assert await remote.offsets(texts) == await embedder.offsets(texts)


def test_a_part_of_a_character_is_all_of_it() -> None:
    in_bytes = [(0, 1), (1, 2), (2, 3), (3, 5), (5, 7), (7, 8)]
    in_characters = [(0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (3, 4)]
    assert tei.bytes_to_characters("aö\U0001f44d.", in_bytes) == in_characters


@pytest.mark.parametrize(
    ("garble", "kind"),
    [
        (lambda row: [float("nan")] * len(row), Internal),
        (lambda row: [0.0] * len(row), Internal),
        (lambda row: row[:-1], Internal),
    ],
)
async def test_vectors_that_must_not_be_stored_are_refused(
    garble: Callable[[list[float]], list[float]],
    kind: type[TuneproofError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as fake, embedder_on(fake) as embedder:
        embed = fake._embed

        async def garbled(body: dict[str, object]) -> list[list[float]]:
            return [garble(row) for row in await embed(body)]

        monkeypatch.setattr(fake, "_embed", garbled)
        assert isinstance(await refusal(embedder.embed_passages(["a"])), kind)


async def test_an_answer_that_is_not_tei_s_is_told() -> None:
    async with running() as fake, embedder_on(fake) as embedder:
        fake.faults = [status(200, "<html>a proxy's page</html>")] * 1000
        error = await refusal(embedder.embed_query("a", deadline=in_seconds(0.2)))
        assert isinstance(error, Unavailable)
        error = await refusal(embedder.offsets(["a"], deadline=in_seconds(0.2)))
        assert isinstance(error, Unavailable)
        assert "something else" in error.message
