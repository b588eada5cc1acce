"""A whole study of several models, killed once in the middle: does it run through, and how full is
the engine while it answers?

    make verify-study
    python benchmarks/verify_study.py --small

Three arms (tuned on full answers, tuned on short ones, nearest examples in the prompt) at three
sizes with two seeds on two bases, and an API model beside them: the demo's reader, a second base of
another shape (Mistral's: grouped queries, a sliding window) with random weights, and a scripted
endpoint. This machine serves one base after the other; the reader judges. The study is killed
(SIGKILL) when half of the answers is there, and goes on by the same command.

`running_share` is the mean of running sequences over what could run: the smaller of the engine's
`max_num_seqs` and the answers that are left. The engine's metrics are read four times a second,
from a base's first answer to its last; the mean over all bases counts every sample once. It fails
when an answer or a grade is missing, when work was done twice, or, with `--least-share`, when the
mean over all bases is below.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from engine_load import answers_by_base, fullness, sampled
from scripted_endpoint import scripted_endpoint

ROOT = Path(__file__).parents[1]
READER = ROOT / "demo" / "telecom-reader"
COMMAND = [sys.executable, "-m", "tuneproof.cli.main"]
KEY = "VERIFY_STUDY_KEY"
_LATEST_KILL = 3600.0


@dataclass(frozen=True)
class Size:
    """How large the study is."""

    documents: int
    items: int
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    arms: tuple[dict[str, Any], ...]
    repeats: int


_FULL = {"name": "full", "tune": {"references": "full"}}
_SHORT = {"name": "short", "tune": {"references": "short"}}
_NEAREST = {"name": "nearest", "examples": {"k": 2, "references": "full", "choose": "nearest"}}
LARGE = Size(420, 100, (200, 500, 1000), (1, 2), (_FULL, _SHORT, _NEAREST), 1)
SMALL = Size(40, 10, (16, 32), (1,), (_FULL, _NEAREST, {"name": "by-heart", "context": "none"}), 2)


def main() -> None:
    """Runs it and prints the figures, as JSON last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="the same shape in a few minutes")
    parser.add_argument("--state", type=Path, help="keep everything in this folder")
    parser.add_argument("--least-share", type=float, default=0.0)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.state or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        url = stack.enter_context(scripted_endpoint("a key"))
        os.environ[KEY] = "a key"
        figures = verify(folder.resolve(), SMALL if given.small else LARGE, url)
    print(json.dumps(figures))
    if mistakes := list(_mistakes(figures, given.least_share)):
        sys.exit("; ".join(mistakes))


