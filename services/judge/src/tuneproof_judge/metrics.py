"""The judge's own metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from tuneproof_judge.grade import Usage

REPEATS = Counter(
    "tuneproof_judge_repeats",
    "Repeats that ended, by rubric and outcome: scored, or the kind of failure.",
    ["rubric", "outcome"],
)
GRADES = Counter(
    "tuneproof_judge_grades",
    "Grades by one criterion, by rubric and outcome: scored, or unscored for lost repeats.",
    ["rubric", "outcome"],
)
REQUESTS = Counter(
    "tuneproof_judge_endpoint_requests",
    "HTTP requests to the endpoint, by how they ended.",
    ["outcome"],
)
TOKENS = Counter(
    "tuneproof_judge_tokens",
    "Tokens that the endpoint counted: prompt (cached ones included), cached, completion.",
    ["kind"],
)
BATCHED = Gauge(
    "tuneproof_judge_batched_requests",
    "Requests that wait for a batch, or are in one, by state: waiting, sent.",
    ["model", "state"],
)
IN_FLIGHT = Gauge("tuneproof_judge_endpoint_in_flight", "Completions under way.")
ALLOWED = Gauge(
    "tuneproof_judge_endpoint_allowed",
    "Completions that may be under way at once, as the endpoint bears them.",
    ["model"],
)


def count_answered(usage: Usage) -> None:
    """One request that the endpoint answered with a completion."""
    REQUESTS.labels("ok").inc()
    for kind in ("prompt", "cached", "completion"):
        TOKENS.labels(kind).inc(getattr(usage, f"{kind}_tokens"))
