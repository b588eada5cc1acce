"""The chain of a study's work: each step's inputs from the outputs of the steps before.

A link's key needs what the links before it gave (a search needs the corpus's digest, an answer
its passages and its adapter), and all of that is in the state, so that the whole chain is
followed without asking a service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneproof.data.items import Item
from tuneproof.prompts import closed_book_messages, rag_messages
from tuneproof.servicekit.digests import sha256_of_bytes, sha256_of_json
from tuneproof.study.design.identity import Identities
from tuneproof.study.design.plan import Plan, PlannedCell
from tuneproof.study.state.codec import StoredPassage, passages_from_json
from tuneproof.study.state.store import State, Task, task
from tuneproof.study.steps.checks import Form, Question, judge_forms, oracle_questions


@dataclass(frozen=True, slots=True)
class AnswerWork:
    """One cell's answer to one question: a test item, or a question of the reader's check."""

    cell: PlannedCell
    asked: Question
    task: Task


class Chain:
    """A study's work, as far as it can be known now.

    Args:
        state: where outputs are looked up.
    """

    def __init__(self, plan: Plan, identities: Identities, state: State) -> None:
        self.plan = plan
        self.identities = identities
        self.state = state
        spec = plan.spec
        self._oracle = (
            oracle_questions(plan, spec.checks.reader) if spec.checks.reader is not None else ()
        )
        self._forms = judge_forms(plan, spec.checks.judge) if spec.checks.judge is not None else ()

    @property
    def forms(self) -> Sequence[Form]:
        """Of the judge's check; empty without one."""
        return self._forms

    @property
    def oracle(self) -> Sequence[Question]:
        """Of the reader's check; empty without one."""
        return self._oracle

    def corpus_task(self) -> Task:
        """Making the corpus."""
        chunking = self.plan.spec.corpus.model_dump()
        return task("corpus", {"documents": self.plan.documents_digest, "chunking": chunking})

    def corpus_digest(self) -> str | None:
        """Of the frozen corpus, once it is made."""
        corpus = self.state.get(self.corpus_task().key)
        return None if corpus is None else str(corpus["digest"])

    def searched_items(self) -> list[Item]:
        """Items whose passages the study needs: all test items, and those that are tuned on."""
        found = {item.id: item for item in self.plan.test}
        for cell in self.plan.tuned:
            if cell.tune is not None and cell.tune.context == "retrieved":
                found |= {item.id: item for item in cell.items}
        return list(found.values())

    def retrieval_tasks(self) -> dict[str, Task]:
        """Searches by item id; empty while there is no corpus."""
        digest = self.corpus_digest()
        if digest is None:
            return {}
        retrieval = self.plan.spec.retrieval
        settings = {**retrieval.model_dump(), "k": retrieval.depth}
        if settings["mode"] != "hybrid":
            del settings["alpha"]
        return {
            item.id: task("retrieval", {"corpus": digest, "query": item.question, **settings})
            for item in self.searched_items()
        }

    def passages(self) -> dict[str, tuple[StoredPassage, ...]]:
        """What was found, by item id, as deep as it is measured, of which the prompt has the
        first k; without the items whose search is missing."""
        tasks = self.retrieval_tasks()
        outputs = self.state.get_many(each.key for each in tasks.values())
        return {
            item: passages_from_json(outputs[each.key])
            for item, each in tasks.items()
            if each.key in outputs
        }

    def training_data(self, cell: PlannedCell) -> bytes | None:
        """The cell's conversations as JSON Lines; None while searches are missing."""
        return _training_data(cell, self._passage_texts(), self.plan.spec.prompt.passage_words)

    def training_tasks(self) -> dict[str, Task]:
        """Trainings by cell name; without the cells whose data are not complete."""
        texts = self._passage_texts()
        found = {}
        for cell in self.plan.tuned:
            data = _training_data(cell, texts, self.plan.spec.prompt.passage_words)
            if data is not None:
                found[cell.name] = self._training_task(cell, data)
        return found

    def adapters(self) -> dict[str, str]:
        """References `name@sha256:<hex>` by cell name, of the cells that are trained."""
        tasks = self.training_tasks()
        outputs = self.state.get_many(each.key for each in tasks.values())
        return {
            cell: str(outputs[each.key]["adapter_ref"])
            for cell, each in tasks.items()
            if each.key in outputs
        }

    def answers(self) -> list[AnswerWork]:
        """Answers to the test items that can be asked for now, the baseline's first."""
        texts, adapters = self._passage_texts(), self.adapters()
        style = self.plan.spec.references
        asked = [
            Question(item.id, item.question, item.references[style], texts[item.id])
            for item in self.plan.test
            if item.id in texts
        ]
        return [
            self._answer(cell, adapters.get(cell.name, ""), question)
            for cell in self.plan.cells
            if cell.tune is None or cell.name in adapters
            for question in asked
        ]

    def reader_answers(self) -> list[AnswerWork]:
        """The base model's answers of the reader's check."""
        return [self._answer(self.plan.baseline, "", each) for each in self._oracle]

    def grades(self) -> dict[int, Task]:
        """Judgements by position in `answers`; without those that are not answered yet."""
        listed = self.answers()
        outputs = self.state.get_many(work.task.key for work in listed)
        return {
            position: self._grade_task(work.asked, outputs[work.task.key]["text"])
            for position, work in enumerate(listed)
            if work.task.key in outputs
        }

    def reader_grades(self) -> dict[int, Task]:
        """Lexical scores of the reader's check, by position."""
        answers = self.reader_answers()
        outputs = self.state.get_many(work.task.key for work in answers)
        return {
            position: lexical_task(outputs[work.task.key]["text"], work.asked.references)
            for position, work in enumerate(answers)
            if work.task.key in outputs
        }

    def form_grades(self) -> list[Task]:
        """Judgements of the judge's check, in the order of the forms."""
        return [
            self._grade_task(Question(each.id, each.question, (each.reference,), ()), each.answer)
            for each in self._forms
        ]

    def _passage_texts(self) -> dict[str, tuple[str, ...]]:
        return {
            item: tuple(passage.text for passage in found[: self.plan.spec.retrieval.k])
            for item, found in self.passages().items()
        }

    def _training_task(self, cell: PlannedCell, data: bytes) -> Task:
        training = self.plan.spec.training
        hyperparameters = (
            training.hyperparameters.model_dump(mode="json") if training is not None else {}
        )
        return task(
            "training",
            {
                "base": self.identities.model,
                "adapter_name": cell.name,
                "data": sha256_of_bytes(data),
                "hyperparameters": hyperparameters,
                "seed": cell.seed,
            },
        )

    def _answer(self, cell: PlannedCell, adapter: str, asked: Question) -> AnswerWork:
        words = self.plan.spec.prompt.passage_words
        inputs = {
            "base": self.identities.model,
            "adapter": adapter,
            "messages": rag_messages(asked.question, asked.passages, passage_words=words),
            "sampling": {
                "max_tokens": self.plan.spec.generation.max_tokens,
                "temperature": 0.0,
            },
        }
        return AnswerWork(cell, asked, task("answer", inputs))

    def _grade_task(self, asked: Question, answer: str) -> Task:
        judge = self.plan.spec.judge
        if judge is None:
            return lexical_task(answer, asked.references)
        inputs: dict[str, Any] = {
            "judge": self.identities.judge,
            "rubrics": [[rubric.id, rubric.digest] for rubric in self.identities.rubrics],
            "question": asked.question,
            "answer": answer,
            "references": list(asked.references),
            "passages": list(asked.passages),
            "repeats": judge.repeats,
            "seed": seed_of(judge.seed, asked.question),
            "temperature": judge.temperature,
        }
        return task("grade", inputs)


def lexical_task(answer: str, references: tuple[str, ...]) -> Task:
    """A grade that asks no model."""
    return task("grade", {"rubrics": [], "answer": answer, "references": list(references)})


def seed_of(study_seed: int, question: str) -> int:
    """The judge's seed for a question: the same in every arm, another for each question, so that
    the luck of a repeat is not shared by all questions. Below 2**31."""
    return int(sha256_of_json([study_seed, question])[-8:], 16) >> 1


def _training_data(
    cell: PlannedCell, passages: Mapping[str, tuple[str, ...]], passage_words: int | None
) -> bytes | None:
    tune = cell.tune
    if tune is None:
        return None
    lines = []
    for item in cell.items:
        if tune.context == "none":
            messages = closed_book_messages(item.question)
        elif item.id in passages:
            found = passages[item.id]
            messages = rag_messages(item.question, found, passage_words=passage_words)
        else:
            return None
        answer = {"role": "assistant", "content": item.references[tune.references][0]}
        lines.append(json.dumps({"messages": [*messages, answer]}, ensure_ascii=False))
    return ("\n".join(lines) + "\n").encode()
