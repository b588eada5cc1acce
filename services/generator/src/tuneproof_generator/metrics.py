"""The generator's own metrics; those of vLLM (`vllm:…`) stand beside them on the same page."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

ADAPTERS = Gauge("tuneproof_generator_adapters", "Adapters on this replica.", ["state"])
LOAD_SECONDS = Histogram(
    "tuneproof_generator_load_seconds",
    "Time of each stage from declaration to READY, in seconds.",
    ["stage"],
    buckets=_SECONDS,
)
FAILURES = Counter(
    "tuneproof_generator_load_failures", "Adapters that went to FAILED, by kind of error.", ["kind"]
)
CAPACITY = Gauge(
    "tuneproof_generator_capacity",
    "Capacity: adapters that fit into `host` memory, and `slots` of one batch.",
    ["kind"],
)
CAPACITY_USED = Gauge(
    "tuneproof_generator_capacity_used",
    "Adapters in host memory or on their way (`host`), with requests in the engine (`slots`).",
    ["kind"],
)
SLOT_WAITING = Gauge(
    "tuneproof_generator_slot_waiting", "Requests that wait until their adapter has a slot."
)
REQUESTS = Counter(
    "tuneproof_generator_requests",
    "Requests that ended, of either door.",
    ["adapter", "door", "finish"],
)
TOKENS = Counter(
    "tuneproof_generator_tokens", "Tokens of prompts and answers.", ["adapter", "kind"]
)
FIRST_TOKEN_SECONDS = Histogram(
    "tuneproof_generator_first_token_seconds",
    "From a request's arrival to its first token, in seconds; requests that were answered.",
    ["adapter"],
    buckets=_SECONDS,
)
ANSWER_SECONDS = Histogram(
    "tuneproof_generator_answer_seconds",
    "From a request's arrival to its last token, in seconds; requests that were answered.",
    ["adapter"],
    buckets=_SECONDS,
)
RECONCILE_ERRORS = Counter(
    "tuneproof_generator_reconcile_errors", "Reads of the pool's folder that failed."
)
RETRIES = Counter("tuneproof_generator_load_retries", "Adapters that FAILED and were tried again.")
EVICTIONS = Counter(
    "tuneproof_generator_evictions", "Idle adapters that were evicted for a newly declared one."
)
IGNORED_OBJECTS = Counter(
    "tuneproof_generator_ignored_objects",
    "Objects of the pool's folder that could not be read, counted at each attempt.",
    ["kind"],
)
LIVE_REPLICAS = Gauge(
    "tuneproof_generator_live_replicas", "Replicas of the pool whose lease runs, this one included."
)


def forget(ref: str) -> None:
    """Removes the series of an adapter that is gone, so that their number stays bounded."""
    for metric in (REQUESTS, TOKENS, FIRST_TOKEN_SECONDS, ANSWER_SECONDS):
        metric.remove_by_labels({"adapter": ref})
