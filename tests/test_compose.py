"""compose.yaml, read as Compose reads it; by Compose itself where that is installed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tuneproof.local.options import PREFERRED_PORTS, LocalOptions, flags_of

from .test_manifests import SERVICES, settings_of

ROOT = Path(__file__).parents[1]
FILE = ROOT / "compose.yaml"
TEXT = FILE.read_text("utf-8")
SECRET = "/run/secrets/tokens"

pytestmark = pytest.mark.timeout(60)

Service = dict[str, Any]


def substituted(text: str, variables: Mapping[str, str]) -> str:
    """The text with `${NAME:-default}` replaced, inner defaults first, as Compose does it."""
    pattern = re.compile(r"\$\{(\w+):-([^${}]*)\}")
    while found := pattern.search(text):
        text = text.replace(found[0], variables.get(found[1]) or found[2])
    assert "${" not in text
    return text


def test_it_is_what_the_compose_specification_allows() -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [check, "--builtin-schema", "vendor.compose-spec", FILE],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout


def services(**variables: str) -> dict[str, Service]:
    found: dict[str, Service] = yaml.safe_load(substituted(TEXT, variables))["services"]
    return found


def settings(name: str, service: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patched:
        for variable in os.environ:
            if variable.startswith(f"TUNEPROOF_{name.upper()}_"):
                patched.delenv(variable)
        for variable, value in service["environment"].items():
            patched.setenv(variable, value)
        return settings_of(name)()


def mounts(service: Service) -> dict[str, Service]:
    """The bind mounts by their folder in the container."""
    return {volume["target"]: volume for volume in service["volumes"]}


def test_each_service_runs_the_image_of_this_version_and_can_be_built() -> None:
    project = tomllib.loads((ROOT / "orchestrator/pyproject.toml").read_text("utf-8"))["project"]
    found = services()
    assert set(found) == set(SERVICES)
    for name, service in found.items():
        assert service["image"] == f"tuneproof/{name}:{project['version']}"
        assert service["pull_policy"] == "build"
        assert service["build"]["target"] == name
        declared = (ROOT / service["build"]["dockerfile"]).read_text("utf-8")
        for argument, value in service["build"]["args"].items():
            assert f"\nARG {argument}={value}\n" in declared


def test_every_variable_is_a_setting_and_they_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, service in services().items():
        prefix = f"TUNEPROOF_{name.upper()}_"
        fields = {f"{prefix}{field.upper()}" for field in settings_of(name).model_fields}
        assert set(service["environment"]) - {"USER"} <= fields
        told = settings(name, service, monkeypatch)
        assert str(told.tokens_file) == SECRET
        assert service["secrets"] == ["tokens"]
        folders = {
            target: mount.get("read_only", False) for target, mount in mounts(service).items()
        }
        written = [
            str(getattr(told, each))
            for each in ("store_dir", "cache_dir", "artifacts")
            if hasattr(told, each)
        ]
        read = [str(getattr(told, each)) for each in ("model", "rubrics") if hasattr(told, each)]
        assert folders == dict.fromkeys(written, False) | dict.fromkeys(read, True)
        assert all(mount["bind"] == {"create_host_path": False} for mount in service["volumes"])


def test_only_loopback_ports_are_published_where_the_cli_expects_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published = {}
    for name, service in services().items():
        told = settings(name, service, monkeypatch)
        inside = {told.bind: name, getattr(told, "openai_bind", ""): "openai"}
        inside[getattr(told, "http_bind", "")] = "judge_http"
        for entry in service["ports"]:
            host, port, target = entry.split(":")
            assert host == "127.0.0.1"
            published[inside[f"0.0.0.0:{target}"]] = int(port)
    assert published == PREFERRED_PORTS


def test_containers_are_confined() -> None:
    for service in services().values():
        user, group = service["user"].split(":")
        assert int(user) > 0
        assert int(group) > 0
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)
        writable = dict(entry.split(":") for entry in service["tmpfs"])
        assert set(writable) == {"/tmp", "/home/tuneproof"}
        for options in writable.values():
            assert {"exec", "mode=1777"} <= set(options.split(","))


def test_the_judge_asks_the_generator_unless_told_otherwise() -> None:
    found = services(MODEL_NAME="qwen")
    judge, generator = found["judge"]["environment"], found["generator"]["environment"]
    openai = generator["TUNEPROOF_GENERATOR_OPENAI_BIND"].rpartition(":")[2]
    assert judge["TUNEPROOF_JUDGE_ENDPOINT_URL"] == f"http://generator:{openai}/v1"
    assert judge["TUNEPROOF_JUDGE_ENDPOINT_MODEL"] == "qwen"
    assert generator["TUNEPROOF_GENERATOR_MODEL_NAME"] == "qwen"
    assert found["trainer"]["environment"]["TUNEPROOF_TRAINER_MODEL_NAME"] == "qwen"
    other = services(JUDGE_URL="https://judge.example/v1", JUDGE_MODEL="large")["judge"]
    assert other["environment"]["TUNEPROOF_JUDGE_ENDPOINT_URL"] == "https://judge.example/v1"
    assert other["environment"]["TUNEPROOF_JUDGE_ENDPOINT_MODEL"] == "large"


def test_state_lies_where_the_cli_on_the_same_machine_keeps_it() -> None:
    flags = flags_of(LocalOptions(Path("/state"), "/model"), PREFERRED_PORTS)
    found = services(STATE="/state", MODEL="/model", RUBRICS="/own")
    for name in ("retriever", "generator", "trainer"):
        sources = {mount["source"] for mount in found[name]["volumes"]}
        assert sources == {each for each in flags[name] if each.startswith(("/state", "/model"))}
    assert mounts(found["generator"])["/artifacts"] == mounts(found["trainer"])["/artifacts"]
    assert mounts(found["judge"])["/rubrics"]["source"] == "/own"
    for service in services().values():
        for mount in service["volumes"]:
            inside = mount["source"].removeprefix("./")
            assert inside.startswith(".tuneproof/") or (ROOT / inside).parent.is_dir()


def test_the_head_names_every_variable() -> None:
    head = TEXT.partition("\nname:")[0]
    used = set(re.findall(r"\$\{(\w+)", TEXT.removeprefix(head)))
    described = set(re.findall(r"\b[A-Z][A-Z_]+\b", head.partition("Variables")[2])) - {
        "CLI",
        "GPU",
    }
    assert described == used


@pytest.mark.process
async def test_the_health_check_tells_ready_from_not_ready_and_gone() -> None:
    states = health.aio.HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    port = server.add_insecure_port("127.0.0.1:0")
    (kind, program, *arguments), health_bind = one_health_check()
    assert (kind, program) == ("CMD", "python")
    changed = [each.replace(health_bind, f"127.0.0.1:{port}") for each in arguments]
    assert changed != arguments

    async def probe() -> int:
        process = await asyncio.create_subprocess_exec(sys.executable, *changed)
        return await process.wait()

    await server.start()
    try:
        await states.set("ready", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await probe() == 1
        await states.set("ready", health_pb2.HealthCheckResponse.SERVING)
        assert await probe() == 0
    finally:
        await server.stop(None)
    assert await probe() == 1


def one_health_check() -> tuple[list[str], str]:
    """The command that all services share, and the address that they all give it."""
    found = services()
    commands = {tuple(service["healthcheck"]["test"]) for service in found.values()}
    binds = {found[name]["environment"][f"TUNEPROOF_{name.upper()}_HEALTH_BIND"] for name in found}
    (command,), (bind,) = commands, binds
    return list(command), bind


def _compose() -> list[str]:
    """The command of Compose, empty where it is not installed: it is no package of ours."""
    docker = shutil.which("docker")
    if docker is None:
        return []
    asked = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    return [docker, "compose"] if asked.returncode == 0 else []


if COMPOSE := _compose():

    def test_compose_reads_it(tmp_path: Path) -> None:
        (tmp_path / "judge.env").write_text("TUNEPROOF_JUDGE_API_KEY=no-key\n")
        done = subprocess.run(
            [*COMPOSE, "--file", str(FILE), "config"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "JUDGE_ENV_FILE": str(tmp_path / "judge.env"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        read = yaml.safe_load(done.stdout)["services"]
        assert set(read) == set(SERVICES)
        for name, service in services().items():
            assert service["environment"].items() <= read[name]["environment"].items()
            assert [port["host_ip"] for port in read[name]["ports"]] == ["127.0.0.1"] * len(
                service["ports"]
            )
