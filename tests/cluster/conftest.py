"""What tests on the cluster share: the cluster itself, and a real S3 server that its pods reach."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..programs import free_ports, unpack
from .cluster import HOST, Cluster
from .control_plane import ControlPlane
from .embeddings import embeddings
from .images import INSTALLED, LARGE, build, load
from .installation import Installation, installation, make_weaviate
from .training import IMAGE, write_root


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Started for these tests, and purged after them; or one that runs and stays.

    The latter's folder is named by TUNEPROOF_CLUSTER, for whoever writes tests.
    """
    if running := os.environ.get("TUNEPROOF_CLUSTER"):
        yield Cluster(Path(running))
        return
    one = Cluster(tmp_path_factory.mktemp("cluster") / "c")
    try:
        one.up()
        yield one
    finally:
        one.purge()


@pytest.fixture(scope="session")
def control_plane(
    kubectl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """Kubernetes' own server, controllers and scheduler, with the custom resources of others."""
    one = ControlPlane(kubectl, tmp_path_factory.mktemp("control-plane"))
    try:
        one.start()
        definitions = Path(os.environ["TUNEPROOF_TOOLS"]) / "kubernetes/crds"
        one.kubectl("apply", "--server-side", "-f", definitions)
        one.until_defined()
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="session")
def image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of one whose pods borrow their programs from this machine."""
    cluster.make_image(IMAGE, write_root(tmp_path_factory.mktemp("image") / "root"))
    return IMAGE


@pytest.fixture(scope="session")
def s3(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables with which a client here or in a pod reaches the bucket `artifacts`."""
    folder = tmp_path_factory.mktemp("s3")
    program = folder / "versitygw"
    unpack(Path(os.environ["TUNEPROOF_TOOLS"]) / "s3" / "versitygw.xz", program)
    for name in ("meta", "data/artifacts"):
        (folder / name).mkdir(parents=True)
    address = f"{HOST}:{free_ports(1, HOST)[0]}"
    keys = {"ROOT_ACCESS_KEY": "test", "ROOT_SECRET_KEY": "testtest"}
    command = [program, "--port", address, "posix", "--sidecar", folder / "meta", folder / "data"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=keys, stdout=log, stderr=log)
    variables = {
        "AWS_ACCESS_KEY_ID": keys["ROOT_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": keys["ROOT_SECRET_KEY"],
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{address}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            _wait_for(address)
            yield variables
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(scope="session")
def images(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The node has the images of the Dockerfile, and Weaviate's."""
    folder = tmp_path_factory.mktemp("images")
    # What all builds start with is made once; then one core has the small images, one the large.
    build("judge")
    small = [name for name in INSTALLED if name not in LARGE]
    with ThreadPoolExecutor(2) as pool:
        for done in (
            pool.submit(make_weaviate, cluster, folder),
            *(pool.submit(_give, cluster, names, folder) for names in (LARGE, small)),
        ):
            done.result()


def _give(cluster: Cluster, names: Iterable[str], folder: Path) -> None:
    for name in names:
        build(INSTALLED[name])
        load(cluster, name, folder)


@pytest.fixture(scope="module")
def installed(
    cluster: Cluster,
    images: None,
    s3: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """Overlay `cpu` with the demo's model, everything ready; deleted after the module's tests."""
    folder = tmp_path_factory.mktemp("installed")
    with (
        embeddings(HOST) as url,
        installation(cluster, s3, url, folder) as one,
    ):
        yield one


def _wait_for(address: str) -> None:
    host, _, port = address.partition(":")
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return
