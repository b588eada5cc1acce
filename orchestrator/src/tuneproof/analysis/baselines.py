"""Which cell each cell is compared with."""

from __future__ import annotations

from collections.abc import Mapping

from tuneproof.results import StudyResults


def baselines_of(results: StudyResults) -> Mapping[str, str]:
    """By cell, the baseline of its own model; baselines themselves are left out.

    A model's baseline is its cell of the arm that the study's baseline belongs to. A model without
    such a cell is compared with the study's baseline.
    """
    arm = next((cell.arm for cell in results.cells if cell.name == results.baseline), "")
    own: dict[str, str] = {}
    for cell in results.cells:
        if cell.name == results.baseline or (cell.arm == arm and cell.model):
            own.setdefault(cell.model, cell.name)
    return {
        cell.name: own.get(cell.model, results.baseline)
        for cell in results.cells
        if cell.name not in own.values()
    }
