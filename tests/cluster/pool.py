"""Two generators on a CPU as the manifests make them, an adapter in S3, and clients that ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tuneproof.adapters import Registry, identify_base
from tuneproof.adapters.testing import LORA_CONFIG, PREFIX
from tuneproof.sdk.generator import GeneratorClient
from tuneproof.sdk.values import Generation, Restarted, Sampling
from tuneproof.servicekit.errors import TuneproofError

from ..rendering import K8S, ROOT, Manifest, build, of_kind, write
from .scene import Scene
from .training import until

BASE = ROOT / "demo/telecom-reader"
TOKEN = "of-a-client-of-this-test"
CHAT = [{"role": "user", "content": "What is the Alder 40 transmit power?"}]


@dataclass(frozen=True)
class Pool:
    """Two replicas."""

    place: Scene
    ref: str
    """Of the adapter that they serve."""

    def client(self) -> GeneratorClient:
        return GeneratorClient(self.place.target("generator", 50051), token=TOKEN)

    def pod(self, number: int) -> Manifest:
        name = f"generator-{number}"
        (pod,) = self.place.cluster.get("pod", name, "--namespace", self.place.namespace)
        return pod

    async def until_ready(self) -> None:
        """Until both replicas are, and are those of the StatefulSet as it is now."""
        asked = ("rollout", "status", "statefulset/generator", "--timeout=100s")
        async with asyncio.timeout(600):
            while "complete" not in await self.say(*asked, fine=True):
                pass

    async def until_serving(self, client: GeneratorClient) -> None:
        """Until both replicas say that they serve the adapter."""
        ready = [("generator-0", "ready"), ("generator-1", "ready")]
        async with asyncio.timeout(60):
            while sorted(await self.states(client)) != ready:
                await asyncio.sleep(0.5)

    async def say(self, *command: str, **more: Any) -> str:
        """What kubectl says in the pool's namespace, while clients go on."""
        at = ("--namespace", self.place.namespace)
        return await asyncio.to_thread(self.place.kubectl, *command, *at, **more)

    async def states(self, client: GeneratorClient) -> list[tuple[str, str]]:
        replicas = (await client.adapter(self.ref)).replicas
        return [(name, one.state) for name, one in replicas.items()]

    def process(self, number: int) -> int:
        """The first process of a pod's container, by its number on this machine."""
        (container,) = self.pod(number)["status"]["containerStatuses"]
        return first_process(container["containerID"].partition("://")[2])

    async def evict(self, number: int) -> str:
        """As a drain of its node does; what the API server says."""
        cluster, name = self.place.cluster, f"generator-{number}"
        return await asyncio.to_thread(cluster.evict, name, self.place.namespace, fine=True)


def first_process(container: str) -> int:
    """The process of this machine that is number 1 of a container."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = container in (folder / "cgroup").read_text()
            numbers = (folder / "status").read_text().partition("NSpid:")[2].split("\n")[0].split()
        except OSError:
            continue
        if ours and numbers[-1] == "1":
            return int(folder.name)
    raise AssertionError(f"no process of container {container}")


def commit_adapter(artifacts: str, folder: Path) -> str:
    """A small random one of the base."""
    config = json.loads((BASE / "config.json").read_text())
    wide = config["num_attention_heads"] * config["head_dim"]
    random, tensors = np.random.default_rng(0), {}
    for layer in range(config["num_hidden_layers"]):
        for kind in ("q_proj", "v_proj"):
            for part, shape in (("A", (4, config["hidden_size"])), ("B", (wide, 4))):
                name = f"{PREFIX}.{layer}.self_attn.{kind}.lora_{part}.weight"
                tensors[name] = random.normal(scale=0.2, size=shape).astype("f4")
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(dict(LORA_CONFIG)))
    base = identify_base(BASE)
    return str(Registry(artifacts).commit(folder, name="small", base=base, provenance={}))


def manifests_of(place: Scene, folder: Path, artifacts: str) -> list[Manifest]:
    """The overlay for CPUs, its pool with two replicas and its artifacts in S3."""
    overlay = [K8S / "overlays/cpu"]
    write(folder, resources=overlay, components=[K8S / "components/s3"])
    manifests = build(place.cluster.program, folder)
    generator = of_kind(manifests, "StatefulSet")["generator"]
    generator["spec"]["replicas"] = 2
    for name, each in of_kind(manifests, "ConfigMap").items():
        if name.startswith("store-"):
            each["data"]["url"] = artifacts
        if name.startswith("generator-"):  # Two of them share the node's two cores.
            each["data"]["TUNEPROOF_GENERATOR_THREADS"] = "1"
    kinds = ("ConfigMap", "Service", "ServiceAccount", "PodDisruptionBudget")
    return [
        *(place.moved(each) for each in manifests if each["kind"] in kinds),
        place.borrowing(generator, "-m", "tuneproof_generator"),
    ]


@dataclass
class Load:
    """What clients ask, and what they see."""

    pool: Pool
    answers: Counter[str] = field(default_factory=Counter)
    """By replica."""
    begun: int = 0
    """Answers of which a piece has come."""
    restarted: int = 0
    failures: list[str] = field(default_factory=list)

    async def ask(self, client: GeneratorClient, tokens: int) -> None:
        """One answer, which is restarted when its replica is lost."""
        pieces = 0
        sampling = Sampling(max_tokens=tokens)
        answer = client.generate(self.pool.ref, CHAT, sampling, restart_on_loss=True)
        try:
            async for piece in answer:
                if isinstance(piece, Restarted):
                    self.restarted += 1
                elif isinstance(piece, Generation):
                    assert piece.adapter_ref == self.pool.ref
                    self.answers[piece.replica] += 1
                else:
                    self.begun += pieces == 0
                    pieces += 1
        except TuneproofError as error:
            self.failures.append(f"{type(error).__name__}: {error.message}")

    async def goes_on(self, replicas: int) -> None:
        """Until so many replicas have answered from now on."""
        before = self.answers.copy()
        await until(lambda: len(self.answers - before) >= replicas, 300)


@asynccontextmanager
async def load(pool: Pool, clients: int = 3) -> AsyncIterator[Load]:
    """Has clients ask, with short pauses, until the block ends."""
    seen, ended = Load(pool), asyncio.Event()

    async def asks() -> None:
        async with pool.client() as client:
            while not ended.is_set():
                await seen.ask(client, tokens=50)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), 0.3)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(asks())
        try:
            yield seen
        finally:
            ended.set()
