"""A load test's result: for people as one HTML file that loads nothing, and for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuneproof.loadtest.records import Swap
from tuneproof.loadtest.slo import Check
from tuneproof.loadtest.timeline import HEIGHT, ROW, timeline_of
from tuneproof.loadtest.trial import LoadResult
from tuneproof.report.document import asset, environment, policy
from tuneproof.report.numbers import NONE, plain

_SHOWN = 50
"""Most wrong answers that the page lists."""
STAGES = {
    "fetch": "fetched from the registry",
    "verify": "verified",
    "load": "loaded into the engine",
    "warm": "first asked, and compared with its training",
    "declare_to_ready": "from declaration to READY, for the client",
    "first_after_ready": "first token of the first request after READY",
    "second_after_ready": "first token of the next request",
    "declare_to_first_token": "from declaration to first token, in total",
}
"""The stages of an adapter, in order."""
STATES = ("pending", "fetching", "verifying", "loading", "ready", "draining", "serving", "failed")
_SIDES = {"quiet": "without swaps", "swap": "with swaps", "base": "base model alone"}


def build_page(result: LoadResult, checks: Sequence[Check]) -> str:
    """The result as one self-contained HTML document, with all foreign text escaped."""
    templates = environment("tuneproof.loadtest")
    templates.filters.update(plain=plain, figure=_figure, seconds=_seconds)
    style = asset("palette.css") + asset("page.css") + asset("loadtest.css", "tuneproof.loadtest")
    script = asset("theme.js")
    figures = result.figures
    return templates.get_template("loadtest.html.j2").render(
        result=result,
        figures=figures,
        checks=checks,
        headline=headline(checks),
        notes=notes(result),
        sides=_SIDES,
        stages=[
            (name, text, figures.load[name])
            for name, text in STAGES.items()
            if name in figures.load
        ],
        states=STATES,
        wrong=_wrong(result)[:_SHOWN],
        timeline=timeline_of(result.phases),
        height=HEIGHT,
        row=ROW,
        facts=_facts(result),
        style=style,
        script=script,
        policy=policy(style, script),
    )


def headline(checks: Sequence[Check]) -> str:
    """The result in one sentence."""
    if not checks:
        return "No objectives were set."
    missed = [check.name for check in checks if not check.met]
    if missed:
        return f"{len(missed)} of {len(checks)} objectives missed: {', '.join(missed)}."
    return f"Every objective is met: {len(checks)} of {len(checks)}."


def notes(result: LoadResult) -> list[str]:
    """What a reader must know before the figures."""
    figures, found = result.figures, []
    asked = figures.requests - figures.failed
    if not figures.checked_digest and asked:
        found.append("This server does not say which adapter answered: no digest was compared.")
    if not figures.checked_text and asked:
        found.append("Without probes, only the server itself says which adapter answered.")
    elif figures.checked_text < asked:
        found.append(f"The text of {figures.checked_text} of {asked} answers was compared.")
    if figures.sent_late > 0.05:
        found.append(
            f"One request in a hundred left {figures.sent_late:.2f} s late or more: this machine"
            " was too slow for the rate. Latencies count from the due time and include the delay."
        )
    return found


def result_json(result: LoadResult, checks: Sequence[Check]) -> dict[str, Any]:
    """All figures, objectives, swaps and wrong answers."""
    return {
        "met": all(check.met for check in checks),
        "checks": [{**asdict(check), "met": check.met} for check in checks],
        "results": asdict(result.figures),
        "notes": notes(result),
        "swaps": [
            {"round": phase.round, **_swap(swap, result.origin)}
            for phase in result.phases
            for swap in phase.swaps
        ],
        "wrong": _wrong(result),
        "started": result.started.isoformat(),
        "load": asdict(result.load),
        "models": list(result.models),
        "facts": dict(_facts(result)),
    }


def _swap(swap: Swap, origin: float) -> dict[str, Any]:
    """A swap with times since the start of the test."""
    found = asdict(swap)
    for name in ("started", "ready", "moved", "removed"):
        found[name] = None if found[name] is None else found[name] - origin
    return {**found, "states": [[state, time - origin] for state, time in swap.states]}


def _wrong(result: LoadResult) -> list[dict[str, Any]]:
    return [
        {
            "at": reply.due - result.origin,
            "model": reply.model,
            "prompt": reply.prompt,
            "served": reply.answer.served if reply.answer else None,
            "text": reply.answer.text if reply.answer else "",
            "why": reply.wrong,
        }
        for phase in result.phases
        for reply in phase.all_replies
        if reply.wrong
    ]


def _facts(result: LoadResult) -> Mapping[str, str]:
    """The conditions of the test."""
    load = result.load
    facts = {
        **result.settings,
        "Started": result.started.isoformat(timespec="seconds"),
        "Arrivals": f"{load.rate:g} a second (Poisson), {load.seconds:g} s a phase,"
        f" {load.rounds} rounds, seed {load.seed}",
        "Full load": f"{load.in_flight} in flight, {load.full_seconds:g} s a phase"
        if load.in_flight
        else "none",
        "Asked": f"{len(result.models)} adapters or models, Zipf exponent {load.skew:g},"
        f" {load.base_share:.0%} of requests to the base model",
        "Lengths": f"answers of {load.answer_tokens.low} to {load.answer_tokens.high} tokens",
    }
    if result.swaps:
        facts["Swaps"] = f"{result.swaps.rate:g} a second, alias lag {result.swaps.lag:g} s"
    if pool := result.pool:
        facts["Generator"] = (
            f"{pool.base_model} in {pool.dtype}, vLLM {pool.engine_version}, replica {pool.replica}"
        )
        facts["Capacity"] = (
            f"{pool.max_loras} adapters in a batch, {pool.max_cpu_loras} in host memory, rank up"
            f" to {pool.max_lora_rank}"
        )
    return facts


def _figure(value: float | None) -> str:
    """A count as it is, any other figure with four significant digits."""
    if value is None:
        return NONE
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _seconds(value: float | None) -> str:
    """`3.4 ms`, `0.25 s`."""
    if value is None:
        return NONE
    return f"{1000 * value:.1f} ms" if value < 0.1 else f"{value:.2f} s"
