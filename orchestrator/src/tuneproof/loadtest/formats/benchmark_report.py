"""Results as llm-d's Benchmark Report 0.2.1 (PyPI: llmd-benchmark-report).

Each side of a test is a treatment of one experiment, in a report of its own. What the schema does
not know (adapters, swaps, the ratios between the sides) is in its `native` parts.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from tuneproof.loadtest.records import Phase, Reply
from tuneproof.loadtest.trial import LoadResult
from tuneproof.servicekit.digests import sha256_of_json

VERSION = "0.2.1"
_POINTS = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_RATIOS = (
    *("throughput_ratio", "first_token_ratio", "first_token_p99_ratio", "whole_p99_ratio"),
    *("lora_throughput_ratio", "lora_first_token_p99_ratio", "lora_whole_p99_ratio"),
)


def benchmark_reports(result: LoadResult) -> dict[str, dict[str, Any]]:
    """A report for each side's open phases, by the side's name."""
    experiment = uuid.uuid5(uuid.NAMESPACE_OID, f"{result.started.isoformat()}{result.origin}")
    by_side: dict[str, list[Phase]] = {}
    for phase in result.phases:
        if phase.load == "open":
            by_side.setdefault(phase.side, []).append(phase)
    return {
        side: {
            "version": VERSION,
            "run": _run(result, side, phases, experiment),
            "scenario": {
                "stack": [_stack(result)],
                "load": _load(result, side, phases),
            },
            "results": {"request_performance": {"aggregate": _aggregate(phases)}},
        }
        for side, phases in by_side.items()
    }


def _run(
    result: LoadResult, side: str, phases: Sequence[Phase], experiment: uuid.UUID
) -> dict[str, Any]:
    start, end = (
        result.started + timedelta(seconds=time - result.origin)
        for time in (phases[0].start, phases[-1].end)
    )
    return {
        "uid": uuid.uuid5(experiment, side).hex,
        "eid": experiment.hex,
        "time": {
            "start": start.isoformat(),
            "end": end.isoformat(),
            "duration": f"PT{(end - start).total_seconds()}S",
        },
        "description": f"tuneproof loadtest, {side}",
        "keywords": ["lora", side],
    }


def _stack(result: LoadResult) -> dict[str, Any]:
    pool = result.pool
    config: dict[str, Any] = {"adapters": list(result.models)}
    if pool is not None:
        for name in ("base_model", "dtype", "max_model_len", "max_loras", "max_cpu_loras"):
            config[name] = getattr(pool, name)
    if result.swaps is not None:
        config["adapters"] = [*result.swaps.adapters, *result.swaps.residents]
        config["waiting_adapters"] = list(result.swaps.supply)
    return {
        "metadata": {"label": "generator", "cfg_id": sha256_of_json(config)},
        # Not `inference_engine`, which must name an accelerator: a client does not see it.
        "standardized": {
            "kind": "generic",
            "tool": "tuneproof-generator" if pool else "openai",
            "tool_version": pool.engine_version if pool else "unknown",
        },
        "native": {"config": config},
    }


def _load(result: LoadResult, side: str, phases: Sequence[Phase]) -> dict[str, Any]:
    spec, figures = result.load, result.figures
    config = {
        "load": asdict(spec),
        "settings": dict(result.settings),
        "swaps": [asdict(swap) for phase in phases for swap in phase.swaps],
        "stages": {stage: dict(points) for stage, points in figures.load.items()},
        "ratios": {name: getattr(figures, name) for name in _RATIOS},
        "wrong_adapter": figures.wrong_adapter,
    }
    replies = [reply for phase in phases for reply in phase.replies]
    words = [len(reply.prompt.split()) for reply in replies] or [0]
    return {
        "metadata": {
            "cfg_id": sha256_of_json(asdict(spec)),
            "description": "Input lengths are in words.",
            "treatment": side,
            "treatment_group": "loadtest",
        },
        "standardized": {
            "tool": "tuneproof",
            "tool_version": _own_version(),
            "source": "sampled",
            "input_seq_len": {
                "distribution": "other",
                "value": float(np.mean(words)),
                "min": min(words),
                "max": max(1, *words),
            },
            "rate_qps": spec.rate,
        },
        "native": {"config": config},
    }


def _own_version() -> str:
    try:
        return version("tuneproof")
    except PackageNotFoundError:
        return "unknown"


def _aggregate(phases: Sequence[Phase]) -> dict[str, Any]:
    replies = [reply for phase in phases for reply in phase.replies]
    done = [reply for reply in replies if reply.answer is not None and not reply.error]
    per_token = [value for reply in done if (value := _per_token(reply)) is not None]
    requests, tokens = zip(*map(_rates, phases), strict=True)
    rates = {
        "request_rate": (requests, "queries/s"),
        "output_token_rate": (tokens, "tokens/s"),
    }
    latency: dict[str, tuple[Sequence[Any], str]] = {
        "time_to_first_token": ([reply.first_seconds for reply in done], "s"),
        "time_per_output_token": (per_token, "s/token"),
        "request_latency": ([reply.whole_seconds for reply in done], "s"),
    }
    return {
        "requests": {
            "total": len(replies),
            "failures": sum(bool(reply.error) for reply in replies),
            **_known({"output_length": ([r.answer.tokens for r in done if r.answer], "count")}),
        },
        "latency": _known(latency),
        "throughput": _known(rates),
    }


def _known(named: Mapping[str, tuple[Sequence[Any], str]]) -> dict[str, Any]:
    return {name: _statistics(values, units) for name, (values, units) in named.items() if values}


def _statistics(values: Sequence[float], units: str) -> dict[str, Any]:
    found = np.asarray(values, dtype=float)
    return {
        "units": units,
        "mean": float(found.mean()),
        "stddev": float(found.std()),
        "min": float(found.min()),
        **{f"p{point}": float(np.percentile(found, point)) for point in _POINTS},
        "max": float(found.max()),
    }


def _per_token(reply: Reply) -> float | None:
    """Seconds a token after the first, as GKE defines TPOT."""
    if reply.answer is None or reply.first is None or reply.answer.tokens < 2:
        return None
    return (reply.done - reply.first) / (reply.answer.tokens - 1)


def _rates(phase: Phase) -> tuple[float, float]:
    """Requests and answer tokens a second that came back before the phase ended."""
    ended = [reply for reply in phase.replies if not reply.error and reply.done <= phase.end]
    tokens = sum(reply.answer.tokens for reply in ended if reply.answer)
    return len(ended) / phase.seconds, tokens / phase.seconds
