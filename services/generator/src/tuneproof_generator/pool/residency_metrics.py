"""Where adapters are, as metrics with the names that vLLM is about to give them.

Routers read these (llm-d's `lora-load-state-scorer`): https://github.com/vllm-project/vllm/pull/54830.
vLLM 0.32 lacks them; an engine that has them keeps its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as TooLate
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from tuneproof_generator.engine.protocol import WorkerAdapters
from tuneproof_generator.metrics import LOAD_SECONDS

_SECONDS = 2.0
"""A scrape waits no longer for the workers, and then gets what they said last."""
_LABELS = ("model_name", "engine")
_ENGINE = "0"


@dataclass(frozen=True)
class Residents:
    """What the engine's workers hold."""

    workers: Sequence[WorkerAdapters]
    """By rank; empty when they do not answer."""
    names: Mapping[int, str]
    """References, by engine id."""


class ResidencyMetrics(Collector):
    """Asks the workers at each scrape, so that the metrics are what they hold then.

    Args:
        ask: the workers, in `loop`.
        model_name: of the base model, as a label.
        slots: of the engine.
    """

    def __init__(
        self,
        ask: Callable[[], Coroutine[Any, Any, Residents]],
        loop: asyncio.AbstractEventLoop,
        *,
        model_name: str,
        slots: int,
    ) -> None:
        self._ask = ask
        self._loop = loop
        self._values = (model_name, _ENGINE)
        self._slots = slots
        self._last = Residents((), {})

    def describe(self) -> list[Metric]:
        """The names, for the registry."""
        return self._metrics(Residents((), {}))

    def collect(self) -> list[Metric]:
        """The metrics; in any thread but the loop's own, which it would wait for."""
        asked = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        try:
            told = asked.result(_SECONDS)
        except TooLate:
            asked.cancel()
        else:
            self._last = told if told.workers else self._last
        return self._metrics(self._last)

    def _metrics(self, told: Residents) -> list[Metric]:
        loaded = GaugeMetricFamily(
            "vllm:lora_adapter_loaded",
            "1 for each adapter that a worker holds, in a slot (gpu) or in host memory only (cpu).",
            labels=[*_LABELS, "adapter_name", "level", "pinned", "rank"],
        )
        for rank, worker in enumerate(told.workers):
            for one in sorted(worker.host | worker.slots):
                name = told.names.get(one, f"engine-id-{one}")
                level = "gpu" if one in worker.slots else "cpu"
                pinned = str(one in worker.pinned).lower()
                loaded.add_metric([*self._values, name, level, pinned, str(rank)], 1)
        counted = GaugeMetricFamily(
            "vllm:num_gpu_loaded_lora_adapters",
            "Adapters in a slot on every worker.",
            labels=_LABELS,
        )
        everywhere = [worker.slots for worker in told.workers]
        counted.add_metric(self._values, len(frozenset.intersection(*everywhere or [frozenset()])))
        most = GaugeMetricFamily(
            "vllm:max_gpu_lora_adapters", "Slots for adapters.", labels=_LABELS
        )
        most.add_metric(self._values, self._slots)
        return [loaded, counted, most, self._seconds()]

    def _seconds(self) -> Metric:
        name = "vllm:lora_adapter_load_seconds"
        told = Metric(name, "From an adapter's files into a slot, in seconds.", "histogram")
        for metric in LOAD_SECONDS.collect():
            for sample in metric.samples:
                if sample.labels["stage"] == "load" and not sample.name.endswith("_created"):
                    others = {key: text for key, text in sample.labels.items() if key != "stage"}
                    told.add_sample(
                        sample.name.replace(metric.name, name),
                        {**dict(zip(_LABELS, self._values, strict=True)), **others},
                        sample.value,
                    )
        return told


@contextmanager
def registered(metrics: ResidencyMetrics) -> Iterator[None]:
    """On the page of metrics, if the engine gives none of them itself."""
    known = {metric.name for metric in REGISTRY.collect()}
    if known & {metric.name for metric in metrics.describe()}:
        yield
        return
    REGISTRY.register(metrics)
    try:
        yield
    finally:
        REGISTRY.unregister(metrics)
