"""tuneproof's judge as a provider of promptfoo, which grades its `llm-rubric`.

    defaultTest:
      options: {provider: 'file://promptfoo_provider.py'}
      assert: [{type: llm-rubric, value: accuracy@1, threshold: 0.5}]

The assertion's value names the rubric; `question`, `reference` and `passages` are variables of the
test.
"""

from __future__ import annotations

from typing import Any

from asking import Unscored, grade


def call_api(_: str, options: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """promptfoo calls this for each answer."""
    given = context["vars"]
    config = options.get("config", {})
    try:
        graded = grade(
            given["question"],
            given["output"],
            _texts(given.get("reference")),
            _texts(given.get("passages")),
            rubric=given["rubric"].strip(),
            repeats=config.get("repeats", 10),
        )
    except Unscored as error:
        return {"error": str(error)}
    passed = graded.share >= config.get("threshold", 0.5)
    return {"output": {"pass": passed, "score": graded.share, "reason": graded.reason}}


def _texts(value: Any) -> list[str]:
    return [] if not value else [value] if isinstance(value, str) else list(value)
