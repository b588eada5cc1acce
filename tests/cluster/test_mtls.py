"""The component mtls on real pods: who is refused, and certificates that change under load.

The test signs the certificates that the manifests ask of cert-manager, into the Secrets that they
name.
"""

from __future__ import annotations

import asyncio
import http.client
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tuneproof.cluster import Cluster as ContextCluster
from tuneproof.cluster import Reach
from tuneproof.sdk.judge import JudgeClient
from tuneproof.sdk.values import GradeInput
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.testing import MountedSecret, certificate_files
from tuneproof.servicekit.tls import ClientTls

from ..rendering import K8S, Manifest, build, of_kind, write
from . import endpoint
from .cluster import Cluster
from .scene import PYTHON, Scene, scene
from .training import until

pytestmark = pytest.mark.timeout(300)

TOKEN = "of-a-study-of-this-test"
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
PORTS = {"judge": 50051, "generator": 8000}
ONE = GradeInput("what is it ?", "it is", ("it is",), rubrics=("accuracy@1",), repeats=1)


@dataclass(frozen=True)
class Secured:
    """Judges, and the endpoint that they ask, all under mutual TLS."""

    place: Scene
    names: dict[str, list[str]]
    """In the certificates that cert-manager would write, by their Secrets."""
    ca: trustme.CA

    def files(self, secret: str, ca: trustme.CA, *trusted: trustme.CA, **more) -> dict[str, bytes]:
        return certificate_files(ca, self.names[secret], *trusted, **more)

    def client(self, shown: MountedSecret, *, server_name: str = "judge") -> JudgeClient:
        tls = ClientTls(shown.folder, server_name=server_name)
        return JudgeClient(self.place.target("judge", 50051), token=TOKEN, tls=tls)

    async def rotate(self, ca: trustme.CA, *trusted: trustme.CA) -> None:
        """Gives the services new certificates, and waits until they show them."""
        made = {name: self.files(f"{name}-tls", ca, *trusted) for name in PORTS}
        secrets_ = [self.place.secret(f"{name}-tls", files) for name, files in made.items()]
        kubectl, at = self.place.kubectl, ("--namespace", self.place.namespace)
        await asyncio.to_thread(kubectl.apply, *secrets_)
        # The kubelet looks after Secrets about once a minute, and whenever a pod changes.
        nudge = ("annotate", "pod", "--all", "--overwrite", f"nudge={secrets.token_hex(3)}")
        await asyncio.to_thread(kubectl, *nudge, *at)
        for pod, address in self.place.addresses().items():
            name = pod.partition("-")[0]
            wanted = ssl.PEM_cert_to_DER_cert(made[name]["tls.crt"].decode())
            await until(lambda: shown_by(address, PORTS[name]) == wanted)  # noqa: B023 - awaited


def shown_by(host: str, port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, port), timeout=5))


