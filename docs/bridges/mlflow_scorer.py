"""tuneproof's judge as a scorer of MLflow."""

from __future__ import annotations

import json
import sys
from typing import Any

from asking import Unscored, grade
from mlflow.entities import AssessmentSource, Feedback
from mlflow.genai.scorers import scorer


@scorer(name="tuneproof_accuracy")
def accuracy(inputs: dict[str, Any], outputs: str, expectations: dict[str, Any]) -> Feedback:
    """Scores on the rubric's scale; an unscored answer is an error, not a score."""
    try:
        graded = grade(
            inputs["question"],
            outputs,
            [expectations["expected_response"]],
            inputs.get("passages", []),
            rubric="accuracy@1",
        )
    except Unscored as error:
        return Feedback(error=error)
    return Feedback(
        value=graded.mean,
        rationale=graded.reason,
        source=AssessmentSource("LLM_JUDGE", graded.judge_model),
    )


if __name__ == "__main__":
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/mlflow.db")
    asked = zip(*json.load(sys.stdin), strict=True)
    data = [
        {
            "inputs": {"question": question},
            "outputs": answer,
            "expectations": {"expected_response": reference},
        }
        for question, answer, reference in asked
    ]
    result = mlflow.genai.evaluate(data=data, scorers=[accuracy])
    table = result.result_df
    by_question = dict(
        zip(
            (request["question"] for request in table["request"]),
            table["tuneproof_accuracy/value"],
            strict=True,
        )
    )
    scores = [by_question[row["inputs"]["question"]] for row in data]
    print(json.dumps([None if score is None or score != score else score for score in scores]))
