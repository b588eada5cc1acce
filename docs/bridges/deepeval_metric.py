"""tuneproof's judge as a metric of deepeval."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from asking import grade
from deepeval.metrics import BaseMetric
from deepeval.test_case import LLMTestCase


class TuneproofMetric(BaseMetric):
    """A score from 0 to 1. An unscored answer is an error, as deepeval's own metrics have it."""

    def __init__(self, rubric: str = "accuracy@1", threshold: float = 0.5, repeats: int = 10):
        self.rubric, self.threshold, self.repeats = rubric, threshold, repeats

    def measure(self, test_case: LLMTestCase, *_: Any, **__: Any) -> float:
        graded = grade(
            test_case.input,
            test_case.actual_output or "",
            [test_case.expected_output] if test_case.expected_output else [],
            test_case.retrieval_context or [],
            rubric=self.rubric,
            repeats=self.repeats,
        )
        self.score, self.reason = graded.share, graded.reason
        self.evaluation_model = graded.judge_model
        self.success = self.is_successful()
        return self.score

    async def a_measure(self, test_case: LLMTestCase, *_: Any, **__: Any) -> float:
        return await asyncio.to_thread(self.measure, test_case)

    @property
    def __name__(self) -> str:
        return f"tuneproof {self.rubric}"


if __name__ == "__main__":
    from deepeval import evaluate
    from deepeval.evaluate import AsyncConfig, DisplayConfig, ErrorConfig

    cases = [
        LLMTestCase(input=asked, actual_output=said, expected_output=right, name=str(number))
        for number, (asked, said, right) in enumerate(zip(*json.load(sys.stdin)))
    ]
    found = evaluate(
        cases,
        [TuneproofMetric()],
        async_config=AsyncConfig(run_async=False),
        display_config=DisplayConfig(show_indicator=False, print_results=False),
        error_config=ErrorConfig(ignore_errors=True),
    )
    results = sorted(found.test_results, key=lambda each: int(each.name))
    scores = [each.metrics_data[0].score for each in results]
    print(json.dumps([None if score is None else 1 + 4 * score for score in scores]))
