"""tuneproof's judge as a scorer of inspect_ai."""

from __future__ import annotations

import asyncio
import json
import sys

from asking import Unscored, grade
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver


@scorer(metrics=[mean(), stderr()])
def tuneproof(rubric: str = "accuracy@1", repeats: int = 10) -> Scorer:
    """Scores on the rubric's scale; a sample's target has the references."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        passages = state.metadata.get("passages", [])
        given = (state.input_text, answer, list(target), passages)
        try:
            graded = await asyncio.to_thread(grade, *given, rubric=rubric, repeats=repeats)
        except Unscored as error:
            return Score.unscored(reason="scoring_failed", answer=answer, explanation=str(error))
        more = {"rubric": rubric, "judge": graded.judge_model}
        return Score(value=graded.mean, answer=answer, explanation=graded.reason, metadata=more)

    return score


@solver
def given() -> Solver:
    """Answers that are there already: each in its sample's metadata."""

    async def solve(state: TaskState, _: Generate) -> TaskState:
        state.output = ModelOutput.from_content("given", state.metadata["answer"])
        return state

    return solve


if __name__ == "__main__":
    samples = [
        Sample(question, target=reference, metadata={"answer": answer})
        for question, answer, reference in zip(*json.load(sys.stdin), strict=True)
    ]
    (log,) = evaluate(
        Task(samples, solver=given(), scorer=tuneproof()), "mockllm/model", display="none"
    )
    found = [sample.scores["tuneproof"].value for sample in log.samples or []]
    print(json.dumps([None if score != score else score for score in found]))
