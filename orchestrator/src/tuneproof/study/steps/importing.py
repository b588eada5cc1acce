"""Step: answers of other systems, into the state. It needs no service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuneproof.data.chat_tokens import ChatTokenizer
from tuneproof.data.reading.records import Mistake, refuse_all
from tuneproof.prompts import chat
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.plan import Plan
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.checks import Question
from tuneproof.study.steps.given import output_of

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an arm's answers."""

    arm: str
    answers: int
    """In the file, of test questions."""
    left_out: int
    """To other questions of the data set."""
    waiting: int
    """Whose question is not searched yet, so that its prompt is not known."""
    by_digest: int
    """Whose prompt is the study's, by its digest."""
    by_token_ids: int
    """Whose prompt is the study's, by its token ids."""


def import_answers(chain: Chain) -> tuple[Kept, ...]:
    """Stores the answers of the study's files whose questions are searched.

    Raises:
        InvalidInput: with each answer to another prompt by its line.
    """
    if not chain.plan.imported:
        return ()

    def tokenizer() -> ChatTokenizer:
        if not chain.plan.model:
            raise InvalidInput(
                "token ids of prompts are compared by the base model's tokenizer: name the model"
                " with --model, or `services: {model: …}` in the study file"
            )
        return ChatTokenizer(chain.plan.model)

    kept = check_prompts(chain.plan, chain.searched().questions, tokenizer)
    given = [work.task for work in chain.answers() if output_of(work.task) is not None]
    for task in chain.state.missing(given):
        chain.state.put(task, output_of(task))
    return kept


def prompt_digest(messages: Messages) -> str:
    """`sha256:<hex>` by which a prompt is known to other systems."""
    return sha256_of_json(list(messages))


def prompts_of(plan: Plan, questions: Sequence[Question]) -> list[tuple[Question, Messages]]:
    """Each test question with the baseline's prompt, which another system may answer too."""
    words = plan.spec.prompt.passage_words
    return [(each, chat(each.question, each.passages, passage_words=words)) for each in questions]


def check_prompts(
    plan: Plan, questions: Sequence[Question], tokenizer: Callable[[], ChatTokenizer]
) -> tuple[Kept, ...]:
    """Compares the prompts that files of answers give with the study's.

    Args:
        questions: those with their passages, as far as they are searched.
        tokenizer: opened where a file gives token ids.

    Raises:
        InvalidInput: with each answer to another prompt by its line.
    """
    opened: ChatTokenizer | None = None
    mistakes: list[Mistake] = []
    found = []
    prompts = {each.id: messages for each, messages in prompts_of(plan, questions)}
    for arm, answers in plan.imported.items():
        digests = ids = waiting = 0
        for item, given in answers.by_item.items():
            if item not in prompts:
                waiting += 1
                continue
            if given.prompt_digest:
                digests += 1
                if given.prompt_digest != prompt_digest(prompts[item]):
                    mistakes.append(Mistake(given.where, _ANOTHER.format("digest")))
            if given.prompt_token_ids is not None:
                ids += 1
                opened = opened or tokenizer()
                if given.prompt_token_ids != opened.ids(prompts[item]):
                    mistakes.append(Mistake(given.where, _ANOTHER.format("token ids")))
        counts = waiting, digests, ids
        found.append(Kept(arm, len(answers.by_item), answers.left_out, *counts))
    refuse_all(mistakes, "answers to other prompts than the study's")
    return tuple(found)


_ANOTHER = (
    "its prompt is not the study's, by its {}; ask with the prompts of `tuneproof study export"
    " --format prompts`, or leave the field out if another prompt is meant"
)
