"""Whether an adapter may go to production: what a policy demands, and what a study shows.

    policy.yaml ──→ policy ──→ deciding ──→ writing
    the study's results ──────↗             report as JSON, Markdown, JUnit; the route's object

In a test of your own:

    study = Study.open("studies/ours.yaml")
    assert_passes(study.results, load_policy("gate.yaml"), "short-references-1000-s1")
"""

from tuneproof.gate.deciding import Check, Decision, assert_passes, choose, decide, decide_all
from tuneproof.gate.policy import Policy, load_policy
from tuneproof.gate.writing import junit, markdown, report_of, rewrite

__all__ = [
    "Check",
    "Decision",
    "Policy",
    "assert_passes",
    "choose",
    "decide",
    "decide_all",
    "junit",
    "load_policy",
    "markdown",
    "report_of",
    "rewrite",
]
