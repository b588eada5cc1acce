"""Where the clients find the services."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
import trustme

from tuneproof.sdk import (
    SERVICES,
    Endpoints,
    GeneratorClient,
    JudgeClient,
    RetrieverClient,
    TrainerClient,
)
from tuneproof.sdk.client import all_pages
from tuneproof.sdk.connection import Connection
from tuneproof.servicekit.errors import DeadlineExceeded, Internal, InvalidInput, Unavailable
from tuneproof.servicekit.testing import MountedSecret, certificate_files

pytestmark = pytest.mark.timeout(10)


def _write(folder: Path, **targets: str) -> None:
    content = {
        name: {"name": name, "pid": 1, "grpc": target, "health": "127.0.0.1:9"}
        for name, target in targets.items()
    }
    (folder / "endpoints.json").write_text(json.dumps(content))


def test_flags_before_environment_before_file(tmp_path):
    _write(tmp_path, retriever="a:1", generator="a:2", trainer="a:3")
    environment = {"TUNEPROOF_RETRIEVER_TARGET": "b:1", "TUNEPROOF_GENERATOR_TARGET": "b:2"}
    found = Endpoints.discover(tmp_path, {"retriever": "c:1", "judge": None}, environment)
    assert (found.retriever, found.generator, found.trainer) == ("c:1", "b:2", "a:3")
    assert found.judge == ""
    assert found.health == {"trainer": "127.0.0.1:9"}


def test_the_process_s_own_environment_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEPROOF_JUDGE_TARGET", "[::1]:7")
    monkeypatch.setenv("TUNEPROOF_TOKEN", "secret-of-mine")
    found = Endpoints.discover(tmp_path)
    assert found.judge == "[::1]:7"
    assert found.token == "secret-of-mine"
    assert "secret-of-mine" not in repr(found)


def test_certificates_are_for_all_but_the_services_of_this_machine(tmp_path):
    _write(tmp_path, retriever="a:1", trainer="a:3")
    secret = MountedSecret(tmp_path / "tls", certificate_files(trustme.CA(), "me"))
    environment = {
        "TUNEPROOF_RETRIEVER_TARGET": "b:1",
        "TUNEPROOF_TLS_DIR": str(secret.folder),
        "TUNEPROOF_TLS_SERVER_NAME": "pool",
        "TUNEPROOF_TOKEN_FILE": "/run/token",
    }
    found = Endpoints.discover(tmp_path, {}, environment)
    assert found.tls_of("retriever").server_name == "pool"
    assert found.tls_of("trainer") is None
    assert found.token == Path("/run/token")
    assert Endpoints.discover(tmp_path, {"token": "t"}, environment).token == "t"
    with pytest.raises(InvalidInput, match=r"lacks ca\.crt"):
        Endpoints.discover(tmp_path, {}, {"TUNEPROOF_TLS_DIR": str(tmp_path)})


def test_a_missing_service_is_named_with_what_to_do(tmp_path):
    found = Endpoints.discover(tmp_path, {}, {})
    assert found.token is None
    for service in SERVICES:
        with pytest.raises(Unavailable) as caught:
            found.target(service)
        for hint in (
            service,
            "tuneproof up",
            f"--{service}",
            f"TUNEPROOF_{service.upper()}_TARGET",
        ):
            assert hint in caught.value.message


def test_all_wrong_addresses_are_told_at_once(tmp_path):
    wrong = {"retriever": "localhost", "judge": "host:99999", "trainer": ":1", "generator": "h:5"}
    with pytest.raises(InvalidInput) as caught:
        Endpoints.discover(tmp_path, wrong, {})
    for address in ("localhost", "host:99999", "':1'"):
        assert address in caught.value.message
    assert "h:5" not in caught.value.message


@pytest.mark.parametrize("content", ['{"retriever": ', "[1]", "\udcff"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "endpoints.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidInput, match=r"endpoints\.json.*tuneproof up"):
        Endpoints.discover(tmp_path, {}, {})


@pytest.mark.parametrize("client", [RetrieverClient, GeneratorClient, TrainerClient, JudgeClient])
def test_a_client_needs_an_address(client):
    with pytest.raises(Unavailable, match="no address"):
        client("")


async def test_pages_that_repeat_end():
    async def read(token: str) -> tuple[list[int], str]:
        return [1], "again"

    with pytest.raises(Internal, match="twice"):
        await all_pages(read)


@pytest.mark.parametrize(
    ("code", "details", "error", "said"),
    [
        ("INTERNAL", "Internal error from Core", Unavailable, "broke off the call Ask"),
        ("INTERNAL", "Received RST_STREAM", Internal, "Ask: Received RST_STREAM"),
        ("CANCELLED", "stopping", Unavailable, "ended the call Ask"),
        ("UNAVAILABLE", "refused", Unavailable, r"cannot be reached \(refused\)"),
        ("DEADLINE_EXCEEDED", "", DeadlineExceeded, "did not end the call Ask in time"),
        ("UNIMPLEMENTED", "no such method", Internal, "Ask: no such method"),
    ],
)
async def test_what_the_server_did_not_say_names_the_server(code, details, error, said):
    connection = Connection("judge", "host:1", token=None, services=[])
    nothing = grpc.aio.Metadata()
    failure = grpc.aio.AioRpcError(grpc.StatusCode[code], nothing, nothing, details)
    with pytest.raises(error, match=f"the judge at host:1.*{said}"), connection.errors("Ask"):
        raise failure
    await connection.close()
