"""What stands out in training data without its tokens: duplicates, answers that disagree, and what
is held out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.data import Example, bad_lines, read_object

MOST_LINES = 100
"""Lines that a finding lists."""


@dataclass(frozen=True)
class Finding:
    """One thing that stands out."""

    code: str
    message: str
    refused: bool = False
    """Whether the run would fail."""
    lines: tuple[int, ...] = ()
    """Of the data, the first `MOST_LINES`."""


@dataclass(frozen=True)
class HeldOut:
    """Items that training must not see."""

    ids: frozenset[str]
    hashes: frozenset[str]
    """SHA-256 in hexadecimal digits of the texts, as `plain` writes them."""


def plain(text: str) -> str:
    """A text in lower case, with single spaces."""
    return " ".join(text.casefold().split())


def text_hash(text: str) -> str:
    """SHA-256 of a text as `plain` writes it, in hexadecimal digits."""
    return hashlib.sha256(plain(text).encode()).hexdigest()


def parse_held_out(content: bytes, path: str) -> HeldOut:
    """The items of a file: JSON Lines, objects with at least one of `id`, `text` and `sha256`.

    Raises:
        InvalidInput: with the number of each wrong line.
    """
    ids: set[str] = set()
    hashes: set[str] = set()
    mistakes: list[str] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            value = read_object(line)
        except ValueError as error:
            mistakes.append(f"line {number} {error}")
            continue
        found = {name: value[name] for name in ("id", "text", "sha256") if value.get(name)}
        if not found or not all(isinstance(each, str | int) for each in found.values()):
            mistakes.append(f'line {number} has none of "id", "text" and "sha256" (texts)')
            continue
        if "id" in found:
            ids.add(str(found["id"]))
        if "text" in found:
            hashes.add(text_hash(str(found["text"])))
        if "sha256" in found:
            hashes.add(str(found["sha256"]).removeprefix("sha256:").lower())
    if mistakes:
        raise bad_lines(path, mistakes, part="held_out")
    return HeldOut(frozenset(ids), frozenset(hashes))


def leaks(examples: Iterable[Example], held_out: HeldOut) -> Iterator[tuple[int, str]]:
    """Line and reason of each example that holds a held-out item: its id, or its text as a message
    or as a line of one. What stands before the first colon of a line is left out too, because
    prompts write `Question: …`."""
    for example in examples:
        if example.id and example.id in held_out.ids:
            yield example.line, f"has the id {example.id!r}"
        elif any(text_hash(text) in held_out.hashes for text in _texts(example)):
            yield example.line, "has the text"


def _texts(example: Example) -> Iterator[str]:
    for said in example.messages:
        content = said["content"]
        yield content
        lines = content.splitlines()
        for line in lines:
            yield line
            if ":" in line:
                yield line.partition(":")[2]


def refuse_leaks(examples: Iterable[Example], held_out: HeldOut, path: str) -> None:
    """Makes sure that no example holds a held-out item.

    Raises:
        InvalidInput: with the lines.
    """
    found = [
        f"line {line} {reason} of a held-out item" for line, reason in leaks(examples, held_out)
    ]
    if found:
        error = bad_lines(path, found)
        raise InvalidInput(
            f"{error.message}; take these examples out, or set allow_leakage", field="spec.held_out"
        )


def find_duplicates(examples: Sequence[Example]) -> Iterator[Finding]:
    """Examples that repeat one another, or give one prompt several answers."""
    whole: dict[str, list[int]] = defaultdict(list)
    prompts: dict[str, dict[str, int]] = defaultdict(dict)
    for example in examples:
        answer = example.messages[-1]["content"]
        prompt = sha256_of_json(example.prompt)
        whole[sha256_of_json([prompt, answer])].append(example.line)
        prompts[prompt].setdefault(plain(answer), example.line)
    repeated = sorted(line for lines in whole.values() for line in lines[1:])
    if repeated:
        yield Finding(
            "duplicate",
            f"{len(repeated)} examples repeat an earlier one, message by message",
            lines=tuple(repeated[:MOST_LINES]),
        )
    apart = sorted(line for each in prompts.values() if len(each) > 1 for line in each.values())
    if apart:
        several = sum(len(each) > 1 for each in prompts.values())
        yield Finding(
            "conflicting_answers",
            f"{several} prompts have several different answers",
            lines=tuple(apart[:MOST_LINES]),
        )


def find_leaks(
    examples: Sequence[Example], held_out: HeldOut, *, allowed: bool
) -> Iterator[Finding]:
    """Examples that hold what is held out."""
    found = [line for line, _ in leaks(examples, held_out)]
    if found:
        yield Finding(
            "leak",
            f"{len(found)} examples hold a held-out item"
            + ("; allow_leakage lets them through" if allowed else ""),
            refused=not allowed,
            lines=tuple(found[:MOST_LINES]),
        )


def find_shared(training: Sequence[Example], validation: Sequence[Example]) -> Iterator[Finding]:
    """Examples for validation whose prompt training sees."""
    seen = {sha256_of_json(example.prompt) for example in training}
    found = [each.line for each in validation if sha256_of_json(each.prompt) in seen]
    if found:
        yield Finding(
            "validation_leak",
            f"training sees the prompts of {len(found)} validation examples (lines of validation)",
            lines=tuple(found[:MOST_LINES]),
        )
