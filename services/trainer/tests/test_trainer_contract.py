"""The contract over gRPC, with real workers that train the tiny model in NF4."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tuneproof.adapters import (
    AdapterRef,
    Registry,
    fingerprint_of,
    identify_base,
    read_base_config,
    verify,
)
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.errors import AlreadyExists, InvalidInput, NotFound, WrongState
from tuneproof.servicekit.testing import serving
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof.trainer.v1 import trainer_pb2_grpc
from tuneproof_trainer.main import DESCRIPTOR, build
from tuneproof_trainer.settings import TrainerSettings

Data = Callable[..., dict[str, str]]
pytestmark = pytest.mark.timeout(240)  # Imports of torch, on a machine that is busy.


@asynccontextmanager
async def trainer(
    base: Path, artifacts: Path, **more: object
) -> AsyncIterator[trainer_pb2_grpc.TrainerServiceAsyncStub]:
    settings = TrainerSettings(
        model=str(base), artifacts=str(artifacts), device="cpu", watch_seconds=0.02, **more
    )
    async with (
        build(settings) as service,
        serving(service) as target,
        connect(target, services=[DESCRIPTOR]) as channel,
    ):
        yield trainer_pb2_grpc.TrainerServiceStub(channel)


def spec(data: dict[str, str], **more: object) -> pb.RunSpec:
    values: dict[str, object] = {
        "data": pb.TrainingData(**data),
        "adapter_name": "short",
        "seed": 11,
    }
    hyperparameters: dict[str, object] = {
        "learning_rate": 5e-3,
        "epochs": 4,
        "effective_batch_size": 8,
        "rank": 4,
        "alpha": 8,
    }
    for name, value in more.items():
        (values if name in pb.RunSpec.DESCRIPTOR.fields_by_name else hyperparameters)[name] = value
    return pb.RunSpec(
        hyperparameters=pb.Hyperparameters(**hyperparameters),  # type: ignore[arg-type]
        **values,  # type: ignore[arg-type]
    )


@pytest.mark.process
@pytest.mark.slow
async def test_a_run_trains_and_commits_and_equal_runs_make_one_adapter(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    data = write_data()
    asked = spec(data, skip_modules=["layers.0.self_attn.q_proj"])
    async with trainer(base_folder, artifacts, workers=2) as stub:
        for run_id in ("one", "two"):
            await stub.CreateRun(pb.CreateRunRequest(run_id=run_id, spec=asked))
        watched = [message.run async for message in stub.WatchRun(pb.WatchRunRequest(run_id="one"))]
        later = [
            message.run
            async for message in stub.WatchRun(pb.WatchRunRequest(run_id="two", after_step=10))
        ]
        one = (await stub.GetRun(pb.GetRunRequest(run_id="one"))).run
        two = (await stub.GetRun(pb.GetRunRequest(run_id="two"))).run
        with pytest.raises(WrongState, match="has ended"), typed_errors():
            await stub.CancelRun(pb.CancelRunRequest(run_id="one"))

    assert one.state == pb.RUN_STATE_SUCCEEDED, one.reason
    assert watched[0].state in (pb.RUN_STATE_QUEUED, pb.RUN_STATE_RUNNING)
    assert watched[-1].state == pb.RUN_STATE_SUCCEEDED
    assert watched[-1].adapter_ref == one.adapter_ref
    told = [point.step for run in watched for point in run.losses]
    assert told == list(range(1, 13)) == [point.step for point in one.losses]
    assert [point.step for run in later for point in run.losses] == [11, 12]
    assert one.progress.step == one.progress.total_steps == 12
    assert one.progress.tokens_per_second > 0
    assert one.losses[-1].loss < one.losses[0].loss - 0.3
    assert one.create_time.ToDatetime() <= one.start_time.ToDatetime() <= one.end_time.ToDatetime()

    facts = one.provenance
    assert facts["base_precision"].startswith("nf4 (double quantised) in 13 of 14 linear layers")
    assert (facts["compute_precision"], facts["device"]) == ("float32", "cpu")
    assert facts["data_digest"] == data["digest"]
    assert (facts["examples"], facts["answer_tokens"]) == ("24", str(24 * 4))
    taken = fingerprint_of(facts)
    assert taken is not None
    assert [each.precision for each in taken.readings] == ["nf4", "float32"]
    assert all(each.effect > 0.1 for each in taken.readings)
    assert facts["trainable_parameters"] == str(2 * 4 * (7 * 64 + 64 + 64 + 32 + 32 + 3 * 96))

    assert one.adapter_ref == two.adapter_ref
    assert [point.loss for point in one.losses] == [point.loss for point in two.losses]
    ref = AdapterRef.parse(one.adapter_ref)
    registry = Registry(str(artifacts))
    assert registry.list() == (ref,)
    assert registry.provenance(ref).details["run_id"] in ("one", "two")
    folder = registry.fetch(ref, artifacts / "cache")
    report = verify(
        folder,
        base=identify_base(base_folder),
        base_config=read_base_config(base_folder),
        max_rank=4,
        expected=ref,
    )
    assert report.ok, report.defects
    assert report.notes == ()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    card = (folder / "README.md").read_text()
    assert "base_model: tiny" in card
    assert data["digest"] in card
    assert str(base_folder) not in card


@pytest.mark.process
async def test_what_was_asked_is_told_with_its_defaults_and_once_only(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    data = write_data()
    bare = pb.RunSpec(data=pb.TrainingData(**data), adapter_name="short")
    async with trainer(base_folder, artifacts, model_name="tele", workers=1) as stub:
        first = (await stub.CreateRun(pb.CreateRunRequest(run_id="a", spec=bare))).run
        again = (await stub.CreateRun(pb.CreateRunRequest(run_id="a", spec=bare))).run
        other = pb.RunSpec(data=bare.data, adapter_name="short", seed=5)
        with (
            pytest.raises(AlreadyExists, match="exists with another spec: seed differ"),
            typed_errors(),
        ):
            await stub.CreateRun(pb.CreateRunRequest(run_id="a", spec=other))
        await stub.CreateRun(pb.CreateRunRequest(run_id="b", spec=other))
        queued = (await stub.GetRun(pb.GetRunRequest(run_id="b"))).run
        page = await stub.ListRuns(pb.ListRunsRequest(page_size=1))
        rest = await stub.ListRuns(pb.ListRunsRequest(page_token=page.next_page_token))
        for run_id in ("b", "a", "a"):  # The one that waits, the one that runs, and again.
            ended = (await stub.CancelRun(pb.CancelRunRequest(run_id=run_id))).run
            assert ended.state == pb.RUN_STATE_CANCELLED
            assert ended.HasField("end_time")
        with pytest.raises(NotFound, match="no run 'c'"), typed_errors():
            await stub.GetRun(pb.GetRunRequest(run_id="c"))

    assert first.spec == again.spec
    assert first.create_time == again.create_time
    assert first.spec.base_model == "tele"
    full = first.spec.hyperparameters
    assert (full.method, full.schedule) == (pb.METHOD_QLORA_NF4, pb.SCHEDULE_CONSTANT)
    assert (full.rank, full.alpha, full.dropout) == (16, 32, 0)
    assert sorted(full.target_modules) == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    assert (full.epochs, full.max_steps) == (1, 0)
    assert (full.effective_batch_size, full.micro_batch_size) == (16, 16)
    assert full.learning_rate == pytest.approx(2e-4)
    assert full.warmup_ratio == pytest.approx(0.03)
    assert full.max_grad_norm == pytest.approx(0.3)
    assert full.max_length == 256  # The base has no longer context.
    assert queued.state == pb.RUN_STATE_QUEUED
    assert [run.id for run in page.runs] == ["b"]
    assert [run.id for run in rest.runs] == ["a"]
    assert not rest.next_page_token
    assert Registry(str(artifacts)).list() == ()


@pytest.mark.process
async def test_data_that_cannot_be_trained_on_is_told(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    async with trainer(base_folder, artifacts) as stub:
        asked = spec(write_data(), max_length=8)
        await stub.CreateRun(pb.CreateRunRequest(run_id="long", spec=asked))
        runs = [message.run async for message in stub.WatchRun(pb.WatchRunRequest(run_id="long"))]
        asked.data.digest = "sha256:" + "0" * 64
        with pytest.raises(InvalidInput, match="has the digest sha256:"), typed_errors():
            await stub.CreateRun(pb.CreateRunRequest(run_id="other", spec=asked))
        bad = spec(write_data(raw=b'{"messages": []}\n{'))
        said = r"line 1 does not end .* line 2 is not JSON"
        with pytest.raises(InvalidInput, match=said), typed_errors():
            await stub.CreateRun(pb.CreateRunRequest(run_id="bad", spec=bad))
    assert runs[-1].state == pb.RUN_STATE_FAILED
    assert "tokens, above max_length 8" in runs[-1].reason
    assert "line 1 has " in runs[-1].reason
    assert not runs[-1].adapter_ref


@pytest.mark.process
def test_the_service_imports_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'trl', 'bitsandbytes', 'datasets', 'vllm'}"
    program = f"import sys, tuneproof_trainer.main; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()", done.stdout


async def test_every_mistake_in_a_spec_is_told_at_once(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    bad = spec(
        {"path": "../secret", "digest": "none"},
        base_model="other",
        adapter_name="Bad name",
        rank=513,
        dropout=1,
        target_modules=["q_proj", "nothing"],
        method=pb.METHOD_LORA,
        skip_modules=["q_proj"],
        effective_batch_size=16,
        micro_batch_size=5,
        warmup_ratio=1.5,
        max_length=1_000_000,
        learning_rate=-1,
    )
    async with trainer(base_folder, artifacts) as stub:
        with pytest.raises(InvalidInput) as caught, typed_errors():
            await stub.CreateRun(pb.CreateRunRequest(run_id="r", spec=bad))
        with pytest.raises(InvalidInput, match="run id 'Run'"), typed_errors():
            await stub.CreateRun(pb.CreateRunRequest(run_id="Run", spec=spec(write_data())))
        assert not (await stub.ListRuns(pb.ListRunsRequest())).runs
    for part in (
        "base_model 'other' is not this trainer's base, 'tiny'",
        "adapter_name 'Bad name'",
        "'../secret' leads out of the artifact store",
        "data.digest 'none'",
        "rank is 513, not 1 to 512",
        "dropout is 1, not 0 to below 1",
        "target_modules holds ['nothing']",
        "method LORA quantises nothing",
        "micro_batch_size is 5, which does not divide effective_batch_size 16",
        "warmup_ratio is 1.5, not 0 to 1",
        "max_length is 1e+06, not 2 to 256",
        "learning_rate is -1, not a finite number above 0",
    ):
        assert part in caught.value.message


async def test_a_call_of_an_unknown_run_is_not_found(base_folder: Path, artifacts: Path) -> None:
    async with trainer(base_folder, artifacts) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.WatchRun(pb.WatchRunRequest(run_id="none")):
                pass
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(NotFound), typed_errors():
            await stub.CancelRun(pb.CancelRunRequest(run_id="none"))


@pytest.mark.process
@pytest.mark.slow
async def test_one_trainer_serves_several_bases(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path
) -> None:
    wide = _wide(base_folder, tmp_path / "wide")
    data = write_data()
    more = {"model_name": "narrow", "more_models": f"wide={wide}"}
    async with trainer(base_folder, artifacts, workers=2, **more) as stub:
        for name in ("narrow", "wide"):
            asked = spec(data, base_model=name, epochs=1)
            await stub.CreateRun(pb.CreateRunRequest(run_id=name, spec=asked))
        ended = {}
        for name in ("narrow", "wide"):
            watching = stub.WatchRun(pb.WatchRunRequest(run_id=name))
            *_, ended[name] = [message.run async for message in watching]
        for name, told in (("", "is empty"), ("tiny", "is 'tiny'")):
            said = f"base_model {told}; this trainer's bases are 'narrow', 'wide'"
            asked = spec(data, base_model=name)
            with pytest.raises(InvalidInput, match=said), typed_errors():
                await stub.CreateRun(pb.CreateRunRequest(run_id="none", spec=asked))
    registry = Registry(str(artifacts))
    for name, folder in (("narrow", base_folder), ("wide", wide)):
        assert ended[name].state == pb.RUN_STATE_SUCCEEDED, ended[name].reason
        assert ended[name].spec.base_model == name
        manifest = registry.manifest(AdapterRef.parse(ended[name].adapter_ref))
        assert manifest.base == identify_base(folder)
    # The other base reads 128 tokens: what depends on the base is its own.
    assert ended["narrow"].spec.hyperparameters.max_length == 256
    assert ended["wide"].spec.hyperparameters.max_length == 128


@pytest.mark.process
async def test_a_run_whose_base_is_not_served_any_more_fails_and_says_so(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    async with trainer(base_folder, artifacts, model_name="one", workers=1) as stub:
        for run_id in ("a", "b"):
            await stub.CreateRun(pb.CreateRunRequest(run_id=run_id, spec=spec(write_data())))
        await stub.CancelRun(pb.CancelRunRequest(run_id="a"))
    async with trainer(base_folder, artifacts, model_name="two") as stub:
        *_, last = [message.run async for message in stub.WatchRun(pb.WatchRunRequest(run_id="b"))]
    assert last.state == pb.RUN_STATE_FAILED
    assert "serves the base 'one' no more" in last.reason


@pytest.mark.parametrize(
    ("given", "told"),
    [("wide", "wide= is not name=model"), ("a=x,a=y", "two bases have one name")],
)
def test_mistakes_in_the_list_of_bases_are_told(artifacts: Path, given: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TrainerSettings(model="m", artifacts=str(artifacts), more_models=given)


def test_a_further_base_may_have_a_revision(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "a@b").mkdir()
    more = f"hub=org/m@abc, here={tmp_path / 'a@b'}"
    settings = TrainerSettings(model="m", artifacts=str(artifacts), more_models=more)
    assert settings.bases == {
        "": ("m", ""),
        "hub": ("org/m", "abc"),
        "here": (str(tmp_path / "a@b"), ""),
    }


def _wide(base: Path, folder: Path) -> Path:
    """A base of another shape, with the other's tokenizer."""
    from transformers import MistralConfig, MistralForCausalLM

    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    shape = json.loads((base / "config.json").read_text())
    kept = {
        name: value for name, value in shape.items() if name not in ("model_type", "architectures")
    }
    config = MistralConfig(**{**kept, "intermediate_size": 160, "max_position_embeddings": 128})
    MistralForCausalLM(config).save_pretrained(folder)
    return folder
