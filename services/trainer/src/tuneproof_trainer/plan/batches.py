"""The effective batch, divided: micro-batch x accumulation x devices.

On a CPU the micro-batch is the largest divisor up to 16. On a GPU whose memory is known it is the
largest of these that fits, by the memory plan; where not one example fits, gradient checkpointing
is switched on. With 8B parameters and 1,024 tokens a micro-batch of 16 takes 97 GiB, so the largest
divisor alone would fail on a GPU of 80 GB (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuneproof.adapters.memory import LARGEST_MICRO_BATCH, USABLE, micro_batches


@dataclass(frozen=True)
class Batch:
    """How one optimiser step is computed."""

    micro_batch: int
    """Rows of one forward pass."""
    accumulation: int
    """Forward passes of each device."""
    devices: int
    checkpointing: bool = False

    @property
    def effective(self) -> int:
        """Rows per optimiser step."""
        return self.micro_batch * self.accumulation * self.devices


def divisors(rows: int, devices: int = 1, most: int = LARGEST_MICRO_BATCH) -> list[int]:
    """Micro-batches that divide the rows which each device has of a step, the largest first; none
    where the devices do not divide the step."""
    return [] if rows % devices else micro_batches(rows // devices, most)


def divide(
    rows: int,
    *,
    devices: int = 1,
    memory: int = 0,
    needed: Callable[[int, bool], int | None] = lambda _size, _checkpointing: None,
    checkpointing: bool | None = None,
    most: int = LARGEST_MICRO_BATCH,
) -> Batch:
    """Divides a step.

    Args:
        rows: of a step; a multiple of `devices`.
        memory: bytes of a device; 0: not known, and every micro-batch fits.
        needed: bytes that a micro-batch takes, without and with gradient checkpointing; None where
            they cannot be told, and it fits.
        checkpointing: what was asked; None: without, unless memory asks for it.
        most: rows of a micro-batch at most.

    Raises:
        ValueError: when the devices do not divide the rows.
    """
    sizes = divisors(rows, devices, most)
    if not sizes:
        raise ValueError(f"{rows} examples a step cannot be shared by {devices} devices")

    def batch(size: int, *, with_checkpointing: bool) -> Batch:
        return Batch(size, rows // devices // size, devices, with_checkpointing)

    for with_checkpointing in (False, True) if checkpointing is None else (checkpointing,):
        for size in sizes:
            bytes_needed = needed(size, with_checkpointing) if memory else None
            if bytes_needed is None or bytes_needed <= memory * USABLE:
                return batch(size, with_checkpointing=with_checkpointing)
    # The figures are estimates: the smallest may fit nevertheless.
    return batch(1, with_checkpointing=checkpointing is not False)
