"""vLLM's traps with LoRA adapters: each against the bare engine, and each closed in the service.

The bare halves say what vLLM 0.32 does. They are facts about a dependency, take two engines of
their own and run with `make test-faults`; where one fails after an upgrade, its trap may be gone
and what closes it may go too. The service's halves run always. Three of those stand elsewhere:
adapters that must not be served in test_generator_admission.py and `test_bad_adapters…`, seeds on
long prompts and mixed batches in test_generator_engine.py.

One trap has no bare half: the cost of a `max_lora_rank` above the adapters' ranks, and of a working
set above `max_loras`, is time, which no test asserts; docs/serving.md tells who measures it.
"""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tuneproof.adapters import Registry, identify_base
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect

pytestmark = [pytest.mark.engine, pytest.mark.timeout(360)]

_SCRIPT = Path(__file__).with_name("bare_vllm.py")
_SHORT = [17, 40, 31, 99, 120, 77]
# Three blocks of the prefix cache.
_LONG = [(11 * n) % 230 + 10 for n in range(100)]


@pytest.fixture(scope="module")
def bare(lab, tmp_path_factory):
    """What the script told, by step, of two engines at once: either ends its engine."""
    order = {
        "base": str(lab.base),
        "adapters": {name: str(folder) for name, folder in lab.peft.items()},
        "short": _SHORT,
        "long": _LONG,
    }
    told = {}
    with contextlib.ExitStack() as held:
        scripts = []
        for which in ("traps", "evicted"):
            scratch = {"scratch": str(tmp_path_factory.mktemp(which))}
            command = [sys.executable, str(_SCRIPT), which, json.dumps(order | scratch)]
            script = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            held.callback(script.kill)
            scripts.append((which, script))
        for which, script in scripts:
            output, errors = script.communicate(timeout=300)
            lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
            assert lines, errors[-4000:]
            told |= {found.pop("step"): found for found in lines if found["step"] != "dead"}
            told[f"{which} end"] = lines[-1]
    return told


@pytest.fixture(scope="module")
def answers(reference):
    """Eight greedy tokens by transformers and peft, by adapter and prompt."""
    prompts = {"short": _SHORT, "long": _LONG}
    return {
        (name, length): reference(name, prompt, 8)
        for name in (None, "one", "two")
        for length, prompt in prompts.items()
    }


@pytest.mark.faults
class TestBareEngine:
    """What vLLM does by itself."""

    def test_an_evicted_adapter_whose_folder_is_gone_ends_the_engine(self, bare, answers):
        right = answers["one", "short"]
        assert bare["before"]["said"] == bare["while_loaded"]["said"] == right
        assert bare["held"]["engine_ids"] == [2, 3]
        assert bare["evicted end"] == {"step": "dead", "during": "evicted"}

    def test_load_inplace_reads_the_disk_at_each_request(self, bare, answers):
        one, two = answers["one", "short"], answers["two", "short"]
        assert bare["load_inplace"] == {"False": [one, one], "True": [one, two]}

    def test_nan_in_one_adapter_spoils_answers_of_the_base(self, bare, answers):
        right = answers[None, "short"]
        assert bare["nan"]["before"] == right
        assert any(said != right for said in bare["nan"]["base"])

    def test_the_prefix_cache_answers_from_weights_that_are_gone(self, bare, answers):
        told = bare["same_name"]
        assert told["first"] == answers["one", "long"]
        assert told["second"] != answers["two", "long"]
        assert told["without_cache"] == answers["two", "long"]

    def test_unloading_by_http_leaves_the_adapter_in_the_engine(self, bare):
        assert 1 in bare["unload"]["kept"]
        assert 1 not in bare["unload"]["after_remove_lora"]

    def test_bad_adapters_are_accepted_and_answer_wrong(self, bare, answers):
        for name, outcome in bare["accepted"].items():
            assert "refused" not in outcome, name
            assert outcome["said"] != answers["one", "short"], name

    def test_ids_of_two_allocators_collide_and_the_wrong_adapter_answers(self, bare, answers):
        assert bare["ids"]["engine_id"] == 1
        assert bare["ids"]["said"] == answers["one", "short"] != answers["two", "short"]

    def test_the_base_is_answered_by_an_adapter_in_a_mixed_batch(self, bare, answers):
        right = answers[None, "short"]
        assert bare["mixed"]["alone"] == right
        assert any(said != right for said in bare["mixed"]["base"])

    def test_a_seed_on_a_chunked_prompt_ends_the_engine(self, bare):
        assert bare["traps end"] == {"step": "dead", "during": "seeds"}


class Service:
    """The running service, as far as these tests need it."""

    def __init__(self, channel, lab):
        self._generator = rpc.GeneratorServiceStub(channel)
        self.adapters = rpc.AdapterServiceStub(channel)
        self._lab = lab

    def commit(self, trained, name):
        """An adapter of these tests' own in the registry."""
        identity = identify_base(self._lab.base)
        registry = Registry(str(self._lab.artifacts))
        return str(
            registry.commit(self._lab.peft[trained], name=name, base=identity, provenance={})
        )

    async def declare(self, *refs):
        for ref in refs:
            await self.adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref))
        ready = set()
        request = pb.WatchAdaptersRequest(refs=refs)
        async for response in self.adapters.WatchAdapters(request, timeout=60):
            assert response.adapter.state != pb.ADAPTER_STATE_FAILED, response.adapter.reason
            if response.adapter.state == pb.ADAPTER_STATE_READY:
                ready.add(response.adapter.ref)
            if ready == set(refs):
                return

    async def remove(self, *refs):
        for ref in refs:
            await self.adapters.RemoveAdapter(pb.RemoveAdapterRequest(ref=ref))

    async def ask(self, prompt, model=""):
        request = pb.GenerateRequest(
            model=model,
            token_ids=pb.TokenIds(ids=prompt),
            sampling=pb.Sampling(max_tokens=8),
        )
        ids = []
        async for response in self._generator.Generate(request, timeout=60):
            ids += response.delta.token_ids
        return ids


