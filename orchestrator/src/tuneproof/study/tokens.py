"""How many tokens a study's prompts and examples have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuneproof.data.lengths import Tokenizer
from tuneproof.study.design.plan import Plan, PlannedCell

_FRAME = 40
"""Tokens of instruction, numbers and chat template."""


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Tokens of prompts, with the embedder's tokens as the model's."""

    typical: int
    """With questions, references and passages of median length."""
    longest: int
    """With the longest of each."""


@dataclass(frozen=True, slots=True)
class CellTokens:
    """Tokens of one cell's texts."""

    serving: PromptTokens
    """Of a prompt that it is asked with."""
    example: PromptTokens
    """Of a pair that it is tuned on, prompt and answer; 0 where it is not tuned."""
    answer: PromptTokens
    """Of that answer alone."""


def tokens_by_cell(plan: Plan, tokenizer: Tokenizer) -> dict[str, CellTokens]:
    """The tokens of every cell that a model of the study answers."""
    measured = _Measured(plan, tokenizer)
    return {cell.name: measured.of(cell) for cell in plan.cells if cell.arm.imported is None}


class _Measured:
    """Lengths of a plan's texts in tokens."""

    def __init__(self, plan: Plan, tokenizer: Tokenizer) -> None:
        items = [*plan.tuning, *plan.test]
        self._plan = plan
        self._questions = _lengths(tokenizer, {item.id: item.question for item in items})
        texts = {document.id: document.text for document in plan.dataset.documents}
        most = plan.spec.corpus.max_tokens
        words = plan.spec.prompt.passage_words
        documents = _lengths(tokenizer, texts)
        cut = most if words is None else min(most, 2 * words)
        self._passage = PromptTokens(min(documents.typical, cut), min(documents.longest, cut))
        self._answers = {
            style: _lengths(tokenizer, {i.id: i.references[style][0] for i in plan.tuning})
            for style in {
                part.references
                for cell in plan.cells
                for part in (cell.tune, cell.arm.examples)
                if part is not None
            }
        }

    def of(self, cell: PlannedCell) -> CellTokens:
        """Of a cell."""
        answer = example = PromptTokens(0, 0)
        if cell.tune is not None:
            answer = self._answers[cell.tune.references]
            example = _sum(self._prompt(cell.tune.context), answer)
        return CellTokens(self._serving(cell), example, answer)

    def _serving(self, cell: PlannedCell) -> PromptTokens:
        examples = cell.arm.examples
        asked = self._prompt(cell.arm.context)
        if examples is None:
            return asked
        one = _sum(self._prompt(examples.context), self._answers[examples.references])
        return _sum(asked, *[one] * examples.k)

    def _prompt(self, context: str) -> PromptTokens:
        passages = [self._passage] * self._plan.spec.retrieval.k if context == "retrieved" else []
        return _sum(PromptTokens(_FRAME, _FRAME), self._questions, *passages)


def _lengths(tokenizer: Tokenizer, texts: Mapping[str, str]) -> PromptTokens:
    found = tokenizer.lengths(texts)
    return PromptTokens(found.median, found.longest)


def _sum(*parts: PromptTokens) -> PromptTokens:
    return PromptTokens(sum(p.typical for p in parts), sum(p.longest for p in parts))
