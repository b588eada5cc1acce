"""Tokens that change while a service runs: those of a file, and those that Kubernetes knows."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from tuneproof.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from tuneproof.servicekit.auth import TokensFile
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.errors import Forbidden, InvalidInput, Unauthenticated, Unavailable
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import MountedSecret, serving
from tuneproof.servicekit.token_review import Cluster, TokenReview

pytestmark = pytest.mark.timeout(30)

DESCRIPTORS = [retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"]]
OLD, NEW = "o" * 20, "n" * 20


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    async def DeleteCorpus(self, request, context):
        return retriever_pb2.DeleteCorpusResponse()


async def ready() -> None:
    return None


SERVICE = Service(
    lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(Retriever(), server),
    DESCRIPTORS,
    ready,
)


async def delete(channel) -> None:
    stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
    with typed_errors():
        await stub.DeleteCorpus(retriever_pb2.DeleteCorpusRequest(), timeout=5)


def line(token: str) -> bytes:
    return f"manage {token}\n".encode()


async def test_tokens_of_a_secret_are_rotated_and_the_old_one_is_refused_once_it_is_gone(
    tmp_path: Path,
) -> None:
    server = MountedSecret(tmp_path / "server", {"tokens": line(OLD)})
    client = MountedSecret(tmp_path / "client", {"token": OLD.encode()})
    tokens = TokensFile(server.folder / "tokens")
    async with (
        serving(SERVICE, tokens=tokens) as target,
        connect(target, services=DESCRIPTORS, token=client.folder / "token") as channel,
        connect(target, services=DESCRIPTORS, token=OLD) as left,
    ):
        await delete(channel)
        server.change({"tokens": line(OLD) + line(NEW)})
        await delete(channel)
        client.change({"token": NEW.encode() + b"\n"})
        await delete(channel)
        await delete(left)
        server.change({"tokens": line(NEW)})
        await delete(channel)
        with pytest.raises(Unauthenticated, match="not known"):
            await delete(left)
        # A mistake locks out nobody, and lets nobody in.
        for mistake in (b"manager " + OLD.encode(), b"\xff" + line(OLD)):
            server.change({"tokens": mistake})
            await delete(channel)
            with pytest.raises(Unauthenticated):
                await delete(left)


def test_a_client_needs_its_tokens_file_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read a bearer token from .*none: No such file"):
        connect("127.0.0.1:1", services=(), token=tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InvalidInput, match="empty: it must hold a bearer token"):
        connect("127.0.0.1:1", services=(), token=tmp_path / "empty")


class Api:
    """The two calls of Kubernetes, as its API answers them."""

    def __init__(self) -> None:
        self.users = {"of-reader": "reader", "of-owner": "owner"}
        self.allowed = {("reader", "use"), ("owner", "manage")}
        self.asked: list[tuple[str, dict]] = []
        self.own = "own"

    def answer(self, path: str, authorization: str, spec: dict) -> tuple[int, dict]:
        self.asked.append((path, spec))
        if authorization != f"Bearer {self.own}":
            return 403, {}
        if path == "/apis/authentication.k8s.io/v1/tokenreviews":
            name = self.users.get(spec["token"])
            if name is None or spec["audiences"] != ["tuneproof"]:
                return 201, {"authenticated": False}
            user = {"username": name, "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}}
            return 201, {"authenticated": True, "user": user, "audiences": spec["audiences"]}
        assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        assert (spec["uid"], spec["groups"], spec["extra"]) == ("1", ["g"], {"k": ["v"]})
        what = spec["resourceAttributes"]
        assert (what["group"], what["resource"]) == ("tuneproof.dev", "retriever")
        assert what["namespace"] == "here"
        return 201, {"allowed": (spec["user"], what["verb"]) in self.allowed}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def cluster(api: Api, tmp_path: Path) -> Iterator[tuple[Cluster, MountedSecret]]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            code, status = api.answer(self.path, self.headers["authorization"], body["spec"])
            said = json.dumps({**body, "status": status}).encode()
            self.send_response(code)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *words) -> None:
            pass

    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    account = MountedSecret(tmp_path / "account", account_files(ca, "own"))
    account.ca = ca
    yield Cluster("127.0.0.1", server.server_port, account.folder), account
    server.shutdown()
    server.server_close()


def account_files(ca: trustme.CA, token: str) -> dict[str, bytes]:
    return {"token": token.encode(), "ca.crt": ca.cert_pem.bytes(), "namespace": b"here"}


async def test_kubernetes_says_whose_a_token_is_and_what_its_holder_may(api, cluster) -> None:
    review = TokenReview("retriever", "tuneproof", cluster[0])
    assert await review.check("Bearer of-reader", needs="use") == "reader"
    assert await review.check("Bearer of-owner", needs="use") == "owner"
    assert await review.check("Bearer of-owner", needs="manage") == "owner"
    with pytest.raises(Forbidden, match=r"reader may not manage retriever\.tuneproof\.dev"):
        await review.check("Bearer of-reader", needs="manage")
    with pytest.raises(Unauthenticated, match="audience tuneproof"):
        await review.check("Bearer of-nobody", needs="use")
    other = TokenReview("retriever", "elsewhere", cluster[0])
    with pytest.raises(Unauthenticated):
        await other.check("Bearer of-reader", needs="use")


async def test_an_answer_holds_for_a_minute_and_then_a_revoked_token_is_refused(
    api, cluster
) -> None:
    now = 0.0
    review = TokenReview("retriever", "tuneproof", cluster[0], clock=lambda: now)
    await review.check("Bearer of-owner", needs="manage")
    asked = len(api.asked)
    del api.users["of-owner"]
    now = 59.0
    await review.check("Bearer of-owner", needs="manage")
    assert len(api.asked) == asked
    now = 61.0
    with pytest.raises(Unauthenticated):
        await review.check("Bearer of-owner", needs="manage")


async def test_the_pods_own_token_is_rotated_and_a_refusal_of_it_is_no_refusal_of_the_caller(
    api, cluster
) -> None:
    account = cluster[1]
    review = TokenReview("retriever", "tuneproof", cluster[0])
    api.own = "next"
    with pytest.raises(Unavailable, match=r"403; does the service account have .*auth-delegator"):
        await review.check("Bearer of-reader", needs="use")
    account.change(account_files(account.ca, "next"))
    assert await review.check("Bearer of-reader", needs="use") == "reader"
    gone = TokenReview("retriever", "tuneproof", Cluster("127.0.0.1", 1, account.folder))
    with pytest.raises(Unavailable, match="does not answer"):
        await gone.check("Bearer of-reader", needs="use")


def test_outside_a_pod_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InvalidInput, match="needs a pod"):
        TokenReview.in_pod("judge", "tuneproof")
