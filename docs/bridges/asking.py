"""Asks tuneproof's judge by HTTP, for the bridges beside this file. Needs nothing but Python.

TUNEPROOF_JUDGE_HTTP  the judge's URL; by default that of `tuneproof up`
TUNEPROOF_TOKEN       a bearer token, where the judge wants one
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


class Unscored(Exception):
    """The judge gave no score, which is not a score of 0."""


@dataclass(frozen=True)
class Grade:
    """One answer's grade by one rubric."""

    mean: float
    """On the rubric's scale."""
    share: float
    """The same from 0 (the worst) to 1."""
    reason: str
    """What the judge wrote at its first scored reading."""
    judge_model: str


def grade(
    question: str,
    answer: str,
    references: Sequence[str] = (),
    passages: Sequence[str] = (),
    *,
    rubric: str = "accuracy@1",
    repeats: int = 10,
) -> Grade:
    """Has one answer graded.

    Raises:
        Unscored: fewer than half of the repeats could be scored.
        urllib.error.HTTPError: the judge refused; its body tells why.
    """
    asked = {
        "question": question,
        "answer": answer,
        "references": list(references),
        "passages": list(passages),
        "rubrics": [rubric],
        "repeats": repeats,
    }
    (found,) = _call("/v1/grade", asked)["grade"]["criteria"]
    if "mean" not in found:
        raise Unscored(f"{rubric}: {found['lost_repeats']} of {repeats} repeats failed")
    scale = _call(f"/v1/rubrics/{quote(rubric)}")["rubric"]
    share = (found["mean"] - scale["low"]) / (scale["high"] - scale["low"])
    reason = next(each["completion"] for each in found["repeats"] if "score" in each)
    return Grade(found["mean"], share, reason, found["judge_model"])


def _call(path: str, body: Any = None) -> Any:
    url = os.environ.get("TUNEPROOF_JUDGE_HTTP", "http://127.0.0.1:47884")
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("TUNEPROOF_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, content, headers)
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.load(response)
