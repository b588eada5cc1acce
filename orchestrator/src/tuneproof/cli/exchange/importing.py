"""`tuneproof study import`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tuneproof.cli.console import give, plain_errors
from tuneproof.cli.options import STATE, JsonOption, StateOption
from tuneproof.cli.study import DataOption, FileArgument
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.prepare import Request, prepare
from tuneproof.study.opened import chain_of
from tuneproof.study.state.lock import exclusive
from tuneproof.study.state.store import FILE_NAME, open_state
from tuneproof.study.steps.importing import Kept, import_answers


def import_command(
    file: FileArgument,
    *,
    data: DataOption = None,
    state: StateOption = STATE,
    as_json: JsonOption = False,
) -> None:
    """Read the answers of other systems that a study's `import` arms name, and check them.

    Each test question needs one answer. Where a record gives the digest or the token ids of its
    prompt, it must be the study's. `study run` does the same, and has the answers judged.

    Examples:

      tuneproof study export study.yaml --format prompts --out prompts.jsonl

      tuneproof study import study.yaml

    The study file names the answers:

      arms: [..., {name: other, import: {path: answers.jsonl, system: our old pipeline}}]
    """
    with plain_errors():
        kept = _imported(file, data, state)
        value = {"arms": [asdict(each) for each in kept]}
        give(value, "\n".join(map(_line, kept)), as_json=as_json)


def _imported(file: Path, data: Path | None, state: Path) -> tuple[Kept, ...]:
    plan = prepare(Request(file, state, data)).plan
    if not plan.imported:
        raise InvalidInput(
            f"{file}: no arm has answers of another system; name them as in"
            " `{name: other, import: {path: answers.jsonl}}`",
            field="arms",
        )
    if not (state / FILE_NAME).exists():
        return tuple(
            Kept(arm, len(each.by_item), each.left_out, len(each.by_item), 0, 0)
            for arm, each in plan.imported.items()
        )
    with exclusive(state), open_state(state, write=True) as results:
        return import_answers(chain_of(file, state, results, data))


def _line(kept: Kept) -> str:
    said = [f"{kept.arm}: {kept.answers} answers"]
    if kept.left_out:
        said.append(f"{kept.left_out} to questions that are not tested, left out")
    if kept.waiting:
        said.append(f"{kept.waiting} wait for their question's passages: run the study")
    checked = [
        f"{count} by {what}"
        for count, what in ((kept.by_digest, "digest"), (kept.by_token_ids, "token ids"))
        if count
    ]
    said.append(f"prompts are the study's, {' and '.join(checked)}" if checked else "no prompts")
    return "; ".join(said)
