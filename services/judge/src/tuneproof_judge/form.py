"""Reading the form at the end of a judge's completion.

One strict parser for all rubrics: the completion holds exactly one `Score:`, after it a whole
number of the scale, and after that nothing but the end of Markdown emphasis. Everything else is a
failure. So a reason that mentions a score, a form that the judged answer smuggled in, or `4/5`
never becomes a score.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from tuneproof_judge.grade import Failure, FailureKind

# Wider than what is accepted, so that a second form in another spelling still makes two.
_MARKER = re.compile(r"score[\s*_]*[:\uff1a]", re.IGNORECASE)
_FORM = re.compile(
    r"(?<!\w)(?:\*{1,3}|_{1,3})?Score[*_]{0,3}:[*_]{0,3}\s*[*_]{0,3}(?P<value>[^\s*_]+)[*_]{0,3}\s*\Z"
)
_NUMBER = re.compile(r"[-+]?[0-9]+(?:[.,/][0-9]+)*")
_SHOWN = 60


def read_score(completion: str, scale: Collection[int]) -> int | Failure:
    """The score at the end of a completion, or why there is none.

    Args:
        scale: all scores that the rubric allows.
    """
    markers = len(_MARKER.findall(completion))
    if markers != 1:
        found = "no form" if markers == 0 else f"{markers} forms"
        return Failure(
            FailureKind.NO_FORM, f"{found} where one `Score:` is expected: …{_end(completion)!r}"
        )
    form = _FORM.search(completion)
    if form is None:
        return Failure(
            FailureKind.NO_FORM,
            f"`Score:` is not followed by a number and the end: …{_end(completion)!r}",
        )
    value = form["value"]
    # Compared as text: int() would also take "05", "1_0" and digits of other scripts.
    for score in scale:
        if value == str(score):
            return score
    if _NUMBER.fullmatch(value):
        return Failure(
            FailureKind.OUT_OF_RANGE,
            f"{value[:_SHOWN]!r} is not a whole number from {min(scale)} to {max(scale)}",
        )
    return Failure(
        FailureKind.NO_FORM, f"`Score:` is followed by {value[:_SHOWN]!r}, not by a number"
    )


def _end(completion: str) -> str:
    return completion.rstrip()[-_SHOWN:]
