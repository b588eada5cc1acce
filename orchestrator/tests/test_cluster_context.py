"""`--context`: which services of a cluster are called, and what is said where none can be."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme
import yaml
from fake_cluster import FakeCluster, serving
from fakes import served
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from small_study import SmallStudy, invoke

from tuneproof.cli.cluster import choosing
from tuneproof.cli.cluster.choosing import complete_contexts, to_front
from tuneproof.cluster import Cluster, Reach, api, forwarding
from tuneproof.cluster.contracts import missing
from tuneproof.cluster.troubles import troubles_of
from tuneproof.sdk import GeneratorClient, JudgeClient
from tuneproof.servicekit.auth import TokensFile
from tuneproof.servicekit.errors import InvalidInput, NotFound, Unavailable
from tuneproof.servicekit.testing import MountedSecret, certificate_files
from tuneproof.servicekit.tls import ServerTls

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with serving(FakeCluster(tmp_path)) as one:
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig))
        yield one


@pytest.fixture
def reach(cluster: FakeCluster) -> Reach:
    return Reach(Cluster("here", "tuneproof"))


@pytest.fixture
def run(capsys, monkeypatch, cluster: FakeCluster) -> Run:
    return partial(invoke, capsys, monkeypatch, "--context", "here", "--namespace", "tuneproof")


async def test_calls_spread_over_ready_pods_and_go_on_when_one_ends(
    cluster: FakeCluster, reach: Reach, tmp_path: Path
) -> None:
    cluster.service("judge", "judge", pods=2)
    cluster.pod("judge-2", "judge", {"app.kubernetes.io/name": "judge"}, phase="Pending")
    world = SmallStudy(tmp_path).world()
    async with served(world) as first, served(world) as second:
        cluster.behind = {"judge-0": first, "judge-1": second}
        endpoints = await asyncio.to_thread(reach.endpoints, {}, ["judge"])
        async with JudgeClient.of(endpoints) as judge:
            for _ in range(8):
                assert len(await judge.rubrics()) == 2
            assert set(cluster.forwarded) == {"judge-0", "judge-1"}
            connections = cluster.forwarded.total()
            await asyncio.gather(*(judge.rubrics() for _ in range(200)))
            assert cluster.forwarded.total() == connections
            cluster.remove("pods", "judge-0")
            await asyncio.to_thread(cluster.cut)
            for _ in range(8):
                assert len(await judge.rubrics()) == 2


async def test_a_forwarded_connection_carries_every_byte_both_ways(
    cluster: FakeCluster, reach: Reach
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        writer.close()

    cluster.service("judge", "judge")
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    cluster.behind = {"judge-0": f"127.0.0.1:{port}"}
    forwarder = forwarding.Forwarder(reach.cluster, "forward")
    sent = random.Random(1).randbytes(5_000_000)

    async def there_and_back(address: str) -> bytes:
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(sent)
        received, _ = await asyncio.gather(reader.readexactly(len(sent)), writer.drain())
        writer.close()
        return received

    (address,) = await asyncio.to_thread(forwarder.open, "app.kubernetes.io/name=judge", "grpc")
    received = await asyncio.gather(*(there_and_back(address) for _ in range(4)))
    assert all(each == sent for each in received)
    await asyncio.to_thread(forwarder.close)
    server.close()


async def test_a_token_comes_from_the_flag_or_a_secret_that_the_user_may_read(
    cluster: FakeCluster, reach: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEPROOF_TOKEN", raising=False)
    cluster.service("judge", "judge")
    tokens = tmp_path / "tokens"
    tokens.write_text("use a-token-of-role-use\nmanage a-token-of-role-manage\n")
    data = {"tokens": b64encode(tokens.read_bytes()).decode()}
    cluster.add("secrets", "tuneproof-tokens", data=data)
    world = SmallStudy(tmp_path).world()
    async with served(world, tokens=TokensFile(tokens)) as target:
        cluster.behind = {"judge-0": target}
        endpoints = await asyncio.to_thread(reach.endpoints, {}, ["judge"])
        assert endpoints.token == "a-token-of-role-manage"
        async with JudgeClient.of(endpoints) as judge:
            assert await judge.rubrics()
        assert reach.token("given") == "given"
        cluster.refused.add("secrets")
        assert reach.token(None) is None


async def test_a_pool_is_chosen_by_its_name(cluster: FakeCluster, reach: Reach) -> None:
    for pool in ("mistral-7b", "mixtral"):
        cluster.service(f"generator-{pool}", "generator", pool=pool)
    from fake_world import World

    async with served(World(model="tiny")) as one, served(World(model="large")) as other:
        cluster.behind = {"generator-mistral-7b-0": one, "generator-mixtral-0": other}
        with pytest.raises(InvalidInput, match=r"several pools.*mistral-7b, mixtral"):
            await asyncio.to_thread(reach.endpoints, {}, ["generator"])
        chosen = {"generator": "mixtral"}
        endpoints = await asyncio.to_thread(reach.endpoints, chosen, ["generator"])
        async with GeneratorClient.of(endpoints) as generator:
            assert (await generator.pool()).base_model == "large"
    # A study file names addresses inside the cluster.
    found = reach.named("dns:///generator-mixtral.tuneproof.svc:50051")
    assert found is not None
    assert found.pool == "mixtral"
    assert reach.named("gpu7.example:50051") is None


async def test_a_gateway_leads_to_services_without_forwarding(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    mounted = MountedSecret(tmp_path / "gateway", certificate_files(ca, "localhost"))
    reach = Reach(Cluster("here", "tuneproof"), "gateway")
    cluster.service("judge", "judge")
    cluster.refused = {"forward"}
    with pytest.raises(NotFound, match="add the component gateway"):
        await asyncio.to_thread(reach.endpoints, {}, ["judge"])
    tls = ServerTls(mounted.folder, client_certificates=False)
    async with served(SmallStudy(tmp_path).world(), tls=tls) as target:
        listener = {"name": "grpc", "protocol": "HTTPS", "port": int(target.rpartition(":")[2])}
        cluster.add("gateways", "tuneproof", spec={"listeners": [listener]})
        route = {
            "hostnames": ["localhost"],
            "parentRefs": [{"name": "tuneproof", "sectionName": "grpc"}],
            "rules": [{"backendRefs": [{"name": "judge", "port": 50051}]}],
        }
        cluster.add("grpcroutes", "judge", spec=route)
        with pytest.raises(InvalidInput, match=r"as ca\.crt into a folder"):
            await asyncio.to_thread(reach.endpoints, {}, ["judge"])
        (tmp_path / "mine").mkdir()
        ca.cert_pem.write_to_path(tmp_path / "mine/ca.crt")
        monkeypatch.setenv("TUNEPROOF_TLS_DIR", str(tmp_path / "mine"))
        endpoints = await asyncio.to_thread(reach.endpoints, {}, ["judge"])
        assert endpoints.judge == f"localhost:{listener['port']}"
        async with JudgeClient.of(endpoints) as judge:
            assert len(await judge.rubrics()) == 2
    cluster.service("trainer", "trainer")
    reach = Reach(Cluster("here", "tuneproof"), "gateway")
    with pytest.raises(InvalidInput, match="no route of a Gateway leads to trainer"):
        await asyncio.to_thread(reach.endpoints, {}, ["trainer"])


def test_the_flags_may_stand_anywhere_and_contexts_complete(cluster: FakeCluster) -> None:
    assert to_front(["ask", "What?", "--context", "a", "--via=direct", "--", "--context"]) == [
        *("--context", "a", "--via=direct", "ask", "What?", "--", "--context")
    ]
    assert complete_contexts("h") == ["here"]
    assert complete_contexts("x") == []


def test_what_is_wrong_with_a_cluster_is_said_in_one_line(
    cluster: FakeCluster, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*arguments: str, code: int = 2) -> str:
        choosing._reach.cache_clear()
        found, _, err = run(*arguments)
        assert found == code, err
        assert len(err.strip().splitlines()) == 1
        return err

    assert "has no service of tuneproof" in fails("adapters", "list", code=1)
    cluster.service("generator", "generator")
    assert "has no trainer" in fails("runs", "list", code=4)
    cluster.refused = {"forward"}
    assert "may not forward ports" in fails("adapters", "list")
    cluster.refused = {"pods"}
    assert 'User "guest" cannot list' in fails("adapters", "list")
    cluster.refused = set()
    (pod,) = cluster.objects["pods"]
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    states = [{"name": "generator", "image": "i", "ready": False, "state": {"waiting": waiting}}]
    pod["status"] = {"phase": "Pending", "containerStatuses": states}
    assert "the image i is not there" in fails("adapters", "list", code=4)
    assert "lacks the context 'there': it has here" in fails("--context", "there", "runs", "list")
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "away").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "away"))
    said = fails("--namespace", "b", "runs", "list", code=4)
    assert "cannot be reached at http://127.0.0.1:1" in said
    assert "contradicts --context" in fails("study", "run", "x.yaml", "--up")


def test_a_pod_that_has_not_started_is_told_by_the_reason_of_its_last_warning(
    cluster: FakeCluster, reach: Reach
) -> None:
    pod = cluster.pod("judge-0", "judge", {}, phase="Pending")

    def said(reason: str, at: str) -> tuple[str, str]:
        times = {"lastTimestamp": f"2026-11-28T12:{at}:00Z"}
        cluster.add("events", reason, reason=reason, message=f"{reason} it is", **times)
        (trouble,) = troubles_of(reach.cluster, [pod])
        return trouble.reason, trouble.detail

    mount, network = "FailedMount", "FailedCreatePodSandBox"
    assert said(mount, "01") == (mount, "judge-0 waits: FailedMount it is")
    assert said(network, "02") == (network, "judge-0 waits: FailedCreatePodSandBox it is")


def test_the_doctor_tells_what_an_empty_namespace_lacks(cluster: FakeCluster, run: Run) -> None:
    cluster.refused = {"forward", "nodes"}
    choosing._reach.cache_clear()
    code, out, err = run("doctor", "--json")
    found = {each["what"]: each for each in json.loads(out)["findings"]}
    assert (code, err) == (1, "")
    assert found["cluster"]["detail"] == "Kubernetes v1.36.3, the namespace tuneproof of here"
    missing = {what for what, each in found.items() if each["state"] == "missing"}
    assert missing == {
        "right to get pods/portforward",
        "right to create pods/portforward",
        "secret tuneproof-tokens",
        "services",
    }
    assert found["GPUs"]["detail"] == "nodes are not for this user to see"
    assert all(each["advice"] for each in found.values() if each["state"] == "missing")


def test_without_kubernetes_client_the_extra_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    api._library.cache_clear()
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    choosing._reach.cache_clear()
    code, _, err = run("adapters", "list")
    assert (code, "pip install 'tuneproof[kubernetes]'" in err) == (2, True)
    assert complete_contexts("h") == []


def test_a_service_that_lacks_what_this_client_sends_is_older() -> None:
    mine = FileDescriptorProto()
    JudgeClient.contract.CopyToProto(mine)
    theirs = FileDescriptorProto.FromString(mine.SerializeToString())
    assert list(missing(mine, theirs)) == []
    theirs.message_type.add(name="Newer")
    assert list(missing(mine, theirs)) == []
    del theirs.service[0].method[0]
    message = theirs.message_type[0].name
    field = theirs.message_type[0].field.pop().name
    gone = mine.service[0]
    assert list(missing(mine, theirs)) == [
        f"{gone.name}.{gone.method[0].name}",
        f"{message}.{field}",
    ]


def test_a_pod_that_takes_no_connection_is_named(
    cluster: FakeCluster, reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "_WAIT_SECONDS", 0.2)
    cluster.service("judge", "judge")
    cluster.behind = {"judge-0": "127.0.0.1:1"}
    with pytest.raises(Unavailable, match=r"judge in the namespace tuneproof .* \(judge-0: 500"):
        reach.check(reach.services[0])
