"""`tuneproof judge steps`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from tuneproof.cli.asking import AskedJudge
from tuneproof.cli.console import say
from tuneproof.cli.options import takes_options
from tuneproof.rubrics import parse_rubric
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.files import write_atomically

app = typer.Typer(
    help="Draft a rubric's steps, and measure a judge against people.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_UNTIL_THEN = {"steps": ["To be drafted."]}


@app.command("steps")
@takes_options
def steps_command(
    asked: AskedJudge,
    rubric: Annotated[Path, typer.Argument(help="A rubric's file without `steps`.")],
    out_file: Annotated[Path, typer.Option("--out", help="Where to write the whole rubric.")],
    *,
    seed: Annotated[int, typer.Option(help="Another one gives other steps.", min=0)] = 0,
) -> None:
    """Have the judge model write a rubric's evaluation steps, once.

    The written file is a rubric like any other: its digest covers the steps, and nothing writes
    them anew. Read them before you use it.

    Example: tuneproof judge steps tone.yaml --out rubrics/tone.yaml
    """
    content = _without_steps(rubric)
    checked = parse_rubric(yaml.safe_dump({**content, **_UNTIL_THEN}).encode(), str(rubric))
    draft = asked.run(
        lambda judge: judge.draft_steps(
            checked.criterion, checked.description, checked.scale, seed=seed
        )
    )
    whole = {**content, "steps": list(draft.steps)}
    head = f"# Steps by {draft.judge_model}, seed {seed}.\n"
    text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=100)
    frozen = parse_rubric(text.encode(), str(out_file))
    write_atomically(out_file, (head + text).encode())
    told = {"rubric": frozen.id, "digest": frozen.digest, "steps": list(draft.steps)}
    asked.give(told, "\n".join(f"{n}. {step}" for n, step in enumerate(draft.steps, 1)))
    say(f"{out_file}: {frozen.id}, {frozen.digest}")


def _without_steps(path: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInput(f"{path}: is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{path}:1: expected a rubric: `id: <name>@<version>` and its parts")
    if "steps" in content:
        raise InvalidInput(f"{path}: has steps already; leave the key out to have them drafted")
    return content
