"""What is checked before the engine sees an adapter: it fits the base model that is served."""

from __future__ import annotations

from pathlib import Path

from tuneproof.adapters import AdapterRef, BaseIdentity, read_base_config, verify
from tuneproof.adapters.loraconfig import read_lora_config
from tuneproof_generator.adapters.loading import AdmissionResult, Inspect


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
