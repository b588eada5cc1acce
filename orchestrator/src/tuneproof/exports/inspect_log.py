"""A study as logs of Inspect: one `.eval` file for each cell, which `inspect view` opens.

The format is a zip of JSON (`header.json`, `summaries.json`, `samples/<id>_epoch_<n>.json`, and
what the run began with in `_journal/start.json`), of version 2, as inspect_ai writes it. The
judge's repeats are no epochs of Inspect's, which are further answers: they are in a score's
metadata. An answer without a grade is unscored: it has no entry among its sample's scores.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuneproof.analysis import Summary, answers_by_cell, means_by_cell, measures_of, score_of
from tuneproof.results import Answer, Cell, CriterionGrade, ItemResult, StudyResults
from tuneproof.servicekit.digests import sha256_of_json

VERSION = 2
"""Of Inspect's log format."""
_STOPS = {"stop": "stop", "length": "max_tokens"}
_UNSAFE = re.compile(r"[^\w.-]+")


def write_inspect_logs(
    results: StudyResults, folder: Path, now: datetime | None = None
) -> list[Path]:
    """Writes a log for each cell and names the files.

    Args:
        folder: made if it is not there.
        now: the time in the logs; None: now.
    """
    at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    folder.mkdir(parents=True, exist_ok=True)
    means, answers = means_by_cell(results), answers_by_cell(results)
    names = measures_of(results).names
    written = []
    for cell in results.cells:
        samples = [
            _sample(results, item, cell, answer, names)
            for item in results.items
            if (answer := answers[cell.name].get(item.id)) is not None
        ]
        path = folder / f"{_UNSAFE.sub('-', f'{results.name}_{cell.name}')}.eval"
        draft = path.with_suffix(".part")
        _write(draft, _header(results, cell, samples, means[cell.name], at), samples)
        draft.replace(path)
        written.append(path)
    return written


def _write(path: Path, header: Mapping[str, Any], samples: list[dict[str, Any]]) -> None:
    start = {name: header[name] for name in ("version", "eval", "plan")}
    kept = ("id", "epoch", "input", "target", "scores", "metadata")
    summaries = [{name: sample[name] for name in kept} for sample in samples]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("_journal/start.json", _json(start))
        for sample in samples:
            log.writestr(f"samples/{sample['id']}_epoch_1.json", _json(sample))
        log.writestr("_journal/summaries/1.json", _json(summaries))
        log.writestr("summaries.json", _json(summaries))
        log.writestr("header.json", _json(header))


def _header(
    results: StudyResults,
    cell: Cell,
    samples: list[dict[str, Any]],
    means: Mapping[str, Summary],
    at: str,
) -> dict[str, Any]:
    key = sha256_of_json([results.name, cell.name, samples]).removeprefix("sha256:")
    model = samples[0]["output"]["model"] if samples else _model(cell, "")
    complete = not any("error" in sample for sample in samples)
    spec = {
        "run_id": key[:22],
        "eval_id": key[22:44],
        "created": at,
        "task": results.name,
        "task_id": key[44:],
        "task_version": 0,
        "dataset": {
            "name": results.dataset,
            "samples": len(results.items),
            "sample_ids": [sample["id"] for sample in samples],
            "shuffled": False,
        },
        "model": model,
        "config": {"epochs": 1},
        "packages": {},
        "metadata": {
            "tool": "tuneproof",
            "cell": cell.name,
            "label": cell.label,
            "arm": cell.arm,
            "size": cell.size,
            "seed": cell.seed,
            "judge": results.judge_model,
            "provenance": dict(results.provenance),
        },
    }
    scores = [
        {
            "name": name,
            "scorer": name,
            "params": {},
            "metrics": {"mean": {"name": "mean", "value": found.mean, "params": {}}},
            "scored_samples": found.scored,
            "unscored_samples": found.unscored,
        }
        for name, found in means.items()
        if found.mean is not None
    ]
    return {
        "version": VERSION,
        "status": "success",
        "eval": spec,
        "plan": {"name": "plan", "steps": [{"solver": "tuneproof", "params": {}}], "config": {}},
        "results": {
            "total_samples": len(samples),
            "completed_samples": sum("error" not in sample for sample in samples),
            "scores": scores,
            "metadata": {"complete": complete},
        },
        "stats": {"started_at": at, "completed_at": at, "model_usage": {}},
    }


def _sample(
    results: StudyResults, item: ItemResult, cell: Cell, answer: Answer, names: tuple[str, ...]
) -> dict[str, Any]:
    model = _model(cell, answer.served_by)
    usage = {
        "input_tokens": answer.prompt_tokens,
        "output_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }
    said = {"role": "assistant", "content": answer.text, "source": "generate", "model": model}
    stop = _STOPS.get(answer.finish_reason, "unknown")
    criteria = answer.grade.criteria if answer.grade else {}
    scores = {
        name: {
            "value": score,
            "answer": answer.text,
            **(_reading(criteria[name]) if name in criteria else {}),
        }
        for name in names
        if (score := score_of(answer, name)) is not None
    }
    found = {
        "id": item.id,
        "epoch": 1,
        "input": item.question,
        "target": list(item.references.get(results.reference_style, ())),
        "messages": [{"role": "user", "content": item.question, "source": "input"}, said],
        "output": {
            "model": model,
            "choices": [{"message": said, "stop_reason": stop}],
            "completion": answer.text,
            "usage": usage,
            "time": answer.seconds,
        },
        "scores": scores,
        "metadata": {
            "cluster": item.cluster,
            "stratum": item.stratum,
            "passages": [passage.text for passage in item.retrieved],
        },
        "store": {},
        "events": [],
        "model_usage": {model: usage},
        "total_time": answer.seconds,
        "attachments": {},
    }
    if answer.error:
        found["error"] = {"message": answer.error, "traceback": "", "traceback_ansi": ""}
    return found


def _reading(grade: CriterionGrade) -> dict[str, Any]:
    """Why the judge gave its score: the first reading's reasons, and every reading's score."""
    read = [repeat.completion for repeat in grade.repeats if repeat.score is not None]
    return {
        "explanation": read[0] if read else "",
        "metadata": {
            "rubric": grade.rubric,
            "repeats": [repeat.score for repeat in grade.repeats],
            "standard_deviation": grade.standard_deviation,
        },
    }


def _model(cell: Cell, served_by: str) -> str:
    """As Inspect names models: provider and name."""
    return f"tuneproof/{served_by or cell.name}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
