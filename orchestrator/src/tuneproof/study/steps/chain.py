"""The chain of a study's work: each step's inputs from the outputs of the steps before.

A step's key needs the outputs of the steps before it: a search needs the corpus's digest, an answer
its passages and its adapter. All of these are in the state, so no service is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneproof.prompts import Pair, chat
from tuneproof.servicekit.digests import sha256_of_bytes, sha256_of_json
from tuneproof.study.design.identity import Identities
from tuneproof.study.design.plan import Plan, PlannedCell
from tuneproof.study.design.spec import JudgeSpec
from tuneproof.study.state.codec import StoredPassage
from tuneproof.study.state.store import State, Task, task
from tuneproof.study.steps.checks import Question, judge_forms, oracle_questions
from tuneproof.study.steps.given import given_task
from tuneproof.study.steps.pairs import example_pairs, training_data, tuning_pairs
from tuneproof.study.steps.probing import probes_of
from tuneproof.study.steps.searches import Searches


@dataclass(frozen=True, slots=True)
class AnswerWork:
    """One cell's answer to one question: a test item, or a question of the reader's check."""

    cell: PlannedCell
    asked: Question
    task: Task
    check: bool = False
    """It belongs to the reader's check."""


@dataclass(frozen=True)
class Searched:
    """What the searches found, as far as they are done."""

    passages: Mapping[str, tuple[StoredPassage, ...]]
    """By item id, as deep as retrieval is measured."""
    near: Mapping[tuple[str, str], tuple[str, ...]]
    """Ids of the pairs nearest to a test item, by cell and item."""
    questions: tuple[Question, ...]
    """The test items that have their passages."""


