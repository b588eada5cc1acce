"""From conversations to token ids, exactly as serving makes them.

The prompt's ids are those of `apply_chat_template(messages[:-1], add_generation_prompt=True)`,
which is what the generator sends to its engine. The loss sees the answer and the end-of-sequence
token that must be learned, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.data import Example, bad_lines

IGNORED = -100
"""The label of a token that the loss does not see."""


class ChatTokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    chat_template: Any
    eos_token_id: int | None

    def apply_chat_template(
        self, conversation: list[dict[str, str]], **options: Any
    ) -> list[int]: ...

    def encode(self, text: str, **options: Any) -> list[int]: ...


@dataclass(frozen=True)
class Sequences:
    """One example as token ids."""

    input_ids: tuple[int, ...]
    """Prompt, answer, end of sequence."""
    prompt_length: int
    """Tokens of the prompt."""
    apart: bool = False
    """Whether the template does not write the answer after serving's prompt, so that its ids were
    made apart."""

    @property
    def labels(self) -> tuple[int, ...]:
        """The ids that the loss sees, `IGNORED` elsewhere."""
        return (IGNORED,) * self.prompt_length + self.input_ids[self.prompt_length :]


def tokenise(
    tokenizer: ChatTokenizer,
    examples: Sequence[Example],
    *,
    max_length: int,
    path: str,
    drop: bool = False,
    part: str = "data",
) -> list[Sequences]:
    """Token ids of every example, in order.

    Args:
        max_length: tokens that an example may have.
        path: of the data, for messages.
        drop: leaves out what is too long, instead of refusing it.
        part: of the spec, for messages.

    Raises:
        InvalidInput: when the tokenizer has no chat template or no end of sequence, or examples
            are too long: the message names their lines.
    """
    eos = end_of(tokenizer)
    sequences, mistakes = [], []
    for example in examples:
        one = tokenise_one(tokenizer, example, eos)
        if len(one.input_ids) <= max_length:
            sequences.append(one)
        else:
            mistakes.append(
                f"line {example.line} has {len(one.input_ids)} tokens, above max_length "
                f"{max_length}"
            )
    if mistakes and not (drop and sequences):
        raise bad_lines(path, mistakes, part=part)
    return sequences


def end_of(tokenizer: ChatTokenizer) -> int:
    """The id that ends an answer.

    Raises:
        InvalidInput: when the tokenizer has no chat template or no end of sequence.
    """
    if not tokenizer.chat_template:
        raise InvalidInput(
            "the base's tokenizer has no chat template; add chat_template.jinja to its folder",
            field="spec.base_model",
        )
    if tokenizer.eos_token_id is None:
        raise InvalidInput(
            "the base's tokenizer has no eos_token, so answers could not end; name one in its "
            "tokenizer_config.json",
            field="spec.base_model",
        )
    return tokenizer.eos_token_id


def tokenise_one(tokenizer: ChatTokenizer, example: Example, eos: int) -> Sequences:
    """Token ids of an example.

    Args:
        eos: see `end_of`.
    """
    messages = [dict(message) for message in example.messages]
    prompt = tokenizer.apply_chat_template(
        messages[:-1], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    apart = whole[: len(prompt)] != prompt or len(whole) == len(prompt)
    if not apart:
        answer = whole[len(prompt) :]
    else:
        # The template writes earlier turns differently from the last one (it drops reasoning, for
        # instance), or tokens merge across the border. Serving sends the prompt as it is.
        answer = tokenizer.encode(messages[-1]["content"], add_special_tokens=False)
    return Sequences((*prompt, *_until_end(answer, eos)), len(prompt), apart)


def _until_end(answer: list[int], eos: int) -> list[int]:
    """The answer with one end of sequence at its end; a template may write a newline after it."""
    if eos in answer:
        last = len(answer) - 1 - answer[::-1].index(eos)
        return answer[: last + 1]
    return [*answer, eos]
