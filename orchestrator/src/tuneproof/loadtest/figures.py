"""What a load test measured: counts, latencies, ratios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneproof.loadtest.records import Phase, Side, Swap

POINTS = (50, 95, 99)
"""The percentiles in every table."""
_STAGES = ("fetch", "verify", "load", "warm")


@dataclass(frozen=True, slots=True)
class Figures:
    """The results; None for a ratio or latency that was not measured."""

    requests: int
    """All, the swaps' own included."""
    requests_under_swap: int
    swaps: int
    """Completed ones."""
    failed: int
    """Requests without an answer."""
    failed_swaps: int
    wrong_adapter: int
    """Answers that cannot come from the adapter, or base model, that the request names."""
    checked_digest: int
    """Answers whose digest was compared."""
    checked_text: int
    """Answers whose text was compared with a probe's."""
    throughput_ratio: float | None
    """Answer tokens a second with swaps over without: in full phases, else in open ones."""
    first_token_ratio: float | None
    """Median first token of the first request after READY over that of the one after it."""
    first_token_p99_ratio: float | None
    """99th percentile with swaps over without, pooled over the rounds of the open phases."""
    whole_p99_ratio: float | None
    p99_ratio: float | None
    """The worse of these two."""
    lora_throughput_ratio: float | None
    """Of the adapters, without swaps, over the base model under the same load."""
    lora_first_token_p99_ratio: float | None
    lora_whole_p99_ratio: float | None
    sent_late: float
    """99th percentile of how many seconds late this program sent open requests."""
    sides: Mapping[str, Mapping[str, Any]]
    """By side: `first_token` and `whole` by percentile, in seconds, and `requests_per_second` and
    `tokens_per_second`, of the open phases; the same two as `full_…` of the full ones."""
    load: Mapping[str, Mapping[str, float]]
    """By stage from declaration on: percentiles in seconds."""
    errors: Mapping[str, int]
    """Failed requests and swaps by message, the most frequent first."""


def figures_of(phases: Sequence[Phase]) -> Figures:
    """The figures of judged replies."""
    replies = [reply for phase in phases for reply in phase.all_replies]
    swaps = [swap for phase in phases for swap in phase.swaps]
    done = [swap for swap in swaps if not swap.error]
    sides: dict[str, dict[str, Any]] = {
        side: _side([phase for phase in phases if phase.side == side])
        for side in dict.fromkeys(phase.side for phase in phases)
    }
    first = percentiles(swap.first_seconds for swap in done)
    warm = percentiles(swap.warm_seconds for swap in done)
    first_p99 = _ratio_of(sides, _first_p99)
    whole_p99 = _ratio_of(sides, _whole_p99)
    late = [r.sent - r.due for phase in phases if phase.load == "open" for r in phase.replies]
    said = Counter(r.error for r in replies if r.error)
    said.update(f"swap: {swap.error}" for swap in swaps if swap.error)
    return Figures(
        requests=len(replies),
        requests_under_swap=sum(len(p.replies) for p in phases if p.side == "swap"),
        swaps=len(done),
        failed=sum(bool(reply.error) for reply in replies),
        failed_swaps=len(swaps) - len(done),
        wrong_adapter=sum(bool(reply.wrong) for reply in replies),
        checked_digest=sum("digest" in reply.checked for reply in replies),
        checked_text=sum("text" in reply.checked for reply in replies),
        throughput_ratio=_ratio_of(sides, _throughput),
        first_token_ratio=_ratio(first.get("p50"), warm.get("p50")),
        first_token_p99_ratio=first_p99,
        whole_p99_ratio=whole_p99,
        p99_ratio=None if first_p99 is None or whole_p99 is None else max(first_p99, whole_p99),
        lora_throughput_ratio=_ratio_of(sides, _throughput, "quiet", "base"),
        lora_first_token_p99_ratio=_ratio_of(sides, _first_p99, "quiet", "base"),
        lora_whole_p99_ratio=_ratio_of(sides, _whole_p99, "quiet", "base"),
        sent_late=percentiles(late).get("p99", 0.0),
        sides=sides,
        load=_load(done),
        errors=dict(said.most_common()),
    )


def percentiles(values: Iterable[float | None]) -> dict[str, float]:
    """`p50`, `p95` and `p99` of what is not None; empty without values."""
    known = [value for value in values if value is not None]
    return {f"p{point}": float(np.percentile(known, point)) for point in POINTS} if known else {}


def _side(phases: Sequence[Phase]) -> dict[str, Any]:
    answered = [r for p in phases if p.load == "open" for r in p.replies if not r.error]
    found: dict[str, Any] = {
        "first_token": percentiles(reply.first_seconds for reply in answered),
        "whole": percentiles(reply.whole_seconds for reply in answered),
    }
    for load, before in (("open", ""), ("full", "full_")):
        chosen = [phase for phase in phases if phase.load == load]
        if chosen:
            seconds = sum(phase.seconds for phase in chosen)
            ended = [
                reply
                for phase in chosen
                for reply in phase.all_replies
                if not reply.error and reply.done <= phase.end
            ]
            found[f"{before}requests_per_second"] = len(ended) / seconds
            tokens = sum(reply.answer.tokens for reply in ended if reply.answer)
            found[f"{before}tokens_per_second"] = tokens / seconds
    return found


def _throughput(side: Mapping[str, Any]) -> float | None:
    found: float | None = side.get("full_tokens_per_second", side.get("tokens_per_second"))
    return found


def _first_p99(side: Mapping[str, Any]) -> float | None:
    found: float | None = side["first_token"].get("p99")
    return found


def _whole_p99(side: Mapping[str, Any]) -> float | None:
    found: float | None = side["whole"].get("p99")
    return found


def _load(swaps: Sequence[Swap]) -> dict[str, dict[str, float]]:
    readies = [None if swap.ready is None else swap.ready - swap.started for swap in swaps]
    firsts = [swap.first_seconds for swap in swaps]
    found = {
        **{stage: percentiles(s.stage_seconds.get(stage) for s in swaps) for stage in _STAGES},
        "declare_to_ready": percentiles(readies),
        "first_after_ready": percentiles(firsts),
        "second_after_ready": percentiles(swap.warm_seconds for swap in swaps),
        "declare_to_first_token": percentiles(
            None if ready is None or first is None else ready + first
            for ready, first in zip(readies, firsts, strict=True)
        ),
    }
    return {stage: points for stage, points in found.items() if points}


def _ratio_of(
    sides: Mapping[str, Mapping[str, Any]],
    read: Callable[[Mapping[str, Any]], float | None],
    above: Side = "swap",
    below: Side = "quiet",
) -> float | None:
    if not {above, below} <= set(sides):
        return None
    return _ratio(read(sides[above]), read(sides[below]))


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
