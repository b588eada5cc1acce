"""What a run would do: the answer of PlanRun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuneproof.adapters.memory import USABLE
from tuneproof.adapters.shapes import architecture_of
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof_trainer.bases import Base, base_of
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.plan.checks import Finding
from tuneproof_trainer.plan.device import Device
from tuneproof_trainer.plan.examination import Examined, Examiner, Preview, Request
from tuneproof_trainer.plan.memory import needed, parts_of
from tuneproof_trainer.plan.packing import pack, padding
from tuneproof_trainer.plan.rates import Rate, passes, rate_for
from tuneproof_trainer.spec import RunSpec

MOST_PREVIEWS = 20
_DATA_ERROR = "data"
"""The finding's code where the data cannot be read at all."""


@dataclass(frozen=True)
class Plan:
    """A run before it is one."""

    spec: RunSpec
    """With every default filled in."""
    device: Device
    examined: Examined | None
    """None where the data cannot be read; a finding says why."""
    steps: int
    tokens: int
    """That the training reads, repetitions included."""
    padding: int
    """Tokens in one pass, an estimate."""
    memory: dict[str, int]
    """Bytes by part, the largest first; empty where the base's shapes are not known."""
    rate: Rate | None
    unquantised: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def seconds(self) -> float | None:
        """At the speed of earlier runs."""
        return self.rate.seconds(self.tokens) if self.rate and self.tokens else None

    @property
    def previews(self) -> list[Preview]:
        """Examples as tokens."""
        return self.examined.previews if self.examined else []


class Planner:
    """Plans runs of one trainer.

    Args:
        bases: the models that are tuned, by name.
        folders: of the bases on this machine, by name.
        artifacts: URL of the artifact store.
        device: what runs train on.
        finished: gives the provenance of finished runs, the newest first.
    """

    def __init__(
        self,
        bases: Mapping[str, Base],
        folders: Mapping[str, str],
        artifacts: str,
        device: Device,
        finished: Callable[[], Iterable[Mapping[str, str]]],
    ) -> None:
        self._bases = bases
        self._folders = folders
        self._artifacts = artifacts
        self._device = device
        self._finished = finished
        self._examiner = Examiner()

    async def plan(self, spec: RunSpec, preview_lines: Iterable[int] = ()) -> Plan:
        """What a run of this spec would do.

        Raises:
            InvalidInput: with every mistake in the spec; for a line that has no example. Mistakes
                in the data are findings.
            Unavailable: when the artifact store does not answer, or the base's folder is gone.
        """
        lines = tuple(preview_lines)
        if len(lines) > MOST_PREVIEWS:
            raise InvalidInput(
                f"{len(lines)} lines to preview are above {MOST_PREVIEWS}", field="preview_lines"
            )
        base = base_of(spec, self._bases)
        full = complete(spec, base, self._device)
        if not await asyncio.to_thread(Path(self._folders[base.name]).is_dir):
            raise Unavailable(
                f"the base's folder is gone: {base.name!r} was read from it when the trainer"
                " started; put it back, or start the trainer with another"
            )
        request = Request(
            spec=full,
            base_folder=self._folders[base.name],
            artifacts=self._artifacts,
            preview_lines=lines,
        )
        examined: Examined | None = None
        findings: list[Finding] = []
        try:
            examined = await self._examiner.examine(request)
        except InvalidInput as error:
            if error.field == "preview_lines":
                raise
            findings.append(Finding(_DATA_ERROR, _told(error), refused=True))
        else:
            findings += examined.findings
        return self._assemble(full, base, examined, findings)

    def _assemble(
        self, spec: RunSpec, base: Base, examined: Examined | None, findings: list[Finding]
    ) -> Plan:
        asked = spec.hyperparameters
        lengths = examined.lengths if examined else []
        rows = len(lengths)
        if asked.packing == "bfd":
            rows = len(pack(lengths, asked.max_length))
        steps = spec.steps_for(rows) if rows else 0
        memory = self._memory(spec, base, examined)
        unquantised = tuple(_unquantised(spec, base))
        findings += _of_settings(spec, base, self._device)
        findings += _of_memory(memory, self._device)
        tokens = 0
        if steps:
            tokens = round(sum(lengths) * passes(steps, asked.effective_batch_size, rows))
        padded = 0
        if lengths and asked.packing == "none":
            padded = padding(lengths, asked.micro_batch_size, spec.seed)
        return Plan(
            spec=spec,
            device=self._device,
            examined=examined,
            steps=steps,
            tokens=tokens,
            padding=padded,
            memory=memory,
            rate=rate_for(spec, self._finished(), self._device.name, self._device.count),
            unquantised=unquantised,
            findings=tuple(sorted(findings, key=lambda one: not one.refused)),
        )

    def _memory(self, spec: RunSpec, base: Base, examined: Examined | None) -> dict[str, int]:
        asked = spec.hyperparameters
        tokens = answers = None
        if examined and examined.lengths and asked.packing != "bfd":
            tokens, answers = max(examined.lengths), max(examined.answers)
        found = needed(
            base.config, asked, on_gpu=self._device.on_gpu, tokens=tokens, answer_tokens=answers
        )
        return {} if found is None else parts_of(found)


