"""A decision as files: JSON, Markdown, JUnit, and the object that routes requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import yaml

from tuneproof.gate.deciding import Decision
from tuneproof.gate.policy import Policy
from tuneproof.results import StudyResults

SCHEMA = "tuneproof.gate/1"


def report_of(
    results: StudyResults, policy: Policy, decisions: Sequence[Decision]
) -> dict[str, Any]:
    """The decision as JSON values, with all that it rests on."""
    return {
        "schema": SCHEMA,
        "study": results.name,
        "passed": any(one.passed for one in decisions),
        "policy": policy.model_dump(mode="json"),
        "decisions": [
            {**asdict(one), "passed": one.passed, "checks": [asdict(c) for c in one.checks]}
            for one in decisions
        ],
        "labels": len(results.labels),
        "provenance": dict(results.provenance),
    }


def markdown(study: str, decisions: Sequence[Decision]) -> str:
    """For a comment in a pull request: the outcome first, then every check."""
    lines = []
    for one in decisions:
        outcome = "passes" if one.passed else f"does not pass ({len(one.failed)} checks fail)"
        lines += [
            f"### {_cell(one.label)} {outcome}",
            "",
            f"Study {_cell(study)}, against {_cell(one.against)}: `{one.adapter}`",
            "",
            "| | check | found | wanted |",
            "|---|---|---|---|",
            *(
                f"| {'✓' if check.passed else '✗'} | {_cell(check.name)} | {_cell(check.found)} |"
                f" {_cell(check.wanted)} |"
                for check in sorted(one.checks, key=lambda check: check.passed)
            ),
            "",
        ]
    return "\n".join(lines)


def junit(study: str, decisions: Sequence[Decision]) -> str:
    """As CI servers read it: one suite for each adapter, one case for each check."""
    suites = ElementTree.Element("testsuites", name=f"tuneproof gate: {study}")
    for one in decisions:
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=one.cell,
            tests=str(len(one.checks)),
            failures=str(len(one.failed)),
            errors="0",
        )
        for check in one.checks:
            case = ElementTree.SubElement(suite, "testcase", classname=one.cell, name=check.name)
            if not check.passed:
                told = f"{check.found}, wanted {check.wanted}"
                ElementTree.SubElement(case, "failure", message=told).text = told
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def rewrite(alias: str, decision: Decision, *, pool: str, current: str = "") -> str:
    """InferenceModelRewrite objects (llm-d.ai/v1alpha2) that send an alias's requests to the
    adapter: nine to one beside the current one first, then all.

    Two documents of one name: apply the first, watch, apply the second. Without a current adapter
    there is the second alone.
    """
    steps = [[(decision.adapter, 100)]]
    if current:
        steps.insert(0, [(current, 90), (decision.adapter, 10)])
    return yaml.safe_dump_all([_rewrite(alias, pool, each) for each in steps], sort_keys=False)


def _rewrite(alias: str, pool: str, targets: Sequence[tuple[str, int]]) -> dict[str, Any]:
    return {
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": alias},
        "spec": {
            "poolRef": {"group": "inference.networking.k8s.io", "name": pool},
            "rules": [
                {
                    "matches": [{"model": {"type": "Exact", "value": alias}}],
                    "targets": [
                        {"modelRewrite": name, "weight": weight} for name, weight in targets
                    ],
                }
            ],
        },
    }


def _cell(text: str) -> str:
    """Text from a study in a table of Markdown."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("`", "'").replace("\n", " ")
