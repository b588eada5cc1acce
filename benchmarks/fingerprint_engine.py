"""The engine's half of fingerprint.py, a process for each precision and base.

    python fingerprint_engine.py DTYPE ORDER

ORDER is a file with JSON: the base's folder, the fingerprint whose probes are scored, adapters'
folders by name. Prints one line of JSON: log-probabilities alone and beside other requests, and
how long comparing takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from tuneproof.adapters import Fingerprint


async def serve(served: str, order: Mapping[str, Any]) -> None:
    """Scores and times; prints JSON."""
    from tuneproof_generator.engine.environment import environment

    os.environ.update(environment(threads=1, verbose=False))
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    from tuneproof_generator.adapters.effects import EffectCheck
    from tuneproof_generator.engine.arguments import EngineOptions
    from tuneproof_generator.engine.protocol import LoadedAdapter, Sampling
    from tuneproof_generator.engine.vllm_engine import start_engine

    options = EngineOptions(
        folder=Path(order["base"]), model_name="demo", dtype=served, max_model_len=None,
        max_lora_rank=16, max_loras=2, slot_seconds=1.0, max_cpu_loras=16, max_num_seqs=16,
        block_size=None, cpu_cache_mib=64, gpu_memory_utilization=0.9, stream_interval=1,
        tensor_parallel=1,
    )  # fmt: skip
    probes = Fingerprint.parse(order["probes"]).probes
    async with start_engine(options) as engine:
        ids = iter(range(1, 10_000))

        async def scores(adapter: LoadedAdapter | None) -> list[tuple[float, ...]]:
            asked = (
                engine.score(f"s{next(ids)}", each.prompt, each.tokens, adapter) for each in probes
            )
            return list(await asyncio.gather(*asked))

        async def token(adapter: LoadedAdapter | None, tokens: int = 1) -> None:
            prompt = probes[0].prompt
            stream = engine.generate(f"t{next(ids)}", prompt, Sampling(max_tokens=tokens), adapter)
            async with aclosing(stream):
                async for _ in stream:
                    pass

        async def beside(work: Any) -> Any:
            others = [asyncio.create_task(token(None, 40 + n)) for n in range(7)]
            found = await work
            await asyncio.gather(*others)
            return found

        base = [await scores(None), await beside(scores(None))]
        adapted = {}
        for name, folder in order["adapters"].items():
            adapter = LoadedAdapter(f"{name}@x", next(ids), Path(folder))
            await engine.load(adapter)
            adapted[name] = [await scores(adapter), await beside(scores(adapter))]
            await engine.unload(adapter)
        rounding = max(
            abs(one - other)
            for row, again in zip(*base, strict=True)
            for one, other in zip(row, again, strict=True)
        )
        times: dict[str, list[float]] = {"token_ms": [], "check_ms": [], "again_ms": []}
        name = "nf4-full"
        whole = Fingerprint.parse(order["prints"][name])
        nearest = whole.model_copy(update={"readings": whole.readings[1:2]})
        effects = EffectCheck(engine)
        await effects.prepare()
        for number in range(order["rounds"]):
            adapter = LoadedAdapter(f"{name}@{number}", next(ids), Path(order["adapters"][name]))
            for what, measured in times.items():
                await engine.load(adapter)
                begun = time.perf_counter()
                if what == "token_ms":
                    await token(adapter)
                elif order["is_trained_on"]:
                    await effects.check(adapter, nearest)
                measured.append(1000 * (time.perf_counter() - begun))
                await engine.unload(adapter)
                adapter = replace(adapter, engine_id=next(ids))
    found = {what: round(median(each), 2) for what, each in times.items()}
    print(
        json.dumps({"base": base, "adapted": adapted, "rounding": rounding, "milliseconds": found})
    )


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
