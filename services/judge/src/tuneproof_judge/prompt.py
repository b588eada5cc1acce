"""The prompt that a rubric makes of an answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tuneproof.rubrics import PLACEHOLDER, Rubric
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof_judge.material import cleaned, quoted

_FENCE_DIGITS = 16
_ALONE = re.compile(r"(?m:^)\{\{(\w+)\}\}(?m:$)")
"""A placeholder that has its line for itself."""
_PARTS = {
    "reference": """
Reference answer:
{{reference}}
""",
    "passages": """
----- passages {{fence}} begin -----
{{passages}}
----- passages {{fence}} end -----
""",
}


@dataclass(frozen=True)
class Subject:
    """What is judged, and what it is judged by."""

    question: str
    answer: str
    references: tuple[str, ...]
    """The judge reads the first, if there is one and the rubric asks for it."""
    passages: tuple[str, ...] = ()

    @property
    def numbered_passages(self) -> str:
        """As a prompt shows them."""
        return "\n\n".join(f"[{n}] {text}" for n, text in enumerate(self.passages, 1))

    @property
    def material(self) -> dict[str, str]:
        """What an answer is judged by, by placeholder."""
        return {
            "question": self.question,
            "reference": self.references[0] if self.references else "",
            "passages": self.numbered_passages,
        }


def render(rubric: Rubric, subject: Subject) -> str:
    """The user message.

    One pass over the template replaces all placeholders, so that a placeholder inside an answer
    stays text.
    """
    given = shown(rubric.template, {**subject.material, "answer": subject.answer})
    values = {**own_words(rubric), **given}
    if "fence" in rubric.placeholders:
        values["fence"] = fence_of(rubric.digest, given)
    return filled(rubric.template, values)


def shown(template: str, given: Mapping[str, str]) -> dict[str, str]:
    """Given texts as a template shows them: without what hides or commands, and in a template with
    a fence, marked line by line where they have their lines for themselves.

    Args:
        given: by placeholder.
    """
    clean = {name: cleaned(text) for name, text in given.items()}
    alone = set(_ALONE.findall(template)) if "{{fence}}" in template else set()
    return {name: quoted(text) if name in alone else text for name, text in clean.items()}


def read_parts(read: Collection[str]) -> str:
    """The parts of a template that show the reference and the passages, of those that are read."""
    return "".join(text for name, text in _PARTS.items() if name in read)


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its placeholders replaced."""
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)


def own_words(rubric: Rubric) -> Mapping[str, str]:
    """What the rubric itself puts into its template."""
    return {
        "criterion": rubric.criterion,
        "description": rubric.description.strip(),
        "scale": "\n".join(f"{score}: {anchor.strip()}" for score, anchor in rubric.scale.items()),
        "low": str(rubric.low),
        "high": str(rubric.high),
        "steps": "\n".join(f"{n}. {step.strip()}" for n, step in enumerate(rubric.steps, 1)),
        "form": rubric.form.strip(),
    }


def fence_of(rubric_digest: str, given: Mapping[str, str]) -> str:
    """A word that none of the given texts contains.

    It depends on all of them, so that an answer that closes its own frame must contain a digest of
    itself. It is the same for all repeats, so that these share the whole prompt.
    """
    digest = sha256_of_json([rubric_digest, given])
    while any(_word(digest) in text for text in given.values()):
        digest = sha256_of_json(digest)
    return _word(digest)


def _word(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_FENCE_DIGITS]
