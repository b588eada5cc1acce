"""A calibration as a certificate, as a table, and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from tuneproof.calibration.figures import Figure, Figures, Group
from tuneproof.calibration.forms import FormAgreement
from tuneproof.calibration.grading import Asking
from tuneproof.calibration.loading import LabelledSet
from tuneproof.results.certificate import Certificate

_SIDE, _EDGE = 320, 44
_COLOURS = ("#1b6ca8", "#c0504d", "#5a8f29", "#7f7f7f")


def certificate_of(
    labelled: LabelledSet,
    asking: Asking,
    mode: str,
    judge_model: str,
    sources: Sequence[Figures],
) -> Certificate:
    """The certificate of a judge, whose figures are the first.

    Args:
        mode: `sampled`, `weighted` or `pairwise`.
    """
    judge = sources[0]
    return Certificate(
        judge_model=judge_model,
        rubric=asking.rubric.id,
        rubric_digest=asking.rubric.digest,
        criterion=asking.rubric.criterion,
        mode=mode,
        repeats=asking.repeats,
        temperature=asking.temperature,
        data=labelled.name,
        data_digest=labelled.digest,
        answers=judge.answers,
        dropped=labelled.dropped,
        unscored=judge.unscored,
        figures={one.source: asdict(one) for one in sources},
    )


def table(labelled: LabelledSet, sources: Sequence[Figures]) -> str:
    """What was found, in Markdown."""
    pairs = bool(labelled.pairs)
    what = "pairs" if pairs else "answers"
    head = ["", what, "unscored", "κ", "Spearman", "Kendall", "orders right"]
    lines = [
        (
            f"{labelled.name}: {len(labelled.pairs or labelled.answers)} labelled {what},"
            f" {labelled.dropped} labels missing"
        ),
        "",
        _row(head),
        _row(["---"] * len(head)),
    ]
    lines += [
        _row(
            [
                one.source,
                f"{one.answers}",
                f"{one.unscored}",
                _words(one.kappa),
                _words(one.spearman),
                _words(one.kendall),
                _words(one.pairwise) + (f" of {one.pairs}" if one.pairwise else ""),
            ]
        )
        for one in sources
    ]
    for one in sources:
        for title, groups in (("system", one.by_system), ("length", one.by_length)):
            if groups:
                lines += ["", *_grouped(f"{one.source}, by {title}", groups)]
    return "\n".join(lines)


def plot(sources: Sequence[Figures]) -> str:
    """The share of right answers (or the mean label) over the mean score, as SVG."""
    side, edge = _SIDE, _EDGE
    box = f'viewBox="0 0 {side + edge + 150} {side + edge}"'
    turned = f'transform="rotate(-90 12 {_y(0.5)})"'
    frame = f'x="{edge}" y="4" width="{side - 8}" height="{side - 8}"'
    ideal = f'x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="11">',
        "<title>People's labels by score</title>",
        f'<rect {frame} fill="none" stroke="#999"/>',
        f'<line {ideal} stroke="#bbb" stroke-dasharray="4 3"/>',
        _text(_x(0.5), side + 30, "score"),
        _text(12, _y(0.5), "people", turned),
    ]
    for at in (0.0, 0.5, 1.0):
        parts += [_text(_x(at), side + 12, f"{at:g}"), _text(edge - 12, _y(at) + 4, f"{at:g}")]
    for number, one in enumerate(each for each in sources if each.reliability):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{_x(each.score)},{_y(each.people)}" for each in one.reliability)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        most = max(each.answers for each in one.reliability)
        parts += [
            f'<circle cx="{_x(each.score)}" cy="{_y(each.people)}" fill="{colour}"'
            f' r="{2 + 5 * (each.answers / most) ** 0.5:.1f}"><title>{each.answers} answers</title>'
            "</circle>"
            for each in one.reliability
        ]
        place = side + edge + 70, 20 + 16 * number
        parts.append(_text(*place, one.source, f'fill="{colour}"'))
    return "\n".join([*parts, "</svg>", ""])


def forms_table(forms: Sequence[FormAgreement]) -> str:
    """One form for several criteria beside a form for each, in Markdown."""
    head = ["one form or several", "answers", "alone", "together", "difference", "same score", "κ"]
    rows = [
        [
            one.criterion,
            f"{one.answers}",
            f"{one.separate:.2f}",
            f"{one.joint:.2f}",
            _words(one.difference, sign="+"),
            _words(one.exact),
            _words(one.kappa),
        ]
        for one in forms
    ]
    return "\n".join(map(_row, [head, ["---"] * len(head), *rows]))


def _grouped(title: str, groups: Sequence[Group]) -> list[str]:
    head = [title, "answers", "κ", "score", "people", "bias"]
    rows = [
        [
            one.name,
            f"{one.answers}",
            f"{one.kappa:.3f}",
            f"{one.mean:.3f}",
            f"{one.people:.3f}",
            _words(one.bias, sign="+"),
        ]
        for one in groups
    ]
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _words(figure: Figure | None, sign: str = "") -> str:
    if figure is None:
        return "-"
    told = f"{figure.value:{sign}.3f}"
    if figure.low is None or figure.high is None:
        return told
    return f"{told} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle" {more}>{words}</text>'


def _x(share: float) -> float:
    return round(_EDGE + share * (_SIDE - 8), 1)


def _y(share: float) -> float:
    return round(4 + (1.0 - share) * (_SIDE - 8), 1)
