"""What a working set above the engine's LoRA slots costs, and what may be done about it.

    make bench-placement

One engine is loaded through each policy, one after the other: `engine` is vLLM alone; `cap` admits
no more adapters than there are slots and changes them as soon as others wait; `turns N` is the
same, but a busy adapter keeps its slot for N seconds. Every run asks new prompts with answers of 8
to 47 tokens.

- working sets: closed loop, 32 requests under way, each for an adapter drawn at random
- latecomer: closed loop, 4 requests under way for each of as many adapters as there are slots, and
  one request at a time for one adapter more

A request without an answer at the end of its run counts with the time that it has waited by then.

Seconds are CPU seconds of the engine's worker, which is always busy: equal to real seconds on an
idle machine, and still comparable on a busy one. The set that fits the slots shows their error:
there, all policies do the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tuneproof_generator.engine.environment import environment

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "demo" / "telecom-reader"
_UNDER_WAY = 32
_PROMPT_TOKENS = 12
_RANK = 16

Clock = Callable[[], float]


@dataclass
class Run:
    """One policy under one load."""

    tokens: int = 0
    seconds: float = 0.0
    first_token: list[float] = field(default_factory=list)
    """Seconds; of the latecomer alone, where there is one."""


def main() -> None:
    options = _options()
    os.environ.update(environment(threads=1, verbose=False))
    with tempfile.TemporaryDirectory() as scratch:
        loras = _make_adapters(Path(scratch), max([*options.sets, options.slots + 1]))
        runs = asyncio.run(_measure(loras, options))
    print(json.dumps({"bench": "placement", "slots": options.slots, "results": _results(runs)}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--host", type=int, default=33, help="adapters in host memory")
    parser.add_argument("--sets", type=int, nargs="*", default=[8, 12, 16, 32])
    parser.add_argument("--turns", type=float, nargs="*", default=[1.0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a run; a latecomer's twice")
    return parser.parse_args()


def _make_adapters(folder: Path, count: int) -> list[Path]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(
        r=_RANK, lora_alpha=_RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(MODEL), config)
    folders = [folder / str(index) for index in range(count)]
    for seed, path in enumerate(folders):
        torch.manual_seed(seed)
        for name, weights in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weights, std=0.02)
        model.save_pretrained(path)
    return folders


async def _measure(folders: Sequence[Path], options: argparse.Namespace) -> dict[str, Any]:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

    from tuneproof_generator.engine.arguments import EngineOptions, engine_arguments
    from tuneproof_generator.engine.scheduled_client import ScheduledClient
    from tuneproof_generator.engine.slots import SlotScheduler

    engine_options = EngineOptions(
        folder=MODEL,
        model_name=MODEL.name,
        dtype="auto",
        max_model_len=None,
        max_lora_rank=_RANK,
        max_loras=options.slots,
        slot_seconds=0,
        max_cpu_loras=max(options.host, options.slots),
        max_num_seqs=64,
        block_size=None,
        cpu_cache_mib=512,
        gpu_memory_utilization=0.9,
        stream_interval=1,
        tensor_parallel=1,
    )
    loras = [LoRARequest(f"a{n}", n, str(path)) for n, path in enumerate(folders, start=1)]
    client = AsyncLLM.from_engine_args(engine_arguments(engine_options))
    policies: dict[str, Callable[[], Any]] = {"engine": lambda: client}
    random.seed(1)
    runs: dict[Any, list[Run]] = defaultdict(list)
    try:
        # Warms; then it is known which process works.
        await _load(time.monotonic, client, loras[: options.slots], [], 10)
        clock = max(map(_cpu_clock, _descendants(os.getpid())), key=lambda clock: clock())
        for name, seconds in [("cap", 0.0), *((f"turns {turn:g}", turn) for turn in options.turns)]:
            scheduler = functools.partial(SlotScheduler, options.slots, seconds, clock)
            policies[name] = lambda made=scheduler: ScheduledClient(client, made())
        for _ in range(options.rounds):
            for size in options.sets:
                for name in random.sample(sorted(policies), len(policies)):
                    run = await _load(clock, policies[name](), loras[:size], [], options.seconds)
                    runs[f"set of {size}", name].append(run)
            hot, late = loras[: options.slots], loras[options.slots : options.slots + 1]
            for name in random.sample(sorted(policies), len(policies)):
                run = await _load(clock, policies[name](), hot, late, 2 * options.seconds)
                runs["latecomer", name].append(run)
    finally:
        if client.output_handler is not None:
            client.output_handler.cancel()
        await asyncio.to_thread(client.shutdown, 10.0)
        # Collected only at the interpreter's end, vLLM's client (0.32) would complain.
        client = None
    return runs


def _descendants(process: int) -> Iterator[int]:
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            yield child
            yield from _descendants(child)


def _cpu_clock(process: int) -> Clock:
    # As clock_getcpuclockid(3) computes it.
    return functools.partial(time.clock_gettime, (~process << 3) | 2)


async def _load(
    clock: Clock, client: Any, loras: Sequence[Any], late: Sequence[Any], seconds: float
) -> Run:
    run = Run()
    ask = functools.partial(_keep_asking, clock, client, run)
    if late:
        under_way = [ask([lora], is_timed=False) for lora in loras for _ in range(4)]
        under_way.append(ask(late, is_timed=True))
    else:
        under_way = [ask(loras, is_timed=True) for _ in range(_UNDER_WAY)]
    start = clock()
    tasks = [asyncio.create_task(asking) for asking in under_way]
    while clock() - start < seconds and not any(  # noqa: ASYNC110 - not the loop's clock
        task.done() for task in tasks
    ):
        await asyncio.sleep(0.01)
    tokens, run.seconds = run.tokens, clock() - start
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(outcome, asyncio.CancelledError):
            raise outcome
    run.tokens = tokens
    return run


async def _keep_asking(
    clock: Clock, client: Any, run: Run, choices: Sequence[Any], *, is_timed: bool
) -> None:
    while True:
        start, first = clock(), None
        try:
            async with contextlib.aclosing(_answer(client, random.choice(choices))) as outputs:
                async for output in outputs:
                    first = first or clock() - start
                    run.tokens += len(output.outputs[0].token_ids)
        finally:
            if is_timed:
                run.first_token.append(first or clock() - start)


def _answer(client: Any, lora: Any) -> Any:
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind

    prompt = [random.randrange(10, 800) for _ in range(_PROMPT_TOKENS)]
    sampling = SamplingParams(
        max_tokens=random.randrange(8, 48), temperature=0, output_kind=RequestOutputKind.DELTA
    )
    return client.generate(
        tokens_input(prompt) | {"arrival_time": time.time()},
        sampling,
        f"{random.getrandbits(64):x}",
        lora_request=lora,
    )


def _results(runs: dict[Any, list[Run]]) -> list[dict[str, Any]]:
    results = []
    for (load, policy), made in runs.items():
        alone = runs[load, "engine"]
        ratios = [
            (one.tokens / one.seconds) / (other.tokens / other.seconds)
            for one, other in zip(made, alone, strict=True)
        ]
        waits = sorted(wait for run in made for wait in run.first_token)
        results.append(
            {
                "load": load,
                "policy": policy,
                "tokens_per_second": round(median(run.tokens / run.seconds for run in made)),
                "ratio": round(median(ratios), 3),
                "first_token_p50": round(waits[len(waits) // 2], 3),
                "first_token_p99": round(waits[int(len(waits) * 0.99)], 3),
                "first_token_max": round(waits[-1], 3),
                "requests": len(waits),
            }
        )
    return sorted(results, key=lambda result: (result["load"], result["policy"]))


if __name__ == "__main__":
    main()
