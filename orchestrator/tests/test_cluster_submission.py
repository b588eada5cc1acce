"""Studies submitted to a cluster: what is packed, the Job, names, submitting again."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fake_cluster import FakeCluster, serving
from small_study import SmallStudy, invoke

from tuneproof.cli.cluster import choosing
from tuneproof.cluster import Cluster, Reach
from tuneproof.cluster.submission import Asked, Bundle, Submissions, pack
from tuneproof.cluster.submission.bundle import unpack
from tuneproof.cluster.submission.manifests import job_of
from tuneproof.servicekit.errors import InvalidInput, NotFound

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with serving(FakeCluster(tmp_path)) as one:
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig))
        monkeypatch.setenv("TUNEPROOF_TOKEN", "a-token-of-mine")
        for role in ("retriever", "generator", "trainer", "judge"):
            one.service(role, role)
        (trainer,) = [each for each in one.objects["pods"] if "trainer" in str(each["metadata"])]
        (container,) = trainer["spec"]["containers"]
        container["env"] = [{"name": "TUNEPROOF_TRAINER_ARTIFACTS", "value": "/artifacts/here"}]
        container["volumeMounts"] = [{"name": "store", "mountPath": "/artifacts"}]
        trainer["spec"]["volumes"] = [
            {"name": "store", "persistentVolumeClaim": {"claimName": "artifacts"}}
        ]
        yield one


@pytest.fixture
def submissions(cluster: FakeCluster) -> Submissions:
    return Submissions(Reach(Cluster("here", "tuneproof")))


@pytest.fixture
def run(capsys, monkeypatch, cluster: FakeCluster) -> Run:
    choosing._reach.cache_clear()
    return partial(invoke, capsys, monkeypatch, "--context", "here", "--namespace", "tuneproof")


def test_a_bundle_has_what_the_study_names_and_the_same_files_are_the_same_bytes(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    study = SmallStudy(tmp_path / "a")
    data = tmp_path / "elsewhere" / "golden.json"
    data.parent.mkdir()
    data.write_text("{}")
    packed = pack(study.file, data)
    assert packed.packed == pack(study.file, data).packed
    unpack(packed.packed, tmp_path / "out")
    out = tmp_path / "out"
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    assert found == {
        "a/small.yaml",
        "a/rubrics/accuracy.yaml",
        "a/rubrics/completeness.yaml",
        "elsewhere/golden.json",
    }  # and not the model, which the services have
    assert (packed.study, packed.data) == ("a/small.yaml", "elsewhere/golden.json")
    study.edit("services: {model: tiny", f"services: {{model: {tmp_path / 'elsewhere'}")
    with pytest.raises(InvalidInput, match="absolute path"):
        pack(study.file)


def test_what_is_too_large_for_a_config_map_is_told_with_the_largest_file(tmp_path: Path) -> None:
    study = SmallStudy(tmp_path)
    data = tmp_path / "large.json"
    data.write_bytes(random.Random(1).randbytes(1_100_000))
    with pytest.raises(InvalidInput, match=r"1\.1 MB packed.*1 MB\. The largest: large\.json"):
        pack(study.file, data)


def test_the_job_calls_services_by_their_names_and_keeps_artifacts_where_the_trainer_does(
    submissions: Submissions, tmp_path: Path
) -> None:
    pod = tmp_path / "pod.yaml"
    pod.write_text("nodeSelector: {zone: a}\nenv: [{name: X, value: y}]\nlabels: {team: t}\n")
    services = submissions._reach.services
    flags = [f"--{one.role}={one.inside}" for one in services]
    bundle = pack(SmallStudy(tmp_path).file)
    plan = submissions.plan("small-1", bundle, flags, services, Asked(pod=pod, secrets=("keys",)))
    assert plan.image == "tuneproof/orchestrator:0.1.0"
    assert "a-token-of-mine" not in repr(plan)
    job = job_of(plan)
    template = job["spec"]["template"]
    (study,) = template["spec"]["containers"]
    command = " ".join(study["command"])
    assert "--judge=dns:///judge:50051" in command
    assert "--artifacts=/artifacts/here" in command
    assert {"name": "artifacts", "mountPath": "/artifacts"} in study["volumeMounts"]
    assert {"name": "X", "value": "y"} in study["env"]
    assert {"secretRef": {"name": "keys"}} in study["envFrom"]
    assert template["spec"]["nodeSelector"] == {"zone": "a"}
    assert template["metadata"]["labels"]["team"] == "t"
    assert template["metadata"]["labels"]["tuneproof.dev/client"] == "true"
    assert "a-token-of-mine" not in json.dumps(job)


def test_names_of_two_users_differ_and_are_names_of_jobs(
    submissions: Submissions, cluster: FakeCluster
) -> None:
    mine = submissions.name_for("BioASQ: 12 & more" * 9)
    assert re.fullmatch(r"[a-z0-9-]{1,47}", mine)
    cluster.user = "another"
    assert submissions.name_for("BioASQ: 12 & more" * 9) != mine
    for wrong in ("Upper", "a_b", "x" * 60, "-a"):
        with pytest.raises(InvalidInput, match="cannot name a Job"):
            submissions.plan(wrong, Bundle(b"", "", ""), [], [], Asked())


def test_submitting_again_says_how_it_is_and_other_files_wait_for_it(
    submissions: Submissions, cluster: FakeCluster, tmp_path: Path
) -> None:
    study = SmallStudy(tmp_path)
    services = submissions._reach.services

    def submit() -> str:
        return submissions.submit(
            submissions.plan("small-1", pack(study.file), [], services, Asked())
        )

    assert submit() == "small-1 is submitted"
    kinds = ("jobs", "configmaps", "secrets", "persistentvolumeclaims")
    assert all(cluster.objects[kind][-1]["metadata"]["name"] == "study-small-1" for kind in kinds)
    (job,) = cluster.objects["jobs"]
    job["status"] = {"active": 1}
    assert submit() == "small-1 is submitted already, and waits"
    study.edit("repeats: 2", "repeats: 3")
    with pytest.raises(InvalidInput, match=r"submitted by .*guest.* waits with other files"):
        submit()
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "message": "exit code 3"}]}
    assert submissions.list()[0].progress.state == "partly"
    assert submit() == "small-1 goes on"
    (job,) = cluster.objects["jobs"]
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert "has run" in submit()
    assert "its state is kept" in submissions.cancel("small-1", purge=False)
    assert submissions.progress("small-1").state == "cancelled"
    assert "with its state" in submissions.cancel("small-1", purge=True)
    assert not any(cluster.objects[kind] for kind in kinds)
    with pytest.raises(NotFound, match="no study 'small-1' is submitted"):
        submissions.find("small-1")


def test_bad_input_is_said_before_anything_is_made(
    run: Run, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: str, code: int = 2) -> str:
        found, _, err = run("study", *arguments)
        assert (found, len(err.strip().splitlines())) == (code, 1), err
        return err

    assert "there is no file" in fails("logs", "absent.yaml")
    assert "no study 'absent'" in fails("cancel", "absent", code=1)
    assert "no study 'absent'" in fails("status", "absent", "--submitted", code=1)
    assert "leave it out, or --submitted" in fails("status", "absent", "--submitted", "--watch")
    (tmp_path / "wrong.yaml").write_text("study: x\n")
    code, _, err = run("study", "submit", str(tmp_path / "wrong.yaml"))
    assert (code, "dataset" in err) == (2, True)
    assert not cluster.objects.get("jobs")
    monkeypatch.delenv("TUNEPROOF_CONTEXT", raising=False)
    code, _, err = run("--context", "", "study", "submitted")
    assert (code, "name the cluster: --context NAME" in err) == (2, True)
