"""Checking an adapter's folder offline.

The functions import the checks: numpy is slow to load.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneproof.cli.console import give
from tuneproof.servicekit.errors import InvalidInput

if TYPE_CHECKING:
    from tuneproof.adapters import AdapterRef, AdmissionReport


def verify_folder(path: Path, base: Path | None, max_rank: int | None) -> AdmissionReport:
    """Examines an adapter; one in a registry must be the one that its place names.

    Raises:
        InvalidInput: `path` is not a folder, or `base` is not a model.
    """
    from tuneproof.adapters import identify_base, read_base_config, verify  # noqa: PLC0415

    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InvalidInput(f"{path} {what}: name a folder with adapter_model.safetensors")
    report = verify(
        path,
        base=identify_base(base) if base else None,
        base_config=read_base_config(base) if base else None,
        max_rank=max_rank or sys.maxsize,
        expected=_expected(path),
    )
    if max_rank is None:
        note = "no --max-rank was given, so the rank was not compared"
        report = replace(report, notes=(*report.notes, note))
    return report


def show_report(path: Path, report: AdmissionReport, *, as_json: bool) -> None:
    """Prints every defect, and what was not examined."""
    value = {
        "ok": report.ok,
        "adapter": str(report.adapter) if report.adapter else None,
        "tensors": report.tensors,
        "size_bytes": report.size_bytes,
        "defects": [asdict(defect) for defect in report.defects],
        "notes": list(report.notes),
    }
    lines = [f"{defect.code:<12} {defect.message}" for defect in report.defects]
    lines += [f"{'note':<12} {note}" for note in report.notes]
    found = len(report.defects)
    summary = f"{found} defect{'s' * (found > 1)}: not fit to be served" if found else "no defect"
    size = f"{report.tensors} tensors, {report.size_bytes / 2**20:.1f} MiB"
    lines.append(f"{report.adapter or path}: {summary} ({size})")
    give(value, "\n".join(lines), as_json=as_json)


def _expected(path: Path) -> AdapterRef | None:
    """The adapter whose place in a registry this is: `…/adapters/<name>/<64 hex>`."""
    from tuneproof.adapters import AdapterRef  # noqa: PLC0415 - see above

    place = path.resolve()
    if place.parent.parent.name != "adapters":
        return None
    try:
        return AdapterRef(place.parent.name, f"sha256:{place.name}")
    except InvalidInput:
        return None
