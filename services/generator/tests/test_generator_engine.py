"""The service with a real vLLM engine, asked over gRPC."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import pytest

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect

pytestmark = [pytest.mark.engine, pytest.mark.timeout(360)]

_QUESTIONS = [
    f"{verb} the {thing} number {number}?"
    for number, (verb, thing) in enumerate(
        (verb, thing)
        for verb in ("what is", "who has", "where was", "why did")
        for thing in ("mast", "relay", "antenna", "cable", "router")
    )
]


_SERVICES = list(pb.DESCRIPTOR.services_by_name.values())


@asynccontextmanager
async def _connected(generator, token=None) -> AsyncIterator[SimpleNamespace]:
    async with connect(
        generator.target, services=_SERVICES, token=token or generator.manage_token
    ) as channel:
        yield SimpleNamespace(
            ask=rpc.GeneratorServiceStub(channel), adapters=rpc.AdapterServiceStub(channel)
        )


@pytest.fixture
async def stubs(generator) -> AsyncIterator[SimpleNamespace]:
    async with _connected(generator) as found:
        yield found


def _chat(text, model="", **sampling):
    return pb.GenerateRequest(
        model=model,
        chat=pb.Chat(messages=[pb.Message(role=pb.ROLE_USER, content=text)]),
        sampling=pb.Sampling(**sampling),
        return_prompt_token_ids=True,
    )


async def _whole(stubs, request):
    """Text, token ids and Final of a stream."""
    text, ids, final = "", [], None
    async for response in stubs.ask.Generate(request, timeout=60):
        assert final is None, "something came after Final"
        if response.HasField("delta"):
            text += response.delta.text
            ids += response.delta.token_ids
        if response.HasField("final"):
            final = response.final
    return text, ids, final


async def _settled(stubs, ref):
    """An adapter, once it is READY or FAILED."""
    async for response in stubs.adapters.WatchAdapters(
        pb.WatchAdaptersRequest(refs=[ref]), timeout=60
    ):
        if response.adapter.state in (pb.ADAPTER_STATE_READY, pb.ADAPTER_STATE_FAILED):
            return response.adapter
    return None


async def _declare(stubs, *refs):
    for ref in refs:
        await stubs.adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref))
    return [await _settled(stubs, ref) for ref in refs]


async def test_greedy_tokens_equal_transformers_and_peft(
    generator, stubs, lab, tokenizer, reference
):
    await _declare(stubs, lab.refs["one"], lab.refs["two"])
    different = 0
    for name in (None, "one", "two"):
        model = lab.refs[name] if name else ""
        answers = await asyncio.gather(
            *(_whole(stubs, _chat(text, model, max_tokens=12)) for text in _QUESTIONS)
        )
        for question, (_, ids, final) in zip(_QUESTIONS, answers, strict=True):
            messages = [{"role": "user", "content": question}]
            prompt = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
            assert list(final.prompt_token_ids) == prompt
            assert ids == reference(name, prompt, 12)
            assert final.served_by.adapter_ref == model
            assert final.usage.prompt_tokens == len(prompt)
            assert final.usage.completion_tokens == len(ids)
            different += ids != reference(None, prompt, 12)
    assert different >= 2 * len(_QUESTIONS) - 2, "the adapters change too little to be seen"


async def test_stage_times_finish_reason_and_cache_are_told(stubs):
    request = _chat("tell me about the mast on the northern hill", max_tokens=6)
    await _whole(stubs, request)
    _, ids, final = await _whole(stubs, request)
    assert final.finish_reason == pb.FINISH_REASON_LENGTH
    assert final.usage.completion_tokens == len(ids) == 6
    assert {entry.stage for entry in final.stage_times} == {"queue", "first_token", "decode"}
    assert final.usage.cached_tokens >= 32


async def test_a_stop_string_ends_the_answer_before_it(stubs):
    stopped = 0
    for question in _QUESTIONS:
        request = _chat(question, max_tokens=30)
        text, _, _ = await _whole(stubs, request)
        end = next((letter for letter in text[3:] if letter.isprintable()), None)
        if end is None or end == "\ufffd":
            continue
        request.sampling.stop.append(end)
        short, _, final = await _whole(stubs, request)
        assert final.finish_reason == pb.FINISH_REASON_STOP
        assert short == text[: text.index(end)]
        stopped += 1
    assert stopped > 3


async def test_hot_loading_keeps_the_processes(generator, stubs, lab, tokenizer, reference):
    before = (await stubs.ask.GetPool(pb.GetPoolRequest())).pool
    engine = generator.children()
    (adapter,) = await _declare(stubs, lab.refs["late"])
    assert adapter.state == pb.ADAPTER_STATE_READY
    assert [step.state for step in adapter.transitions] == [
        pb.ADAPTER_STATE_PENDING,
        pb.ADAPTER_STATE_FETCHING,
        pb.ADAPTER_STATE_VERIFYING,
        pb.ADAPTER_STATE_LOADING,
        pb.ADAPTER_STATE_READY,
    ]
    assert {entry.stage for entry in adapter.stage_times} == {"fetch", "verify", "load", "warm"}
    assert adapter.rank == 8
    _, ids, final = await _whole(stubs, _chat("who?", lab.refs["late"], max_tokens=8))
    assert ids == reference("late", list(final.prompt_token_ids), 8)
    after = (await stubs.ask.GetPool(pb.GetPoolRequest())).pool
    assert (before.process_id, before.start_time) == (after.process_id, after.start_time)
    assert after.process_id == generator.pid
    assert generator.children() == engine
    assert after.dtype == "float32"
    await stubs.adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=lab.refs["late"]))


async def test_mixed_traffic_gets_the_right_answers(stubs, lab, reference):
    await _declare(stubs, lab.refs["one"], lab.refs["two"])
    order = [name for name in (None, "one", "two") for _ in range(15)]
    random.Random(3).shuffle(order)
    requests = [
        _chat(_QUESTIONS[n % 20], lab.refs[name] if name else "tiny", max_tokens=10)
        for n, name in enumerate(order)
    ]
    answers = await asyncio.gather(*(_whole(stubs, request) for request in requests))
    for name, (_, ids, final) in zip(order, answers, strict=True):
        assert ids == reference(name, list(final.prompt_token_ids), 10)


async def test_batch_answers_each_item_and_one_bad_item_ends_nothing(stubs, lab, reference):
    await _declare(stubs, lab.refs["one"])
    items = {
        "good": _chat("who?", max_tokens=5),
        "adapter": _chat("who?", lab.refs["one"], max_tokens=5),
        "unknown": _chat("who?", "nobody"),
        "empty": pb.GenerateRequest(),
        "long": pb.GenerateRequest(token_ids=pb.TokenIds(ids=[9] * 512)),
        "vocabulary": pb.GenerateRequest(token_ids=pb.TokenIds(ids=[9, 100_000])),
    }

    async def send():
        for key, request in items.items():
            yield pb.GenerateBatchRequest(id=key, generate=request)

    answers = {
        response.id: response async for response in stubs.ask.GenerateBatch(send(), timeout=60)
    }
    assert answers.keys() == items.keys()
    for key, name in (("good", None), ("adapter", "one")):
        result = answers[key].result
        assert list(result.token_ids) == reference(name, list(result.final.prompt_token_ids), 5)
    codes = {key: answers[key].error.code for key in ("unknown", "empty", "long", "vocabulary")}
    assert codes == {"unknown": 5, "empty": 3, "long": 3, "vocabulary": 3}
    assert "512 tokens" in answers["long"].error.message
    assert "511 at most" in answers["long"].error.message


@pytest.mark.parametrize(
    ("name", "told"), [("nan", "NaN"), ("wide", "rank"), ("flipped", "not what was committed")]
)
async def test_bad_adapters_fail_with_a_reason_and_harm_nobody(stubs, lab, reference, name, told):
    (adapter,) = await _declare(stubs, lab.refs[name])
    assert adapter.state == pb.ADAPTER_STATE_FAILED
    assert told in adapter.reason
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _whole(stubs, _chat("who?", lab.refs[name], max_tokens=3))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert told in refused.value.details()
    _, ids, final = await _whole(stubs, _chat("what is the mast?", max_tokens=10))
    assert ids == reference(None, list(final.prompt_token_ids), 10)
    await stubs.adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=lab.refs[name]))


async def test_removing_lets_running_requests_end_or_aborts_them(generator, stubs, lab, reference):
    ref = lab.refs["brief"]
    await _declare(stubs, ref)
    running = aiter(stubs.ask.Generate(_chat("who?", ref, max_tokens=60), timeout=60))
    ids = list((await anext(running)).delta.token_ids)
    removal = stubs.adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=ref))
    ids += [token async for response in running for token in response.delta.token_ids]
    await removal
    prompt = (await _whole(stubs, _chat("who?", max_tokens=1)))[2].prompt_token_ids
    assert ids == reference("brief", list(prompt), 60)
    assert not list((lab.root / "cache").glob(f"*{ref[-64:]}*"))

    await _declare(stubs, ref)
    running = aiter(stubs.ask.Generate(_chat("who?", ref, max_tokens=480), timeout=60))
    await anext(running)
    removal = pb.RemoveAdapterRequest(ref=ref)
    removal.drain_timeout.FromMilliseconds(1)
    await stubs.adapters.RemoveAdapter(removal)
    with pytest.raises(grpc.aio.AioRpcError, match="was removed while it answered"):
        async for _ in running:
            pass
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await _whole(stubs, _chat("who?", ref))
    assert gone.value.code() == grpc.StatusCode.NOT_FOUND
    assert (await _whole(stubs, _chat("who?", max_tokens=3)))[1]


async def test_seeds_on_long_prompts_repeat_and_never_end_the_engine(stubs):
    # With chunked prefill the same requests end vLLM 0.32's CPU engine.
    dice = random.Random(5)
    prompts = [
        [dice.randrange(10, 250) for _ in range(dice.randrange(150, 500))] for _ in range(120)
    ]
    requests = [
        pb.GenerateRequest(
            token_ids=pb.TokenIds(ids=ids),
            sampling=pb.Sampling(max_tokens=12, temperature=1.0, top_p=0.95, seed=seed),
        )
        for ids, seed in zip(prompts, [2**64 - 1, *range(119)], strict=True)
    ]
    first = await asyncio.gather(*(_whole(stubs, request) for request in requests))
    again = await asyncio.gather(*(_whole(stubs, request) for request in requests[:20]))
    assert [ids for _, ids, _ in first[:20]] == [ids for _, ids, _ in again]


async def _metric(generator, name):
    async with httpx.AsyncClient() as client:
        page = (await client.get(str(generator.addresses["metrics"]))).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_cancelled_requests_stop_in_the_engine(generator, stubs, how):
    before = await _metric(generator, "vllm:generation_tokens_total")
    timeout = 0.4 if how == "deadline" else 60
    calls = [
        stubs.ask.Generate(_chat(f"tell {n}", max_tokens=490), timeout=timeout) for n in range(4)
    ]
    for call in calls:
        await call.read()
    if how == "cancel":
        for call in calls:
            call.cancel()
    for call in calls:
        code = await call.code()
        wanted = "CANCELLED" if how == "cancel" else "DEADLINE_EXCEEDED"
        assert code is grpc.StatusCode[wanted]
    # The gauge is written by the engine's next step.
    for _ in range(200):
        await _whole(stubs, _chat("who?", max_tokens=1))
        if await _metric(generator, "vllm:num_requests_running") == 0:
            break
    else:
        pytest.fail("the engine still runs cancelled requests")
    made = await _metric(generator, "vllm:generation_tokens_total") - before
    assert made < 4 * 400


async def test_aliases_move_only_as_expected(stubs, lab):
    one, two = lab.refs["one"], lab.refs["two"]
    await _declare(stubs, one, two)

    async def point(ref, expected, **more):
        request = pb.SetAliasRequest(
            alias="live", ref=ref, expected_ref=expected, reason="a test", **more
        )
        return (await stubs.adapters.SetAlias(request)).alias

    listed = (await stubs.adapters.ListAliases(pb.ListAliasesRequest())).aliases
    now = next((alias.ref for alias in listed if alias.name == "live"), "")
    first = await point(one, now)
    assert (await _whole(stubs, _chat("who?", "live")))[2].served_by.adapter_ref == one
    for expected in ("", two):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await point(two, expected)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert (await point(two, one)).version == first.version + 1
    assert (await _whole(stubs, _chat("who?", "live")))[2].served_by.adapter_ref == two
    with pytest.raises(grpc.aio.AioRpcError, match="not READY"):
        await point(lab.refs["late"], two)
    adapter = (await stubs.adapters.GetAdapter(pb.GetAdapterRequest(ref="live"))).adapter
    assert (adapter.ref, list(adapter.aliases)) == (two, ["live"])


async def test_who_may_only_use_changes_no_adapter(generator, lab):
    async with _connected(generator, generator.use_token) as user:
        assert (await _whole(user, _chat("who?", max_tokens=2)))[1]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await user.adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=lab.refs["late"]))
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


def _sockets(generator) -> list[Path]:
    """Those of its engine, in the temporary folder that the engine's processes were given."""
    environment = Path(f"/proc/{min(generator.children())}/environ").read_bytes().split(b"\0")
    (folder,) = (line[7:].decode() for line in environment if line.startswith(b"TMPDIR="))
    return [path for path in Path(folder).iterdir() if path.is_socket()]


@pytest.mark.slow
async def test_a_killed_service_leaves_nothing_and_comes_back_with_its_adapters(
    generator, stubs, lab, reference
):
    await _declare(stubs, lab.refs["one"], lab.refs["two"])
    before = _sockets(generator)
    generator.end(signal.SIGKILL)
    generator.start()
    after = _sockets(generator)
    assert len(after) == len(before) > 0
    assert not any(path.exists() for path in before)
    async with _connected(generator) as again:
        for name in ("one", "two"):
            adapter = await asyncio.wait_for(_settled(again, lab.refs[name]), 30)
            assert adapter.state == pb.ADAPTER_STATE_READY
            _, ids, final = await _whole(again, _chat("who?", lab.refs[name], max_tokens=8))
            assert ids == reference(name, list(final.prompt_token_ids), 8)
