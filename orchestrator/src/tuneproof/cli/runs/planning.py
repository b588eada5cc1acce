"""`tuneproof runs plan | preview`: what a run would do, before it is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.table import Table
from rich.text import Text

from tuneproof.cli.console import ExitCode, out, say
from tuneproof.cli.options import takes_options
from tuneproof.cli.runs.asking import AskedRun, DataArgument, takes_hyperparameters
from tuneproof.cli.runs.figures import settings_of, words_of
from tuneproof.sdk import RunPlan, RunSpec, TrainerClient
from tuneproof.sdk.planning import Finding, Preview

_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_NAMELESS = "planned"
_SHOWN_LINES = 10
_GIB = 2**30


@takes_options
@takes_hyperparameters
def plan_command(asked: AskedRun, data: DataArgument = "", *, given: Mapping[str, Any]) -> None:
    """Show what a run would do: settings, steps, memory, time, and what stands out in the data.

    Nothing is trained. Exits with 2 when the run would be refused.

    Examples:

      tuneproof runs plan train.jsonl --preset practical

      tuneproof runs plan --spec run.yaml --validation-share 0.1 --json
    """
    spec = _spec(asked, data, given)
    plan = asked.run(lambda client: client.plan(spec))
    asked.give(json_of(plan), lambda: show_plan(plan))
    if plan.refused:
        raise SystemExit(ExitCode.BAD_INPUT)


@takes_options
@takes_hyperparameters
def preview_command(
    asked: AskedRun,
    data: DataArgument = "",
    *,
    given: Mapping[str, Any],
    line: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Line of the data; may be repeated, up to 20 times."),
    ] = None,
) -> None:
    """Show an example as the training reads it, what the loss does not see dimmed.

    Without colours, what the loss sees stands in brackets: ⟦so⟧.

    Examples:

      tuneproof runs preview train.jsonl

      tuneproof runs preview train.jsonl --line 3 --line 17 --json
    """
    spec = _spec(asked, data, given)

    async def preview(client: TrainerClient) -> RunPlan:
        return await client.plan(spec, preview_lines=line or ())

    plan = asked.run(preview)
    unread = [finding for finding in plan.findings if finding.refused and not plan.previews]
    for finding in unread:
        say(f"tuneproof: {finding.message}")
    if unread:
        raise SystemExit(ExitCode.BAD_INPUT)
    asked.give({"previews": _ANY.dump_python(plan.previews, mode="json")}, lambda: _show(plan))


def _spec(asked: AskedRun, data: str, given: Mapping[str, Any]) -> RunSpec:
    """What is asked; an adapter that is not kept needs no name."""
    named = asked.adapter or asked.spec
    return (asked if named else replace(asked, adapter=_NAMELESS)).run_spec(data, given)


def json_of(plan: RunPlan) -> Any:
    """A plan for JSON."""
    return {
        **_ANY.dump_python(replace(plan, previews=()), mode="json"),
        "memory_bytes": sum(plan.memory.values()),
        "refused": plan.refused,
    }


def show_plan(plan: RunPlan) -> None:
    """Prints it, the findings last."""
    table = Table(box=None, show_header=False)
    for name, value in _facts(plan):
        table.add_row(name, value)
    for name, value in settings_of(plan.spec).items():
        table.add_row(name, words_of(value))
    out.print(table, soft_wrap=False)
    for finding in plan.findings:
        out.print(_words(finding), markup=False, style="red" if finding.refused else None)


def _facts(plan: RunPlan) -> Iterator[tuple[str, str]]:
    asked, counts = plan.spec.hyperparameters, plan.counts
    if counts is not None:
        yield "examples", _examples(plan)
        yield (
            "tokens",
            f"{counts.prompt_tokens:,} of prompts, {counts.answer_tokens:,} of answers, which the"
            f" loss sees; the longest example has {counts.longest_example_tokens:,}"
            + (f"; about {counts.padding_tokens:,} of padding" if counts.padding_tokens else ""),
        )
        split = f"{asked.micro_batch_size} a forward pass x {plan.accumulation} x {plan.devices}"
        devices = "devices" if plan.devices > 1 else "device"
        steps = f"{plan.total_steps:,} of {asked.effective_batch_size} = {split} {devices}"
        yield "steps", f"{steps}; {plan.total_tokens:,} tokens in all"
    yield "memory", _memory(plan)
    yield "time", _time(plan)
    if plan.unquantised:
        yield "unquantised", "; ".join(plan.unquantised)


def _examples(plan: RunPlan) -> str:
    counts = plan.counts
    assert counts is not None  # noqa: S101 - the caller looked
    parts = [f"{counts.examples:,} to train on"]
    if counts.validation_examples:
        parts.append(f"{counts.validation_examples:,} to validate on")
    if counts.dropped_examples:
        parts.append(f"{counts.dropped_examples:,} too long")
    return ", ".join(parts)


def _memory(plan: RunPlan) -> str:
    if not plan.memory:
        return "not known: the shapes of this base are not known"
    total = sum(plan.memory.values())
    largest = ", ".join(f"{name} {_size(size)}" for name, size in list(plan.memory.items())[:4])
    has = f" of {_size(plan.device_memory_bytes)}" if plan.device_memory_bytes else ""
    return f"{_size(total)}{has} a device: {largest}"


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB / 10 else f"{count / 2**20:.1f} MiB"


def _time(plan: RunPlan) -> str:
    if plan.seconds is None:
        return "not known: this trainer has not trained such a run yet"
    hours, minutes = divmod(round(plan.seconds / 60), 60)
    took = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    runs = f"{plan.measured_runs} earlier run{'s' if plan.measured_runs > 1 else ''}"
    shown = took if plan.seconds >= 60 else f"{plan.seconds:.0f} s"
    return f"about {shown}, at {plan.tokens_per_second:,.0f} tokens/s as in {runs}"


def _words(finding: Finding) -> str:
    kind = "refused" if finding.refused else "note"
    lines = finding.lines[:_SHOWN_LINES]
    more = " …" if len(finding.lines) > len(lines) else ""
    at = f" (lines {', '.join(map(str, lines))}{more})" if lines else ""
    return f"{kind}: {finding.message}{at}"


def _show(plan: RunPlan) -> None:
    for one in plan.previews:
        out.print(f"line {one.line}", style="bold")
        out.print(text_of(one, in_colour=out.color_system is not None))


def text_of(preview: Preview, *, in_colour: bool) -> Text:
    """An example; what the loss does not see is dimmed, or, without colours, what it sees stands
    in brackets."""
    text = Text()
    for place, piece in enumerate(preview.pieces):
        before = place > 0 and preview.pieces[place - 1].learned
        if not in_colour and piece.learned != before:
            text.append("⟦" if piece.learned else "⟧")
        text.append(piece.text, style="bold" if piece.learned else "dim")
    if not in_colour and preview.pieces and preview.pieces[-1].learned:
        text.append("⟧")
    return text
