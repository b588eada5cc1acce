"""Every overlay and every component alone, held to schemas and policies: `make lint-k8s`.

Custom resources are held to the definitions that are published (in TUNEPROOF_TOOLS); their rules in
CEL are left to the cluster, and so are the kinds of cert-manager, whose definitions are not there.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from .rendering import ROOT, Manifest, all_manifests
from .test_dockerfiles import DOCKERFILE

VERSIONS = ("1.34", "1.35", "1.36", "1.37")
"""Of Kubernetes. The first has `resource.k8s.io/v1`."""
PROGRAMS = ROOT / ".venv-lint/bin"

pytestmark = [pytest.mark.lint_k8s, pytest.mark.process, pytest.mark.timeout(120)]


@pytest.fixture(scope="session")
def manifests(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return all_manifests(kubectl, tmp_path_factory.mktemp("overlays"))


@pytest.fixture(scope="session")
def definitions() -> dict[tuple[str, str], Manifest]:
    """The schemas of custom resources by apiVersion and kind, as strict as a schema can be."""
    tools = os.environ.get("TUNEPROOF_TOOLS")
    if not tools:
        pytest.skip("needs TUNEPROOF_TOOLS, a folder with kubernetes/crds (.ci/run sets it)")
    found = {}
    for path in Path(tools, "kubernetes/crds").glob("*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            if version["served"]:
                schema = _strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                name = f"{spec['group']}/{version['name']}"
                found[name, spec["names"]["kind"]] = schema
    return found


def _strict(schema: Any) -> Any:
    """The schema without room for fields that it does not name."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("type") == "object" and "properties" in schema and not open_ended:
        strict["additionalProperties"] = False
    if isinstance(pattern := schema.get("pattern"), str):  # Python wants flags at the start.
        strict["pattern"] = pattern.replace("^(?i)", "(?i)^")
    return strict


def _check(manifest: Manifest, definitions: dict[tuple[str, str], Manifest], version: str) -> None:
    if manifest["apiVersion"].startswith("cert-manager.io/"):
        return
    schema = definitions.get((manifest["apiVersion"], manifest["kind"]))
    if schema is None:
        kubernetes_validate.validate(manifest, version, strict=True)
    else:
        jsonschema.validate(manifest, schema)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid_to_the_letter(
    manifests: list[Manifest], definitions: dict[tuple[str, str], Manifest], version: str
) -> None:
    for manifest in manifests:
        _check(manifest, definitions, version)


@pytest.mark.parametrize("kind", ["Deployment", "ScaledObject"])
def test_a_misspelt_field_would_be_found(
    manifests: list[Manifest], definitions: dict[tuple[str, str], Manifest], kind: str
) -> None:
    wrong = copy.deepcopy(next(each for each in manifests if each["kind"] == kind))
    wrong["spec"]["replica"] = 1
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        _check(wrong, definitions, VERSIONS[-1])


def run(*command: str | Path) -> None:
    program = shutil.which(command[0], path=f"{PROGRAMS}:{os.environ['PATH']}")
    if program is None:
        pytest.skip(f"{command[0]} is not installed: make lint-k8s (promtool: Debian's prometheus)")
    done = subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_policy_is_broken_without_a_reason(manifests: list[Manifest], tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(manifests))
    run("checkov", "--directory", tmp_path, "--config-file", "deploy/k8s/.checkov.yaml")


def test_the_dockerfile_is_clean() -> None:
    run("hadolint", "--failure-threshold", "style", DOCKERFILE)


def test_the_rules_of_alerts_are_valid() -> None:
    run("promtool", "check", "rules", "deploy/observability/alerts.yaml")
