"""TLS and mTLS by real connections: who is refused, and what a rotation costs."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography import x509

from tuneproof.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from tuneproof.servicekit.auth import caller_of
from tuneproof.servicekit.client import connect, is_reachable
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.metrics_page import serve_metrics
from tuneproof.servicekit.server import ConnectionAge, Service
from tuneproof.servicekit.testing import MountedSecret, serving
from tuneproof.servicekit.testing import certificate_files as files
from tuneproof.servicekit.tls import ClientTls, ServerTls

pytestmark = pytest.mark.timeout(60)

DESCRIPTORS = [retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"]]
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Remembers who deletes, and from where."""

    def __init__(self) -> None:
        self.callers: set[str] = set()
        self.peers: set[str] = set()

    async def DeleteCorpus(self, request, context):
        self.callers.add(caller_of(context))
        self.peers.add(context.peer())
        return retriever_pb2.DeleteCorpusResponse()

    async def SearchBatch(self, request_iterator, context):
        async for request in request_iterator:
            yield retriever_pb2.SearchBatchResponse(id=request.id)


@asynccontextmanager
async def encrypted(secret: Path, *, mutual: bool = False, age: ConnectionAge | None = None):
    """A service and its target."""
    servicer = Retriever()

    async def ready() -> None:
        return None

    def register(server) -> None:
        retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(servicer, server)

    service = Service(register=register, descriptors=DESCRIPTORS, check_ready=ready)
    tls = ServerTls(secret, client_certificates=mutual)
    async with serving(service, tls=tls, age=age) as target:
        yield servicer, target


async def delete(target: str, tls: ClientTls | None) -> None:
    async with connect(target, services=(), tls=tls) as channel:
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        await stub.DeleteCorpus(retriever_pb2.DeleteCorpusRequest(), timeout=5)


async def refused(target: str, tls: ClientTls | None) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await delete(target, tls)
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
    return failure.value.details()


async def test_a_call_is_encrypted_and_plaintext_is_refused(tmp_path: Path, ca) -> None:
    server = MountedSecret(tmp_path / "server", files(ca, HOST))
    trust = MountedSecret(tmp_path / "trust", {"ca.crt": ca.cert_pem.bytes()})
    tls = ClientTls(trust.folder)
    async with encrypted(server.folder) as (servicer, target):
        await delete(target, tls)
        assert servicer.callers == {HOST}
        assert await is_reachable(target, timeout=5, tls=tls)
        assert not await is_reachable(target, timeout=0.3)
        await refused(target, None)


@pytest.mark.parametrize("wrong", ["authority", "expired", "name"])
async def test_a_client_leaves_a_server_that_is_not_the_right_one(
    tmp_path: Path, ca, stranger, wrong: str
) -> None:
    shown = {
        "authority": files(stranger, HOST),
        "expired": files(ca, HOST, not_after=YESTERDAY),
        "name": files(ca, "judge.tuneproof.svc"),
    }[wrong]
    server = MountedSecret(tmp_path / "server", shown)
    trust = MountedSecret(tmp_path / "trust", {"ca.crt": ca.cert_pem.bytes()})
    async with encrypted(server.folder) as (servicer, target):
        await refused(target, ClientTls(trust.folder))
        assert servicer.callers == set()
        if wrong == "name":
            await delete(target, ClientTls(trust.folder, server_name="judge.tuneproof.svc"))


@pytest.mark.parametrize("wrong", ["none", "authority", "expired"])
async def test_with_mtls_a_server_refuses_who_shows_no_good_certificate(
    tmp_path: Path, ca, stranger, wrong: str
) -> None:
    shown = {
        "none": {"ca.crt": ca.cert_pem.bytes()},
        "authority": files(stranger, "client", ca),
        "expired": files(ca, "client", not_after=YESTERDAY),
    }[wrong]
    server = MountedSecret(tmp_path / "server", files(ca, HOST))
    client = MountedSecret(tmp_path / "client", shown)
    good = MountedSecret(tmp_path / "good", files(ca, "study.tuneproof"))
    async with encrypted(server.folder, mutual=True) as (servicer, target):
        await refused(target, ClientTls(client.folder))
        assert servicer.callers == set()
        await delete(target, ClientTls(good.folder))
        assert servicer.callers == {"study.tuneproof"}


