"""A real service process: start, health, announcement, signals, mistakes in settings."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tuneproof.servicekit.client import is_reachable, is_ready, wait_ready
from tuneproof.servicekit.settings import ServiceSettings
from tuneproof.servicekit.testing import certificate_files
from tuneproof.servicekit.tls import ClientTls

pytestmark = pytest.mark.process

PROGRAM = """
from contextlib import asynccontextmanager
from pathlib import Path
from pydantic import Field
from tuneproof.judge.v1 import judge_pb2, judge_pb2_grpc
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.server import Service, run
from tuneproof.servicekit.settings import ServiceSettings, settings_config

class SampleSettings(ServiceSettings):
    '''A sample.'''
    model_config = settings_config("sample")
    flag_file: Path = Field(..., description="Not ready while this is missing.")

@asynccontextmanager
async def build(settings):
    if settings.flag_file.name == "broken":
        raise Unavailable("the backend is broken; mend it")
    async def ready():
        if not settings.flag_file.exists():
            raise Unavailable("no flag")
    yield Service(
        register=lambda s: judge_pb2_grpc.add_JudgeServiceServicer_to_server(
            judge_pb2_grpc.JudgeServiceServicer(), s),
        descriptors=[judge_pb2.DESCRIPTOR.services_by_name["JudgeService"]],
        check_ready=ready, endpoints={"extra": "here"})
    settings.flag_file.with_suffix(".closed").write_text("closed")

raise SystemExit(run(SampleSettings, build, name="sample"))
"""


@pytest.fixture
def sample(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", PROGRAM, "--flag-file", str(tmp_path / "flag")]
    process = subprocess.Popen([*command, "--announce-file", str(tmp_path / "at.json")])
    yield process
    process.kill()
    process.wait()


async def announced(path: Path, process: subprocess.Popen[bytes]) -> dict[str, str]:
    while not path.exists():
        assert process.poll() is None
        await asyncio.sleep(0.05)
    return json.loads(path.read_text())


async def test_life_of_a_service(sample: subprocess.Popen[bytes], tmp_path: Path) -> None:
    addresses = await announced(tmp_path / "at.json", sample)
    assert addresses["pid"] == sample.pid
    assert addresses["extra"] == "here"
    assert not await is_ready(addresses["health"])
    (tmp_path / "flag").touch()
    await wait_ready(addresses["health"], timeout=10)
    sample.send_signal(signal.SIGTERM)
    assert sample.wait(10) == 0
    assert (tmp_path / "flag.closed").exists()


def run_sample(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    command = [sys.executable, "-c", PROGRAM, *flags]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_all_mistakes_are_listed_at_once() -> None:
    ended = run_sample(
        "--bind", "nowhere", "--drain-seconds", "-1", TUNEPROOF_SAMPLE_LOG_LEVEL="loud"
    )
    assert ended.returncode == 2
    for part in ("--bind", "--drain-seconds", "--log-level", "--flag-file"):
        assert part in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_open_address_needs_tokens_and_their_settings_fit() -> None:
    ended = run_sample("--bind", "0.0.0.0:0", "--flag-file", "x")
    assert ended.returncode == 2
    assert "tokens_file" in ended.stderr
    with pytest.raises(ValueError, match="tls_client_certificates needs tls_dir"):
        ServiceSettings(tls_client_certificates=True)
    with pytest.raises(ValueError, match="leave one out"):
        ServiceSettings(tokens_file=Path("x"), token_review=True)
    assert ServiceSettings(bind="0.0.0.0:1", tls_dir=Path("x"), tls_client_certificates=True)


async def test_with_certificates_every_port_is_encrypted_but_health(tmp_path: Path) -> None:
    ca = trustme.CA()
    for name, content in certificate_files(ca, "127.0.0.1").items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", PROGRAM, "--flag-file", str(tmp_path / "flag")]
    flags = ["--tls-dir", str(tmp_path), "--tls-client-certificates"]
    process = subprocess.Popen([*command, *flags, "--announce-file", str(tmp_path / "at.json")])
    try:
        addresses = await announced(tmp_path / "at.json", process)
        (tmp_path / "flag").touch()
        # As the kubelet probes it, which speaks no TLS.
        await wait_ready(addresses["health"], timeout=10)
        tls = ClientTls(tmp_path)
        assert await is_reachable(addresses["grpc"], timeout=5, tls=tls)
        assert not await is_reachable(addresses["grpc"], timeout=0.3)
        context = tls.context()

        def read() -> bytes:
            with urllib.request.urlopen(addresses["metrics"], context=context, timeout=5) as page:
                return page.read()

        assert b"python_info" in await asyncio.to_thread(read)
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_a_folder_without_certificates_is_told(tmp_path: Path) -> None:
    ended = run_sample("--flag-file", "x", "--tls-dir", str(tmp_path))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "lacks tls.crt and tls.key" in ended.stderr


def test_a_bad_tokens_file_is_named_and_its_content_is_not(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# roles\nadmin verysecretverysecret\n")
    ended = run_sample("--flag-file", "x", "--tokens-file", str(tokens))
    assert ended.returncode == 1
    assert "line 2" in ended.stderr
    assert "verysecret" not in ended.stderr


def test_a_backend_that_does_not_start_is_one_line() -> None:
    ended = run_sample("--flag-file", "broken")
    assert (ended.returncode, ended.stderr) == (
        1,
        "tuneproof-sample: the backend is broken; mend it\n",
    )


def test_a_taken_port_is_told(sample: subprocess.Popen[bytes], tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run_sample("--flag-file", "x", "--bind", bind)
    assert ended.returncode == 1
    assert bind in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_names_flags_and_variables() -> None:
    ended = run_sample("--help")
    assert ended.returncode == 0
    assert "--tokens-file" in ended.stdout
    assert "TUNEPROOF_SAMPLE_" in ended.stdout