@pytest.fixture(scope="module")
def secured(
    cluster: Cluster, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("mtls")
    taken = [K8S / "components" / name for name in ("mtls", "mtls-pool")]
    write(folder, resources=[K8S / "base", K8S / "pool"], components=taken)
    manifests = build(cluster.program, folder)
    asked = [each["spec"] for each in of_kind(manifests, "Certificate").values()]
    names = {each["secretName"]: each["dnsNames"] for each in asked if "dnsNames" in each}
    with scene(cluster, f"mtls-{secrets.token_hex(3)}") as place:
        one = Secured(place, names, trustme.CA())
        tokens = {"tokens": f"use {TOKEN}".encode(), "judge-api-key": b"not-looked-at-here"}
        place.kubectl.apply(
            *(place.secret(each, one.files(each, one.ca)) for each in names),
            place.secret("tuneproof-tokens", tokens),
            *(place.moved(each) for each in manifests if of_judge(each)),
            place.moved(of_kind(manifests, "Service")["generator"]),
            place.borrowing(of_kind(manifests, "Deployment")["judge"], "-m", "tuneproof_judge"),
            pool(place),
        )
        ready = ("--for=condition=Available", "deployment/judge", "--timeout=90s")
        place.kubectl("wait", *ready, "--namespace", place.namespace)
        yield one


def of_judge(manifest: Manifest) -> bool:
    kinds = ("ConfigMap", "Service", "ServiceAccount")
    return manifest["kind"] in kinds and manifest["metadata"]["name"].partition("-")[0] == "judge"


def pool(place: Scene) -> Manifest:
    """The stand-in of a generator, with the generator's certificate."""
    pod = place.pod("generator", {"app.kubernetes.io/name": "generator"}, [])
    (container,) = pod["spec"]["containers"]
    container["command"] = [PYTHON, endpoint.__file__]
    container["env"] = place.variables
    tls = {"name": "tls", "secret": {"secretName": "generator-tls", "defaultMode": 0o444}}
    pod["spec"]["volumes"] = [*place.volumes, tls]
    mount = {"name": "tls", "mountPath": "/etc/tuneproof-tls", "readOnly": True}
    container["volumeMounts"] = [*place.mounts, mount]
    return pod


async def refused(client: JudgeClient) -> str:
    async with client:
        with pytest.raises(Unavailable) as caught:
            await client.rubrics(timeout=20)
    return caught.value.message


async def test_a_judge_serves_who_shows_its_certificate_and_refuses_all_others(
    secured: Secured, tmp_path: Path
) -> None:
    def shown(name: str, files: dict[str, bytes]) -> MountedSecret:
        return MountedSecret(tmp_path / name, files)

    def mine(ca: trustme.CA, **more) -> dict[str, bytes]:
        return secured.files("orchestrator-tls", ca, secured.ca, **more)

    good = shown("good", mine(secured.ca))
    async with secured.client(good) as client:
        # The judge in turn shows its certificate to the pool, and is let in.
        assert (await client.grade(ONE)).criteria["accuracy"].repeats[0].score == 4
    wrong = {
        "none": {"ca.crt": secured.ca.cert_pem.bytes()},
        "authority": mine(trustme.CA()),
        "expired": mine(secured.ca, not_after=YESTERDAY),
    }
    bad = [secured.client(shown(name, files)) for name, files in wrong.items()]
    foreign = shown("foreign", secured.files("orchestrator-tls", trustme.CA()))
    # Names of the namespace are not those in the certificate, which are for `tuneproof`.
    bad += [secured.client(foreign), secured.client(good, server_name="")]
    *closed, unknown, named = await asyncio.gather(*(refused(each) for each in bad))
    assert all("Socket closed" in each for each in closed)
    assert "CERTIFICATE_VERIFY_FAILED" in unknown
    assert "Hostname Verification Check failed" in named


async def test_a_client_outside_takes_its_certificate_from_the_secret_and_forwards_ports(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(secured.place.cluster.kubeconfig))
    there = Reach(ContextCluster("c", secured.place.namespace))
    endpoints = await asyncio.to_thread(there.endpoints, {"token": TOKEN}, ["judge"])
    assert "127.0.0.1" in endpoints.judge
    async with JudgeClient.of(endpoints) as client:
        assert (await client.grade(ONE)).criteria["accuracy"].repeats[0].score == 4


def test_metrics_want_prometheus_certificate_and_probes_want_none(
    secured: Secured, tmp_path: Path
) -> None:
    prometheus = MountedSecret(tmp_path / "own", secured.files("prometheus-tls", secured.ca))
    nobody = MountedSecret(tmp_path / "none", {"ca.crt": secured.ca.cert_pem.bytes()})
    judges = {pod: ip for pod, ip in secured.place.addresses().items() if "judge" in pod}
    assert len(judges) == 2
    for address in judges.values():
        assert "tuneproof_" in metrics(address, ClientTls(prometheus.folder).context())
        with pytest.raises(OSError):  # noqa: PT011 - an alert or a reset
            metrics(address, ClientTls(nobody.folder).context())


def metrics(address: str, context: ssl.SSLContext) -> str:
    """As the PodMonitor has Prometheus read them, by the name that it expects of all."""
    connection = http.client.HTTPSConnection(address, 9090, context=context, timeout=10)
    connection.sock = context.wrap_socket(
        socket.create_connection((address, 9090), timeout=10), server_hostname="metrics.tuneproof"
    )
    with closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


async def test_certificates_and_authority_change_under_load_and_no_call_fails(
    secured: Secured, tmp_path: Path
) -> None:
    old, new = secured.ca, trustme.CA()
    mine = MountedSecret(tmp_path / "mine", secured.files("orchestrator-tls", old))
    left = MountedSecret(tmp_path / "left", secured.files("orchestrator-tls", old, old, new))
    done = Counter()
    ended = asyncio.Event()

    async def stays() -> None:
        async with secured.client(mine) as client:
            while not ended.is_set():
                await client.grade(ONE)
                done["same connection"] += 1

    async def comes_again() -> None:
        while not ended.is_set():
            async with secured.client(mine) as client:
                await client.grade(ONE)
                done["new connection"] += 1

    async def more() -> None:
        before = done.copy()
        while min((done - before).values(), default=0) < 3:
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as load:
        for each in (stays, stays, comes_again):
            load.create_task(each())
        # As docs/security.md says: all trust both, then show new ones, then the old one goes.
        for signs, trusted in ((old, (old, new)), (new, (old, new)), (new, (new,))):
            await secured.rotate(signs, *trusted)
            mine.change(secured.files("orchestrator-tls", signs, *trusted))
            await more()
        await refused(secured.client(left))
        ended.set()
    assert min(done.values()) > 10, done
