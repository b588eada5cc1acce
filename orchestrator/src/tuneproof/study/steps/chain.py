"""The chain of a study's work: each step's inputs from the outputs of the steps before.

A step's key needs the outputs of the steps before it: a search needs the corpus's digest, an answer
its passages and its adapter. All of these are in the state, so no service is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneproof.data.items import Item
from tuneproof.prompts import closed_book_messages, rag_messages
from tuneproof.servicekit.digests import sha256_of_bytes, sha256_of_json
from tuneproof.study.design.identity import Identities
from tuneproof.study.design.plan import Plan, PlannedCell
from tuneproof.study.state.codec import StoredPassage, passages_from_json
from tuneproof.study.state.store import State, Task, task
from tuneproof.study.steps.checks import Question, judge_forms, oracle_questions


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
        self.oracle = oracle_questions(plan)
        """Of the reader's check; empty without one."""
        self.forms = judge_forms(plan)
        """Of the judge's check; empty without one."""

    def corpus_task(self) -> Task:
        """Making the corpus."""
        chunking = self.plan.spec.corpus.model_dump()
        if chunking["by"] == "tokens":  # the default, younger than corpora that are made already
            del chunking["by"]
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
        # Without a reranker the inputs, and so the results, are those of before there was one.
        settings = {**retrieval.model_dump(exclude_none=True), "k": retrieval.depth}
        if settings["mode"] != "hybrid":
            del settings["alpha"]
        return {
            item.id: task("retrieval", {"corpus": digest, "query": item.question, **settings})
            for item in self.searched_items()
        }

    def passages(self) -> dict[str, tuple[StoredPassage, ...]]:
        """The passages found, by item id, as deep as retrieval is measured (the prompt takes the
        first k); without the items whose search is missing."""
        outputs = self.state.outputs(self.retrieval_tasks())
        return {item: passages_from_json(output) for item, output in outputs.items()}

    def training_data(self, cell: PlannedCell) -> bytes | None:
        """The cell's conversations as JSON Lines; None while searches are missing."""
        return _training_data(cell, self._passage_texts(), self.plan.spec.prompt.passage_words)

    def training_tasks(self) -> dict[str, Task]:
        """Trainings by cell name; without the cells whose data are incomplete."""
        texts, words = self._passage_texts(), self.plan.spec.prompt.passage_words
        return {
            cell.name: self._training_task(cell, data)
            for cell in self.plan.tuned
            if (data := _training_data(cell, texts, words)) is not None
        }

    def adapters(self) -> dict[str, str]:
        """References `name@sha256:<hex>` by cell name, of the cells that are trained."""
        outputs = self.state.outputs(self.training_tasks())
        return {cell: str(output["adapter_ref"]) for cell, output in outputs.items()}

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
        return [self._answer(self.plan.baseline, "", each) for each in self.oracle]

    def grades(self) -> dict[int, Task]:
        """Grades by position in `answers`; without those that are not answered yet."""
        answers = self.answers()
        outputs = self.state.outputs({place: work.task for place, work in enumerate(answers)})
        return {
            place: self._grade_task(answers[place].asked, output["text"])
            for place, output in outputs.items()
        }

    def reader_grades(self) -> dict[int, Task]:
        """Lexical scores of the reader's check, by position."""
        answers = self.reader_answers()
        outputs = self.state.outputs({place: work.task for place, work in enumerate(answers)})
        return {
            place: lexical_task(output["text"], answers[place].asked.references)
            for place, output in outputs.items()
        }

    def form_grades(self) -> list[Task]:
        """Grades of the judge's check, in the order of the forms."""
        return [
            self._grade_task(Question(each.id, each.question, (each.reference,), ()), each.answer)
            for each in self.forms
        ]

    def _passage_texts(self) -> dict[str, tuple[str, ...]]:
        return {
            item: tuple(passage.text for passage in found[: self.plan.spec.retrieval.k])
            for item, found in self.passages().items()
        }

    def _training_task(self, cell: PlannedCell, data: bytes) -> Task:
        inputs = {
            "base": self.identities.model,
            "adapter_name": cell.name,
            "data": sha256_of_bytes(data),
            "hyperparameters": self.plan.spec.hyperparameters.model_dump(mode="json"),
            "seed": cell.seed,
        }
        return task("training", inputs)

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
    """The judge's seed for a question, below 2**31: the same in every arm, and different for each
    question, so that questions do not share the luck of a repeat."""
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
