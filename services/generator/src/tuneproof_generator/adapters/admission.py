"""Checks an adapter before the engine sees it: it must fit the base model that is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuneproof.adapters import AdapterRef, BaseIdentity, read_base_config, verify
from tuneproof.adapters.loraconfig import read_lora_config


@dataclass(frozen=True)
class AdmissionResult:
    """What admission found in an adapter that may be served."""

    rank: int
    size_bytes: int


Inspect = Callable[[Path, AdapterRef], AdmissionResult]
"""Raises InvalidInput with all defects of an adapter that may not be served."""


def inspector(folder: Path, base: BaseIdentity, max_rank: int) -> Inspect:
    """Admission against the base model in a folder.

    Args:
        max_rank: the largest rank that the engine was started for.
    """
    config = read_base_config(folder)

    def inspect(adapter: Path, ref: AdapterRef) -> AdmissionResult:
        report = verify(adapter, base=base, base_config=config, max_rank=max_rank, expected=ref)
        report.raise_if_bad()
        size = sum(path.stat().st_size for path in adapter.iterdir() if path.is_file())
        return AdmissionResult(int(read_lora_config(adapter)["r"]), size)

    return inspect
