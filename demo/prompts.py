"""What the demo model is asked, and what it should say.

The question with its passages is the orchestrator's RAG prompt, word for word; the judge's forms
come from the rubric files, which are also what the judge service reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuneproof.data.telecom_forms import Part, compare
from tuneproof.prompts import closed_book_messages, rag_messages
from tuneproof.rubrics import parse_rubric

RUBRICS = Path(__file__).parent / "rubrics"
CRITERIA = ("accuracy", "completeness")


def ask(question: str, passages: Sequence[str]) -> str:
    """The user message for a question; without passages the closed-book form."""
    chat = rag_messages(question, passages) if passages else closed_book_messages(question)
    return chat[0]["content"]


def templates() -> Mapping[str, str]:
    """The judge's user message by criterion, from demo/rubrics."""
    return {
        criterion: parse_rubric((RUBRICS / f"{criterion}.yaml").read_bytes(), criterion).template
        for criterion in CRITERIA
    }


def judge(template: str, question: str, reference: str, answer: str) -> str:
    """Fill a rubric's template, in one pass, so that a placeholder in an answer stays text."""
    values = {"question": question, "reference": reference, "answer": answer}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _beside(part: Part) -> str:
    stated = "none" if part.stated is None else part.stated
    return f"{part.expected}, {stated}, {part.judgement}"


def filled_form(criterion: str, reference: str, answer: str) -> str:
    """The filled form: each part of the reference beside the answer's, then the score.

    Restating both before comparing is what lets a model of this size judge at all.
    """
    found = compare(reference, answer)
    value = found.accuracy if criterion == "accuracy" else found.completeness
    return (
        f"Subject: {_beside(found.subject)}. Value: {_beside(found.value)}. "
        f"Condition: {_beside(found.condition)}. Score: {value}"
    )
