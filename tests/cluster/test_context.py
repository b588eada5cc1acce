"""The command `tuneproof` against a cluster, from outside: its services are stand-ins in pods."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneproof.cluster.pods import is_ready
from tuneproof.sdk import SERVICES

from ..rendering import K8S, WORKLOADS, Manifest, build, role
from .cluster import SIZE, Cluster, local_volume
from .scene import PYTHON, Scene, scene
from .training import IMAGE, ROOT

NAMESPACE = CLASS = "context"
VOLUMES = ("artifacts", "state")
USER, MANAGE = "researcher", "a-token-of-role-manage"
TOKENS = {"tokens": f"use a-token-of-role-use\nmanage {MANAGE}\n".encode()}
KEPT = ("Service", "ServiceAccount", "ConfigMap")
SECONDS = 90

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def place(
    cluster: Cluster, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """The overlay cpu with stand-ins, two generators among them."""
    with scene(cluster, NAMESPACE) as one, volumes(one, tmp_path_factory.mktemp("volumes")):
        objects = [one.secret("tuneproof-tokens", TOKENS | {"judge-api-key": b"a-token"})]
        for each in build(cluster.program, K8S / "overlays/cpu"):
            if each["kind"] in WORKLOADS:
                program = str(Path(__file__).with_name("stand_in.py"))
                workload = one.borrowing(each, program, role(each))
                workload["spec"]["replicas"] = 2 if role(each) == "generator" else 1
                objects.append(without_claims(workload))
            elif each["kind"] in KEPT:
                objects.append(one.moved(each))
            elif each["metadata"]["name"] == "artifacts":
                each["spec"] |= {"storageClassName": CLASS}
                each["spec"]["resources"] = {"requests": SIZE}
                objects.append(one.moved(each))
        one.kubectl.apply(*objects, *rights_of_a_user(one))
        wait_until_ready(one)
        yield one


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small study."""
    sys.path.insert(0, str(ROOT / "orchestrator/tests"))
    try:
        from small_study import SmallStudy
    finally:
        sys.path.pop(0)
    return SmallStudy(tmp_path_factory.mktemp("study")).file


def rights_of_a_user(place: Scene) -> list[Manifest]:
    """The account that runs the commands of these tests, with the roles of the component users."""
    roles = list(yaml.safe_load_all((K8S / "components/users/roles.yaml").read_text("utf-8")))
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": USER}}
    found = [place.moved(each) for each in (*roles, account)]
    for each in roles:
        name = each["metadata"]["name"]
        group = each["apiVersion"].split("/")[0]
        binding = {
            "apiVersion": each["apiVersion"],
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": USER, "namespace": NAMESPACE}],
        }
        found.append(place.moved(binding))
    return found


def wait_until_ready(place: Scene) -> None:
    """Until the pods of all workloads are Ready, and none is on its way out."""
    end = time.monotonic() + 4 * SECONDS
    while True:
        workloads = place.cluster.get("statefulsets,deployments", "-n", NAMESPACE)
        pods = place.cluster.get("pods", "-n", NAMESPACE)
        wanted = sum(each["spec"]["replicas"] for each in workloads)
        if all(is_ready(pod) for pod in pods) and len(pods) == wanted:
            return
        assert time.monotonic() < end, [pod["status"] for pod in pods]
        time.sleep(1)


@contextmanager
def volumes(place: Scene, folder: Path) -> Iterator[None]:
    """Volumes of this machine that pods write to: one for artifacts, one for a study's state."""
    names = [f"{NAMESPACE}-{each}" for each in VOLUMES]
    place.kubectl("delete", "persistentvolume", *names, "--ignore-not-found")
    for name in names:
        (folder / name).mkdir(mode=0o777)
        volume = local_volume(name, folder / name, storage_class=CLASS, mode="ReadWriteOnce")
        place.kubectl.apply(volume)
    try:
        yield
    finally:
        place.kubectl("delete", "persistentvolume", *names, "--wait=false")


def without_claims(workload: Manifest) -> Manifest:
    """With folders of the pod in the place of volumes, but for the artifacts."""
    pod = workload["spec"]["template"]["spec"]
    pod["volumes"] += [
        {"name": claim["metadata"]["name"], "emptyDir": {}}
        for claim in workload["spec"].pop("volumeClaimTemplates", ())
    ]
    for volume in pod["volumes"]:
        if volume.get("persistentVolumeClaim", {}).get("claimName") == "models":
            del volume["persistentVolumeClaim"]
            volume["emptyDir"] = {}
    return workload


def borrowed_parts(place: Scene) -> Manifest:
    """What a pod needs in the place of an image."""
    path = {"name": "PATH", "value": f"{Path(PYTHON).parent}:/usr/bin:/bin"}
    variables = [each for each in place.variables if each["name"] == "PYTHONPATH"]
    return {"env": [path, *variables], "volumes": place.volumes, "volumeMounts": place.mounts}


def tuneproof(place: Scene, *arguments: str) -> tuple[int, str, str]:
    """Runs the command: exit code, standard output, standard error."""
    process = started(place, *arguments)
    out, err = process.communicate(timeout=SECONDS)
    assert "Traceback" not in err
    return process.returncode, out, err


