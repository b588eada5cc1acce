"""What both doors of the running service promise alike: who answered, how it streams, when it ends.

Asked with raw HTTP beside gRPC, because headers, events and broken connections are the subject.
"""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect

pytestmark = [pytest.mark.engine, pytest.mark.timeout(360)]

_HEADER = "x-tuneproof-adapter"
_PROMPT = [21, 47, 90, 33, 150, 61, 74]
_SERVICES = list(pb.DESCRIPTOR.services_by_name.values())
_MODELS = ["base", "adapter", "alias"]


class Doors:
    """Both doors and the management of adapters."""

    def __init__(self, channel, http, lab):
        self.ask = rpc.GeneratorServiceStub(channel)
        self.adapters = rpc.AdapterServiceStub(channel)
        self.http = http
        self.one, self.two = lab.refs["one"], lab.refs["two"]
        self.names = {"base": "tiny", "adapter": self.one, "alias": "doors"}
        self.refs = {"base": "", "adapter": self.one, "alias": self.one}

    async def declare(self, *refs):
        for ref in refs:
            await self.adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref))
            watched = pb.WatchAdaptersRequest(refs=[ref])
            async for response in self.adapters.WatchAdapters(watched, timeout=60):
                assert response.adapter.state != pb.ADAPTER_STATE_FAILED, response.adapter.reason
                if response.adapter.state == pb.ADAPTER_STATE_READY:
                    break

    async def point(self, ref, **more):
        listed = (await self.adapters.ListAliases(pb.ListAliasesRequest())).aliases
        now = next((alias.ref for alias in listed if alias.name == "doors"), "")
        await self.adapters.SetAlias(
            pb.SetAliasRequest(alias="doors", ref=ref, expected_ref=now, **more)
        )

    async def over_grpc(self, model, count=8):
        """Token ids by delta, and Final."""
        deltas, final = [], None
        async for response in self.ask.Generate(_request(model, count), timeout=60):
            if response.HasField("delta"):
                deltas.append(list(response.delta.token_ids))
            if response.HasField("final"):
                final = response.final
        return deltas, final

    async def complete(self, model, count=8, **more):
        reply = await self.http.post("/completions", json=_body(model, count, **more))
        assert reply.status_code == 200, reply.text
        return reply

    async def stream(self, model, count=8, **more):
        """Headers, and the events as they came."""
        body = _body(model, count, stream=True, **more)
        async with self.http.stream("POST", "/completions", json=body) as reply:
            lines = [line async for line in reply.aiter_lines() if line.startswith("data: {")]
        return reply.headers, [json.loads(line.removeprefix("data: ")) for line in lines]


def _joined(parts):
    return list(itertools.chain.from_iterable(parts))


def _token_ids(events):
    return [event["choices"][0]["token_ids"] for event in events]


def _request(model, count):
    return pb.GenerateRequest(
        model=model,
        token_ids=pb.TokenIds(ids=_PROMPT),
        sampling=pb.Sampling(max_tokens=count),
    )


def _body(model, count, **more):
    return {
        "model": model,
        "prompt": _PROMPT,
        "max_tokens": count,
        "temperature": 0,
        "return_token_ids": True,
        **more,
    }


@pytest.fixture
async def doors(generator, lab) -> AsyncIterator[Doors]:
    headers = {"authorization": f"Bearer {generator.use_token}"}
    async with (
        connect(generator.target, services=_SERVICES, token=generator.manage_token) as channel,
        httpx.AsyncClient(base_url=generator.openai_url, headers=headers, timeout=60) as http,
    ):
        made = Doors(channel, http, lab)
        await made.declare(made.one, made.two)
        await made.point(made.one)
        yield made


@pytest.mark.parametrize("kind", _MODELS)
async def test_each_reply_names_the_adapter_that_served(doors, reference, kind):
    model, ref = doors.names[kind], doors.refs[kind]
    right = reference("one" if ref else None, _PROMPT, 8)
    deltas, final = await doors.over_grpc(model)
    assert (_joined(deltas), final.served_by.adapter_ref) == (right, ref)
    whole = await doors.complete(model)
    assert whole.json()["choices"][0]["token_ids"] == right
    headers, events = await doors.stream(model)
    assert _joined(_token_ids(events)) == right
    for found in (whole.headers, headers):
        assert found.get(_HEADER, "") == ref


async def test_a_canary_is_drawn_for_each_request_and_named_in_its_reply(doors, reference):
    await doors.point(doors.one, canary_ref=doors.two, canary_percent=50)
    right = {
        ref: reference(name, _PROMPT, 8) for ref, name in ((doors.one, "one"), (doors.two, "two"))
    }
    replies = await asyncio.gather(*(doors.complete("doors") for _ in range(24)))
    served = set()
    for reply in replies:
        served.add(reply.headers[_HEADER])
        assert reply.json()["choices"][0]["token_ids"] == right[reply.headers[_HEADER]]
    for deltas, final in await asyncio.gather(*(doors.over_grpc("doors") for _ in range(24))):
        served.add(final.served_by.adapter_ref)
        assert _joined(deltas) == right[final.served_by.adapter_ref]
    assert served == right.keys()
    await doors.point(doors.one)


async def test_what_is_refused_names_no_adapter(doors):
    reply = await doors.http.post("/completions", json=_body("nobody", 4))
    assert (reply.status_code, reply.headers.get(_HEADER)) == (404, None)


