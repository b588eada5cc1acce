"""A real Weaviate server with the settings of the Kubernetes component, and its backup in S3."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tuneproof_retriever.corpus import Chunking, Corpus, EmbedderIdentity
from tuneproof_retriever.stores.weaviate_options import Server, WeaviateOptions
from tuneproof_retriever.stores.weaviate_store import open_weaviate_store

from .programs import free_ports, unpack
from .rendering import ROOT

ENV = ROOT / "deploy/k8s/components/weaviate/weaviate.env"
KEY = "k" * 24
CLUSTER_PORTS = (
    "CLUSTER_GOSSIP_BIND_PORT",
    "CLUSTER_DATA_BIND_PORT",
    "RAFT_PORT",
    "RAFT_INTERNAL_RPC_PORT",
)

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Started:
    """The server, and the folder behind its bucket."""

    url: str
    grpc: str
    bucket: Path

    def call(self, method: str, path: str, *, key: str = KEY, **more: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.request(
            method, f"{self.url}{path}", headers=headers, trust_env=False, timeout=20, **more
        )


@pytest.fixture(scope="module")
def tools() -> Path:
    folder = Path(os.environ.get("TUNEPROOF_TOOLS", ""))
    if not (folder / "weaviate/weaviate-server.xz").is_file():
        pytest.skip("needs a Weaviate and an S3 server: set TUNEPROOF_TOOLS to their folder")
    if missing := [name for name in ("curl", "xz") if not shutil.which(name)]:
        pytest.skip(f"the S3 server's script needs {' and '.join(missing)}")
    return folder


@pytest.fixture(scope="module")
def server(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("weaviate")
    program = folder / "weaviate-server"
    unpack(tools / "weaviate/weaviate-server.xz", program)
    s3_port, http_port, grpc_port, *cluster = free_ports(7)
    settings = dict(line.split("=", 1) for line in ENV.read_text().splitlines())
    # What a pod has elsewhere: its disk, its ports, the secret, the bucket's address.
    settings |= {
        **dict(zip(CLUSTER_PORTS, map(str, cluster), strict=True)),
        "PERSISTENCE_DATA_PATH": str(folder / "data"),
        "GRPC_PORT": str(grpc_port),
        "PROMETHEUS_MONITORING_ENABLED": "false",
        "CLUSTER_HOSTNAME": settings["RAFT_JOIN"],
        "CLUSTER_JOIN": "",
        "CLUSTER_BIND_ADDR": "127.0.0.1",
        "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_BASIC_AUTH_USERNAME": "node",
        "CLUSTER_BASIC_AUTH_PASSWORD": "p" * 24,
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": KEY,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "testtest",
        "BACKUP_S3_BUCKET": "artifacts",
        "BACKUP_S3_ENDPOINT": f"127.0.0.1:{s3_port}",
        "BACKUP_S3_USE_SSL": "false",
        # Without this Google's client library looks for a server of its cloud at the start.
        "GCE_METADATA_HOST": "127.0.0.1:9",
    }
    started = Started(
        f"http://127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}", folder / "s3/data/artifacts"
    )
    with ExitStack() as ending:
        s3 = [str(tools / "s3/s3.sh")]
        subprocess.run(
            [*s3, "start", str(folder / "s3"), str(s3_port)],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=30,
        )
        ending.callback(subprocess.run, [*s3, "stop", str(folder / "s3")], check=True)
        log = ending.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            [str(program), "--host", "127.0.0.1", "--port", str(http_port), "--scheme", "http"],
            env=settings,
            stdout=log,
            stderr=log,
        )
        ending.callback(process.wait, 60)
        ending.callback(process.terminate)
        wait_ready(started, process, folder / "log")
        yield started


def wait_ready(server: Started, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < end, log.read_text()[-2000:]
        try:
            if server.call("GET", "/v1/.well-known/ready").status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)


def test_it_needs_the_key_and_has_no_module_but_backups(server: Started) -> None:
    for key in ("", "wrong"):
        assert server.call("GET", "/v1/schema", key=key).status_code == httpx.codes.UNAUTHORIZED
    assert set(server.call("GET", "/v1/meta").json()["modules"]) == {"backup-s3"}


async def test_a_retriever_keeps_corpora_there_and_a_backup_of_them_is_in_s3(
    server: Started,
) -> None:
    identity = EmbedderIdentity("hand", "sha256:" + "0" * 64, dimension=4, max_tokens=100)
    corpus = Corpus("manual", Chunking(100), identity, datetime(2026, 1, 2, tzinfo=UTC))
    options = WeaviateOptions(Server(server.url, server.grpc, KEY))
    async with open_weaviate_store(options) as store:
        await store.check_ready()
        assert await store.create(corpus)
        assert await store.names() == ["manual"]
    begun = server.call("POST", "/v1/backups/s3", json={"id": "monday"})
    assert begun.status_code == httpx.codes.OK, begun.text
    end = time.monotonic() + 30
    while (state := server.call("GET", "/v1/backups/s3/monday").json())["status"] != "SUCCESS":
        assert state["status"] != "FAILED", state
        assert time.monotonic() < end, state
        time.sleep(0.2)
    assert list((server.bucket / "monday").rglob("*"))
