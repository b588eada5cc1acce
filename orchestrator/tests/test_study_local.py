"""Who ends the services of a study, and who does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tuneproof.local import LocalOptions
from tuneproof.local.options import PREFERRED_PORTS, flags_of
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.locks import Holder
from tuneproof.study.local import LocalServices

pytestmark = pytest.mark.timeout(30)


class FakeSupervisor:
    """Keeps what a real one would start."""

    def __init__(self, state):
        self._state = state
        self.services: dict[str, int] = {}
        self.keeper: Holder | None = None

    def kept_elsewhere(self):
        return self.keeper

    def running(self):
        return dict(self.services)

    async def ensure_up(self, options, *, progress):
        self.services = {"generator": 1, "judge": 2}
        addresses = {name: {"grpc": f"127.0.0.1:{4000 + n}"} for name, n in self.services.items()}
        (self._state / "endpoints.json").write_text(json.dumps(addresses))
        return list(self.services)

    async def take_down(self, *, progress):
        self.services = {}


@pytest.fixture
def supervisor(tmp_path):
    return FakeSupervisor(tmp_path)


def services(supervisor, tmp_path, *, keep=False):
    options = LocalOptions(tmp_path, "model")
    return LocalServices(supervisor, options, keep=keep, progress=lambda name, what: None)


async def test_a_study_ends_what_it_started(supervisor, tmp_path):
    ours = services(supervisor, tmp_path)
    endpoints = await ours.start()
    assert endpoints.generator == "127.0.0.1:4001"
    await ours.close()
    assert supervisor.services == {}


async def test_a_study_that_needs_nothing_starts_and_ends_nothing(supervisor, tmp_path):
    supervisor.services = {"generator": 9}
    await services(supervisor, tmp_path).close()
    assert supervisor.services == {"generator": 9}


async def test_services_that_ran_before_go_on(supervisor, tmp_path):
    await supervisor.ensure_up(None, progress=None)
    ours = services(supervisor, tmp_path)
    await ours.start()
    await ours.close()
    assert set(supervisor.services) == {"generator", "judge"}


async def test_services_of_a_killed_study_are_taken_over_and_ended(supervisor, tmp_path):
    await services(supervisor, tmp_path).start()  # killed: close is never called
    again = services(supervisor, tmp_path)
    await again.start()
    await again.close()
    assert supervisor.services == {}


async def test_services_can_be_kept(supervisor, tmp_path):
    ours = services(supervisor, tmp_path, keep=True)
    await ours.start()
    await ours.close()
    assert set(supervisor.services) == {"generator", "judge"}
    later = services(supervisor, tmp_path)
    await later.start()
    await later.close()
    assert set(supervisor.services) == {"generator", "judge"}


async def test_services_of_the_environment_are_not_meant(supervisor, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEPROOF_GENERATOR_TARGET", "elsewhere:1")
    endpoints = await services(supervisor, tmp_path).start()
    assert endpoints.generator == "127.0.0.1:4001"


async def test_services_that_somebody_keeps_are_not_started_anew(supervisor, tmp_path):
    ours = services(supervisor, tmp_path)
    await ours.start()
    supervisor.keeper = Holder(1)
    assert await ours.restart() is None
    assert set(supervisor.services) == {"generator", "judge"}


def test_corpora_live_where_the_options_say(tmp_path):
    folder = flags_of(LocalOptions(tmp_path, "model"), PREFERRED_PORTS)["retriever"]
    assert folder == ["--store-dir", str(tmp_path / "corpora")]
    url, grpc = "http://127.0.0.1:8080", "127.0.0.1:50051"
    options = LocalOptions(tmp_path, "model", store="weaviate", weaviate_url=url)
    given = flags_of(options, PREFERRED_PORTS)["retriever"]
    assert given == ["--store", "weaviate", "--weaviate-url", url]
    given = flags_of(replace(options, weaviate_grpc=grpc), PREFERRED_PORTS)["retriever"]
    assert given[-2:] == ["--weaviate-grpc", grpc]


@pytest.mark.parametrize("given", [{"store": "weaviate"}, {"weaviate_url": "http://w:8080"}])
def test_a_weaviate_server_and_its_address_belong_together(tmp_path, given):
    with pytest.raises(InvalidInput, match="belong together"):
        LocalOptions(tmp_path, "model", **given)
