"""vLLM's engine without our service: what each trap does to it.

    python bare_vllm.py traps|evicted ORDER

ORDER is JSON: the folders of the base model and of adapters by name, a scratch folder, a prompt of
some tokens, a prompt longer than a cache block, and token ids that the tests know. The findings are
printed as one line of JSON for each step, the last of which may end the engine.
"""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ |= {
    "VLLM_LOGGING_LEVEL": "CRITICAL",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}

import torch
from safetensors.torch import load_file, save_file
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def tell(step, **found):
    print(json.dumps({"step": step, **found}), flush=True)


class Bare:
    """An engine and the folders that it is given."""

    def __init__(self, engine, order):
        self.engine = engine
        self.order = order
        self._asked = 0

    async def ask(self, prompt, lora=None, count=8, **sampling):
        self._asked += 1
        params = SamplingParams(
            max_tokens=count,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **{"temperature": 0.0, **sampling},
        )
        async for output in self.engine.generate(
            tokens_input(list(prompt)), params, f"r{self._asked}", lora_request=lora
        ):
            return list(output.outputs[0].token_ids)
        return None

    def copy(self, name, to):
        folder = Path(self.order.scratch) / to
        shutil.copytree(self.order.adapters[name], folder)
        return folder


def swap(folder, source):
    shutil.copy(Path(source) / _WEIGHTS, Path(folder) / _WEIGHTS)


async def load_inplace(bare):
    order = bare.order
    folder = bare.copy("one", "inplace")
    found = {}
    for inplace, number in ((False, 11), (True, 12)):
        swap(folder, order.adapters["one"])
        lora = LoRARequest(f"inplace-{inplace}", number, str(folder), load_inplace=inplace)
        before = await bare.ask(order.short, lora)
        swap(folder, order.adapters["two"])
        found[str(inplace)] = [before, await bare.ask(order.short, lora)]
    tell("load_inplace", **found)


async def same_name(bare):
    order = bare.order
    folder = bare.copy("one", "same")
    first = await bare.ask(order.long, LoRARequest("same", 21, str(folder)))
    await bare.engine.remove_lora(21)
    swap(folder, order.adapters["two"])
    second = await bare.ask(order.long, LoRARequest("same", 22, str(folder)))
    await bare.engine.reset_prefix_cache()
    third = await bare.ask(order.long, LoRARequest("same", 22, str(folder)))
    tell("same_name", first=first, second=second, without_cache=third)


async def over_http(bare):
    """What `/v1/load_lora_adapter` and `/v1/unload_lora_adapter` do beside another allocator."""
    order, engine = bare.order, bare.engine
    models = OpenAIServingModels(engine, [BaseModelPath("base", order.base)])
    await engine.add_lora(LoRARequest("ours", 1, order.adapters["one"]))
    answer = await models.load_lora_adapter(
        LoadLoRAAdapterRequest(lora_name="theirs", lora_path=order.adapters["two"])
    )
    theirs = models.lora_requests["theirs"]
    said = await bare.ask(order.short, theirs)
    tell("ids", answer=str(answer), engine_id=theirs.lora_int_id, said=said)
    await models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name="theirs"))
    kept = sorted(await engine.list_loras())
    await engine.remove_lora(1)
    tell("unload", kept=kept, after_remove_lora=sorted(await engine.list_loras()))


def flip(tensors, config):
    """The highest bit of one exponent."""
    next(iter(tensors.values())).view(torch.int32)[0, 0] ^= 1 << 30


def lower_rank(tensors, config):
    config["r"] = 4


def beyond_last_layer(tensors, config):
    for name in [name for name in tensors if "layers.1." in name]:
        tensors[name.replace("layers.1.", "layers.7.")] = tensors.pop(name)


def narrow(tensors, config):
    for name in [name for name in tensors if "lora_A" in name]:
        tensors[name] = tensors[name][:, :-8].contiguous()


