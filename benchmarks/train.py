"""How fast the trainer trains, beside TRL alone: with TRL's defaults, and with our settings.

    make bench-train

The demo's model learns short answers over passages of 36 facts (about 550 tokens) on a CPU.
Model, conversations, precision, effective batch size, learning rate and seed are equal. Each
training is a process of its own; the arms take turns, and each figure is the median over the rounds
of the ratio within a round. The time is that from conversations and a loaded base to a saved
adapter: seconds that the process computes, which on an idle machine and with one thread are those
of the clock. Other work on the machine disturbs them less.

`vs_default` is the ratio of answer tokens a second to TRL's defaults (gradient checkpointing,
micro-batches of 8, logits for every token). `vs_best_config` is that to TRL with our settings, in
the environment that our executor gives a worker. `time_to_loss` is the ratio of the times that the
defaults and we take to the same number of steps, and `loss_difference` the largest absolute
difference of the validation losses after them, in nats a token. These are of the first precision;
the keys of the others begin with its name.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tuneproof.adapters import read_base_config
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.data.telecom import generate, oracle_context
from tuneproof.prompts import rag_messages
from tuneproof_trainer.defaults import Base, complete
from tuneproof_trainer.execution.environment import KEEP_MEMORY
from tuneproof_trainer.spec import RunSpec

ROOT = Path(__file__).parents[1]
BASE = ROOT / "demo/telecom-reader"
FACTS = 36
TUNING_SEED = 8
ARMS = ("default", "best", "ours")


def main() -> None:
    """The program."""
    asked = _arguments()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in asked.precision:
            found[precision] = _measure(asked, precision, Path(folder))
    first, *others = asked.precision
    results = found[first] | {
        f"{name}_{key}": value for name in others for key, value in found[name].items()
    }
    print(json.dumps({"bench": "train", "results": results}))


def _measure(asked: argparse.Namespace, precision: str, folder: Path) -> dict[str, float]:
    task = folder / f"{precision}.json"
    task.write_text(json.dumps(_task(asked, precision, folder)))
    rounds = []
    for number in range(asked.rounds):
        order = ARMS[number % len(ARMS) :] + ARMS[: number % len(ARMS)]
        rounds.append({arm: _train(arm, task, asked.threads) for arm in order})
        print(f"{precision} round {number + 1}: {_words(rounds[-1])}", file=sys.stderr)

    def median(figure: str, over: str, under: str) -> float:
        return round(statistics.median(one[over][figure] / one[under][figure] for one in rounds), 3)

    losses = [
        abs(one["ours"]["validation_loss"] - one["default"]["validation_loss"]) for one in rounds
    ]
    ours = rounds[0]["ours"]
    assert len({one[arm]["steps"] for one in rounds for arm in ARMS}) == 1
    return {
        "vs_default": median("answer_tokens_per_second", "ours", "default"),
        "vs_best_config": median("answer_tokens_per_second", "ours", "best"),
        "time_to_loss": median("seconds", "default", "ours"),
        "loss_difference": round(max(losses), 5),
        "validation_loss": round(ours["validation_loss"], 4),
        **{
            f"answer_tokens_per_second_{arm}": round(
                statistics.median(one[arm]["answer_tokens_per_second"] for one in rounds), 1
            )
            for arm in ARMS
        },
        "steps": ours["steps"],
        "mean_length": round(ours["mean_length"], 1),
        "answer_length": round(ours["answer_length"], 1),
        "rounds": asked.rounds,
        "threads": asked.threads,
    }


def _task(asked: argparse.Namespace, precision: str, folder: Path) -> dict[str, Any]:
    world = generate(TUNING_SEED, documents=60)
    items = world.items[: asked.examples + asked.validation]
    conversations = [
        [
            *rag_messages(item.question, oracle_context(world, item, FACTS, TUNING_SEED)),
            {"role": "assistant", "content": item.references["short"][0]},
        ]
        for item in items
    ]
    spec = RunSpec(
        data_path="data/train.jsonl",
        data_digest="sha256:" + "0" * 64,
        adapter_name="measured",
        seed=1,
        hyperparameters=Hyperparameters(
            method="lora",
            learning_rate=1e-3,
            epochs=asked.epochs,
            precision=precision,
            micro_batch_size=asked.micro_batch,
        ),
    )
    return {
        "base": str(BASE),
        "scratch": str(folder),
        "spec": complete(spec, Base(BASE.name, read_base_config(BASE))).model_dump(mode="json"),
        "training": conversations[: asked.examples],
        "validation": conversations[asked.examples :],
        "threads": asked.threads,
    }


def _train(arm: str, task: Path, threads: int) -> dict[str, Any]:
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **({} if arm == "default" else KEEP_MEMORY),
    }
    program = [sys.executable, str(Path(__file__).with_name("train_arm.py")), arm, str(task)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{arm} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _words(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{arm} {one['seconds']:.2f} s (clock {one['wall_seconds']:.2f}),"
        f" loss {one['validation_loss']:.4f}"
        for arm, one in sorted(found.items())
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=80)
    parser.add_argument("--validation", type=int, default=64, help="examples that validate")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--micro-batch", type=int, default=0, help="0: the trainer's default")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