@pytest.fixture
async def service(generator, lab) -> AsyncIterator[Service]:
    services = list(pb.DESCRIPTOR.services_by_name.values())
    async with connect(
        generator.target, services=services, token=generator.manage_token
    ) as channel:
        made = Service(channel, lab)
        # All of the capacity is needed here.
        for alias in (await made.adapters.ListAliases(pb.ListAliasesRequest())).aliases:
            retired = pb.SetAliasRequest(alias=alias.name, expected_ref=alias.ref, force=True)
            await made.adapters.SetAlias(retired)
        listed = await made.adapters.ListAdapters(pb.ListAdaptersRequest())
        await made.remove(*(found.ref for found in listed.adapters))
        yield made


async def test_an_adapter_out_of_its_slot_needs_neither_registry_nor_trainer(service, lab, answers):
    gone = service.commit("one", "gone")
    others = [service.commit("two", name) for name in ("near", "far")]
    await service.declare(gone)
    shutil.rmtree(lab.artifacts / "adapters" / "gone")
    await service.declare(*others)
    # Two slots: asking the others puts it out.
    for ref in others:
        assert await service.ask(_SHORT, ref) == answers["two", "short"]
    assert await service.ask(_SHORT, gone) == answers["one", "short"]
    await service.remove(gone, *others)


async def test_files_changed_behind_its_back_change_no_answer(service, lab, answers):
    ref = service.commit("one", "tampered")
    await service.declare(ref)
    before = await service.ask(_SHORT, ref)
    (weights,) = (lab.root / "cache").glob(f"**/*{ref[-64:]}*/adapter_model.safetensors")
    weights.chmod(0o600)
    weights.write_bytes((lab.peft["two"] / "adapter_model.safetensors").read_bytes())
    assert before == await service.ask(_SHORT, ref) == answers["one", "short"]
    await service.remove(ref)


async def test_new_content_under_an_old_name_is_not_answered_from_the_cache(service, answers):
    first, second = service.commit("one", "same"), service.commit("two", "same")
    await service.declare(first)
    for _ in range(2):
        assert await service.ask(_LONG, first) == answers["one", "long"]
    await service.remove(first)
    await service.declare(second)
    assert await service.ask(_LONG, second) == answers["two", "long"]
    await service.remove(second)


async def test_a_removed_adapter_leaves_its_place_and_the_list_of_models(generator, service):
    headers = {"authorization": f"Bearer {generator.use_token}"}
    # One more than the capacity, one after the other: what stayed behind would fill it.
    for number in range(5):
        ref = service.commit("one", f"passing-{number}")
        await service.declare(ref)
        async with httpx.AsyncClient(base_url=generator.openai_url, headers=headers) as client:
            models = {model["id"] for model in (await client.get("/models")).json()["data"]}
        assert models == {"tiny", ref}
        await service.remove(ref)


@pytest.mark.parametrize(("largest", "started"), [(1, 1), (4, 8), (8, 8), (16, 16), (17, 32)])
def test_the_engine_starts_with_the_smallest_rank_that_holds_the_largest(largest, started):
    from tuneproof_generator.engine.arguments import _supported_rank

    assert _supported_rank(largest) == started


async def test_both_doors_ask_the_engine_by_the_same_ids(generator, service, answers):
    refs = {name: service.commit(name, f"door-{name}") for name in ("one", "two")}
    headers = {"authorization": f"Bearer {generator.use_token}"}
    async with httpx.AsyncClient(base_url=generator.openai_url, headers=headers) as client:
        for name, ref in refs.items():
            # Each is first asked at another door.
            await service.declare(ref)
            request = {"model": ref, "prompt": _SHORT, "max_tokens": 8, "temperature": 0}
            reply = await client.post("/completions", json={**request, "return_token_ids": True})
            assert reply.json()["choices"][0]["token_ids"] == answers[name, "short"]
        for name, ref in refs.items():
            assert await service.ask(_SHORT, ref) == answers[name, "short"]
    await service.remove(*refs.values())


async def test_log_probabilities_of_prompts_asked_at_once_do_not_end_the_engine(
    generator, service, lab, answers
):
    """Without `protect_prompt_scores` einsum raises in the worker, whoever asked."""
    import torch
    from transformers import AutoModelForCausalLM

    ref = service.commit("one", "scored")
    await service.declare(ref)
    headers = {"authorization": f"Bearer {generator.use_token}"}
    prompts = [[*_SHORT[:-1], number] for number in range(20, 26)]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(lab.base)(torch.tensor(prompts)).logits
    wanted = logits[:, -2].log_softmax(-1)
    async with httpx.AsyncClient(base_url=generator.openai_url, headers=headers) as client:

        async def ask(model, prompt):
            request = {"model": model, "prompt": prompt, "max_tokens": 1, "prompt_logprobs": 1}
            reply = (await client.post("/completions", json=request, timeout=60)).json()
            return reply["choices"][0]["prompt_logprobs"]

        asked = [ask(model, prompt) for prompt in prompts for model in ("tiny", ref)]
        told = await asyncio.gather(*asked)
    for place, prompt in enumerate(prompts):
        found = told[2 * place][-1][str(prompt[-1])]["logprob"]
        assert found == pytest.approx(float(wanted[place, prompt[-1]]), abs=1e-3)
        assert told[2 * place + 1][-1][str(prompt[-1])]["logprob"] != pytest.approx(found, abs=1e-3)
    assert await service.ask(_SHORT) == answers[None, "short"]
    await service.remove(ref)
