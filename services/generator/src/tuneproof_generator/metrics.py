"""The generator's own metrics; those of vLLM (`vllm:…`) stand beside them on the same page."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ADAPTERS = Gauge("tuneproof_generator_adapters", "Adapters on this replica.", ["state"])
LOAD_SECONDS = Histogram(
    "tuneproof_generator_load_seconds",
    "Time of each stage from declaration to READY, in seconds.",
    ["stage"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
FAILURES = Counter("tuneproof_generator_load_failures", "Adapters that went to FAILED.")
REQUESTS = Counter(
    "tuneproof_generator_requests",
    "Requests that ended, of either door.",
    ["adapter", "door", "finish"],
)
TOKENS = Counter(
    "tuneproof_generator_tokens", "Tokens of prompts and answers.", ["adapter", "kind"]
)
RECONCILE_ERRORS = Counter(
    "tuneproof_generator_reconcile_errors", "Reads of the pool's folder that failed."
)
RETRIES = Counter("tuneproof_generator_load_retries", "Adapters that FAILED and were tried again.")
EVICTIONS = Counter(
    "tuneproof_generator_evictions", "Idle adapters that went for one without a place."
)
IGNORED_OBJECTS = Counter(
    "tuneproof_generator_ignored_objects",
    "Objects of the pool's folder that could not be read, each time they were met.",
    ["kind"],
)
LIVE_REPLICAS = Gauge(
    "tuneproof_generator_live_replicas", "Replicas of the pool whose lease runs, this one included."
)
