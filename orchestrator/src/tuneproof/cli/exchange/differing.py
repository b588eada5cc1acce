"""`tuneproof study diff`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneproof.cli.console import give, plain_errors
from tuneproof.cli.options import STATE, JsonOption, StateOption

if TYPE_CHECKING:
    from tuneproof.exports.differences import Change, Differences, PlaceChange, Verdict

_ABSENT = "\N{EN DASH}"
_SideArgument = typer.Argument(
    help="A study file (YAML), or JSON of `study export` or `study report --json`."
)


def diff_command(
    a: Annotated[Path, _SideArgument],
    b: Annotated[Path, _SideArgument],
    *,
    answers: Annotated[
        int, typer.Option(min=0, help="How many answers that differ to show; JSON has all.")
    ] = 5,
    state: StateOption = STATE,
    other_state: Annotated[
        Path | None, typer.Option(help="State folder of the second, where not that of the first.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two studies: design, verdicts, means, answers.

    A study file brings its results along, if it ran in the state folder. What only one side knows
    is not compared.

    Examples:

      tuneproof study diff before.yaml after.yaml

      tuneproof study diff before.json studies/demo.yaml --answers 20

      tuneproof study diff demo.yaml demo.yaml --state here --other-state there --json
    """
    with plain_errors():
        # Loading scipy takes a while.
        from tuneproof.exports.differences import differences  # noqa: PLC0415
        from tuneproof.exports.sides import side_of  # noqa: PLC0415

        found = differences(side_of(a, state), side_of(b, other_state or state))
        value = {"same": found.same, **asdict(found)}
        give(value, "\n".join(_lines(found, answers)), as_json=as_json)


def _lines(found: Differences, answers: int) -> Iterator[str]:
    yield f"a: {found.a}"
    yield f"b: {found.b}"
    if found.same:
        yield "nothing differs of what both know"
    yield from _change_lines("design", found.design)
    yield from _change_lines("provenance", found.provenance)
    for side, cells in (("a", found.only_a), ("b", found.only_b)):
        if cells:
            yield f"cells of {side} alone: {', '.join(cells)}"
    yield from _place_lines("verdicts", found.verdicts, _verdict)
    yield from _place_lines("means", found.means, _number)
    yield from _answer_lines(found, answers)


def _change_lines(title: str, changes: Sequence[Change] | None) -> Iterator[str]:
    if changes is None:
        yield f"{title}: not known of both"
    elif changes:
        yield f"{title}:"
        yield from (f"  {one.what}: {_value(one.a)} → {_value(one.b)}" for one in changes)


def _place_lines(
    title: str, changes: Sequence[PlaceChange] | None, shown: Callable[[Any], str]
) -> Iterator[str]:
    if changes is None:
        yield f"{title}: not known of both"
    elif changes:
        yield f"{title}:"
        for one in changes:
            yield f"  {one.cell}, {one.of}: {shown(one.a)} → {shown(one.b)}"


def _answer_lines(found: Differences, most: int) -> Iterator[str]:
    if found.answers is None:
        yield "answers: not known of both"
        return
    different = Counter(one.cell for one in found.answers)
    if different:
        yield "answers that differ:"
    for cell, count in found.compared.items():
        if different[cell]:
            yield f"  {cell}: {different[cell]} of {count}"
    for one in found.answers[:most]:
        yield f"  {one.cell}, {one.of}:"
        yield from (f"    {side} {_value(text)}" for side, text in (("a", one.a), ("b", one.b)))


def _value(value: Any) -> str:
    return _ABSENT if value is None else json.dumps(value, ensure_ascii=False)


def _number(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.3g}"


def _verdict(one: Verdict | None) -> str:
    if one is None:
        return _ABSENT
    if one.difference is None:
        return one.words
    ends = f", {one.low:+.3g} to {one.high:+.3g}" if one.low is not None else ""
    return f"{one.words} ({one.difference:+.3g}{ends})"
