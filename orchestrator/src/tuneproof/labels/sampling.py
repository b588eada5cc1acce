"""Which pairs people label: a probability sample, with the chance of each pair kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tuneproof.analysis import measures_of
from tuneproof.analysis.scores import answers_by_cell
from tuneproof.results import StudyResults, pair_digest
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput

_ID_BYTES = 6


@dataclass(frozen=True, slots=True)
class Task:
    """One pair of answers that a rater sees once."""

    id: str
    """Says nothing of the pair."""
    cell: str
    against: str
    item: str
    swapped: bool
    """The answer of `against` stands first."""
    inclusion: float
    """The chance of this pair to be drawn, above 0 to 1."""
    again: bool
    """The pair comes a second time."""
    texts: str
    """Digest of both answers."""


@dataclass(frozen=True)
class Sample:
    """What raters are asked about a study."""

    study: str
    seed: int
    pairs: int
    """Of each comparison, as asked for."""
    repeats: int
    """Pairs of each comparison that come twice."""
    criteria: tuple[str, ...]
    """By which each pair is rated."""
    tasks: tuple[Task, ...]
    """In the order in which they are shown."""

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` over all of it."""
        return sha256_of_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The form that the state keeps."""
        return {**asdict(self), "criteria": list(self.criteria)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Sample:
        """The way back."""
        tasks = tuple(Task(**each) for each in value["tasks"])
        return Sample(**{**value, "criteria": tuple(value["criteria"]), "tasks": tasks})


def draw(results: StudyResults, *, pairs: int, repeats: int, seed: int) -> Sample:
    """Draws pairs for each comparison that a judge decides.

    Of the N items on which the two cells answered with different texts, `pairs` are drawn without
    replacement, each with the chance pairs/N, without looking at scores. Identical answers differ
    by 0 and need no label. `repeats` of the pairs come again in the second half, with the answers
    in the other order. The tasks of all comparisons are shuffled together.

    Raises:
        InvalidInput: nothing was judged, or no pair has two different answers.
    """
    judged = measures_of(results).judged
    criteria = tuple(name for name in judged if name in {one.measure for one in results.primary})
    compared = dict.fromkeys(
        (one.cell, one.against) for one in results.primary if one.measure in criteria
    )
    random = np.random.default_rng(seed)
    first: list[Task] = []
    again: list[Task] = []
    for cell, against in compared:
        texts = _differing(results, cell, against)
        count = min(pairs, len(texts))
        chosen = random.permutation(len(texts))[:count]
        for place, index in enumerate(chosen):
            item, digest = texts[index]
            swapped = bool(random.integers(2))
            chance = count / len(texts)
            first.append(Task(_id(random), cell, against, item, swapped, chance, False, digest))
            if place < repeats:
                again.append(
                    Task(_id(random), cell, against, item, not swapped, chance, True, digest)
                )
    if not first:
        raise InvalidInput(
            f"nothing in {results.name} can be labelled: no primary comparison by a judge has two"
            " different answers to one question; run the study first"
        )
    shown = [first[index] for index in random.permutation(len(first))]
    late = [*shown[len(shown) // 2 :], *again]
    # A pair of the second half may come again before it: which is shown first does not matter.
    order = [late[index] for index in random.permutation(len(late))]
    tasks = (*shown[: len(shown) // 2], *order)
    return Sample(results.name, seed, pairs, repeats, criteria, tasks)


def _differing(results: StudyResults, cell: str, against: str) -> list[tuple[str, str]]:
    """Items on which two cells answered differently, and the digest of both answers."""
    answers = answers_by_cell(results)
    found = []
    for item in results.items:
        mine, theirs = answers[cell].get(item.id), answers[against].get(item.id)
        if mine and theirs and mine.served_by and theirs.served_by and mine.text != theirs.text:
            found.append((item.id, pair_digest(mine.text, theirs.text)))
    return found


def _id(random: np.random.Generator) -> str:
    return random.bytes(_ID_BYTES).hex()
