"""A study as promptfoo's JSON (version 3), which `promptfoo import` reads and its viewer shows.

A cell is a prompt (a column), a question a test (a row). promptfoo's scores run from 0 to 1: a
criterion's is its mean on the rubric's scale, moved there; named scores stay in their own unit.
A study has no pass mark, so an answer passes when it was graded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tuneproof.analysis import Measures, answers_by_cell, measures_of, score_of
from tuneproof.results import Answer, Cell, ItemResult, StudyResults
from tuneproof.servicekit.digests import sha256_of_json

_GRADED, _FAILED = 0, 2
"""promptfoo's failure reasons `NONE` and `ERROR`."""


def promptfoo_json(results: StudyResults, now: datetime | None = None) -> dict[str, Any]:
    """The study as the value of promptfoo's output file.

    Args:
        now: the time in the file; None: now.
    """
    at = (now or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    measures, answers = measures_of(results), answers_by_cell(results)
    rows: list[dict[str, Any]] = []
    prompts = []
    for column, cell in enumerate(results.cells):
        made = [
            {
                **_result(results, measures, item, cell, answers[cell.name][item.id]),
                "promptIdx": column,
                "testIdx": row,
            }
            for row, item in enumerate(results.items)
            if item.id in answers[cell.name]
        ]
        rows += made
        prompts.append({**_prompt(cell), "provider": _provider(cell), "metrics": _metrics(made)})
    passed = sum(row["success"] for row in rows)
    stats = {
        "successes": passed,
        "failures": 0,
        "errors": len(rows) - passed,
        "tokenUsage": _tokens([row["tokenUsage"] for row in rows]),
    }
    summary = {"version": 3, "timestamp": at, "prompts": prompts, "results": rows, "stats": stats}
    digest = sha256_of_json([results.name, rows]).removeprefix("sha256:")
    return {
        "evalId": f"eval-tuneproof-{digest[:16]}",
        "results": summary,
        "config": {"description": results.description or results.name},
        "shareableUrl": None,
        "metadata": {"exportedAt": at, "evaluationCreatedAt": at, "author": "tuneproof"},
    }


def _result(
    results: StudyResults,
    measures: Measures,
    item: ItemResult,
    cell: Cell,
    answer: Answer,
) -> dict[str, Any]:
    scores = {name: score_of(answer, name) for name in measures.names}
    named = {name: score for name, score in scores.items() if score is not None}
    judged = measures.judged or measures.lexical
    shares = [
        (named[name] - measure.low) / (measure.high - measure.low)
        for name, measure in judged.items()
        if name in named and measure.high is not None
    ]
    score = sum(shares) / len(shares) if shares else 0.0
    graded = not answer.error and bool(shares)
    variables = {
        "question": item.question,
        "reference": "\n".join(item.references.get(results.reference_style, ())),
        "passages": "\n\n".join(passage.text for passage in item.retrieved),
    }
    test = {
        "description": item.id,
        "vars": variables,
        "metadata": {"item": item.id, "cluster": item.cluster, "stratum": item.stratum},
    }
    return {
        "id": sha256_of_json([results.name, cell.name, item.id]).removeprefix("sha256:")[:32],
        "promptId": _prompt(cell)["id"],
        "provider": {"id": _provider(cell), "label": cell.label},
        "prompt": _prompt(cell),
        "testCase": test,
        "vars": variables,
        "response": {"output": answer.text, "tokenUsage": _usage(answer)},
        **({"error": answer.error or "unscored"} if not graded else {}),
        "failureReason": _GRADED if graded else _FAILED,
        "success": graded,
        "score": score,
        "latencyMs": round(1000 * answer.seconds),
        "namedScores": named,
        "gradingResult": _grading(answer, measures, named, graded=graded, score=score),
        "metadata": {"servedBy": answer.served_by},
        "tokenUsage": _usage(answer),
    }


def _grading(
    answer: Answer, measures: Measures, named: dict[str, float], *, graded: bool, score: float
) -> dict[str, Any]:
    parts = []
    for name, found in (answer.grade.criteria if answer.grade else {}).items():
        measure, mean = measures.judged[name], found.mean
        read, share = False, 0.0
        if mean is not None and measure.high is not None:
            read, share = True, (mean - measure.low) / (measure.high - measure.low)
        reasons = [repeat.completion for repeat in found.repeats if repeat.score is not None]
        parts.append(
            {
                "pass": read,
                "score": share,
                "reason": reasons[0] if reasons else "no repeat could be read",
                "assertion": {"type": "g-eval", "metric": name, "value": found.rubric},
            }
        )
    said = "" if graded else (answer.error or "unscored")
    found_all = {"pass": graded, "score": score, "reason": said, "namedScores": named}
    return {**found_all, "componentResults": parts}


def _prompt(cell: Cell) -> dict[str, Any]:
    digest = sha256_of_json([cell.name]).removeprefix("sha256:")
    return {"id": digest, "raw": "{{question}}", "label": cell.label}


def _provider(cell: Cell) -> str:
    return f"tuneproof:{cell.name}"


def _metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over a column, as promptfoo keeps them."""
    names = dict.fromkeys(name for row in rows for name in row["namedScores"])
    passed = sum(row["success"] for row in rows)
    return {
        "score": sum(row["score"] for row in rows),
        "testPassCount": passed,
        "testFailCount": 0,
        "testErrorCount": len(rows) - passed,
        "assertPassCount": sum(
            part["pass"] for row in rows for part in row["gradingResult"]["componentResults"]
        ),
        "assertFailCount": 0,
        "totalLatencyMs": sum(row["latencyMs"] for row in rows),
        "tokenUsage": _tokens([row["tokenUsage"] for row in rows]),
        "namedScores": {
            name: sum(row["namedScores"].get(name, 0.0) for row in rows) for name in names
        },
        "namedScoresCount": {
            name: sum(name in row["namedScores"] for row in rows) for name in names
        },
        "cost": 0,
    }


def _usage(answer: Answer) -> dict[str, int]:
    total = answer.prompt_tokens + answer.completion_tokens
    return {
        "prompt": answer.prompt_tokens,
        "completion": answer.completion_tokens,
        "total": total,
        "cached": 0,
        "numRequests": 1,
    }


def _tokens(usages: Sequence[dict[str, int]]) -> dict[str, int]:
    names = ("prompt", "completion", "total", "cached", "numRequests")
    return {name: sum(usage[name] for usage in usages) for name in names}
