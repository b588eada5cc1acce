"""Adapters in OCI registries: a fake at the wire, and Docker's own where it is installed."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tuneproof.adapters import AdapterRef, Registry, identify_base, oci
from tuneproof.adapters.testing import lora_tensors
from tuneproof.adapters.testing_oci import FakeRegistry, fake_registry
from tuneproof.servicekit.errors import (
    Corrupted,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with fake_registry() as server:
        yield server


@pytest.fixture(params=["fake", pytest.param("docker-registry", marks=pytest.mark.process)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a registry listens: the fake, and distribution's (Debian's docker-registry)."""
    if request.param == "fake":
        yield request.getfixturevalue("fake").address
        return
    if (program := shutil.which(request.param)) is None:
        pytest.skip("no docker-registry: install Debian's package of that name")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (tmp_path / "registry.log").open("wb") as log:
        running = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        for _ in range(200):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def committed(
    tmp_path: Path, base_folder: Path, make_adapter: Callable[..., Path]
) -> tuple[AdapterRef, Path]:
    """An adapter, and its fetched folder."""
    registry = Registry(str(tmp_path / "artifacts"))
    told = {"run_id": "r-1", "fingerprint": "none"}
    ref = registry.commit(
        make_adapter(), name="short", base=identify_base(base_folder), provenance=told
    )
    return ref, registry.fetch(ref, tmp_path / "cache")


def test_what_is_pushed_is_pulled_and_taken_with_digest_and_provenance(
    committed: tuple[AdapterRef, Path], address: str, tmp_path: Path
) -> None:
    ref, folder = committed
    digest = oci.push(folder, ref, f"oci://{address}/team/short:v1")
    assert oci.push(folder, ref, f"oci://{address}/team/short:v1") == digest
    for number, end in enumerate((":v1", f"@{digest}")):
        target = tmp_path / f"pulled-{number}"
        target.mkdir()
        assert oci.pull(f"oci://{address}/team/short{end}", target) == ref
        names = {path.name for path in folder.iterdir()}
        assert {path.name for path in target.iterdir()} == names
        elsewhere = Registry(str(tmp_path / f"elsewhere-{number}"))
        assert elsewhere.take(target, "short") == ref
        assert elsewhere.provenance(ref).details["run_id"] == "r-1"
    with pytest.raises(NotFound, match="404"):
        oci.pull(f"oci://{address}/team/short:v2", tmp_path)
    with pytest.raises(NotFound, match="404"):
        oci.pull(f"oci://{address}/team/other", tmp_path)


def test_blobs_that_are_there_are_not_sent_again(
    committed: tuple[AdapterRef, Path], fake: FakeRegistry
) -> None:
    ref, folder = committed
    oci.push(folder, ref, f"oci://{fake.address}/short")
    sent = fake.uploads
    assert sent == 6
    oci.push(folder, ref, f"oci://{fake.address}/short:again")
    assert fake.uploads == sent
    assert {"short:latest", "short:again"} < fake.manifests.keys()


def test_a_registry_that_lies_is_found_out(
    committed: tuple[AdapterRef, Path], fake: FakeRegistry, tmp_path: Path
) -> None:
    ref, folder = committed
    url = f"oci://{fake.address}/short:v1"
    oci.push(folder, ref, url)
    good = fake.manifests["short:v1"]
    weights = next(
        layer["digest"]
        for layer in json.loads(good)["layers"]
        if layer["mediaType"] == "application/vnd.safetensors"
    )
    kept = fake.blobs[weights]
    fake.blobs[weights] = kept[:-1] + bytes([kept[-1] ^ 1])
    with pytest.raises(Corrupted, match="not what its digest says"):
        oci.pull(url, tmp_path)
    fake.blobs[weights] = kept + b"more"
    with pytest.raises(Corrupted, match="not what its digest says"):
        oci.pull(url, tmp_path)
    fake.blobs[weights] = kept
    for change, reason in (
        ({"annotations": {}}, "is not an adapter of tuneproof"),
        ({"layers": []}, "lacks adapter_model.safetensors"),
        ({"annotations": {oci.ADAPTER_ANNOTATION: f"short@sha256:{'0' * 64}"}}, "its manifest has"),
    ):
        fake.manifests["short:v1"] = json.dumps(json.loads(good) | change).encode()
        with pytest.raises(Corrupted, match=reason):
            oci.pull(url, tmp_path)
    fake.manifests["short:v1"] = b"[]"
    with pytest.raises(Corrupted, match="is not an adapter"):
        oci.pull(url, tmp_path)


def test_credentials_of_docker_login_are_used_and_their_lack_is_told(
    committed: tuple[AdapterRef, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, folder = committed
    with fake_registry("me:secret") as server:
        url = f"oci://{server.address}/team/short:v1"
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        with pytest.raises(Unauthenticated, match="docker login"):
            oci.push(folder, ref, url)
        secret = base64.b64encode(b"me:secret").decode()
        config = {"auths": {server.address: {"auth": secret}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        oci.push(folder, ref, url)
        (tmp_path / "pulled").mkdir()
        assert oci.pull(url, tmp_path / "pulled") == ref


@pytest.mark.parametrize(
    "url", ["oci://host", "oci://host/Team/x", "host/team/x", "oci://host/x:", "oci://host/a b"]
)
def test_a_malformed_address_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not oci://HOST/REPOSITORY:TAG"):
        oci.pull(url, tmp_path)


def test_a_registry_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match="does not answer"):
        oci.pull(f"oci://127.0.0.1:{port}/x", tmp_path)


def test_what_is_not_what_its_manifest_says_is_not_taken(
    committed: tuple[AdapterRef, Path], make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    _, folder = committed
    tensors = lora_tensors()
    next(iter(tensors.values()))[0, 0] += 1
    altered = make_adapter(tensors)
    shutil.copy(folder / "manifest.json", altered)
    with pytest.raises(Corrupted, match="is not what was committed"):
        Registry(str(tmp_path / "elsewhere")).take(altered, "short")
    (altered / "manifest.json").unlink()
    with pytest.raises(Corrupted, match=r"no manifest\.json"):
        Registry(str(tmp_path / "elsewhere")).take(altered, "short")


def test_a_removed_adapter_is_not_listed_and_can_be_committed_again(
    committed: tuple[AdapterRef, Path], tmp_path: Path
) -> None:
    ref, folder = committed
    registry = Registry(str(tmp_path / "artifacts"))
    assert registry.size(ref) == (folder / "adapter_model.safetensors").stat().st_size
    registry.remove(ref)
    registry.remove(ref)
    assert registry.list() == ()
    assert registry.take(folder, "short") == ref
    assert registry.list() == (ref,)
