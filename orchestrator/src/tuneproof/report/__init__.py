"""What a study found, for people (one HTML file) and for machines (JSON).

page       the report of one study
together   several studies in one report, data set by data set
export     the same for machines
"""

from tuneproof.report.caveats import Caveat, warnings
from tuneproof.report.export import SCHEMA, report_json
from tuneproof.report.findings import CellFinding, findings, headline
from tuneproof.report.page import build_report

__all__ = [
    "SCHEMA",
    "Caveat",
    "CellFinding",
    "build_report",
    "findings",
    "headline",
    "report_json",
    "warnings",
]
