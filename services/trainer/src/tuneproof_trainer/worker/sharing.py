"""What the processes of one training do together, and which rows each of them gets.

The rows are dealt so that every step has the rows, the micro-batches and the loss that it has in
one process, whatever the number of processes. accelerate's own sampler fills up the last step of a
pass with rows of the first, and deals whole micro-batches across the steps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback

from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.tokens import IGNORED

_kept: list[object] = []


def world() -> int:
    """Processes of this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process; 0 is the one that writes."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def largest(*mine: int) -> list[int]:
    """The largest of each number in any process."""
    return [int(number) for number in _reduced(mine, torch.int64, "MAX")]


def summed(*mine: float) -> list[float]:
    """The sum of each number over all processes."""
    return _reduced(mine, torch.float64, "SUM")


def _reduced(mine: tuple[float, ...], kind: torch.dtype, how: str) -> list[float]:
    if world() == 1:
        return list(mine)
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    numbers = torch.tensor(mine, dtype=kind, device=device)
    torch.distributed.all_reduce(numbers, getattr(torch.distributed.ReduceOp, how))
    return list(numbers.tolist())


def part(trainer: object) -> None:
    """The training is over: the processes need one another no more.

    The group of gloo stays, and so must what holds it, until the process ends without cleaning up
    (`os._exit`): the destructor of torch 2.13 holds the GIL and waits for a thread that now and
    then wants it.
    """
    if world() == 1:
        return
    _kept.append(trainer)
    if torch.distributed.get_backend() == "nccl":
        torch.distributed.destroy_process_group()


def with_blank(rows: Dataset) -> Dataset:
    """The rows, and for several processes one more that the loss does not see: where a step has
    fewer micro-batches than there are processes, the others read it instead."""
    if world() == 1:
        return rows
    blank = {"input_ids": [rows[0]["input_ids"][:2]], "labels": [[IGNORED, IGNORED]]}
    if "seq_lengths" in rows.column_names:
        blank["seq_lengths"] = [[2]]
    columns = {name: [*rows[name], *blank[name]] for name in rows.column_names}
    return Dataset.from_dict(columns)


class Shares(Sampler):  # type: ignore[misc]
    """The micro-batches of one process.

    Args:
        rows: of a pass, without the blank one, which follows them.
        batch: rows of a step, a multiple of `micro_batch` times `processes`.
        rank: of this process.
        seed: of the order, which is that of accelerate's SeedableRandomSampler.
    """

    def __init__(
        self, rows: int, *, batch: int, micro_batch: int, processes: int, rank: int, seed: int
    ) -> None:
        self._rows = rows
        self._batch = batch
        self._micro_batch = micro_batch
        self._processes = processes
        self._rank = rank
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The pass that is read next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(len(self._mine(step)) for step in self._steps(list(range(self._rows))))

    def __iter__(self) -> Iterator[list[int]]:
        drawing = torch.Generator().manual_seed(self._seed + self._epoch)
        for step in self._steps(torch.randperm(self._rows, generator=drawing).tolist()):
            yield from self._mine(step)

    def _steps(self, order: list[int]) -> list[list[int]]:
        return [order[at : at + self._batch] for at in range(0, len(order), self._batch)]

    def _mine(self, step: list[int]) -> list[list[int]]:
        passes = [
            step[at : at + self._micro_batch] for at in range(0, len(step), self._micro_batch)
        ]
        passes += [[self._rows]] * (-len(passes) % self._processes)
        return passes[self._rank :: self._processes]


def shares_of(rows: int, spec: RunSpec) -> Shares | None:
    """What this process reads of the rows; None where it reads all, as TRL deals them."""
    if world() == 1:
        return None
    asked = spec.hyperparameters
    return Shares(
        rows,
        batch=asked.effective_batch_size,
        micro_batch=asked.micro_batch_size,
        processes=world(),
        rank=rank(),
        seed=spec.seed,
    )


class SharedRows(DataLoader):  # type: ignore[misc]
    """Reads what `Shares` names; transformers' Trainer sets the pass."""

    def set_epoch(self, epoch: int) -> None:
        """The pass that is read next."""
        self.batch_sampler.set_epoch(epoch)


class DrawAnew(TrainerCallback):  # type: ignore[misc]
    """Where several processes train, each draws its dropout anew at every step: a checkpoint needs
    no generator's state, and any number of processes goes on from it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        if world() > 1:
            torch.manual_seed((self._seed << 31) + state.global_step * world() + rank())
