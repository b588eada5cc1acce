"""`tuneproof judge calibrate`."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuneproof.cli.asking import AskedJudge
from tuneproof.cli.console import err, say
from tuneproof.cli.options import takes_options
from tuneproof.cli.progress import progress_on
from tuneproof.sdk import JudgeClient
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.files import write_atomically

if TYPE_CHECKING:
    from tuneproof.calibration import Asking, Found, LabelledSet
    from tuneproof.rubrics import Rubric

Mode = Literal["sampled", "weighted", "pairwise"]


@takes_options
def calibrate_command(
    asked: AskedJudge,
    labelled: Annotated[
        str,
        typer.Argument(
            help="evouna, nq301, ragchecker, or a CSV file with the columns question, answer,"
            " reference, label (and id, system, cluster, label_2, passages)."
        ),
    ],
    *,
    rubric: Annotated[str, typer.Option(help="By which the judge scores.")] = "accuracy@1",
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write the certificate here (JSON).")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="Write the reliability plot here (SVG).")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the sets; by default TUNEPROOF_DATA.")
    ] = None,
    grades: Annotated[
        Path | None,
        typer.Option(
            help="Keeps the grades, so that the same command goes on after a crash; by default"
            " <state>/calibrations/<set>-<rubric>-<mode>.jsonl."
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="How the judge scores; pairwise: it compares the set's pairs.")
    ] = "sampled",
    joint: Annotated[
        list[str] | None,
        typer.Option(
            help="A further rubric, again for several: also score by it, alone and all in one form,"
            " and show how far the two ways agree."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=100)] = 10,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many answers or pairs.", min=1)
    ] = None,
    words_only: Annotated[
        bool,
        typer.Option(
            help="Ask no judge: show what else there is beside people, such as lexical match."
        ),
    ] = False,
    plan: Annotated[
        bool, typer.Option(help="Say what it would ask for and cost, and ask nothing.")
    ] = False,
    prompt_price: Annotated[
        float | None, typer.Option(help="With --plan: of a million prompt tokens.", min=0.0)
    ] = None,
    completion_price: Annotated[
        float | None, typer.Option(help="With --plan: of a million completion tokens.", min=0.0)
    ] = None,
) -> None:
    """Measure a judge against people, beside lexical match and beside people among themselves.

    Examples:

      tuneproof judge calibrate evouna --words-only

      tuneproof judge calibrate evouna --plan --prompt-price 0.15 --completion-price 0.6

      tuneproof judge calibrate evouna --out accuracy.json --plot accuracy.svg

      tuneproof judge calibrate evouna --joint completeness@1 --limit 200
    """
    from tuneproof import calibration  # noqa: PLC0415 - scipy takes long to load

    folder = data or (Path(named) if (named := os.environ.get("TUNEPROOF_DATA")) else None)
    if words_only:
        whole = _read(labelled, folder, rubric.partition("@")[0], limit)
        found = calibration.beside(whole)
        asked.give([asdict(one) for one in found], calibration.table(whole, found))
        return
    by = asked.run(lambda judge: judge.rubric(rubric))
    whole = _read(labelled, folder, by.criterion, limit)
    compare = mode == "pairwise"
    if compare and not whole.pairs:
        raise InvalidInput(f"{labelled} has no pairs to compare", field="mode")
    asking = calibration.Asking(by, repeats, seed, temperature, "sampled" if compare else mode)
    if joint and mode != "sampled":
        raise InvalidInput("--joint goes with --mode sampled only", field="joint")
    others = [asked.run(partial(JudgeClient.rubric, name=name)) for name in joint or ()]
    if plan:
        needed = calibration.forecast(whole, asking, compare=compare, joint=others)
        price = (
            None
            if prompt_price is None or completion_price is None
            else needed.price(prompt_price, completion_price)
        )
        told = (
            f"{needed.answers:,} to judge, {needed.completions:,} completions, at most about"
            f" {needed.prompt_tokens:,} prompt tokens (fewer where one request gives all repeats"
            f" of a prompt) and {needed.completion_tokens:,} completion tokens"
            + ("" if price is None else f", at most {price:,.2f}")
        )
        asked.give({**asdict(needed), "price": price}, told)
        return
    name = f"{Path(whole.name).stem}-{by.id}-{mode}.jsonl"
    kept = grades or asked.state / "calibrations" / name
    calibrated = _calibrated(asked, whole, asking, kept, compare=compare, joint=others)
    certificate = calibration.certificate_of(
        whole, asking, mode, calibrated.judge_model, calibrated.sources
    )
    if out_file:
        write_atomically(out_file, certificate.to_json().encode())
    if plot_file:
        write_atomically(plot_file, calibration.plot(calibrated.sources).encode())
    bias = calibrated.position_bias
    more = "" if bias is None else f"\n\nposition bias {bias:+.3f}"
    if calibrated.forms:
        more += f"\n\n{calibration.forms_table(calibrated.forms)}"
    if calibrated.refused:
        names = ", ".join(calibrated.refused)
        more += f"\n\nthe judge's endpoint refuses {names}, and was asked without"
    content = {
        "certificate": certificate.digest,
        **asdict(certificate),
        "position_bias": bias,
        "forms": [asdict(one) for one in calibrated.forms],
        "refused_parameters": calibrated.refused,
    }
    asked.give(content, calibration.table(whole, calibrated.sources) + more)
    if out_file:
        say(f"{out_file}: {certificate.digest}")


def _read(name: str, data: Path | None, criterion: str, limit: int | None) -> LabelledSet:
    from tuneproof import calibration  # noqa: PLC0415 - see above

    whole = calibration.load_set(name, data, criterion)
    return whole if limit is None else calibration.first_of(whole, limit)


def _calibrated(
    asked: AskedJudge,
    whole: LabelledSet,
    asking: Asking,
    kept: Path,
    *,
    compare: bool,
    joint: list[Rubric],
) -> Found:
    from tuneproof import calibration  # noqa: PLC0415 - see above

    total = len(whole.pairs) if compare else len(whole.answers)
    total *= 2 + len(joint) if joint else 1
    with progress_on(err).stage("grades", total, 0) as stage:
        return asked.run(
            lambda judge: calibration.calibrate(
                judge,
                whole,
                asking,
                kept,
                compare=compare,
                joint=joint,
                tell=lambda _done, _all: stage.advance(),
            )
        )