async def accepted(bare):
    """Bad adapters: what they say when they are taken, or how they are refused."""
    found = {}
    for number, damage in enumerate((flip, lower_rank, beyond_last_layer, narrow), 31):
        folder = bare.copy("one", damage.__name__)
        tensors = load_file(folder / _WEIGHTS)
        config = json.loads((folder / _CONFIG).read_text())
        damage(tensors, config)
        save_file(tensors, folder / _WEIGHTS)
        (folder / _CONFIG).write_text(json.dumps(config))
        lora = LoRARequest(damage.__name__, number, str(folder))
        try:
            found[damage.__name__] = {"said": await bare.ask(bare.order.short, lora)}
        except EngineDeadError:
            raise
        except Exception as error:  # noqa: BLE001 - vLLM hands on what its worker raised
            found[damage.__name__] = {"refused": str(error)[:200]}
        if number in await bare.engine.list_loras():
            await bare.engine.remove_lora(number)
    tell("accepted", **found)


async def mixed(bare):
    order = bare.order
    loras = [LoRARequest(name, n, order.adapters[name]) for n, name in ((41, "one"), (42, "two"))]
    for lora in loras:
        await bare.ask(order.short, lora)
    alone = await bare.ask(order.short)
    asked = [None, loras[0], None, loras[1], None] * 3
    said = await asyncio.gather(*(bare.ask(order.short, lora) for lora in asked))
    tell(
        "mixed",
        alone=alone,
        base=[ids for ids, lora in zip(said, asked, strict=True) if lora is None],
    )


async def not_a_number(bare):
    """An adapter with one NaN writes its keys and values into blocks; the base gets them next."""
    order = bare.order
    before = await bare.ask(order.short)
    lora = LoRARequest("nan", 51, order.adapters["nan"])
    await asyncio.gather(*(bare.ask([n + 10, *order.long], lora, 40) for n in range(12)))
    await bare.engine.remove_lora(51)
    said = await asyncio.gather(*(bare.ask(order.short) for _ in range(12)))
    tell("nan", before=before, base=said)


async def seeds(bare):
    """Prompts that do not fit into one batch, so that the engine cuts one in two."""
    long = [(7 * n) % 200 + 10 for n in range(400)]
    await asyncio.gather(
        *(bare.ask([n + 10, *long], count=4, temperature=1.0, seed=n) for n in range(8))
    )


async def evicted(bare):
    """Capacity for two, three adapters: the folder of the first is deleted after it was used."""
    order = bare.order
    folder = bare.copy("one", "evicted")
    first = LoRARequest("first", 1, str(folder))
    tell("before", said=await bare.ask(order.short, first))
    shutil.rmtree(folder)
    tell("while_loaded", said=await bare.ask(order.short, first))
    for number, name in ((2, "two"), (3, "late")):
        await bare.ask(order.short, LoRARequest(name, number, order.adapters[name]))
    tell("held", engine_ids=sorted(await bare.engine.list_loras()))
    await bare.ask(order.short, first)


_STEPS = {
    "traps": (load_inplace, same_name, over_http, accepted, mixed, not_a_number, seeds),
    "evicted": (evicted,),
}


async def main(which, order):
    arguments = AsyncEngineArgs(
        model=order.base,
        dtype="float32",
        max_model_len=512,
        block_size=32,
        # Few blocks, so that they go from one request to the next.
        kv_cache_memory_bytes=2 << 20,
        enable_lora=True,
        max_lora_rank=8,
        max_loras=2,
        max_cpu_loras=2 if which == "evicted" else 8,
        max_num_seqs=16,
        # vLLM's default is more, and cuts prompts just the same when enough of them wait.
        max_num_batched_tokens=512,
        use_tqdm_on_load=False,
    )
    bare = Bare(AsyncLLM.from_engine_args(arguments), order)
    step = None
    try:
        for step in _STEPS[which]:
            await step(bare)
        tell("end")
    except EngineDeadError:
        tell("dead", during=step.__name__)
    finally:
        bare.engine.shutdown(10)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], SimpleNamespace(**json.loads(sys.argv[2]))))
