"""EVOUNA-NQ: five systems' answers with people's verdicts, and lexical match as their judge."""

import json
import os
import re
import string
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

Floats = npt.NDArray[np.float64]

SYSTEMS = ("fid", "gpt35", "chatgpt", "gpt4", "newbing")
PAIRS = tuple(combinations(SYSTEMS, 2))

PUNCTUATION = str.maketrans("", "", string.punctuation)


def found() -> Path:
    """The file; skips the test without it."""
    path = Path(os.environ.get("TUNEPROOF_DATA", "")) / "evouna" / "NQ.half.json"
    if not path.is_file():
        pytest.skip(
            "no EVOUNA data: put NQ.json of github.com/wangcunxiang/QA-Eval into a folder evouna"
            " as NQ.half.json and set TUNEPROOF_DATA to the folder above"
        )
    return path


def differences(path: Path) -> dict[tuple[str, str], tuple[Floats, Floats]]:
    """By pair of systems: people's differences and lexical match's, over proper answered items."""
    items = [each for each in json.loads(path.read_text()) if not each["improper"]]
    by_pair = {}
    for pair in PAIRS:
        kept = [
            each
            for each in items
            if all(each[f"answer_{name}"] and each[f"judge_{name}"] is not None for name in pair)
        ]
        human, lexical = (
            np.array([[rate(each, name) for name in pair] for each in kept], dtype=np.float64)
            for rate in (lambda each, name: each[f"judge_{name}"], _matches)
        )
        by_pair[pair] = (human[:, 0] - human[:, 1], lexical[:, 0] - lexical[:, 1])
    return by_pair


def _matches(item: dict[str, str], name: str) -> bool:
    """Whether the answer holds a golden one, word by word, after SQuAD's normalisation."""
    answer = f" {_normal(item[f'answer_{name}'])} "
    return any(f" {_normal(golden)} " in answer for golden in item["golden_answer"].split("/"))


def _normal(text: str) -> str:
    bare = text.lower().translate(PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