def started(place: Scene, *arguments: str) -> subprocess.Popen[str]:
    config = place.cluster.kubectl.kubeconfig_of(USER, NAMESPACE)
    variables = {"KUBECONFIG": str(config), "TUNEPROOF_NAMESPACE": NAMESPACE}
    variables["TUNEPROOF_TOKEN"] = MANAGE
    return subprocess.Popen(
        [sys.executable, "-m", "tuneproof.cli.main", "--context", "c", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )


@pytest.fixture(scope="module")
def outside(place: Scene, study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a study finds through forwarded ports, while pods of its services are replaced."""
    folder = tmp_path_factory.mktemp("outside")
    process = started(
        *(place, "study", "run", str(study), "--state", str(folder / "state")),
        *("--artifacts", str(folder / "artifacts"), "--json"),
    )
    assert process.stderr
    while "training" not in (line := process.stderr.readline()):
        assert line, "the study ended early"
    gone = [name for name in place.addresses() if name.startswith(("generator-0", "judge"))]
    place.kubectl("delete", "pod", *gone, "-n", NAMESPACE, "--wait=false")
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    wait_until_ready(place)
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_study_runs_through_forwarded_ports_while_its_pods_are_replaced(
    outside: dict[str, Any],
) -> None:
    assert outside["verdict"]["headline"].startswith("The tuned adapters answer worse")


def test_a_submitted_study_ends_with_the_verdicts_of_one_from_outside(
    place: Scene, study: Path, tmp_path: Path, outside: dict[str, Any]
) -> None:
    pod = tmp_path / "pod.yaml"
    pod.write_text(yaml.safe_dump(borrowed_parts(place)))
    flags = (*("--image", IMAGE, "--pod", str(pod), "--storage", "1Gi"), "--storage-class", CLASS)
    code, out, err = tuneproof(place, "study", "submit", str(study), *flags, "--json")
    assert code == 0, err
    name = json.loads(out)["name"]
    # Two that follow at once; one is interrupted, which ends nothing.
    reading = started(place, "study", "logs", name, "--follow")
    code, _, err = tuneproof(place, "study", "logs", str(study), "--follow")
    assert (code, f"{name}: done" in err) == (0, True), err
    reading.send_signal(signal.SIGINT)
    reading.wait(SECONDS)
    read = ("study", "report", name, "--submitted", "--state", str(tmp_path / "here"), "--json")
    code, out, err = tuneproof(place, *read)
    assert code == 0, err
    assert json.loads(out)["verdict"] == outside["verdict"]
    code, out, err = tuneproof(place, "study", "submit", str(study), *flags)
    assert (code, "has run" in out) == (0, True), err
    code, out, err = tuneproof(place, "study", "cancel", str(study), "--purge")
    assert code == 0, err
    kept = place.kubectl("get", "jobs,configmaps,pvc,secrets", "-n", NAMESPACE, "--output", "name")
    assert name not in kept


def test_the_doctor_tells_why_pods_are_not_ready(place: Scene) -> None:
    labels = {"app.kubernetes.io/name": "judge"}
    one = place.pod("plain", labels, ["/bin/sleep", "1000"])
    spec = one["spec"]
    (container,) = spec["containers"]

    def broken(name: str, **more: Any) -> Manifest:
        parts = {"containers": [container | {"name": "judge"} | more.pop("container", {})]} | more
        return one | {"metadata": one["metadata"] | {"name": name}, "spec": spec | parts}

    huge = {"requests": {"cpu": "1000"}}
    secret = {"name": "absent", "secret": {"secretName": "absent"}}
    lacks = "/models/base lacks config.json"
    waste = "x = []\nwhile True: x.append(bytearray(2**20))"
    place.kubectl.apply(
        broken("unscheduled", container={"resources": huge}),
        broken("no-image", container={"image": "localhost/absent:1"}),
        broken(
            "no-secret",
            volumes=[*spec["volumes"], secret],
            container={"volumeMounts": [{"name": "absent", "mountPath": "/absent"}]},
        ),
        broken(
            "too-large",
            container={
                "command": [PYTHON, "-c", waste],
                "resources": {"limits": {"memory": "48Mi"}, "requests": {"cpu": "5m"}},
            },
        ),
        broken("fails", container={"command": ["/bin/sh", "-c", f"echo {lacks}; exit 1"]}),
    )
    wanted = {
        "pod unscheduled": "Insufficient cpu",
        "pod no-image": "the image localhost/absent:1 is not there",
        "pod no-secret": 'secret "absent" not found',
        "pod too-large": "OOMKilled",
        "pod fails": lacks,
    }
    try:
        end = time.monotonic() + SECONDS
        while True:
            code, out, err = tuneproof(place, "doctor", "--json")
            found = {each["what"]: each for each in json.loads(out)["findings"]}
            said = {what: found[what]["detail"] for what in wanted if what in found}
            if all(text in said.get(what, "") for what, text in wanted.items()):
                break
            assert time.monotonic() < end, said
    finally:
        names = [what.removeprefix("pod ") for what in wanted]
        place.kubectl("delete", "pod", *names, "-n", NAMESPACE, "--wait=false")
    assert code == 0, err
    assert {found[f"calls to {role}"]["state"] for role in SERVICES} == {"ok"}
    assert found["service generator"]["detail"].startswith("2 of 2 pods Ready")
    # What this user must not see is no mistake.
    assert {found[what]["state"] for what in ("secret tuneproof-tokens", "GPUs")} == {"note"}
