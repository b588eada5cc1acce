"""tuneproof's judge as a scorer of inspect_ai."""

from __future__ import annotations

import asyncio
import json
import sys

from asking import Unscored, grade
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState


@scorer(metrics=[mean(), stderr()])
def tuneproof(rubric: str = "accuracy@1", repeats: int = 10) -> Scorer:
    """Scores on the rubric's scale; a sample's target has the references."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        passages = state.metadata.get("passages", [])
        given = (state.input_text, answer, list(target), passages)
        try:
            verdict = await asyncio.to_thread(grade, *given, rubric=rubric, repeats=repeats)
        except Unscored as error:
            return Score.unscored(reason="scoring_failed", answer=answer, explanation=str(error))
        more = {"rubric": rubric, "judge": verdict.judge_model}
        return Score(verdict.mean, answer=answer, explanation=verdict.reason, metadata=more)

    return score


if __name__ == "__main__":
    questions, answers, references = json.load(sys.stdin)
    samples = [Sample(asked, target=right) for asked, right in zip(questions, references)]
    model = get_model(
        "mockllm/model",
        custom_outputs=[ModelOutput.from_content("mockllm/model", said) for said in answers],
    )
    (log,) = evaluate(Task(samples, scorer=tuneproof()), model, display="none", max_connections=1)
    assert log.samples is not None, log.error
    scores = [sample.scores["tuneproof"].as_float() for sample in log.samples]
    print(json.dumps([None if score != score else score for score in scores]))
