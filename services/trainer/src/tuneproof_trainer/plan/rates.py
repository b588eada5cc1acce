"""How fast this trainer was, from the provenance of its earlier runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from tuneproof_trainer.spec import RunSpec

_MOST = 20
"""The newest runs that count."""


@dataclass(frozen=True)
class Rate:
    """Of runs of one base in one way."""

    tokens_per_second: float
    """Prompt and answer tokens, the median over the runs."""
    load_seconds: float
    """To load the base, the median over the runs."""
    runs: int

    def seconds(self, tokens: int) -> float:
        """How long a training takes that reads so many tokens."""
        return self.load_seconds + tokens / self.tokens_per_second


def rate_for(
    spec: RunSpec, facts: Iterable[Mapping[str, str]], device: str, count: int = 1
) -> Rate | None:
    """The speed that a spec can expect; None where nothing like it was measured.

    A run counts where base, method, gradient checkpointing and devices are the same. Other settings
    matter less than the factor that a plan can promise.

    Args:
        facts: the provenance of finished runs, the newest first.
        device: its name, as provenance has it; empty: any.
        count: devices that share a training.
    """
    speeds: list[float] = []
    loads: list[float] = []
    for one in facts:
        if int(_number(one, "devices") or 1) != count:
            continue
        found = _speed(spec, one, device)
        if found is None:
            continue
        speeds.append(found)
        loads.append(_number(one, "load_seconds"))
        if len(speeds) == _MOST:
            break
    return Rate(median(speeds), median(loads), len(speeds)) if speeds else None


def _speed(spec: RunSpec, facts: Mapping[str, str], device: str) -> float | None:
    """Tokens per second of a run; None where it is not comparable."""
    try:
        settings = json.loads(facts["hyperparameters"])
        rows = int(facts.get("rows") or facts["examples"])
        tokens = int(facts["prompt_tokens"]) + int(facts["answer_tokens"])
        steps, seconds = int(facts["steps"]), float(facts["train_seconds"])
        batch = int(settings["effective_batch_size"])
    except (KeyError, ValueError, TypeError):
        return None
    asked = spec.hyperparameters
    same = (
        facts.get("base_model") == spec.base_model
        and facts.get("method") == asked.method
        and settings.get("gradient_checkpointing") == asked.gradient_checkpointing
        and (not device or facts.get("device") == device)
    )
    if not same or min(rows, tokens, steps, batch) < 1 or seconds <= 0:
        return None
    return tokens * passes(steps, batch, rows) / seconds


def passes(steps: int, batch: int, rows: int) -> float:
    """How often a training reads its data. The last step of a pass may be smaller."""
    return steps / -(-rows // batch)


def _number(facts: Mapping[str, str], name: str) -> float:
    try:
        return float(facts.get(name) or 0.0)
    except ValueError:
        return 0.0