class Chain:
    """A study's work, as far as it can be known now.

    Args:
        state: where outputs are looked up.
    """

    def __init__(self, plan: Plan, identities: Identities, state: State) -> None:
        self.plan = plan
        self.identities = identities
        self.state = state
        self.searches = Searches(plan, state)
        self.oracle = oracle_questions(plan)
        """Of the reader's check; empty without one."""
        self.forms = judge_forms(plan)
        """Of the judge's check; empty without one."""
        self.probes = probes_of(plan)
        """Of the judge's taste for length; empty without a probe."""

    def part(self, model: str) -> Chain:
        """The work of one model alone."""
        return Chain(self.plan.part(model), self.identities, self.state)

    def training_data(self, cell: PlannedCell) -> bytes | None:
        """The cell's conversations as JSON Lines; None while searches are missing."""
        return self._training_data(cell, self.searches.passages())

    def training_tasks(self) -> dict[str, Task]:
        """Trainings by cell name; without the cells whose data are incomplete."""
        found = self.searches.passages()
        return {
            cell.name: self._training_task(cell, data)
            for cell in self.plan.tuned
            if (data := self._training_data(cell, found)) is not None
        }

    def _training_data(
        self, cell: PlannedCell, found: dict[str, tuple[StoredPassage, ...]]
    ) -> bytes | None:
        spec = self.plan.spec
        pairs = tuning_pairs(cell, found, spec.retrieval.k)
        return None if pairs is None else training_data(pairs, spec.prompt.passage_words)

    def adapters(self) -> dict[str, str]:
        """References `name@sha256:<hex>` by cell name, of the cells that are trained."""
        outputs = self.state.outputs(self.training_tasks())
        return {cell: str(output["adapter_ref"]) for cell, output in outputs.items()}

    def searched(self) -> Searched:
        """What the searches found so far."""
        spec, found = self.plan.spec, self.searches.passages()
        questions = tuple(
            Question(
                item.id,
                item.question,
                item.references[spec.references],
                tuple(passage.text for passage in found[item.id][: spec.retrieval.k]),
            )
            for item in self.plan.asked
            if item.id in found
        )
        return Searched(found, self.searches.neighbours(), questions)

    def answers_by_cell(self) -> Iterator[tuple[PlannedCell, list[AnswerWork]]]:
        """Each cell with its answers that can be asked for now, the baseline first."""
        searched, adapters = self.searched(), self.adapters()
        for cell in self.plan.cells:
            waits = cell.tune is not None and cell.name not in adapters
            adapter = adapters.get(cell.name, "")
            yield cell, [] if waits else self.answers_of(cell, adapter, searched)

    def answers(self) -> list[AnswerWork]:
        """All answers to the test items that can be asked for now."""
        return [work for _, works in self.answers_by_cell() for work in works]

    def answers_of(self, cell: PlannedCell, adapter: str, searched: Searched) -> list[AnswerWork]:
        """One cell's answers to the test items that can be asked for now.

        Args:
            adapter: the cell's; empty where the base model answers.
        """
        k = self.plan.spec.retrieval.k
        return [
            self._answer(cell, adapter, question, pairs)
            for question in searched.questions
            if (
                pairs := example_pairs(
                    cell, searched.near.get((cell.name, question.id)), searched.passages, k
                )
            )
            is not None
        ]

    def reader_answers(self) -> list[AnswerWork]:
        """The answers of the reader's check, of each base."""
        found = [
            self._answer(cell, "", each)
            for cell in self.plan.baselines.values()
            if not cell.is_api
            for each in self.oracle
        ]
        return [replace(work, check=True) for work in found]

    def grades(self) -> dict[int, Task]:
        """Grades by position in `answers`; without those that are not answered yet."""
        answers = self.answers()
        outputs = self.state.outputs({place: work.task for place, work in enumerate(answers)})
        return {
            place: self.grade_of(answers[place], output["text"])
            for place, output in outputs.items()
        }

    def reader_grades(self) -> dict[int, Task]:
        """Lexical scores of the reader's check, by position."""
        answers = self.reader_answers()
        outputs = self.state.outputs({place: work.task for place, work in enumerate(answers)})
        return {
            place: self.grade_of(answers[place], output["text"])
            for place, output in outputs.items()
        }

    def grade_of(self, work: AnswerWork, text: str) -> Task:
        """The grade of an answer."""
        if work.check:
            return lexical_task(text, work.asked.references)
        return self._grade_task(work.asked, text)

    def form_grades(self) -> list[Task]:
        """Grades of the judge's checks: in the order of the forms, then of the probes, each once
        short and once long."""
        forms = [
            self._grade_task(Question(each.id, each.question, (each.reference,), ()), each.answer)
            for each in self.forms
        ]
        probes = [
            self._grade_task(each.asked, text)
            for each in self.probes
            for text in (each.short, each.long)
        ]
        return forms + probes

    def _training_task(self, cell: PlannedCell, data: bytes) -> Task:
        inputs = {
            "base": self.identities.of(cell.model).content,
            "data": sha256_of_bytes(data),
            "hyperparameters": cell.hyperparameters.content(),
            "seed": cell.seed,
        }
        return task("training", inputs)

    def _answer(
        self, cell: PlannedCell, adapter: str, asked: Question, examples: Sequence[Pair] = ()
    ) -> AnswerWork:
        if cell.arm.imported is not None:
            return AnswerWork(cell, asked, given_task(cell, self.plan, asked.id))
        words = self.plan.spec.prompt.passage_words
        passages = asked.passages if cell.arm.context == "retrieved" else None
        inputs = {
            "base": self.identities.of(cell.model).content,
            "adapter": adapter,
            "messages": chat(asked.question, passages, examples=examples, passage_words=words),
            "sampling": {"max_tokens": self._max_tokens(cell), "temperature": 0.0},
        }
        return AnswerWork(cell, asked, task("answer", inputs))

    def _max_tokens(self, cell: PlannedCell) -> int:
        spec = self.plan.spec
        own = spec.api(cell.model).max_tokens if cell.is_api else None
        return own or spec.generation.max_tokens

    def _grade_task(self, asked: Question, answer: str) -> Task:
        judge = self.plan.spec.judge
        if judge is None:
            return lexical_task(answer, asked.references)
        inputs = self.judge_inputs(judge, asked, judge.repeats) | {"answer": answer}
        # The key of a grade is older than these: it names what is not the default alone.
        for name in ("mode", "joint", "settled_after"):
            value = getattr(judge, name)
            if value != JudgeSpec.model_fields[name].default:
                inputs[name] = value
        return task("grade", inputs)

    def judge_inputs(self, judge: JudgeSpec, asked: Question, repeats: int) -> dict[str, Any]:
        """What every piece of the judge's work depends on, whatever it is asked about."""
        return {
            "judge": self.identities.judge,
            "rubrics": [[rubric.id, rubric.digest] for rubric in self.identities.rubrics],
            "question": asked.question,
            "references": list(asked.references),
            "passages": list(asked.passages),
            "repeats": repeats,
            "seed": seed_of(judge.seed, asked.question),
            "temperature": judge.temperature,
        }


def lexical_task(answer: str, references: tuple[str, ...]) -> Task:
    """A grade that asks no model."""
    return task("grade", {"rubrics": [], "answer": answer, "references": list(references)})


def seed_of(study_seed: int, question: str) -> int:
    """The judge's seed for a question, below 2**31: the same in every arm, and different for each
    question, so that questions do not share the luck of a repeat."""
    return int(sha256_of_json([study_seed, question])[-8:], 16) >> 1
