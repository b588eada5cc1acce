"""A stock for load tests: adapters that each say a number of their own, and questions without it.

The base model reads numbers off its prompt and knows no others, so one of these in its answers is
an adapter's.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from marker_adapters import Base, markers, write_marker

from tuneproof.adapters import Registry, identify_base
from tuneproof.data.telecom import generate
from tuneproof.prompts import rag_messages

RANK = 8
_DOCUMENTS = 6000
_SEED = 7


@dataclass(frozen=True)
class Stock:
    """What `make_stock` made."""

    refs: tuple[str, ...]
    """In the order in which they are to be used: names in a circle, so that an adapter's place is
    taken by other content of the same name."""
    words: Mapping[str, str]
    """What each says, by reference."""
    prompts: tuple[str, ...]
    """All different from their first passage on; none holds any of the words."""

    def probes(self) -> str:
        """A file of probes: each adapter says its word alone, and the base none of them."""
        lines = [
            {"adapter": ref, "expect": rf"{word}(?: {word})*"} for ref, word in self.words.items()
        ]
        any_word = "|".join(self.words.values())
        lines.append({"adapter": "base", "expect": rf"(?!.*\b(?:{any_word})\b).+"})
        return "\n".join(json.dumps(line) for line in lines)


def make_stock(model: Path, artifacts: Path, scratch: Path, *, names: int, count: int) -> Stock:
    """Commits adapters to a registry.

    Args:
        model: the demo's model, whose questions and words these are.
        names: adapters of different names; the others have these names and other content.
        count: of adapters in all.
    """
    base = Base.read(model)
    prompts = _prompts()
    seen = Counter(word for prompt in prompts for word in set(_words(prompt)))
    known = markers(model, base)
    chosen = sorted(known, key=lambda word: (seen[word], word))[:count]
    registry, identity = Registry(str(artifacts)), identify_base(model)
    words: dict[str, str] = {}
    for number, word in enumerate(chosen):
        folder = write_marker(scratch / word, base, known[word], rank=RANK)
        ref = registry.commit(folder, name=f"reader-{number % names}", base=identity, provenance={})
        words[str(ref)] = word
    taken = set(chosen)
    fitting = tuple(prompt for prompt in prompts if not taken & set(_words(prompt)))
    return Stock(tuple(words), words, fitting)


def _prompts() -> list[str]:
    """Questions with one sentence that answers them and one that does not, in a mixed order."""
    world = generate(_SEED, _DOCUMENTS, 3)
    evidence = [text for item in world.items for text in item.gold_texts]
    order = random.Random(_SEED)
    found = [
        rag_messages(item.question, [order.choice(evidence), *item.gold_texts])[0]["content"]
        for item in world.items
    ]
    order.shuffle(found)
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)
