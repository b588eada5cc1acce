"""Adapters swapped under load: what it costs, and whether anyone gets a wrong answer.

    make bench-swap

The generator runs as a process of its own with the demo's model, 8 adapters, and one LoRA slot
more than these for the one that comes in. `tuneproof.loadtest` loads it over gRPC: in each round
arrivals at a rate (for latencies) and then a fixed number of requests in flight (for throughput),
each without and with swaps. Every adapter says a word of its own, so every answer is checked by its
digest and by its text; the base model's answers may hold none of these words. The last part asks
16 adapters over 8 slots, in a generator of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from marked_stock import RANK, Stock, make_stock
from service import generator, generator_flags

from tuneproof.loadtest import (
    GrpcDoor,
    LoadResult,
    LoadSpec,
    Slo,
    Span,
    SwapSpec,
    build_page,
    checks_of,
    figures_of,
    read_probes,
    result_json,
    run_swaps,
)
from tuneproof.loadtest.records import Phase
from tuneproof.sdk import GeneratorClient

ROOT = Path(__file__).parent.parent
OVER_SLOTS = 8
TARGETS = Slo(requests=2000, swaps=50, throughput_ratio=0.95, first_token_ratio=1.2, p99_ratio=1.5)
_KEYS = (
    *("requests", "swaps", "failed", "wrong_adapter"),
    *("throughput_ratio", "first_token_ratio", "p99_ratio"),
    *("requests_under_swap", "failed_swaps", "checked_digest", "checked_text"),
    *("first_token_p99_ratio", "whole_p99_ratio", "sent_late"),
)


def main() -> None:
    options = _options()
    parts = {"resident": (options.adapters, options.adapters + 1, options.rounds)}
    if options.over:
        parts["over"] = (options.over, OVER_SLOTS, options.over_rounds)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        most = max(options.adapters, options.over)
        stock = make_stock(
            options.model,
            scratch / "artifacts",
            scratch / "peft",
            names=options.adapters,
            count=most + options.pool,
        )
        (scratch / "probes.jsonl").write_text(stock.probes())
        for name, (adapters, slots, rounds) in parts.items():
            flags = generator_flags(
                scratch,
                model=options.model,
                max_lora_rank=RANK,
                max_loras=slots,
                max_cpu_loras=most + 4,
                cpu_cache_mib=512,
            )
            with generator(flags) as served:
                part = _part(
                    served["grpc"], stock, scratch, options, adapters=adapters, rounds=rounds
                )
                results[name] = asyncio.run(part)
    for name, result in results.items():
        _tell(name, result)
        if options.report:
            options.report.mkdir(parents=True, exist_ok=True)
            checks = checks_of(TARGETS if name == "resident" else Slo(), result.figures)
            (options.report / f"swap-{name}.html").write_text(build_page(result, checks))
            content = json.dumps(result_json(result, checks), indent=1)
            (options.report / f"swap-{name}.json").write_text(content)
    told = _told(results["resident"])
    if options.over:
        told[f"{options.over}_over_{OVER_SLOTS}"] = _told(results["over"])
    print(json.dumps({"bench": "swap", "results": told}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "telecom-reader")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--over", type=int, default=16, help="adapters of the last part; 0: none")
    parser.add_argument("--pool", type=int, default=96, help="adapters that wait to be swapped in")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--over-rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=8.0, help="arrivals a second")
    parser.add_argument("--seconds", type=float, default=13.0, help="of a phase of arrivals")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--full-seconds", type=float, default=11.0, help="of a phase of full load")
    parser.add_argument("--swap-rate", type=float, default=0.45, help="swaps a second")
    parser.add_argument("--answer-tokens", type=int, default=8)
    parser.add_argument(
        "--requests", type=int, default=0, help="requests that the first part makes at least"
    )
    parser.add_argument("--report", type=Path, help="folder for HTML and JSON")
    return parser.parse_args()


async def _part(
    target: str,
    stock: Stock,
    scratch: Path,
    options: argparse.Namespace,
    *,
    adapters: int,
    rounds: int,
) -> LoadResult:
    """So many rounds, and as often again as it takes to have `--requests` of them."""
    load = LoadSpec(
        rate=options.rate,
        seconds=options.seconds,
        in_flight=options.in_flight,
        full_seconds=options.full_seconds,
        rounds=rounds,
        answer_tokens=Span(options.answer_tokens, options.answer_tokens),
    )
    swaps = SwapSpec(stock.refs[:adapters], stock.refs[adapters:], options.swap_rate)
    probes = read_probes(scratch / "probes.jsonl")
    phases: tuple[Phase, ...] = ()
    async with GeneratorClient(target) as client:
        while True:
            async with contextlib.aclosing(GrpcDoor(target, token=None)) as door:
                result = await run_swaps(
                    door,
                    client,
                    load,
                    swaps,
                    prompts=stock.prompts,
                    probes=probes,
                    progress=lambda text: print(text, file=sys.stderr),
                )
            phases += result.phases
            figures = figures_of(phases)
            if figures.requests >= options.requests or figures.failed or figures.wrong_adapter:
                return replace(result, phases=phases, figures=figures)
            print(f"{figures.requests} requests, {figures.swaps} swaps", file=sys.stderr)
            load = replace(load, seed=load.seed + 1)


def _told(result: LoadResult) -> dict[str, Any]:
    figures = result.figures
    told = {key: getattr(figures, key) for key in _KEYS}
    told["load_p50"] = {stage: found["p50"] for stage, found in figures.load.items()}
    return {key: _rounded(value) for key, value in told.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _tell(name: str, result: LoadResult) -> None:
    print(f"part {name}:")
    for side, found in result.figures.sides.items():
        print(f"  {side}: {json.dumps(_rounded(dict(found)))}")
    print(f"  stages: {json.dumps(_rounded(dict(result.figures.load)))}")
    for error, count in result.figures.errors.items():
        print(f"  {count} x {error}")
    wrong = [reply for phase in result.phases for reply in phase.replies if reply.wrong]
    for reply in wrong[:10]:
        print(f"  wrong: {reply.model or 'base'}: {reply.wrong}")


if __name__ == "__main__":
    main()
