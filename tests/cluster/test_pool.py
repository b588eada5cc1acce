"""Two generators that are killed, drained and updated while clients ask: no request fails."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
from collections.abc import Iterator

import pytest

from .cluster import Cluster
from .pool import BASE, TOKEN, Load, Pool, commit_adapter, load, manifests_of
from .scene import scene
from .training import until

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def pool(
    cluster: Cluster, image: str, s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pool]:
    folder = tmp_path_factory.mktemp("pool")
    artifacts = f"s3://artifacts/{folder.name}"
    ref = commit_adapter(artifacts, tmp_path_factory.mktemp("adapter"))
    models = folder / "models"
    shutil.copytree(BASE, models / "base")
    models.chmod(0o755)
    with scene(cluster, f"pool-{secrets.token_hex(3)}", models=models) as place:
        variables = {name: value.encode() for name, value in s3.items()}
        place.kubectl.apply(
            place.secret("tuneproof-s3", variables),
            place.secret("tuneproof-tokens", {"tokens": f"manage {TOKEN}".encode()}),
            *manifests_of(place, folder / "overlay", artifacts),
        )
        one = Pool(place, ref)
        asyncio.run(declared(one))
        yield one


async def declared(pool: Pool) -> None:
    await pool.until_ready()
    async with pool.client() as client:
        await client.declare(pool.ref)
        await client.wait_ready(pool.ref)


async def is_whole(pool: Pool) -> None:
    """Both replicas serve the adapter again, to clients that come now; those from before look for
    new replicas when a connection ends."""
    async with pool.client() as client, load(pool) as seen:
        await pool.until_serving(client)
        await seen.goes_on(2)
    assert seen.failures == []


async def test_a_killed_replica_costs_no_request_and_no_other_may_go_meanwhile(
    pool: Pool,
) -> None:
    process = pool.process(1)
    long, short = Load(pool), Load(pool)
    async with load(pool) as seen, pool.client() as client, asyncio.TaskGroup() as group:
        while len(short.answers) < 2:  # Until this client's calls go to the replicas in turn.
            await short.ask(client, tokens=1)
        for _ in range(4):
            group.create_task(long.ask(client, tokens=1000))
        await until(lambda: long.begun == 4)
        os.kill(process, signal.SIGKILL)
        spent = "--for=jsonpath={.status.disruptionsAllowed}=0"
        await pool.say("wait", spent, "poddisruptionbudget/generator", "--timeout=60s")
        assert "violate the pod's disruption budget" in await pool.evict(0)
        await pool.until_ready()
        await seen.goes_on(1)
    assert seen.failures == long.failures == []
    assert long.restarted > 0
    assert long.answers["generator-0"] == 4
    (container,) = pool.pod(1)["status"]["containerStatuses"]
    assert container["restartCount"] == 1
    assert container["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL
    await is_whole(pool)


@pytest.mark.slow
async def test_a_rolling_update_costs_no_request(pool: Pool) -> None:
    old = [pool.pod(number)["metadata"]["uid"] for number in (0, 1)]
    async with load(pool) as seen:
        await seen.goes_on(2)
        await pool.say("rollout", "restart", "statefulset/generator")
        await pool.until_ready()
        await seen.goes_on(1)
    assert seen.failures == []
    assert all(pool.pod(number)["metadata"]["uid"] not in old for number in (0, 1))
    await is_whole(pool)


@pytest.mark.slow
async def test_a_drain_costs_no_request_and_takes_one_replica_at_a_time(pool: Pool) -> None:
    async with load(pool) as seen:
        await seen.goes_on(2)
        for number, other in ((0, 1), (1, 0)):
            assert "Success" in await pool.evict(number)
            assert "violate the pod's disruption budget" in await pool.evict(other)
            await pool.say("wait", "--for=delete", f"pod/generator-{number}", "--timeout=100s")
            await pool.until_ready()
            await seen.goes_on(1)
    assert seen.failures == []
    await is_whole(pool)


async def test_an_update_that_takes_a_replica_away_costs_no_request(pool: Pool) -> None:
    """The last test: it does not wait for the new replica, as those do that are slow."""
    last_alone = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}}
    await pool.say("patch", "statefulset/generator", "--patch", json.dumps(last_alone))
    async with load(pool) as seen:
        await seen.goes_on(2)
        await pool.say("rollout", "restart", "statefulset/generator")
        await pool.say("wait", "--for=delete", "pod/generator-1", "--timeout=100s")
        await seen.goes_on(1)
    assert seen.failures == []
