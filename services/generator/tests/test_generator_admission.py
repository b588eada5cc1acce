"""Adapters that must not be served: what their state says, and that no engine ever sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tuneproof.adapters import AdapterRef, FolderStorage, Registry, identify_base
from tuneproof.adapters.testing import lora_tensors, write_adapter, write_base
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.hub import resolve_model
from tuneproof_generator.adapters.admission import inspector
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.pool.adapter_pool import AdapterPool
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.declarations import Declarations

pytestmark = pytest.mark.timeout(30)
MAX_RANK = 4


class NoEngine:
    """Holds nothing, and minds being given something."""

    async def load(self, adapter):
        raise AssertionError(f"{adapter.ref} reached the engine")

    async def unload(self, adapter):
        return None


@dataclass(frozen=True)
class Store:
    """A registry, the base model that the generator serves, and another one."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "base"

    @property
    def registry(self) -> Registry:
        return Registry(str(self.root / "artifacts"))

    def commit(self, name: str, adapter: Path, base: Path | None = None) -> AdapterRef:
        identity = identify_base(base or self.base)
        return self.registry.commit(adapter, name=name, base=identity, provenance={})

    def weights(self, name: str) -> Path:
        return next((self.root / "artifacts").glob(f"adapters/{name}/*/adapter_model.safetensors"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    write_base(made.base)
    return made


async def reason_of(store: Store, ref: AdapterRef) -> str:
    """Declares an adapter, as a client does, and gives the reason for which it failed."""
    declared = FolderStorage(store.root / "pool")
    inspect = inspector(store.base, identify_base(store.base), MAX_RANK)
    pool = AdapterPool(
        Loader(NoEngine(), store.registry, inspect, store.root / "cache"),
        Traffic(),
        Declarations(declared),
        Aliases(declared),
        base_model="tiny",
        capacity=2,
    )
    await pool.reconciler.reconcile()
    try:
        await pool.declare(ref, required=False, request_id="")
        async with aclosing(pool.views.watch(frozenset({str(ref)}))) as changes:
            async for change in changes:
                assert change.view.record.state is not AdapterState.READY
                if change.view.record.state is AdapterState.FAILED:
                    return change.view.record.reason
    finally:
        await pool.close()
    raise AssertionError


def other_base(store: Store) -> AdapterRef:
    other = write_base(store.root / "other")
    (other / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"b": 0}}}))
    return store.commit("other", write_adapter(store.root / "trained"), other)


def other_shape(store: Store) -> AdapterRef:
    tensors = {name: np.ones((4, 24), "f4") for name in lora_tensors() if "lora_A" in name}
    return store.commit("shape", write_adapter(store.root / "trained", lora_tensors() | tensors))


def not_finite(store: Store) -> AdapterRef:
    tensors = lora_tensors()
    next(iter(tensors.values()))[0, 0] = np.nan
    return store.commit("nan", write_adapter(store.root / "trained", tensors))


def too_wide(store: Store) -> AdapterRef:
    adapter = write_adapter(store.root / "trained", lora_tensors(rank=8), {"r": 8})
    return store.commit("wide", adapter)


def wrong_rank(store: Store) -> AdapterRef:
    return store.commit("rank", write_adapter(store.root / "trained", config={"r": 2}))


def flipped_bit(store: Store) -> AdapterRef:
    ref = store.commit("flipped", write_adapter(store.root / "trained"))
    content = bytearray(store.weights("flipped").read_bytes())
    content[-5] ^= 1
    store.weights("flipped").write_bytes(content)
    return ref


def pickled(store: Store) -> AdapterRef:
    ref = store.commit("pickled", write_adapter(store.root / "trained"))
    store.weights("pickled").write_bytes(b"PK\x03\x04" + b"0" * 100)
    return ref


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (other_base, "base: the base's tokenizer at training was sha256:"),
        (other_shape, "shape: "),
        (not_finite, "holds NaN or an infinity"),
        (too_wide, "has rank 8, above the 4 that the engine was started for"),
        (wrong_rank, "has rank 4; adapter_config.json says 2"),
        (flipped_bit, "is not what was committed"),
        (pickled, "is a pickle, which can run code when read"),
    ],
)
async def test_what_must_not_be_served_fails_with_its_reason(
    store: Store, make: Callable[[Store], AdapterRef], told: str
) -> None:
    ref = make(store)
    reason = await reason_of(store, ref)
    assert told in reason
    assert ref.name in reason
    assert "Traceback" not in reason


def test_pickled_weights_cannot_be_committed(store: Store) -> None:
    adapter = write_adapter(store.root / "trained")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(
        InvalidInput, match=r"no adapter_model\.safetensors in .*save them as safet"
    ):
        store.commit("pickled", adapter)
    assert store.registry.list() == ()


@pytest.mark.parametrize("model", ["no/such-model", "./nowhere", "a b/c"])
def test_a_model_that_nobody_has_is_told_in_one_line(model, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InvalidInput) as caught:
        resolve_model(model)
    told = caught.value.message
    assert told.startswith(f"--model {model} is not a folder here, and the hub does not give it: ")
    assert told.endswith(
        "Give a folder in Hugging Face format or another id; a gated model needs HF_TOKEN"
    )
    assert "\n" not in told
