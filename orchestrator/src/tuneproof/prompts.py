"""The prompts: the same words in training data, in serving, and in answers of other systems.

`chat` makes every prompt of a study, and `conversation` every example of tuning from the same
parts, so that equal inputs give equal messages, and by the same chat template equal token ids.

A passage is data. All its white space, line ends included, becomes single spaces, so that no
passage can begin a line: `[2]` or `Question:` at the beginning of a line are always the prompt's
own. Within its line a passage keeps its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput

PROMPT_ID = "rag@1"
"""Changes with the wording."""

_INSTRUCTION = "Answer the question from the passages."


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with its answer: an example of tuning, or one in a prompt."""

    question: str
    answer: str
    passages: tuple[str, ...] | None
    """Of the question's prompt; None: the question alone."""


def chat(
    question: str,
    passages: Sequence[str] | None,
    *,
    examples: Sequence[Pair] = (),
    passage_words: int | None = None,
) -> list[dict[str, str]]:
    """A prompt: the examples as earlier turns, then the question.

    Args:
        passages: None: the question alone.
        passage_words: as for `rag_messages`, in the examples too.

    Raises:
        InvalidInput: as `rag_messages`.
    """
    earlier = [turn for pair in examples for turn in conversation(pair, passage_words)]
    if passages is None:
        return [*earlier, *closed_book_messages(question)]
    return [*earlier, *rag_messages(question, passages, passage_words=passage_words)]


def conversation(pair: Pair, passage_words: int | None = None) -> list[dict[str, str]]:
    """A prompt and its answer, as tuning learns them.

    Raises:
        InvalidInput: as `rag_messages`.
    """
    prompt = chat(pair.question, pair.passages, passage_words=passage_words)
    return [*prompt, {"role": "assistant", "content": pair.answer}]


def rag_messages(
    question: str, passages: Sequence[str], *, passage_words: int | None = None
) -> list[dict[str, str]]:
    """The question with its passages, as a chat of one user message.

    Args:
        passages: in the order of retrieval; numbered from 1.
        passage_words: words to which each passage is cut; None: none is cut.

    Raises:
        InvalidInput: for a blank question, or `passage_words` below 1.
    """
    if passage_words is not None and passage_words < 1:
        raise InvalidInput(
            f"passage_words is {passage_words}; give 1 or more, or leave it out to cut nothing",
            field="passage_words",
        )
    numbered = [
        f"[{number}] {' '.join(passage.split()[:passage_words])}"
        for number, passage in enumerate(passages, 1)
    ]
    return _user("\n\n".join([_INSTRUCTION, *numbered, _question(question)]))


def closed_book_messages(question: str) -> list[dict[str, str]]:
    """The question alone, as a chat of one user message.

    Raises:
        InvalidInput: for a blank question.
    """
    return _user(_question(question))


def _question(question: str) -> str:
    words = question.split()
    if not words:
        raise InvalidInput("the question is blank", field="question")
    return f"Question: {' '.join(words)}"


def _user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


PROMPT_DIGEST = sha256_of_json(
    [rag_messages("question", ["first", "second"]), closed_book_messages("question")]
)
"""Digest of the wording, for provenance and for keys of stored answers."""