async def test_certificates_and_authority_are_rotated_under_load_and_no_call_fails(
    tmp_path: Path, ca
) -> None:
    new = trustme.CA()
    server = MountedSecret(tmp_path / "server", files(ca, HOST))
    client = MountedSecret(tmp_path / "client", files(ca, "before"))
    old = MountedSecret(tmp_path / "old", files(ca, "before", ca, new))
    ended = asyncio.Event()
    done = 0

    async def load(channel) -> None:
        nonlocal done
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        while not ended.is_set():
            await stub.DeleteCorpus(retriever_pb2.DeleteCorpusRequest(), timeout=10)
            done += 1

    async def more(servicer: Retriever, what: str) -> None:
        """Until calls came over connections made after this moment."""
        servicer.callers.clear()
        seen = set(servicer.peers)
        while len(servicer.peers - seen) < 3 or servicer.callers != {what}:
            servicer.callers.clear()
            await asyncio.sleep(0.05)

    async with (
        encrypted(server.folder, mutual=True, age=ConnectionAge(0.1)) as (servicer, target),
        connect(target, services=(), tls=ClientTls(client.folder)) as channel,
    ):
        stream = retriever_pb2_grpc.RetrieverServiceStub(channel).SearchBatch(timeout=60)
        await stream.write(retriever_pb2.SearchBatchRequest(id="before"))
        assert (await stream.read()).id == "before"
        callers = [asyncio.create_task(load(channel)) for _ in range(8)]
        await more(servicer, "before")
        # As an authority is changed: both trust both, then both show new, then the old one goes.
        server.change(files(ca, HOST, ca, new))
        client.change(files(ca, "between", ca, new))
        await more(servicer, "between")
        server.change(files(new, HOST, ca, new))
        client.change(files(new, "after", ca, new))
        await more(servicer, "after")
        await delete(target, ClientTls(old.folder))
        server.change(files(new, HOST))
        client.change(files(new, "after"))
        await more(servicer, "after")
        await refused(target, ClientTls(old.folder))
        ended.set()
        await asyncio.gather(*callers)
        # A stream that began before all that goes on.
        await stream.write(retriever_pb2.SearchBatchRequest(id="after"))
        assert (await stream.read()).id == "after"
        await stream.done_writing()
    assert done > 100


async def test_files_that_do_not_fit_leave_the_old_ones_in_use(tmp_path: Path, ca) -> None:
    folder = tmp_path / "server"
    folder.mkdir()

    def write(content: dict[str, bytes]) -> None:
        for name, data in content.items():
            (folder / name).write_bytes(data)

    write(files(ca, HOST))
    trust = MountedSecret(tmp_path / "trust", {"ca.crt": ca.cert_pem.bytes()})
    tls = ClientTls(trust.folder)
    async with encrypted(folder) as (_, target):
        coming = files(ca, HOST)
        write({"tls.crt": coming["tls.crt"]})
        await delete(target, tls)
        write({"tls.crt": b"none", "tls.key": b"none"})
        await delete(target, tls)
        write(coming)
        await delete(target, tls)
        port = int(target.rpartition(":")[2])
        shown = await asyncio.to_thread(ssl.get_server_certificate, (HOST, port))
    serials = [
        x509.load_pem_x509_certificate(pem).serial_number
        for pem in (coming["tls.crt"], shown.encode())
    ]
    assert serials[0] == serials[1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda found: found.pop("tls.key"), r"lacks tls\.key; a Secret of cert-manager"),
        (lambda found: found.pop("ca.crt"), r"lacks ca\.crt"),
        (lambda found: found.update({"tls.crt": b"no PEM"}), "cannot be used"),
        (lambda found: found.update({"ca.crt": b""}), "cannot be used"),
    ],
)
def test_a_folder_that_cannot_serve_is_refused_at_the_start(
    tmp_path: Path, ca, spoil, message: str
) -> None:
    found = files(ca, HOST)
    spoil(found)
    secret = MountedSecret(tmp_path / "server", found)
    with pytest.raises(InvalidInput, match=message):
        ServerTls(secret.folder, client_certificates=True)


def test_a_clients_certificate_without_its_key_is_refused(tmp_path: Path, ca) -> None:
    found = files(ca, "client")
    del found["tls.key"]
    with pytest.raises(InvalidInput, match=r"lacks tls\.key"):
        ClientTls(MountedSecret(tmp_path / "client", found).folder)


def status_of(url: str, context: ssl.SSLContext) -> int:
    address = url.removeprefix("https://").partition("/")[0]
    connection = http.client.HTTPSConnection(address, context=context, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_metrics_page_is_encrypted_and_follows_a_rotation(tmp_path: Path, ca) -> None:
    new = trustme.CA()
    server = MountedSecret(tmp_path / "server", files(ca, HOST))
    context = ServerTls(server.folder, client_certificates=True).context()
    url = serve_metrics(f"{HOST}:0", context)
    assert url.startswith("https://")
    mine = ClientTls(MountedSecret(tmp_path / "mine", files(ca, "prometheus")).folder).context()
    port = int(url.removeprefix(f"https://{HOST}:").removesuffix("/metrics"))
    with socket.create_connection((HOST, port)):  # says nothing, and holds up nobody
        assert status_of(url, mine) == http.client.OK
        nobody = MountedSecret(tmp_path / "nobody", {"ca.crt": ca.cert_pem.bytes()})
        with pytest.raises(OSError):  # noqa: PT011 - an alert or a reset
            status_of(url, ClientTls(nobody.folder).context())
        server.change(files(new, HOST))
        with pytest.raises(ssl.SSLCertVerificationError):
            status_of(url, mine)
        theirs = MountedSecret(tmp_path / "theirs", files(new, "prometheus"))
        assert status_of(url, ClientTls(theirs.folder).context()) == http.client.OK
        # The authority that signed it before is trusted no longer.
        left = MountedSecret(tmp_path / "left", files(ca, "prometheus", new))
        with pytest.raises(OSError):  # noqa: PT011
            status_of(url, ClientTls(left.folder).context())
