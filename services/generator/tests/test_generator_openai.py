"""The OpenAI door of the running service, asked with the openai client."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect

pytestmark = [pytest.mark.engine, pytest.mark.timeout(360)]

_HELLO = [{"role": "user", "content": "hello mast"}]


@pytest.fixture
async def client(generator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=generator.openai_url, api_key=generator.use_token, max_retries=0
    ) as found:
        yield found


@pytest.fixture
async def adapters(generator) -> AsyncIterator[rpc.AdapterServiceStub]:
    services = list(pb.DESCRIPTOR.services_by_name.values())
    async with connect(
        generator.target, services=services, token=generator.manage_token
    ) as channel:
        yield rpc.AdapterServiceStub(channel)


async def _declare(adapters, ref):
    await adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref))
    async for response in adapters.WatchAdapters(pb.WatchAdaptersRequest(refs=[ref]), timeout=60):
        if response.adapter.state in (pb.ADAPTER_STATE_READY, pb.ADAPTER_STATE_FAILED):
            return


async def _point(adapters, alias, ref):
    listed = (await adapters.ListAliases(pb.ListAliasesRequest())).aliases
    now = next((each.ref for each in listed if each.name == alias), "")
    await adapters.SetAlias(pb.SetAliasRequest(alias=alias, ref=ref, expected_ref=now))


async def _ids(client, model, **more):
    reply = await client.chat.completions.create(
        model=model,
        messages=_HELLO,
        max_tokens=10,
        temperature=0,
        extra_body={"return_token_ids": True},
        **more,
    )
    return reply.choices[0].token_ids, reply.prompt_token_ids


async def test_models_are_the_base_ready_adapters_and_aliases(client, adapters, lab):
    one, nan = lab.refs["one"], lab.refs["nan"]
    await _declare(adapters, one)
    await _declare(adapters, nan)
    await _point(adapters, "first", one)
    listed = {model.id: model async for model in client.models.list()}
    assert {"tiny", one, "first"} <= listed.keys()
    assert nan not in listed
    assert listed[one].parent == "tiny"
    await adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=nan))


async def test_both_doors_answer_alike_for_base_adapter_and_alias(
    client, adapters, lab, reference, tokenizer
):
    two = lab.refs["two"]
    await _declare(adapters, two)
    await _point(adapters, "second", two)
    prompt = tokenizer.apply_chat_template(_HELLO, add_generation_prompt=True, return_dict=False)
    for model, name in (("tiny", None), (two, "two"), ("second", "two")):
        ids, prompt_ids = await _ids(client, model)
        assert prompt_ids == prompt
        assert ids == reference(name, prompt, 10)


async def test_what_is_not_ready_is_not_found_and_never_the_base(client, adapters, lab):
    nan, late = lab.refs["nan"], lab.refs["late"]
    await _declare(adapters, nan)
    for model in (nan, late, "nobody", "one"):
        with pytest.raises(openai.NotFoundError):
            await _ids(client, model)
    await adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=nan))


async def test_a_stream_gives_the_same_text(client):
    request = {"model": "tiny", "messages": _HELLO, "max_tokens": 12, "temperature": 0}
    whole = await client.chat.completions.create(**request)
    parts = [
        chunk.choices[0].delta.content or ""
        async for chunk in await client.chat.completions.create(**request, stream=True)
        if chunk.choices
    ]
    assert len(parts) > 3
    assert "".join(parts) == whole.choices[0].message.content


async def test_ten_samples_with_a_seed_differ_and_repeat(client):
    async def sample(seed):
        reply = await client.chat.completions.create(
            model="tiny", messages=_HELLO, max_tokens=8, temperature=1.0, seed=seed, n=10
        )
        return [choice.message.content for choice in reply.choices]

    first = await sample(11)
    assert len(set(first)) > 5
    assert await sample(11) == first
    assert await sample(12) != first


async def test_completions_and_logprobs(client, reference, tokenizer):
    prompt = tokenizer.encode("the mast is")
    reply = await client.completions.create(
        model="tiny",
        prompt=prompt,
        max_tokens=5,
        temperature=0,
        logprobs=2,
        extra_body={"return_token_ids": True},
    )
    choice = reply.choices[0]
    assert choice.token_ids == reference(None, prompt, 5)
    assert len(choice.logprobs.token_logprobs) == 5
    assert all(value <= 0 for value in choice.logprobs.token_logprobs)


async def test_without_a_known_token_nothing_is_answered(generator):
    async with httpx.AsyncClient(base_url=generator.openai_url) as client:
        for headers in ({}, {"authorization": "Bearer token-that-nobody-has"}):
            assert (await client.get("/models", headers=headers)).status_code == 401
            asked = {"model": "tiny", "messages": _HELLO}
            reply = await client.post("/chat/completions", json=asked, headers=headers)
            assert reply.status_code == 401


async def test_more_answers_than_max_n_are_a_bad_request(client):
    for ask in (
        client.chat.completions.create(model="tiny", messages=_HELLO, max_tokens=1, n=65),
        client.completions.create(model="tiny", prompt="hello", max_tokens=1, n=65),
    ):
        with pytest.raises(openai.BadRequestError, match=r"n is 65.* 64 answers .*--max-n") as bad:
            await ask
        assert bad.value.param == "n"
    reply = await client.chat.completions.create(
        model="tiny", messages=_HELLO, max_tokens=1, temperature=1.0, n=64
    )
    assert len(reply.choices) == 64


async def test_two_clients_with_one_request_id_do_not_end_each_others_answers(
    client, adapters, lab
):
    late, two = lab.refs["late"], lab.refs["two"]
    await _declare(adapters, late)
    await _declare(adapters, two)

    async def ask(model: str, tokens: int, begun: asyncio.Event) -> int:
        tokens_said = 0
        async for chunk in await client.chat.completions.create(
            model=model,
            messages=_HELLO,
            max_tokens=tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
            extra_headers={"X-Request-Id": "same"},
        ):
            assert chunk.id == "chatcmpl-same", "the client's id is in the reply"
            begun.set()
            if chunk.usage:
                tokens_said = chunk.usage.completion_tokens
        return tokens_said

    running = [asyncio.Event(), asyncio.Event()]
    kept = asyncio.create_task(ask(two, 200, running[1]))
    ended = asyncio.create_task(ask(late, 200, running[0]))
    await asyncio.gather(*(event.wait() for event in running))
    removal = pb.RemoveAdapterRequest(ref=late)
    removal.drain_timeout.FromMilliseconds(1)
    await adapters.RemoveAdapter(removal)
    with pytest.raises(openai.APIError, match="removed while it answered"):
        await ended
    assert await kept == 200


async def test_an_idle_connection_stays_open(generator):
    headers = {"authorization": f"Bearer {generator.use_token}"}
    patient = httpx.Limits(keepalive_expiry=60)
    async with httpx.AsyncClient(
        base_url=generator.openai_url, headers=headers, limits=patient
    ) as http:
        await http.get("/models")
        (connection,) = http._transport._pool.connections
        await asyncio.sleep(6)  # uvicorn's own limit is 5 s.
        assert (await http.get("/models")).status_code == 200
        assert http._transport._pool.connections == [connection]
