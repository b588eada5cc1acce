"""A study's end: analysis, report, and the output for people or programs.

The functions import analysis and report: scipy alone takes as long to load as everything else.
"""

from __future__ import annotations

from pathlib import Path

from tuneproof.cli.console import out, print_json
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.collect import load_results
from tuneproof.study.status import is_complete, status_of
from tuneproof.study.steps.chain import Chain


def deliver(chain: Chain, path: Path | None, state: Path, *, as_json: bool) -> bool:
    """Compares the cells, writes the report file, and prints the verdicts, or JSON.

    Args:
        path: where the report goes; None: the state folder.

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
    if as_json:
        print_json({**report_json(results, comparisons), "report": str(path)})
    else:
        show_outcome(results, comparisons, out)
        out.print(f"report: {path}", markup=False)
    return is_complete(status_of(chain))