async def test_both_doors_stream_at_the_same_token_counts(doors):
    deltas, final = await doors.over_grpc("tiny", 20)
    _, events = await doors.stream("tiny", 20)
    parts = _token_ids(events)
    assert _joined(deltas) == _joined(parts)
    # The first token at once, then three at a time; a late reader gets some of them together.
    ends = {*range(1, 20, 3), 20}
    for door in (deltas, parts):
        counts = [sum(map(len, door[: n + 1])) for n in range(len(door)) if door[n]]
        assert set(counts) <= ends
        assert len(counts) > 1
    assert final.usage.completion_tokens == 20


@pytest.mark.parametrize("kind", _MODELS)
async def test_samples_with_a_seed_differ_and_repeat(doors, kind):
    more = {"n": 4, "temperature": 1.0, "logprobs": 1}

    async def sample(seed):
        reply = await doors.complete(doors.names[kind], 6, seed=seed, **more)
        assert reply.headers.get(_HEADER, "") == doors.refs[kind]
        return reply.json()["choices"]

    first = await sample(5)
    ids = [choice["token_ids"] for choice in first]
    assert len({tuple(each) for each in ids}) > 1
    assert all(len(choice["logprobs"]["token_logprobs"]) == 6 for choice in first)
    assert [choice["token_ids"] for choice in await sample(5)] == ids


@pytest.mark.parametrize("kind", _MODELS)
@pytest.mark.parametrize(
    ("form", "wanted", "pattern"),
    [
        ("choice", ["better", "worse"], "better|worse"),
        ("regex", "[a-f]{3}-[0-9]{2}", "[a-f]{3}-[0-9]{2}"),
        ("grammar", 'root ::= "mast " ("up" | "down")', "mast (up|down)"),
    ],
)
async def test_structured_outputs_fit(doors, kind, form, wanted, pattern):
    reply = await doors.complete(doors.names[kind], 40, structured_outputs={form: wanted})
    assert re.fullmatch(pattern, reply.json()["choices"][0]["text"])


@pytest.mark.parametrize("kind", _MODELS)
async def test_a_chat_fits_its_schema(doors, kind):
    schema = {
        "type": "object",
        "properties": {"verdict": {"enum": ["better", "worse"]}, "ok": {"type": "boolean"}},
        "required": ["verdict", "ok"],
        "additionalProperties": False,
    }
    asked = {
        "model": doors.names[kind],
        "messages": [{"role": "user", "content": "hello mast"}],
        "max_tokens": 400,
        "temperature": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": schema, "strict": True},
        },
    }
    reply = await doors.http.post("/chat/completions", json=asked)
    answer = json.loads(reply.json()["choices"][0]["message"]["content"])
    assert answer.keys() == {"verdict", "ok"}
    assert answer["verdict"] in ("better", "worse")
    assert reply.headers.get(_HEADER, "") == doors.refs[kind]


async def test_vllm_takes_no_adapter_by_http(doors, lab):
    for path in ("/load_lora_adapter", "/unload_lora_adapter"):
        asked = {"lora_name": "mine", "lora_path": str(lab.peft["two"])}
        assert (await doors.http.post(path, json=asked)).status_code == 404
    listed = (await doors.http.get("/models")).json()["data"]
    assert "mine" not in {model["id"] for model in listed}


async def _metric(generator, name):
    async with httpx.AsyncClient() as client:
        page = (await client.get(str(generator.addresses["metrics"]))).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))


@pytest.mark.parametrize("how", ["stream", "whole", "grpc"])
async def test_who_hangs_up_stops_the_work_in_the_engine(generator, doors, how):
    async def hang_up_early(model):
        if how == "grpc":
            call = doors.ask.Generate(_request(model, 500), timeout=60)
            await call.read()
            call.cancel()
            return
        body = _body(model, 500, stream=how == "stream", ignore_eos=True)
        if how == "whole":
            with pytest.raises(httpx.ReadTimeout):
                await doors.http.post("/completions", json=body, timeout=0.3)
            return
        async with doors.http.stream("POST", "/completions", json=body) as reply:
            await anext(reply.aiter_lines())

    before = await _metric(generator, "vllm:generation_tokens_total")
    await asyncio.gather(*(hang_up_early(name) for name in doors.names.values()))
    # The gauge is written by the engine's next step.
    for _ in range(200):
        await doors.over_grpc("tiny", 1)
        if await _metric(generator, "vllm:num_requests_running") == 0:
            break
    else:
        pytest.fail("the engine still runs requests that nobody waits for")
    made = await _metric(generator, "vllm:generation_tokens_total") - before
    assert made < 3 * 400


async def test_a_removed_adapter_ends_its_answers_with_an_error(doors, lab):
    ref = lab.refs["brief"]
    await doors.declare(ref)
    body = _body(ref, 480, stream=True, ignore_eos=True)
    whole = asyncio.create_task(
        doors.http.post("/completions", json=body | {"stream": False}, timeout=60)
    )
    async with doors.http.stream("POST", "/completions", json=body) as reply:
        lines = reply.aiter_lines()
        await anext(lines)
        removal = pb.RemoveAdapterRequest(ref=ref)
        removal.drain_timeout.FromMilliseconds(1)
        await doors.adapters.RemoveAdapter(removal)
        streamed = "\n".join([line async for line in lines])
    assert "was removed while it answered; ask another one" in streamed
    assert '"abort"' not in streamed
    refused = await whole
    assert refused.status_code == 503
    assert "was removed while it answered; ask another one" in refused.text
