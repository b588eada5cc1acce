"""Adapters by kubectl: the component adapters-crd on Kubernetes' own API server, and its operator
beside the generator's own pool."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneproof.adapters import AdapterRef
from tuneproof.sdk import AdapterInfo, GeneratorClient
from tuneproof.servicekit.errors import NotFound

from ..programs import free_ports
from ..rendering import Manifest, of_kind, together
from .adapter_pool import TwoReplicas, two_replicas
from .control_plane import ControlPlane

NAMESPACE = "by-kubectl"
A, B, LOST = (f"{name}@sha256:{name[0] * 64}" for name in ("a-one", "b-two", "c-lost"))
KINDS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount")

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


class Operator:
    """The command `tuneproof operator`, with the rights of its account and no others."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self.bind = f"127.0.0.1:{free_ports(1)[0]}"
        # The server's certificate is its own.
        quiet = {"PYTHONWARNINGS": "ignore"}
        self._environment = {**os.environ, **quiet, "KUBECONFIG": str(kubeconfig)}
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tuneproof.cli.main", "operator"]
        options = ["--namespace", NAMESPACE, "--target", self.bind, "--seconds", "0.3"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options], env=self._environment, stdout=log, stderr=log
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


class Kubectl:
    """kubectl in the namespace, beside the pool that runs in this process."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._kubectl = control_plane.kubectl

    async def __call__(self, *arguments: str, given: str = "", fine: bool = False) -> str:
        where = ("--namespace", NAMESPACE)
        return await asyncio.to_thread(
            lambda: self._kubectl(*arguments, *where, given=given, fine=fine)
        )

    async def apply(self, name: str, fine: bool = False, **spec: Any) -> str:
        one = {"apiVersion": "tuneproof.dev/v1alpha1", "kind": "Adapter", "spec": spec}
        given = yaml.safe_dump({**one, "metadata": {"name": name}})
        return await self("apply", "--filename", "-", given=given, fine=fine)

    async def wait(self, name: str, what: str) -> None:
        said = await self("wait", f"adapter/{name}", f"--for={what}", "--timeout=20s", fine=True)
        assert "met" in said, await self("get", "adapter", name, "--output", "yaml")

    async def until(self, name: str, **wanted: Any) -> Manifest:
        """Waits for parts of the status; gives the whole."""
        for key, value in wanted.items():
            await self.wait(name, f"jsonpath={{.status.{key}}}={value}")
        found = json.loads(await self("get", "adapter", name, "--output", "json"))
        return found["status"]


@pytest.fixture(scope="module")
def component(
    control_plane: ControlPlane, kubectl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Manifest]]:
    """The kind and the rights, in a namespace of this test."""
    built = together(kubectl, tmp_path_factory.mktemp("adapters-crd"), ["adapters-crd"])
    chosen = [each for each in built if each["kind"] in KINDS and "adapter" in str(each)]
    text = yaml.safe_dump(chosen).replace("namespace: tuneproof\n", f"namespace: {NAMESPACE}\n")
    rights = yaml.safe_load(text)
    kinds = list(of_kind(built, "CustomResourceDefinition").values())
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    control_plane.kubectl.apply(space, *kinds)
    control_plane.kubectl.apply(*rights)
    control_plane.until_defined()
    yield rights
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    control_plane.kubectl("delete", "--filename", "-", given=yaml.safe_dump_all(kinds), fine=True)
    control_plane.kubectl("delete", "--filename", "-", given=yaml.safe_dump_all(rights), fine=True)


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane,
    component: list[Manifest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Operator]:
    kubeconfig = control_plane.kubectl.kubeconfig_of("adapter-operator", NAMESPACE)
    one = Operator(kubeconfig, tmp_path_factory.mktemp("operator") / "log")
    one.start()
    yield one
    code = one.end()
    assert code == 0, one.log.read_text()


@pytest.fixture
async def pool(operator: Operator, tmp_path: Path) -> AsyncIterator[TwoReplicas]:
    async with two_replicas(tmp_path, operator.bind) as made:
        yield made


@pytest.fixture
async def client(operator: Operator) -> AsyncIterator[GeneratorClient]:
    async with GeneratorClient(operator.bind) as one:
        yield one


@pytest.fixture
def ask(control_plane: ControlPlane, component: list[Manifest]) -> Kubectl:
    return Kubectl(control_plane)


async def is_ready(client: GeneratorClient, ref: str) -> bool:
    try:
        info: AdapterInfo = await client.adapter(ref)
    except NotFound:
        return False
    return info.ready


def condition(status: Manifest, kind: str = "Ready") -> tuple[str, str]:
    (found,) = [each for each in status["conditions"] if each["type"] == kind]
    return found["status"], found["reason"]


async def test_ready_is_true_when_and_only_when_the_pools_is(
    ask: Kubectl, pool: TwoReplicas, client: GeneratorClient, operator: Operator
) -> None:
    await ask.apply("one", ref=A, alias="live")
    # One of two replicas is behind.
    status = await ask.until("one", ready=1, total=2)
    assert condition(status) == ("False", "Pending")
    assert condition(status, "Aliased") == ("False", "AdapterNotReady")
    assert not await is_ready(client, A)
    await pool.follow()
    await ask.wait("one", "condition=Ready")
    await ask.wait("one", "condition=Aliased")
    assert await is_ready(client, A)
    head, row = (await ask("get", "adapters")).splitlines()
    assert head.split()[:6] == ["NAME", "POOL", "ALIAS", "READY", "TOTAL", "REASON"]
    assert row.split()[:6] == ["one", "generator", "live", "2", "2", "Ready"]

    # The pool does not answer; the operator is killed meanwhile, and started again.
    await pool.close()
    assert condition(await ask.until("one", reason="PoolUnreachable"))[0] == "Unknown"
    operator.end(signal.SIGKILL)
    await pool.open()
    operator.start()
    await ask.wait("one", "condition=Ready")
    assert [each.version for each in await client.alias_versions("live")] == [1]

    # A replica falls silent: the pool is what lives.
    await pool.end_second()
    assert condition(await ask.until("one", total=1, ready=1)) == ("True", "Ready")

    # An adapter that cannot be served.
    pool.first.registry.lost.add(AdapterRef.parse(LOST))
    await ask.apply("lost", ref=LOST)
    assert condition(await ask.until("lost", reason="Failed"))[0] == "False"
    assert not await is_ready(client, LOST)

    # Removed behind its back, and not fought over; deleting what is not there is no error.
    await client.set_alias("live", "", expected_ref=A, force=True)
    await client.remove(A)
    status = await ask.until("one", reason="Removed")
    assert condition(status) == ("False", "Removed")
    assert condition(status, "Aliased") == ("False", "Moved")
    await ask("delete", "adapter", "one", "lost", "--timeout=10s")
    async with asyncio.timeout(20):
        while await client.adapters():
            await asyncio.sleep(0.1)


async def test_of_two_objects_with_one_alias_the_newer_waits_and_inherits(
    ask: Kubectl, pool: TwoReplicas, client: GeneratorClient
) -> None:
    await pool.end_second()
    await ask.apply("older", ref=A, alias="live")
    await ask.wait("older", "condition=Aliased")
    await ask.apply("newer", ref=B, alias="live")
    assert condition(await ask.until("newer", reason="AliasConflict")) == ("True", "Ready")
    await ask("delete", "adapter", "older", "--timeout=10s")
    await ask.wait("newer", "condition=Aliased")
    assert [(each.name, each.ref) for each in await client.aliases()] == [("live", B)]
    async with asyncio.timeout(20):
        while [each.ref for each in await client.adapters()] != [B]:
            await asyncio.sleep(0.1)
    await ask("delete", "adapter", "newer", "--timeout=10s")


async def test_objects_that_make_no_sense_are_refused_with_a_reason(ask: Kubectl) -> None:
    for spec, why in (
        ({"ref": "short"}, "spec.ref in body should match"),
        ({"ref": A, "pool": "evil.example:1"}, "spec.pool in body should match"),
        ({"ref": A, "alias": "-"}, "spec.alias in body should match"),
        ({"ref": A, "canary": {"ref": B, "percent": 5}}, "belong to an alias"),
        ({"ref": A, "alias": "x", "canary": {"ref": A, "percent": 5}}, "another adapter"),
        ({"ref": A, "alias": "x", "canary": {"ref": B, "percent": 100}}, "less than or equal"),
        ({"ref": A, "alais": "x"}, 'unknown field "spec.alais"'),
    ):
        assert why in await ask.apply("wrong", fine=True, **spec)
    await ask.apply("one", ref=A, alias="live")
    assert "the pool of an object" in await ask.apply("one", fine=True, ref=A, pool="other")
    assert "the alias of an object" in await ask.apply("one", fine=True, ref=A, alias="other")
    assert "the alias of an object" in await ask.apply("one", fine=True, ref=A)
    await ask("delete", "adapter", "one")


async def test_the_operator_may_what_it_must_and_no_more(ask: Kubectl, operator: Operator) -> None:
    async def may(*what: str) -> bool:
        account = f"system:serviceaccount:{NAMESPACE}:adapter-operator"
        said = await ask("auth", "can-i", *what, "--as", account, fine=True)
        return said.splitlines()[0] == "yes"

    adapters = "adapters.tuneproof.dev"
    for verb in ("list", "watch"):
        assert await may(verb, adapters)
    assert await may("patch", adapters, "--subresource=status")
    for verb, what in (
        *((verb, adapters) for verb in ("create", "update", "patch", "delete")),
        *(("get", what) for what in ("secrets", "pods", "configmaps", "nodes")),
        *(("create", what) for what in ("pods", "jobs", "events")),
    ):
        assert not await may(verb, what)


async def test_whoever_removes_the_operator_or_the_kind_removes_no_adapter(
    ask: Kubectl, pool: TwoReplicas, client: GeneratorClient, operator: Operator
) -> None:
    await pool.end_second()
    for name, ref in (("one", A), ("two", B)):
        await ask.apply(name, ref=ref, alias=name)
        await ask.wait(name, "condition=Aliased")
    operator.end(signal.SIGKILL)
    await ask("delete", "adapter", "one", "--timeout=10s")  # Nothing waits for it.
    operator.start()
    await ask.apply("two", ref=B, alias="two", required=True)
    await ask.until("two", aliasGeneration=2)
    await ask("delete", "crd", "adapters.tuneproof.dev", "--timeout=20s")
    async with asyncio.timeout(20):
        while "two: its adapter stays in the pool" not in operator.log.read_text():
            await asyncio.sleep(0.1)
    assert {each.ref for each in await client.adapters()} == {A, B}
    assert {each.name for each in await client.aliases()} == {"one", "two"}