def _told(error: InvalidInput) -> str:
    """What is wrong with the data. A digest stands for the right to read a file: plans show its
    text to callers who may not make runs, so a wrong one is not answered with the right one."""
    if not error.field.endswith(".digest"):
        return error.message
    part = error.field.removeprefix("spec.").removesuffix(".digest")
    return f"{part} has another digest than the spec says: it was changed, or it is another file"


def _unquantised(spec: RunSpec, base: Base) -> Iterator[str]:
    """Parts of the base that stay as they are while the rest is in NF4."""
    asked = spec.hyperparameters
    if asked.method != "qlora_nf4":
        return
    yield "the embeddings, the norms and the output layer"
    if base.has_experts:
        yield (
            "the experts: transformers 5 holds them as 3-D parameters, and bitsandbytes quantises"
            " linear layers only"
        )
    if asked.skip_modules:
        yield f"skip_modules: {', '.join(asked.skip_modules)}"
    if architecture_of(base.config) is None:
        yield "whatever else is no linear layer: this base's architecture is not known here"


def _of_settings(spec: RunSpec, base: Base, device: Device) -> Iterator[Finding]:
    """Settings that can hold together, but rarely should."""
    asked = spec.hyperparameters
    if asked.target_parameters:
        yield Finding(
            "not_served",
            "target_parameters makes an adapter of experts, which no generator serves: vLLM 0.32"
            " reads other shapes",
        )
    if asked.use_rslora and asked.alpha / asked.rank**0.5 > _STRONG_SCALE:
        scale, plain = asked.alpha / asked.rank**0.5, asked.alpha / asked.rank
        yield Finding(
            "scale",
            f"use_rslora scales the update by alpha / sqrt(rank) = {scale:.3g} instead of"
            f" {plain:.3g}: lower alpha or learning_rate",
        )
    if asked.precision == "bf16" and not device.on_gpu:
        yield Finding("precision", "bfloat16 on a CPU is slower than float32 and less exact")
    if base.has_experts and not asked.target_parameters:
        yield Finding(
            "experts", "of a mixture of experts only the attention is trained, not the experts"
        )


_STRONG_SCALE = 4.0


def _of_memory(memory: Mapping[str, int], device: Device) -> Iterator[Finding]:
    total = sum(memory.values())
    if device.on_gpu and device.memory_bytes and total > USABLE * device.memory_bytes:
        yield Finding(
            "memory",
            f"about {total / 2**30:.1f} GiB are needed, and {device.name} has"
            f" {device.memory_bytes / 2**30:.1f}: lower micro_batch_size or max_length, or set"
            " gradient_checkpointing",
        )
