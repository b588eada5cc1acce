"""A study's end: analysis, report, and what the terminal or a program is told.

Analysis and report are imported where they are needed: scipy alone takes as long to load as
everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneproof.cli.console import out, print_json
from tuneproof.results import StudyResults
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.collect import load_results
from tuneproof.study.steps.chain import Chain

if TYPE_CHECKING:
    from tuneproof.analysis import Comparisons


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """What a study found, and what it means."""

    results: StudyResults
    comparisons: Comparisons


def outcome_of(chain: Chain) -> StudyOutcome:
    """Reads results and compares the cells."""
    from tuneproof.analysis import compare  # noqa: PLC0415 - see above

    results = load_results(chain)
    return StudyOutcome(results, compare(results))


def deliver(outcome: StudyOutcome, path: Path, *, as_json: bool) -> None:
    """Writes the report file and prints verdicts, or JSON."""
    from tuneproof.cli.verdict_table import show_outcome  # noqa: PLC0415 - see above
    from tuneproof.report import build_report, report_json  # noqa: PLC0415 - see above

    page = build_report(outcome.results, outcome.comparisons)
    write_atomically(path, page.encode("utf-8", "replace"))
    if as_json:
        value = report_json(outcome.results, outcome.comparisons)
        print_json({**value, "report": str(path)})
        return
    show_outcome(outcome.results, outcome.comparisons, out)
    out.print(f"report: {path}", markup=False)
