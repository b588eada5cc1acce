"""Checks an adapter before the engine sees it: it must fit the base model that is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneproof.adapters import (
    AdapterRef,
    BaseIdentity,
    Fingerprint,
    Provenance,
    fingerprint_of,
    read_base_config,
    verify,
)
from tuneproof.adapters.loraconfig import read_lora_config
from tuneproof.adapters.manifest import DOCUMENT_LIMIT, PROVENANCE_FILE
from tuneproof.servicekit.errors import Corrupted


@dataclass(frozen=True)
class AdmissionResult:
    """What admission found in an adapter that may be served."""

    rank: int
    size_bytes: int
    fingerprint: Fingerprint | None = None
    """What it did in training; None when its provenance tells none."""
    trained_precision: str = ""
    """Of the base in training, in words; empty when its provenance does not tell."""
    changes_nothing: bool = False
    """Every product of its matrices is zero."""


Inspect = Callable[[Path, AdapterRef], AdmissionResult]
"""Raises InvalidInput with all defects of an adapter that may not be served, except that it
changes nothing, which a declaration may allow; Corrupted when its provenance cannot be read."""
_WORDS = 200


def inspector(folder: Path, base: BaseIdentity, max_rank: int) -> Inspect:
    """Admission against the base model in a folder.

    Args:
        max_rank: the largest rank that the engine was started for.
    """
    config = read_base_config(folder)

    def inspect(adapter: Path, ref: AdapterRef) -> AdmissionResult:
        report = verify(
            adapter,
            base=base,
            base_config=config,
            max_rank=max_rank,
            expected=ref,
            allow_no_effect=True,
        )
        report.raise_if_bad()
        details = _provenance(adapter, ref)
        size = sum(path.stat().st_size for path in adapter.iterdir() if path.is_file())
        return AdmissionResult(
            int(read_lora_config(adapter)["r"]),
            size,
            fingerprint_of(details),
            str(details.get("base_precision", ""))[:_WORDS],
            report.changes_nothing,
        )

    return inspect


def _provenance(folder: Path, ref: AdapterRef) -> Mapping[str, Any]:
    """Where an adapter comes from; empty when nothing says it.

    Raises:
        Corrupted: when the document cannot be read, or is of another content.
    """
    path = folder / PROVENANCE_FILE
    if not path.is_file():
        return {}
    if path.stat().st_size > DOCUMENT_LIMIT:
        raise Corrupted(f"{PROVENANCE_FILE} of {ref} is larger than {DOCUMENT_LIMIT} bytes")
    found = Provenance.parse(path.read_bytes())
    # Not its name: two names with one content share the folder.
    if found.adapter.digest != ref.digest:
        raise Corrupted(f"{PROVENANCE_FILE} of {ref} names {found.adapter}")
    return found.details