def verify(folder: Path, size: Size, url: str) -> dict[str, Any]:
    """Runs the study in a folder; gives the figures."""
    study, state = _study(folder, size, url), folder / "state"
    cells = 2 * (1 + _cells_of(size)) + 1
    places = cells * size.items
    command = [*COMMAND, "study", "run", str(study), "--up", "--state", str(state)]
    begun = time.monotonic()
    try:
        with sampled(state) as samples:
            restart = _killed(command, state, answers=places // 2)
            before = _rows(state)
            ended = subprocess.run(
                [*command, "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=False
            )
    finally:
        subprocess.run([*COMMAND, "down", "--state", str(state)], check=False)
    seconds = time.monotonic() - begun
    if ended.returncode not in (0, 3):
        sys.exit(f"the study ended with {ended.returncode}")
    report = json.loads(ended.stdout)
    bases = {model["content"]: model["name"] for model in report["models"]}
    first = min((at for kept in answers_by_base(state).values() for at in kept if at > restart),
                default=restart)  # fmt: skip
    shares = {}
    for base, kept in answers_by_base(state).items():
        running, share, count = fullness(samples, kept, [(restart, first)])
        shares[bases[base]] = {
            "running": round(running, 1),
            "running_share": round(share, 3),
            "samples": count,
            "answers": len(kept),
            "seconds": round(kept[-1] - kept[0], 1),
        }
    after = _rows(state)
    return {
        "cells": len(report["cells"]),
        "answers": sum(cell["answers"] for cell in report["cells"]),
        "errors": sum(cell["errors"] for cell in report["cells"]),
        "expected_answers": places,
        "trainings": sum(cell["adapter"] is not None for cell in report["cells"]),
        "changed_after_kill": sum(after.get(key) != row for key, row in before.items()),
        "kept_at_kill": len(before),
        "api_price_of_an_answer": next(
            cell["cost"]["price"] for cell in report["cells"] if cell["model"] == "scripted"
        ),
        "generation": shares,
        "running_share": round(
            sum(one["running_share"] * one["samples"] for one in shares.values())
            / sum(one["samples"] for one in shares.values()),
            3,
        ),
        "stage_seconds": {name: round(s, 1) for name, s in report["stage_seconds"].items()},
        "kept": _windows(state),
        "seconds": round(seconds, 1),
    }


def _mistakes(figures: dict[str, Any], least: float) -> list[str]:
    found = []
    if figures["errors"] or figures["answers"] != figures["expected_answers"]:
        found.append(
            f"{figures['answers']} of {figures['expected_answers']} answers,"
            f" {figures['errors']} with an error"
        )
    if figures["changed_after_kill"]:
        found.append(f"{figures['changed_after_kill']} pieces of work were done twice")
    if (share := figures["running_share"]) < least:
        found.append(f"{share:.2f} of what could run, less than {least:.2f}")
    return found


def _study(folder: Path, size: Size, url: str) -> Path:
    """The study file, and the second base."""
    demo = yaml.safe_load((ROOT / "studies" / "demo.yaml").read_text())
    hyperparameters = demo["training"]["hyperparameters"] | {"epochs": 1}
    skipped = hyperparameters.pop("skip_modules")
    second = make_second_base(folder / "second")
    arms = [{"name": "baseline"}, *size.arms]
    spec = {
        "study": "verify",
        "dataset": demo["dataset"] | {"documents": size.documents},
        "split": {"seed": 1, "test_share": 0.2, "test_items": size.items},
        "corpus": demo["corpus"],
        "retrieval": demo["retrieval"],
        "generation": {"max_tokens": 32},
        "models": [
            {"name": "reader", "model": str(READER),
             "hyperparameters": {"skip_modules": skipped}},
            {"name": "second", "model": str(second)},
            {"name": "scripted", "url": url, "model": "scripted-1", "key": KEY,
             "input_price": 2.5, "output_price": 10},
        ],
        "arms": arms,
        "training": {
            "sizes": list(size.sizes),
            "seeds": list(size.seeds),
            "hyperparameters": hyperparameters,
        },
        "judge": demo["judge"] | {"repeats": size.repeats},
        "comparison": {"margin": demo["comparison"]["margin"]},
        "services": {"rubrics": str(ROOT / "demo" / "rubrics"), "toy": True},
    }  # fmt: skip
    path = folder / "verify.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def _cells_of(size: Size) -> int:
    """Cells of one base beside its baseline."""
    grid = len(size.sizes) * len(size.seeds)
    return sum(grid if {"tune", "examples"} & set(arm) else 1 for arm in size.arms)


def make_second_base(folder: Path) -> Path:
    """A base of Mistral's shape with random weights, and the reader's tokenizer."""
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    shared = ("README.md", "config.json", "generation_config.json", "*.safetensors")
    shutil.copytree(READER, folder, ignore=shutil.ignore_patterns(*shared), dirs_exist_ok=True)
    known = json.loads((READER / "config.json").read_text())
    torch.manual_seed(7)
    config = MistralConfig(
        vocab_size=known["vocab_size"],
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        sliding_window=128,
        max_position_embeddings=known["max_position_embeddings"],
        tie_word_embeddings=True,
        **{f"{name}_token_id": known[f"{name}_token_id"] for name in ("bos", "eos", "pad")},
    )
    MistralForCausalLM(config).save_pretrained(folder)
    return folder


def _killed(command: list[str], state: Path, *, answers: int) -> float:
    """Starts the study, kills it once so many answers are there; gives the time."""
    first = subprocess.Popen(command, cwd=ROOT)
    end = time.monotonic() + _LATEST_KILL
    while _count(state) < answers:
        if first.poll() is not None or time.monotonic() > end:
            first.kill()
            sys.exit(f"the study did not come to {answers} answers")
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    return time.time()


def _count(state: Path) -> int:
    return sum(len(kept) for kept in _quietly(state).values())


def _quietly(state: Path) -> dict[str, list[float]]:
    if not (state / "study.sqlite").exists():
        return {}
    try:
        return answers_by_base(state)
    except sqlite3.OperationalError:  # its tables are not there yet
        return {}


def _windows(state: Path) -> dict[str, dict[str, float]]:
    """Outputs by kind, and the seconds from the first to the last: a kill loses a stage's own."""
    query = "SELECT kind, COUNT(*), MIN(created), MAX(created) FROM results GROUP BY kind"
    with contextlib.closing(sqlite3.connect(state / "study.sqlite")) as database:
        return {
            kind: {
                "outputs": count,
                "seconds": round(
                    (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds(),
                    1,
                ),
            }
            for kind, count, first, last in database.execute(query)
        }


def _rows(state: Path) -> dict[str, tuple[str, str]]:
    """What is kept, with the time, by key; a row that is written again has another time."""
    with contextlib.closing(sqlite3.connect(state / "study.sqlite")) as database:
        query = "SELECT key, output, created FROM results WHERE kind != 'pool'"
        return {key: (output, created) for key, output, created in database.execute(query)}


if __name__ == "__main__":
    main()
