"""EVOUNA-NQ: five systems' answers with people's verdicts, and lexical match as their judge.

The file is `NQ.json` of github.com/wangcunxiang/QA-Eval, Apache-2.0, in the folder `evouna` of
TUNEPROOF_DATA, as `NQ.half.json`.
"""

from __future__ import annotations

import json
import os
import re
import string
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tuneproof.analysis.intervals import Floats

Pair = tuple[str, str]

SYSTEMS = ("fid", "gpt35", "chatgpt", "gpt4", "newbing")

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def path() -> Path | None:
    """Of the file; None where it is not there."""
    found = Path(os.environ.get("TUNEPROOF_DATA", "")) / "evouna" / "NQ.half.json"
    return found if found.is_file() else None


def differences(file: Path) -> dict[Pair, tuple[Floats, Floats]]:
    """By pair of systems: people's differences and lexical match's, over proper answered items."""
    items = [each for each in json.loads(file.read_text()) if not each["improper"]]
    by_pair = {}
    for pair in combinations(SYSTEMS, 2):
        kept = [
            each
            for each in items
            if all(each[f"answer_{name}"] and each[f"judge_{name}"] is not None for name in pair)
        ]
        human = np.array([[each[f"judge_{name}"] for name in pair] for each in kept], dtype=float)
        lexical = np.array([[_matches(each, name) for name in pair] for each in kept], dtype=float)
        by_pair[pair] = (human[:, 0] - human[:, 1], lexical[:, 0] - lexical[:, 1])
    return by_pair


def _matches(item: dict[str, Any], name: str) -> bool:
    """Whether the answer holds a golden one, word by word, after SQuAD's normalisation."""
    answer = f" {_normal(item[f'answer_{name}'])} "
    return any(f" {_normal(golden)} " in answer for golden in item["golden_answer"].split("/"))


def _normal(text: str) -> str:
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
