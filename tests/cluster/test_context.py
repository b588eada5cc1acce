"""The command `tuneproof` against a cluster, from outside: its services are stand-ins in pods."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ..rendering import K8S, WORKLOADS, Manifest, build, role
from .cluster import Cluster
from .scene import Scene, scene
from .training import IMAGE, ROOT, write_root

NAMESPACE = "context"
TOKENS = {"tokens": b"use a-token-of-role-use\nmanage a-token-of-role-manage\n"}
KEPT = ("Service", "ServiceAccount", "ConfigMap")
SECONDS = 90

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def place(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The overlay cpu with stand-ins, two generators among them."""
    cluster.make_image(IMAGE, write_root(tmp_path_factory.mktemp("image") / "root"))
    with scene(cluster, NAMESPACE) as one:
        objects = [one.secret("tuneproof-tokens", TOKENS | {"judge-api-key": b"a-token"})]
        for each in build(cluster.program, K8S / "overlays/cpu"):
            if each["kind"] in WORKLOADS:
                program = str(Path(__file__).with_name("stand_in.py"))
                workload = one.borrowing(each, program, role(each))
                workload["spec"]["replicas"] = 2 if role(each) == "generator" else 1
                objects.append(without_claims(workload))
            elif each["kind"] in KEPT:
                objects.append(one.moved(each))
        one.kubectl.apply(*objects)
        one.kubectl(
            "wait", "--for=condition=Ready", "pod", "--all", "-n", NAMESPACE, "--timeout=150s"
        )
        yield one


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The file of a small study."""
    sys.path.insert(0, str(ROOT / "orchestrator/tests"))
    try:
        from small_study import SmallStudy
    finally:
        sys.path.pop(0)
    return SmallStudy(tmp_path).file


def without_claims(workload: Manifest) -> Manifest:
    """With folders of the pod in the place of volumes."""
    for claim in workload["spec"].pop("volumeClaimTemplates", ()):
        workload["spec"]["template"]["spec"]["volumes"].append({"name": claim["metadata"]["name"]})
    for volume in workload["spec"]["template"]["spec"]["volumes"]:
        if volume.get("persistentVolumeClaim", {}).get("claimName") in ("artifacts", "models"):
            del volume["persistentVolumeClaim"]
        if len(volume) == 1:
            volume["emptyDir"] = {}
    return workload


async def tuneproof(
    place: Scene, *arguments: str, env: Mapping[str, str] = {}
) -> tuple[int, str, str]:
    """Runs the command: exit code, standard output, standard error."""
    process = await started(place, *arguments, env=env)
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return process.returncode, out.decode(), err.decode()


async def started(
    place: Scene, *arguments: str, env: Mapping[str, str] = {}
) -> asyncio.subprocess.Process:
    variables = {"KUBECONFIG": str(place.cluster.kubeconfig), "TUNEPROOF_NAMESPACE": NAMESPACE}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tuneproof.cli.main", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | variables | env,
    )


async def test_a_study_runs_through_forwarded_ports_while_its_pods_are_replaced(
    place: Scene, study: Path, tmp_path: Path
) -> None:
    process = await started(
        *(place, "study", "run", str(study), "--state", str(tmp_path / "state")),
        *("--artifacts", str(tmp_path / "artifacts"), "--context", "c", "--json"),
        env={"TUNEPROOF_NAMESPACE": NAMESPACE},
    )
    assert process.stderr
    while b"training" not in (line := await process.stderr.readline()):
        assert line, "the study ended early"
    gone = [name for name in place.addresses() if name.startswith(("generator-0", "judge"))]
    place.kubectl("delete", "pod", *gone, "-n", NAMESPACE, "--wait=false")
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 0, err.decode()
    assert json.loads(out)["verdict"]["headline"].startswith("The tuned adapters answer worse")


async def test_what_a_user_must_not_do_is_said_before_anything_starts(
    place: Scene, tmp_path: Path
) -> None:
    config = place.cluster.kubeconfig_of("retriever", NAMESPACE)
    code, _, err = await tuneproof(
        place, "--context", "c", "corpus", "list", env={"KUBECONFIG": str(config)}
    )
    assert code == 2
    assert "refuses" in err
    assert "pods is forbidden" in err
