"""What is stored of a run: whole or not at all, whoever is killed, whoever writes at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tuneproof.adapters import BaseIdentity, FolderStorage, Registry
from tuneproof.servicekit.errors import Corrupted, NotFound, Unavailable
from tuneproof.servicekit.processes import this_process
from tuneproof_trainer.progress import Step
from tuneproof_trainer.record import Heartbeat, RunState, RunStatus
from tuneproof_trainer.runs.bundles import Bundles
from tuneproof_trainer.runs.leases import Leases
from tuneproof_trainer.runs.metrics import SEGMENT, Metrics
from tuneproof_trainer.runs.store import RunStore, last_words
from tuneproof_trainer.spec import RunSpec

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class Failing(FolderStorage):
    """A store that a power cut hits at the n-th change."""

    def __init__(self, root: Path, left: int) -> None:
        super().__init__(root)
        self.left = left

    def _change(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Unavailable("the power is cut")

    def write(self, path: str, data: bytes) -> None:
        self._change()
        super().write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        self._change()
        return super().create(path, data)

    def delete(self, path: str) -> None:
        self._change()
        super().delete(path)

    def upload(self, source: Path, path: str) -> None:
        self._change()
        super().upload(source, path)


def interrupted(root: Path, action: Callable[[Any], object]) -> int:
    """Does an action, cut off at its first change, at its second, and so on; how often that was."""
    for cut in range(100):
        try:
            action(Failing(root, cut))
        except Unavailable:
            yield cut
        else:
            return
    raise AssertionError("the action never came to its end")


def test_no_half_checkpoint_is_ever_found(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("adapter.safetensors", "optimizer.pt", "rng_state.pth"):
        (source / name).write_text(name)
    for number, _ in enumerate(
        interrupted(tmp_path / "store", lambda store: Bundles(store, "c").save("8", source))
    ):
        bundles = Bundles(FolderStorage(tmp_path / "store"), "c")
        assert bundles.names() == []
        with pytest.raises(NotFound):
            bundles.load("8", tmp_path / f"none-{number}")
    bundles = Bundles(FolderStorage(tmp_path / "store"), "c")
    assert bundles.names() == ["8"]
    bundles.load("8", tmp_path / "back")
    assert (tmp_path / "back" / "optimizer.pt").read_text() == "optimizer.pt"
    (tmp_path / "store" / "c" / "8" / "optimizer.pt").write_text("other")
    with pytest.raises(Corrupted, match=r"c/8/optimizer\.pt in the artifact store is not what"):
        bundles.load("8", tmp_path / "again")


def test_no_half_adapter_is_ever_listed(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    weights = {
        name.format("A"): np.ones((2, 8), "f4"),
        name.format("B"): np.ones((8, 2), "f4"),
    }
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    config = '{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}'
    (folder / "adapter_config.json").write_text(config)
    (folder / "README.md").write_text("# card")
    base = BaseIdentity(*(f"sha256:{digit * 64}" for digit in "abc"))
    root = tmp_path / "store"

    def commit(store: Any) -> object:
        return Registry("", storage=store).commit(folder, name="short", base=base, provenance={})

    cuts = 0
    for _ in interrupted(root, commit):
        cuts += 1
        assert Registry(str(root)).list() == ()
    assert cuts == 5  # Weights, config, card, provenance, manifest.
    (ref,) = Registry(str(root)).list()
    assert Registry(str(root)).fetch(ref, tmp_path / "cache").is_dir()


def status(state: RunState = RunState.QUEUED, **more: Any) -> RunStatus:
    return RunStatus(id="a", state=state, create_time=NOW, **more)


def test_of_two_trainers_that_change_a_run_one_wins(tmp_path: Path) -> None:
    one, other = (RunStore(FolderStorage(tmp_path)) for _ in range(2))
    assert one.create("a", RunSpec(), status())
    assert not other.create("a", RunSpec(seed=2), status())
    assert (one.ids(), one.version("a"), one.version("b")) == (["a"], 1, 0)
    assert one.advance(status(RunState.RUNNING, attempt=1, replica="one"), 1)
    assert not other.advance(status(RunState.RUNNING, attempt=1, replica="other"), 1)
    assert other.newest("a").replica == "one"
    with pytest.raises(NotFound):
        one.newest("b")


def test_a_run_whose_maker_was_interrupted_is_made_by_the_next_call(tmp_path: Path) -> None:
    for _ in interrupted(tmp_path, lambda each: RunStore(each).create("a", RunSpec(), status())):
        assert RunStore(FolderStorage(tmp_path)).version("a") == 0
    assert RunStore(FolderStorage(tmp_path)).newest("a") == status()


def test_a_document_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    store = RunStore(FolderStorage(tmp_path))
    store.create("a", RunSpec(), status())
    (tmp_path / "runs/a/spec.json").write_text("{")
    with pytest.raises(Corrupted, match=r"runs/a/spec\.json in the artifact store cannot be read"):
        store.spec("a")
    assert last_words(b"one\ntwo\n\n") == "two"


def steps(*numbers: int, loss: float = 1.0) -> list[Step]:
    return [Step(number, 2000, loss, 10.0, 2.0) for number in numbers]


def test_losses_are_read_on_from_any_step(tmp_path: Path) -> None:
    store = FolderStorage(tmp_path)
    writer = Metrics(store, "runs/a")
    assert writer.read() == []
    whole = steps(*range(1, 2 * SEGMENT + 11))
    for begin in range(0, len(whole), 170):
        writer.write(whole[begin : begin + 170])
    assert Metrics(store, "runs/a").read() == whole
    assert Metrics(store, "runs/a").read(SEGMENT) == whole[SEGMENT:]
    assert Metrics(store, "runs/a").read(2 * SEGMENT + 7) == whole[-3:]
    assert len(store.names("runs/a/metrics")) == 3


def test_another_attempt_replaces_the_losses_after_its_checkpoint(tmp_path: Path) -> None:
    store = FolderStorage(tmp_path)
    Metrics(store, "runs/a").write(steps(1, 2, 3, 4, 5))
    again = Metrics(store, "runs/a")
    again.write(steps(3, loss=2.0))
    assert again.read() == [*steps(1, 2), *steps(3, loss=2.0)]
    again.write(steps(4, 5, loss=2.0))
    assert again.read() == [*steps(1, 2), *steps(3, 4, 5, loss=2.0)]


def test_a_lease_counts_what_was_seen_and_not_what_clocks_say() -> None:
    moment = [100.0]
    leases = Leases(30, lambda: moment[0])
    running = status(RunState.RUNNING, attempt=1)

    def beat(sequence: int, process: str = "") -> Heartbeat:
        return Heartbeat(process=process, sequence=sequence, phase="training", time=NOW)

    assert leases.obstacle(running, None) == ""
    moment[0] += 31
    assert "no sign of life for 30 seconds" in leases.obstacle(running, None)
    assert leases.obstacle(running, beat(1)) == ""
    moment[0] += 29
    assert leases.obstacle(running, beat(1)) == ""
    assert leases.obstacle(running, beat(2)) == ""
    moment[0] += 31
    leases.store_was_away()  # Nobody could renew anything.
    assert leases.obstacle(running, beat(2)) == ""
    moment[0] += 31
    assert leases.obstacle(running, beat(2))
    assert leases.obstacle(running.model_copy(update={"attempt": 2}), None) == ""
    gone = f"{this_process().rpartition('/')[0]}/1"
    assert leases.obstacle(running, beat(3, gone)) == "the worker was killed"
