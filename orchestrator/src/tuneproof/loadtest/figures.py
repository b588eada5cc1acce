"""What a load test measured: counts, latencies, ratios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneproof.loadtest.records import Phase, Reply, Swap

POINTS = (50, 95, 99)
"""Percentiles that are told."""
_STAGES = ("fetch", "verify", "load", "warm")


@dataclass(frozen=True, slots=True)
class Figures:
    """The results. A ratio or a latency that nothing was measured for is None."""

    requests: int
    """All that were sent, the swaps' own included."""
    requests_under_swap: int
    swaps: int
    """That came to their end."""
    failed: int
    """Requests without an answer."""
    failed_swaps: int
    wrong_adapter: int
    """Answers that cannot be the asked adapter's, or not the base model's where that was asked."""
    checked_digest: int
    """Answers whose digest was compared."""
    checked_text: int
    """Answers whose text was compared with what the adapter says."""
    throughput_ratio: float | None
    """Answer tokens a second with swaps over without, in the full phases; else in the open ones."""
    first_token_ratio: float | None
    """Median first token of the first request after READY over that of the one after it."""
    first_token_p99_ratio: float | None
    """99th percentile with swaps over without, pooled over the rounds of the open phases."""
    whole_p99_ratio: float | None
    p99_ratio: float | None
    """The worse of these two."""
    sent_late: float
    """99th percentile of the seconds by which this program sent open requests late."""
    sides: Mapping[str, Mapping[str, Any]]
    """By side: `first_token` and `whole` by percentile, in seconds, and `requests_per_second` and
    `tokens_per_second`, of the open phases; the same two as `full_…` of the full ones."""
    load: Mapping[str, Mapping[str, float]]
    """By stage from declaration on: percentiles in seconds."""
    errors: Mapping[str, int]
    """Failed requests and swaps by what was said, the most frequent first."""

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def figures_of(phases: Sequence[Phase]) -> Figures:
    """The figures of judged replies."""
    replies = [reply for phase in phases for reply in (*phase.replies, *phase.direct)]
    swaps = [swap for phase in phases for swap in phase.swaps]
    done = [swap for swap in swaps if not swap.error]
    sides: dict[str, dict[str, Any]] = {
        side: _side([phase for phase in phases if phase.side == side])
        for side in dict.fromkeys(phase.side for phase in phases)
    }
    firsts = [swap.first_seconds for swap in done if swap.first_seconds is not None]
    warms = [swap.warm_seconds for swap in done if swap.warm_seconds is not None]
    first_p99 = _ratio_of(sides, lambda side: side["first_token"].get("p99"))
    whole_p99 = _ratio_of(sides, lambda side: side["whole"].get("p99"))
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
        first_token_ratio=_ratio(_median(firsts), _median(warms)),
        first_token_p99_ratio=first_p99,
        whole_p99_ratio=whole_p99,
        p99_ratio=None if first_p99 is None or whole_p99 is None else max(first_p99, whole_p99),
        sent_late=_point(late, 99) or 0.0,
        sides=sides,
        load=_load(done),
        errors=dict(said.most_common()),
    )


def percentiles(values: Iterable[float | None]) -> dict[str, float]:
    """`p50`, `p95` and `p99` of what is not None; empty without values."""
    known = [value for value in values if value is not None]
    return {f"p{point}": float(np.percentile(known, point)) for point in POINTS} if known else {}


def _side(phases: Sequence[Phase]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    answered = [r for p in phases if p.load == "open" for r in p.replies if not r.error]
    told["first_token"] = percentiles(reply.first_seconds for reply in answered)
    told["whole"] = percentiles(reply.whole_seconds for reply in answered)
    for load, before in (("open", ""), ("full", "full_")):
        chosen = [phase for phase in phases if phase.load == load]
        if chosen:
            seconds = sum(phase.seconds for phase in chosen)
            ended = [reply for phase in chosen for reply in _ended_within(phase)]
            told[f"{before}requests_per_second"] = len(ended) / seconds
            tokens = sum(reply.answer.tokens for reply in ended if reply.answer)
            told[f"{before}tokens_per_second"] = tokens / seconds
    return told


def _ended_within(phase: Phase) -> list[Reply]:
    """What the server has answered meanwhile, the swaps' own requests included."""
    replies = (*phase.replies, *phase.direct)
    return [reply for reply in replies if not reply.error and reply.done <= phase.end]


def _throughput(side: Mapping[str, Any]) -> float | None:
    found: float | None = side.get("full_tokens_per_second", side.get("tokens_per_second"))
    return found


def _load(swaps: Sequence[Swap]) -> dict[str, dict[str, float]]:
    told = {
        stage: percentiles(swap.stage_seconds.get(stage) for swap in swaps) for stage in _STAGES
    }
    told["declare_to_ready"] = percentiles(
        None if swap.ready is None else swap.ready - swap.started for swap in swaps
    )
    told["first_after_ready"] = percentiles(swap.first_seconds for swap in swaps)
    told["second_after_ready"] = percentiles(swap.warm_seconds for swap in swaps)
    told["declare_to_first_token"] = percentiles(
        None
        if swap.ready is None or swap.first_seconds is None
        else swap.ready - swap.started + swap.first_seconds
        for swap in swaps
    )
    return {stage: found for stage, found in told.items() if found}


def _ratio_of(
    sides: Mapping[str, Mapping[str, Any]], read: Callable[[Mapping[str, Any]], float | None]
) -> float | None:
    if not {"quiet", "swap"} <= set(sides):
        return None
    return _ratio(read(sides["swap"]), read(sides["quiet"]))


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _median(values: Sequence[float]) -> float | None:
    return _point(values, 50)


def _point(values: Sequence[float], point: float) -> float | None:
    return float(np.percentile(values, point)) if values else None
