"""A real engine, and what becomes of each adapter that is declared on it.

    python fingerprint_engine.py ORDER

ORDER is JSON: folders of the base, of the artifact store and for files, and references with whether
they may be without effect. The engine adapts the attention only, as for a mixture of experts, so
that other modules of an adapter are not applied (vLLM 0.32 does not say so). Admission is the
service's own, as for an architecture of which it knows no module names. Prints a line of JSON for
each adapter.
"""

import asyncio
import json
import os
import sys
from contextlib import aclosing
from pathlib import Path

from tuneproof.adapters import AdapterRef, FolderStorage, Registry, identify_base
from tuneproof_generator.engine.environment import environment

os.environ.update(environment(threads=1, verbose=False))
os.environ["TORCHDYNAMO_DISABLE"] = "1"

from tuneproof_generator.adapters.admission import inspector
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.engine import arguments
from tuneproof_generator.engine.vllm_engine import start_engine
from tuneproof_generator.pool.adapter_pool import AdapterPool
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.declarations import Declarations

_OPTIONS = {
    "model_name": "tiny",
    "dtype": "float32",
    "max_model_len": None,
    "max_lora_rank": 8,
    "max_loras": 1,
    "slot_seconds": 1.0,
    "max_cpu_loras": 32,
    "max_num_seqs": 8,
    "block_size": None,
    "cpu_cache_mib": 64,
    "gpu_memory_utilization": 0.9,
    "stream_interval": 1,
    "tensor_parallel": 1,
}


async def settled(pool, ref):
    async with aclosing(pool.views.watch(frozenset({str(ref)}))) as changes:
        async for change in changes:
            if change.view.record.state in (AdapterState.READY, AdapterState.FAILED):
                return change.view.record
    raise AssertionError


async def main(order):
    base, files = Path(order["base"]), Path(order["files"])
    arguments._adapted_modules = lambda _: list(arguments.ATTENTION)
    unlisted = json.loads((base / "config.json").read_text()) | {"model_type": "unlisted"}
    (files / "unlisted").mkdir()
    (files / "unlisted" / "config.json").write_text(json.dumps(unlisted))
    store = FolderStorage(files / "pool")
    async with start_engine(arguments.EngineOptions(folder=base, **_OPTIONS)) as engine:
        loader = Loader(
            engine,
            Registry(order["artifacts"]),
            inspector(files / "unlisted", identify_base(base), 8),
            files / "cache",
        )
        await loader.prepare()
        pool = AdapterPool(
            loader,
            Traffic(),
            Declarations(store),
            Aliases(store),
            base_model="tiny",
            capacity=32,
        )
        await pool.reconciler.reconcile()
        for case, (text, allow) in order["refs"].items():
            ref = AdapterRef.parse(text)
            await pool.declare(ref, required=False, request_id="", allow_no_effect=allow)
            record = await settled(pool, ref)
            told = {"case": case, "state": record.state, "reason": record.reason}
            print(json.dumps(told | {"fingerprint": record.fingerprint}), flush=True)
        await pool.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
