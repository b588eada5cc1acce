"""A training that is interrupted ends with the adapter of one that is not; a checkpoint that cannot
be stored is no reason to stop.

These import torch into the test's own process.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters import FolderStorage, read_base_config
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof_trainer.bases import Base
from tuneproof_trainer.data import parse_examples
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.record import Job
from tuneproof_trainer.runs.bundles import Bundles
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.checkpoints import Checkpoints
from tuneproof_trainer.worker.stopping import Stop, StoppedError

Data = Callable[..., dict[str, str]]
pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

STEPS = 9
"""Three epochs of three steps, each of two forward passes."""


class Bench:
    """Trains one spec, again and again, in one store of checkpoints."""

    def __init__(
        self, base: Path, folder: Path, store: Any, *, method: str, every: int = 1, **more: Any
    ) -> None:
        asked = {
            "method": method,
            "rank": 4,
            "dropout": 0.2,
            "schedule": "cosine",
            "warmup_ratio": 0.3,
            "epochs": 3,
            "effective_batch_size": 8,
            "micro_batch_size": 4,
            "learning_rate": 1e-2,
        }
        spec = RunSpec(
            data_path="data/train.jsonl",
            data_digest="sha256:" + "0" * 64,
            adapter_name="short",
            hyperparameters=Hyperparameters(**asked | more),
        )
        self.spec = complete(spec, Base("tiny", read_base_config(base)))
        self.base, self.folder = base, folder
        self.bundles = Bundles(store, "checkpoints")
        self.job = Job(
            run_id="a",
            base_folder=str(base),
            artifacts="",
            device="cpu",
            threads=1,
            checkpoint_steps=every,
            checkpoint_minutes=0,
        )
        self.warnings: list[str] = []
        self.stored: list[int] = []
        self.losses: dict[int, float] = {}
        self.validated: Any = None

    def train(self, name: str, *, stop_at: int = 0, saves: bool = True) -> bytes | None:
        """The adapter's weights; None when the training was stopped at a step."""
        import torch
        from transformers import AutoTokenizer

        from tuneproof_trainer.worker.base_model import load_base
        from tuneproof_trainer.worker.tokens import tokenise
        from tuneproof_trainer.worker.training import train

        torch.set_num_threads(1)
        stop = Stop()
        checkpoints = Checkpoints(
            self.bundles,
            self.job,
            stop=stop,
            warn=self.warnings.append,
            saved=self.stored.append,
        )
        content = (self.folder / "data" / "train.jsonl").read_bytes()
        examples = parse_examples(content, "x")
        validating = 8 if self.spec.hyperparameters.validation_share else 0
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        target = self.folder / name

        def on_step(step: Any) -> None:
            self.losses[step.step] = step.loss
            if step.step == stop_at - 1:
                stop.requested = True

        try:
            result = train(
                load_base(self.base, self.spec.hyperparameters, "cpu"),
                tokenizer,
                tokenise(tokenizer, examples[validating:], max_length=64, path="x"),
                self.spec,
                workspace=target / "workspace",
                target=target,
                on_step=on_step,
                checkpoints=checkpoints if saves else None,
                validation=tokenise(tokenizer, examples[:validating], max_length=64, path="x"),
            )
            self.validated = result.validated
        except StoppedError:
            checkpoints.flush()
            return None
        finally:
            checkpoints.close()
        return (target / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["lora", "qlora_nf4"])
def test_an_interrupted_training_ends_like_one_that_was_not(
    base_folder: Path, artifacts: Path, write_data: Data, method: str
) -> None:
    """With dropout, a schedule and accumulation; within an epoch and at its end."""
    write_data()
    bench = Bench(base_folder, artifacts, FolderStorage(artifacts), method=method, every=100)
    whole = bench.train("whole", saves=False)
    losses = dict(bench.losses)
    for step in (2, 4, 6):
        assert bench.train(f"until-{step}", stop_at=step) is None
        assert bench.bundles.names()[-1] == f"{step:08d}"
    assert bench.train("rest") == whole
    assert bench.losses == losses
    assert [step for step in bench.stored if step] == [2, 2, 4, 4, 6, 6]
    assert bench.warnings == [""] * 3


def test_an_early_end_comes_as_it_would_without_the_interruption(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    """What validation found before a checkpoint counts after it, the best adapter too."""
    write_data(count=32)
    asked = {"validation_share": 0.25, "validation_steps": 1, "early_stopping_patience": 2}
    asked |= {"learning_rate": 0.2, "schedule": "constant", "warmup_ratio": 0, "epochs": 9}
    bench = Bench(
        base_folder, artifacts, FolderStorage(artifacts), method="lora", every=100, **asked
    )
    whole = bench.train("whole", saves=False)
    found = bench.validated
    assert found.stopped_early
    last = max(found.losses)
    assert last > 2
    assert bench.train("begun", stop_at=last - 1) is None
    assert bench.train("rest") == whole
    assert bench.validated.losses == found.losses
    assert (bench.validated.best_step, bench.validated.before) == (found.best_step, found.before)
    assert bench.validated.stopped_early


def test_only_the_last_checkpoints_stay(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    write_data()
    bench = Bench(base_folder, artifacts, FolderStorage(artifacts), method="lora", every=2)
    assert bench.train("whole")
    assert len(bench.bundles.names()) <= 2
    assert "00000009" not in bench.bundles.names()


class Full(FolderStorage):
    """A disk that is full after so many files."""

    left = 10**6

    def upload(self, source: Path, path: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        super().upload(source, path)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    write_data()
    store = Full(artifacts)
    bench = Bench(base_folder, artifacts, store, method="lora", every=100)
    whole = bench.train("whole", saves=False)
    assert bench.train("until-4", stop_at=4) is None
    store.left = 2  # Of the next checkpoint two files have place.
    bench.job = bench.job.model_copy(update={"checkpoint_steps": 3})
    assert bench.train("rest") == whole
    assert bench.bundles.names() == ["00000004"]
    assert any("step 6 is not stored: " in said for said in bench.warnings)
    assert any("No space left" in said for said in bench.warnings)


def test_a_checkpoint_that_cannot_be_written_here_is_told(
    base_folder: Path, artifacts: Path, write_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    write_data()
    bench = Bench(base_folder, artifacts, FolderStorage(artifacts), method="lora", every=4)
    monkeypatch.setattr(torch, "save", fail)
    assert bench.train("whole")
    assert bench.bundles.names() == []
    assert any("step 4 is not saved: RuntimeError: Pytorch" in said for said in bench.warnings)
