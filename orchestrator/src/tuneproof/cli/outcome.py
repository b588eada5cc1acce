"""A study's end: analysis, report, and the output for people or programs.

The functions import analysis and report: scipy alone takes as long to load as everything else.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneproof.cli.console import out, print_json
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.collect import load_results
from tuneproof.study.status import is_complete, status_of
from tuneproof.study.steps.chain import Chain

if TYPE_CHECKING:
    from tuneproof.analysis import Comparisons
    from tuneproof.results import StudyResults


def deliver(
    chain: Chain, path: Path | None, state: Path, *, as_json: bool, mlflow: str = ""
) -> bool:
    """Compares the cells, writes the report file, and prints the verdicts, or JSON.

    Args:
        path: where the report goes; None: the state folder.
        mlflow: a tracking URI of MLflow, which gets the study too; empty: none.

    Returns:
        Whether the study is complete.
    """
    from tuneproof.analysis import compare  # noqa: PLC0415 - see above
    from tuneproof.cli.verdict_table import show_outcome  # noqa: PLC0415 - see above
    from tuneproof.report import build_report, report_json  # noqa: PLC0415 - see above

    results = load_results(chain)
    comparisons = compare(results)
    path = path or state / "reports" / f"{chain.plan.spec.study}.html"
    page = build_report(results, comparisons)
    write_atomically(path, page.encode("utf-8", "replace"))
    logged = _log(mlflow, chain, results, comparisons, path) if mlflow else {}
    if as_json:
        print_json({**report_json(results, comparisons), "report": str(path), **logged})
    else:
        show_outcome(results, comparisons, out)
        out.print(f"report: {path}", markup=False)
        if logged:
            out.print(f"mlflow: {mlflow}, run {logged['mlflow']['run']}", markup=False)
    return is_complete(status_of(chain))


def _log(
    uri: str, chain: Chain, results: StudyResults, comparisons: Comparisons, report: Path
) -> dict[str, Any]:
    from tuneproof.exports.mlflow_runs import log_to_mlflow  # noqa: PLC0415 - see above

    design = chain.plan.spec.model_dump(mode="json", by_alias=True)
    logged = log_to_mlflow(results, comparisons, design=design, report=report, uri=uri)
    return {"mlflow": asdict(logged)}
