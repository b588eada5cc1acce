"""deepeval's GEval, which grades each prompt of a line of JSON by a call of its own.

Each line of the input holds `url`, `prompts`, `at_once` and `tokens`; each line of the output the
seconds that all took. The prompts are the judge's, and the engine's words mean nothing: whatever it
writes stands for a form, so that GEval reads what it expects.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from deepeval.metrics import GEval
from deepeval.metrics.g_eval import GEvalTemplate
from deepeval.models import DeepEvalBaseLLM
from deepeval.test_case import LLMTestCase, SingleTurnParams
from openai import AsyncOpenAI


class Engine(DeepEvalBaseLLM):
    """The engine as deepeval's own models ask it: by the openai client."""

    def __init__(self, client: AsyncOpenAI, tokens: int) -> None:
        self._client, self._tokens = client, tokens
        super().__init__("bench")

    def load_model(self) -> Any:
        return self._client

    def get_model_name(self) -> str:
        return "bench"

    def generate(self, prompt: str, schema: Any = None) -> Any:
        raise NotImplementedError

    async def a_generate(self, prompt: str, schema: Any = None) -> Any:
        reply = await self._client.chat.completions.create(
            model="bench",
            messages=[{"role": "user", "content": prompt}],
            temperature=1.0,
            top_p=1.0,
            max_tokens=self._tokens,
        )
        assert reply.usage is not None
        assert reply.usage.completion_tokens == self._tokens
        return schema(score=3, reason=reply.choices[0].message.content or "")


class Template(GEvalTemplate):
    """The judge's prompt, instead of deepeval's own words around it."""

    @staticmethod
    def generate_evaluation_results(test_case_content: str, **_: Any) -> str:
        return test_case_content.removeprefix("Input:\n").removesuffix(" \n\n")


async def graded(url: str, prompts: list[str], at_once: int, tokens: int) -> float:
    places = asyncio.Semaphore(at_once)
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        model = Engine(client, tokens)

        async def one(prompt: str) -> None:
            async with places:
                metric = GEval(
                    name="bench",
                    evaluation_params=[SingleTurnParams.INPUT],
                    evaluation_steps=["Compare."],
                    evaluation_template=Template,
                    model=model,
                )
                case = LLMTestCase(input=prompt, actual_output="")
                score = await metric.a_measure(case, _show_indicator=False)
                assert score == 0.3, metric.error

        begun = time.perf_counter()
        await asyncio.gather(*map(one, prompts))
        return time.perf_counter() - begun


for line in sys.stdin:
    print(asyncio.run(graded(**json.loads(line))), flush=True)
