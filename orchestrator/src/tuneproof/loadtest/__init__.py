"""Load tests of a generator during swaps of its adapters, and of any OpenAI endpoint."""

from tuneproof.loadtest.arrivals import Arrivals, LoadSpec, Span
from tuneproof.loadtest.doors import Door, GrpcDoor, OpenAIDoor
from tuneproof.loadtest.figures import Figures, figures_of
from tuneproof.loadtest.formats.benchmark_report import benchmark_reports
from tuneproof.loadtest.formats.mooncake import Trace, read_trace, trace_of
from tuneproof.loadtest.inputs import read_probes, read_prompts, read_references
from tuneproof.loadtest.page import build_page, headline, notes, result_json
from tuneproof.loadtest.slo import Check, Slo, checks_of, read_slo
from tuneproof.loadtest.swapping import SwapSpec
from tuneproof.loadtest.trial import LoadResult, run_load, run_swaps
from tuneproof.loadtest.truth import Probe, Probes, Truth

__all__ = [
    "Arrivals",
    "Check",
    "Door",
    "Figures",
    "GrpcDoor",
    "LoadResult",
    "LoadSpec",
    "OpenAIDoor",
    "Probe",
    "Probes",
    "Slo",
    "Span",
    "SwapSpec",
    "Trace",
    "Truth",
    "benchmark_reports",
    "build_page",
    "checks_of",
    "figures_of",
    "headline",
    "notes",
    "read_probes",
    "read_prompts",
    "read_references",
    "read_slo",
    "read_trace",
    "result_json",
    "run_load",
    "run_swaps",
    "trace_of",
]
