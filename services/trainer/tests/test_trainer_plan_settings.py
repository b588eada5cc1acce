"""Presets, the division of a step, contradictions, and the device: without data and torch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.adapters.memory import GIB, USABLE, training_memory
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.bases import Base
from tuneproof_trainer.defaults import complete
from tuneproof_trainer.plan.batches import divide, divisors
from tuneproof_trainer.plan.device import CPU, Device, find_device, parse_gpus
from tuneproof_trainer.record import Job
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.processes import Place, variables

DIGEST = "sha256:" + "0" * 64
EIGHT_B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "max_position_embeddings": 8192,
}
MIXTRAL = EIGHT_B | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
H100 = Device(on_gpu=True, memory_bytes=80 * 10**9, name="H100")


def spec(**asked: Any) -> RunSpec:
    """As a message gives it: not validated, and only what is set."""
    return RunSpec.model_construct(
        adapter_name="a",
        data_path="a.jsonl",
        data_digest=DIGEST,
        hyperparameters=Hyperparameters.model_construct(**asked),
    )


def filled(config: dict[str, Any], device: Device = CPU, **asked: Any) -> Hyperparameters:
    return complete(spec(**asked), Base("b", config), device).hyperparameters


@given(rows=st.integers(1, 4096), devices=st.integers(1, 8), most=st.integers(1, 16))
def test_a_step_is_divided_without_a_rest(rows: int, devices: int, most: int) -> None:
    if rows % devices:
        assert divisors(rows, devices, most) == []
        with pytest.raises(ValueError, match="cannot be shared"):
            divide(rows, devices=devices, most=most)
        return
    batch = divide(rows, devices=devices, most=most)
    assert batch.effective == rows
    assert batch.micro_batch <= most
    larger = range(batch.micro_batch + 1, min(most, rows // devices) + 1)
    assert all(rows // devices % size for size in larger)
    assert not batch.checkpointing


@given(
    rows=st.integers(1, 256),
    memory=st.integers(1, 10_000),
    each=st.integers(1, 500),
    base=st.integers(0, 3000),
    checkpointing=st.none() | st.booleans(),
)
def test_the_largest_micro_batch_that_fits_is_taken(
    rows: int, memory: int, each: int, base: int, checkpointing: bool | None
) -> None:
    def needed(size: int, with_checkpointing: bool) -> int:
        return base + size * (each // 4 if with_checkpointing else each)

    batch = divide(rows, memory=memory, needed=needed, checkpointing=checkpointing)
    assert batch.effective == rows
    if checkpointing is not None:
        assert batch.checkpointing == checkpointing
    fits = needed(batch.micro_batch, batch.checkpointing) <= USABLE * memory
    assert fits or batch.micro_batch == 1
    larger = [size for size in divisors(rows) if size > batch.micro_batch]
    assert all(needed(size, batch.checkpointing) > USABLE * memory for size in larger)
    if batch.checkpointing and checkpointing is None:
        assert needed(1, False) > USABLE * memory


def test_eight_billion_weights_fit_into_the_memory_of_the_gpu() -> None:
    """A micro-batch of 16 takes 97 GiB (docs/performance.md): it was the default, and failed."""
    found = filled(EIGHT_B, H100)
    assert (found.micro_batch_size, found.gradient_checkpointing) == (8, False)
    memory = training_memory(EIGHT_B, found)
    assert memory is not None
    assert memory.total < 80e9
    large = Device(on_gpu=True, memory_bytes=141 * 10**9)
    assert filled(EIGHT_B, large).micro_batch_size == 16
    small = Device(on_gpu=True, memory_bytes=8 * GIB)
    assert filled(EIGHT_B, small).gradient_checkpointing
    tight = filled(EIGHT_B, small, gradient_checkpointing=False)
    assert (tight.micro_batch_size, tight.gradient_checkpointing) == (1, False)


def test_what_is_asked_is_not_changed_by_the_memory() -> None:
    found = filled(EIGHT_B, H100, micro_batch_size=16)
    assert (found.micro_batch_size, found.gradient_checkpointing) == (16, False)


@pytest.mark.parametrize(
    ("config", "device"),
    [(EIGHT_B, CPU), (EIGHT_B, Device(on_gpu=True)), ({"model_type": "mamba"}, H100)],
)
def test_without_a_known_memory_the_micro_batch_is_the_largest(
    config: dict[str, Any], device: Device
) -> None:
    found = filled(config, device)
    assert (found.micro_batch_size, found.gradient_checkpointing) == (16, False)


def test_packed_rows_of_a_default_micro_batch_are_short_together() -> None:
    assert filled(EIGHT_B, packing="bfd", max_length=1024).micro_batch_size == 4
    assert filled(EIGHT_B, packing="bfd", max_length=8192).micro_batch_size == 1
    assert filled(EIGHT_B, packing="padding_free", max_length=128).micro_batch_size == 16


def test_a_preset_fills_what_is_absent() -> None:
    found = filled(EIGHT_B, preset="paper", alpha=8.0)
    assert (found.rank, found.alpha, found.dropout, found.epochs) == (64, 8.0, 0.1, 1)
    assert found.target_modules == Base("b", EIGHT_B).linear_layers
    assert filled(EIGHT_B, preset="practical", max_steps=9).epochs == 0
    # What is stored is read again as it was.
    assert Hyperparameters.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"early_stopping_patience": 2}, "early_stopping_patience is 2, but neither validation"),
        ({"validation_steps": 5}, "validation_steps is 5, but neither validation"),
        ({"validation_share": 1.0}, "validation_share is 1, not 0 to below 1"),
        ({"epochs": 0, "max_steps": 0}, "epochs and max_steps are both 0"),
        ({"optimizer": "paged_adamw_8bit"}, "optimizer is paged_adamw_8bit, which pages"),
        ({"target_parameters": ("mlp.experts.down_proj",)}, "the base is no mixture of experts"),
        (
            {"skip_modules": tuple(Base("b", EIGHT_B).linear_layers)},
            "skip_modules names every linear layer of the base, so nothing would be quantised",
        ),
        ({"effective_batch_size": 0}, "effective_batch_size is 0, not 1 to 65536"),
    ],
)
def test_settings_that_cannot_hold_together_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=r"the spec cannot be run: .*") as caught:
        filled(EIGHT_B, **asked)
    assert said in caught.value.message
    assert caught.value.field.startswith("spec.hyperparameters.")


def test_experts_are_trained_without_dropout_only() -> None:
    asked = {"target_parameters": ("mlp.experts.down_proj",)}
    assert filled(MIXTRAL, **asked).target_parameters == ("mlp.experts.down_proj",)
    with pytest.raises(InvalidInput, match=r"with dropout 0\.1: peft trains parameters"):
        filled(MIXTRAL, **asked, dropout=0.1)


def test_devices_share_a_step() -> None:
    two = Device(on_gpu=True, count=2)
    assert filled(EIGHT_B, two).micro_batch_size == 8
    with pytest.raises(InvalidInput, match="which 2 devices cannot share equally"):
        filled(EIGHT_B, two, effective_batch_size=5)
    with pytest.raises(InvalidInput, match="does not divide effective_batch_size 16 on 2 devices"):
        filled(EIGHT_B, two, micro_batch_size=16)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"validation_path": "v.jsonl"}, "validation.digest '' is not `sha256:`"),
        ({"validation_digest": DIGEST}, "validation.path is empty"),
        ({"validation_path": "v", "validation_digest": DIGEST}, "it would validate on itself"),
        ({"held_out_path": "/etc/x", "held_out_digest": DIGEST}, "held_out.path '/etc/x' leads"),
    ],
)
def test_files_that_cannot_be_read_are_told(more: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        complete(spec().model_copy(update=more), Base("b", EIGHT_B))
    assert said in caught.value.message


def test_a_file_and_a_share_for_validation_are_one_too_many() -> None:
    files = {"validation_path": "v", "validation_digest": "sha256:" + "1" * 64}
    one = spec(validation_share=0.1).model_copy(update=files)
    with pytest.raises(InvalidInput, match="validation names a file: give one of them"):
        complete(one, Base("b", EIGHT_B))


def test_a_run_is_the_same_on_another_gpu() -> None:
    asked, base = spec(), Base("b", EIGHT_B)
    here, there = complete(asked, base, H100), complete(asked, base)
    assert here != there
    assert there.decided_as(here, asked) == here
    explicit = spec(micro_batch_size=16)
    assert complete(explicit, base).decided_as(here, explicit) != here


def test_the_smallest_gpu_that_the_driver_lists() -> None:
    listed = "81559, NVIDIA H100 80GB HBM3\n40960, NVIDIA A100-SXM4-40GB\nodd line\n"
    assert parse_gpus(listed) == ("NVIDIA A100-SXM4-40GB", 40960 << 20)
    assert parse_gpus("No devices were found\n") is None


def test_a_device_is_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert find_device("cpu", 80) == CPU
    assert find_device("auto") == CPU
    assert find_device("auto", 80) == Device(on_gpu=True, memory_bytes=80 * GIB, name="cuda")
    assert find_device("cuda") == Device(on_gpu=True, name="cuda")


def test_a_run_for_other_devices_is_refused_before_it_starts() -> None:
    """As one that another trainer created, or this one before it had more devices."""
    made = spec(effective_batch_size=12, micro_batch_size=3)
    for processes in (1, 2, 4):
        made.refuse_indivisible(processes)
    with pytest.raises(InvalidInput, match="12 in micro-batches of 3, which 3 devices cannot"):
        made.refuse_indivisible(3)
    assert find_device("cpu", count=3) == Device(count=3)


def test_processes_find_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(run_id="a", base_folder="", artifacts="", device="cpu", threads=1)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    place = Place.here(2)
    assert (place.is_first, Place(0, 0).is_first, Place(0, 1).is_first) == (False, True, False)
    assert variables(job, place) == {}
    job = job.model_copy(update={"devices": 4, "nodes": 2})
    with pytest.raises(InvalidInput, match="on 2 nodes, and MASTER_ADDR is not set"):
        variables(job, place)
    monkeypatch.setenv("MASTER_ADDR", "first.pods")
    found = variables(job, place)
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]) == ("6", "8", "2")
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("first.pods", "29500")
