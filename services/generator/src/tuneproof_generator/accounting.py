"""Notes what a request used, in the metrics and in its span, for both doors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import Span

from tuneproof.servicekit.timing import SECONDS
from tuneproof.servicekit.tracing import record, span
from tuneproof_generator import metrics


class Account:
    """One request, from its start in the engine to its end."""

    def __init__(self, traced: Span, ref: str) -> None:
        self._span = traced
        self._ref = ref
        self._start = time.perf_counter()
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.finish = "cancelled"

    def took(self, stage_seconds: Mapping[str, float]) -> None:
        """Notes the engine's own times of a complete answer; the last stage ends now."""
        seconds = time.perf_counter() - self._start
        metrics.ANSWER_SECONDS.labels(self._ref).observe(seconds)
        # All before decoding; the engine does not know of the wait for a slot.
        first = max(0.0, seconds - stage_seconds.get("decode", 0.0))
        metrics.FIRST_TOKEN_SECONDS.labels(self._ref).observe(first)
        for stage, seconds in stage_seconds.items():
            SECONDS.labels("generator", stage).observe(seconds)
        record(self._span, stage_seconds)


@contextmanager
def account(ref: str, door: str, within: Context | None = None) -> Iterator[Account]:
    """Counts a request when it ends, with an answer or without.

    Args:
        ref: of the adapter that answers; empty for the base model.
        door: `grpc` or `openai`.
        within: the caller's trace, where it is not the one under way here.
    """
    attributes = {"tuneproof.adapter": ref, "tuneproof.door": door}
    # Not current: the block is one of an asynchronous generator.
    with span("generate", attributes, within=within, current=False) as traced:
        used = Account(traced, ref)
        try:
            yield used
        finally:
            metrics.REQUESTS.labels(ref, door, used.finish).inc()
            metrics.TOKENS.labels(ref, "prompt").inc(used.prompt_tokens)
            metrics.TOKENS.labels(ref, "completion").inc(used.completion_tokens)
            traced.set_attribute("gen_ai.usage.input_tokens", used.prompt_tokens)
            traced.set_attribute("gen_ai.usage.output_tokens", used.completion_tokens)
            traced.set_attribute("gen_ai.response.finish_reasons", [used.finish])
