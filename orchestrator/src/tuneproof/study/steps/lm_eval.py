"""lm-eval as a program: its command line, and what it found from the file that it writes.

It stands in an environment of its own: its dependencies are none of ours. It asks the generator's
OpenAI API for completions (`/v1/completions` with `echo` and `logprobs`).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneproof.servicekit.errors import Corrupted, InvalidInput, Unavailable
from tuneproof.study.design.spec import ForgettingSpec

_LINES = 5
"""Of what it wrote last, in a message."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What lm-eval is to measure."""

    spec: ForgettingSpec
    model: str
    """As the generator's OpenAI API names it: an adapter's reference, or the base model."""
    url: str
    """Base URL of that API, with `/v1`."""
    tokenizer: str
    """Folder or id."""
    token: str | None


async def run_lm_eval(asked: Asked) -> dict[str, Any]:
    """Runs lm-eval to its end.

    Returns:
        `tasks` (by task and metric: `value`, `standard_error` or null), `samples` by task,
        `version`.

    Raises:
        InvalidInput: there is no such program.
        Unavailable: it failed; the message has its last words.
        Corrupted: its results cannot be read.
    """
    program = shutil.which(asked.spec.command[0])
    if program is None:
        raise InvalidInput(
            f"there is no program {asked.spec.command[0]!r}: install lm-eval into an environment of"
            " its own (`pip install 'lm-eval[api]' transformers`) and name its `bin/lm-eval` in"
            " forgetting.command",
            field="forgetting.command",
        )
    with tempfile.TemporaryDirectory(prefix="tuneproof-lm-eval-") as folder:
        words = [program, *asked.spec.command[1:], *arguments(asked, Path(folder))]
        # Its own client wants some key.
        environment = {**os.environ, "OPENAI_API_KEY": asked.token or "unused"}
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            last = "\n".join(said.decode("utf-8", "replace").strip().splitlines()[-_LINES:])
            raise Unavailable(f"lm-eval ended with {process.returncode}: {last}")
        return read_results(Path(folder))


def arguments(asked: Asked, folder: Path) -> list[str]:
    """The command line after the program's name, as lm-eval 0.4 takes it."""
    spec = asked.spec
    model = {
        "model": asked.model,
        "base_url": f"{asked.url.rstrip('/')}/completions",
        "tokenizer": asked.tokenizer,
        "tokenizer_backend": "huggingface",
        "tokenized_requests": "False",
        "num_concurrent": str(spec.in_flight),
        "max_retries": "3",
    }
    words = ["--model", "local-completions"]
    words += ["--model_args", ",".join(f"{name}={value}" for name, value in model.items())]
    words += ["--tasks", ",".join(spec.tasks), "--output_path", str(folder), "--seed", "0"]
    if spec.limit is not None:
        words += ["--limit", str(spec.limit)]
    if spec.fewshot is not None:
        words += ["--num_fewshot", str(spec.fewshot)]
    if spec.include is not None:
        words += ["--include_path", str(spec.include)]
    return words


def read_results(folder: Path) -> dict[str, Any]:
    """What lm-eval wrote into a folder: `<model>/results_<time>.json`.

    Raises:
        Corrupted: there is no such file, or it is in another form.
    """
    files = sorted(folder.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise Corrupted("lm-eval ended without a file of results: is it version 0.4 or newer?")
    try:
        value = json.loads(files[-1].read_text("utf-8"))
        tasks = {name: _scores(found) for name, found in value["results"].items()}
        samples = {name: count["effective"] for name, count in value.get("n-samples", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupted(f"lm-eval's results cannot be read: {error!r}") from None
    return {
        "tasks": {name: scores for name, scores in tasks.items() if scores},
        "samples": samples,
        "version": str(value.get("lm_eval_version", "")),
    }


def _scores(found: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Metrics of a task; `acc,none` is metric and filter, `acc_stderr,none` its error."""
    scores = {}
    for key, value in found.items():
        metric, comma, kept = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = found.get(f"{metric}_stderr,{kept}")
        name = metric if kept == "none" else f"{metric} ({kept})"
        scores[name] = {
            "value": float(value),
            "standard_error": float(error) if isinstance(error, int | float) else None,
        }
    return scores
