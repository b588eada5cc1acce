"""Reading the form in a judge's completion.

One strict parser for all rubrics. A completion holds exactly one `Score:` with a whole number of
the scale: at its end where the reasons come first, at its beginning where they follow, and alone
where there are none. Emphasis, quotes, brackets, a full stop and a code fence around it are what
models write, and change nothing. Everything else is a failure. So a reason that mentions a score,
a form that the judged answer smuggled in, or `4/5` never becomes a score.

A completion that is one JSON object is read by its key `score`; its other values are reasons.
What a reasoning model thinks aloud first, between `<think>` and `</think>`, is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from tuneproof.rubrics import Reasoning
from tuneproof_judge.grade import Failure, FailureKind

_SOFT = r"[\s*_`]*"
_PLAIN = r"[^\s*_`<>\[\](){}\"'$\\]+"
# Only in pairs: `<4` and `(4 or 5)` say something else than 4.
_PAIRS = [
    ("", ""),
    ("<", ">"),
    (r"\[", r"\]"),
    (r"\[\[", r"\]\]"),
    (r"\(", r"\)"),
    ('"', '"'),
    ("'", "'"),
    (r"\$?\\boxed\{", r"\}\$?"),
]


def value_pattern(name: str) -> str:
    """What stands where a score belongs, in one of the groups `<name>0`, `<name>1` …"""
    ways = [
        f"{opens}(?P<{name}{number}>{_PLAIN}){closes}"
        for number, (opens, closes) in enumerate(_PAIRS)
    ]
    return f"{_SOFT}(?:{'|'.join(ways)})"


_NAME = r"(?:(?<!\w)Score|(?m:^)[*_#>\s-]*(?i:(?:final|overall|my)\s+)?(?i:score))"
_COLON = r"[*_`]{0,3}\s?:"

_SCORE = _NAME + _COLON + value_pattern("v")
_AT_END = re.compile(rf"{_SCORE}{_SOFT}\.?{_SOFT}\Z")
_AT_START = re.compile(rf"\A[\s*_`#>-]*{_SCORE}[*_` \t]*\.?[*_` \t]*(?:\n|\Z)")
_ALONE = re.compile(rf"\A[\s*_`#>-]*{_SCORE}{_SOFT}\.?{_SOFT}\Z")
_BARE = re.compile(rf"\A{_SOFT}(?P<v0>[0-9]+){_SOFT}\.?{_SOFT}\Z")
# Wider than what is accepted, so that a second form in another spelling still makes two.
_MARKER = re.compile(r"score[\s*_`]*[:\uff1a]", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[0-9]+(?:[.,/][0-9]+)*")
_JSON = re.compile(r"\A\s*(?:```\w*\s)?\s*(?P<object>\{.*\})\s*(?:```)?\s*\Z", re.DOTALL)
_THOUGHT = re.compile(r"\s*<think>(?:(?!</?think>).)*</think>(?!.*</?think>)", re.DOTALL)
_SHOWN = 60


@dataclass(frozen=True)
class Found:
    """A score in a completion."""

    score: int
    start: int
    """Where its digits begin in the completion."""


def read_score(
    completion: str, scale: Collection[int], reasoning: Reasoning = "before"
) -> int | Failure:
    """The score of a completion, or why there is none.

    Args:
        scale: all scores that the rubric allows.
        reasoning: where the rubric wants the reasons.
    """
    found = find_score(completion, scale, reasoning)
    return found if isinstance(found, Failure) else found.score


def find_score(
    completion: str, scale: Collection[int], reasoning: Reasoning = "before"
) -> Found | Failure:
    """As `read_score`, with the place of the score."""
    thought = _THOUGHT.match(completion)
    skipped = thought.end() if thought else 0
    text = completion[skipped:]
    if wrapped := _JSON.match(text):
        return _of_object(wrapped["object"], skipped + wrapped.start("object"), scale)
    found = _form(text, reasoning)
    if isinstance(found, Failure):
        return found
    value, start = found
    score = score_of(value, scale)
    return score if isinstance(score, Failure) else Found(score, skipped + start)


def score_of(value: str, scale: Collection[int]) -> int | Failure:
    """The score that stands where it belongs, or why it is none."""
    value = value[:-1] if value.endswith(".") else value
    # Compared as text: int() would also take "05", "1_0" and digits of other scripts.
    for score in scale:
        if value == str(score):
            return score
    return _not_a_score(value, scale)


def schema_of(scale: Collection[int], reasoning: Reasoning) -> dict[str, Any]:
    """The JSON schema of such an object, its keys in the order in which they are written."""
    score = {"score": {"type": "integer", "enum": sorted(scale)}}
    reasons = {} if reasoning == "none" else {"reasons": {"type": "string"}}
    properties = {**score, **reasons} if reasoning == "after" else {**reasons, **score}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _form(text: str, reasoning: Reasoning) -> tuple[str, int] | Failure:
    """What stands where the score belongs, and its place."""
    markers = len(_MARKER.findall(text))
    if reasoning == "none" and markers == 0:
        match = _BARE.match(text)
        if match is not None:
            return match["v0"], match.start("v0")
    if markers != 1:
        found = "no form" if markers == 0 else f"{markers} forms"
        return _no_form(text, f"{found} where one `Score:` is expected")
    pattern = {"before": _AT_END, "after": _AT_START, "none": _ALONE}[reasoning]
    match = pattern.search(text)
    if match is None:
        place = {
            "before": "by a number and the end",
            "after": "by a number and the end of its line, at the beginning",
            "none": "by a number alone",
        }[reasoning]
        return _no_form(text, f"`Score:` is not followed {place}")
    name = next(name for name, value in match.groupdict().items() if value is not None)
    return match[name], match.start(name)


def _of_object(content: str, start: int, scale: Collection[int]) -> Found | Failure:
    """The score of a JSON object: one key `score`, and nothing but texts beside it."""
    scores: list[Any] = []
    others: list[Any] = []

    def sort(pairs: list[tuple[str, Any]]) -> None:
        for name, value in pairs:
            (scores if name.casefold() == "score" else others).append(value)

    try:
        json.loads(content, object_pairs_hook=sort)
    except (ValueError, RecursionError) as error:
        return _no_form(content, f"the object is not JSON ({str(error)[:_SHOWN]})")
    if len(scores) != 1 or not all(isinstance(each, str) for each in others):
        return _no_form(content, "the object is not one `score` with texts beside it")
    value = json.dumps(scores[0]).strip('"')
    places = [match.end() for match in re.finditer(r'"(?i:score)"\s*:\s*"?', content)]
    for score in scale:
        if value == str(score):
            # In the escaped text of a reason the same words have other quotation marks.
            return Found(score, start + places[0])
    return _not_a_score(value, scale)


def _not_a_score(value: str, scale: Collection[int]) -> Failure:
    if _NUMBER.fullmatch(value):
        return Failure(
            FailureKind.OUT_OF_RANGE,
            f"{value[:_SHOWN]!r} is not a whole number from {min(scale)} to {max(scale)}",
        )
    return Failure(
        FailureKind.NO_FORM, f"`Score:` is followed by {value[:_SHOWN]!r}, not by a number"
    )


def _no_form(completion: str, why: str) -> Failure:
    return Failure(FailureKind.NO_FORM, f"{why}: …{completion.rstrip()[-_SHOWN:]!r}")
