"""What may not reach an engine, and what is said about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters import (
    AdapterRef,
    AdmissionReport,
    BaseIdentity,
    Registry,
    identify_base,
    verify,
)
from tuneproof.adapters.tensors import examine, read_header
from tuneproof.adapters.testing import BASE_CONFIG, LORA_CONFIG, PREFIX, lora_tensors
from tuneproof.servicekit.errors import InvalidInput

Adapters = Callable[..., Path]
Q0 = f"{PREFIX}.0.self_attn.q_proj"


@pytest.fixture
def committed(
    tmp_path: Path, make_adapter: Adapters, base_folder: Path
) -> tuple[Path, AdapterRef, BaseIdentity]:
    base = identify_base(base_folder)
    registry = Registry(str(tmp_path / "store"))
    ref = registry.commit(make_adapter(), name="short", base=base, provenance={})
    return registry.fetch(ref, tmp_path / "cache"), ref, base


def check(folder: Path, **more: Any) -> AdmissionReport:
    return verify(folder, **({"base_config": dict(BASE_CONFIG), "max_rank": 16} | more))


def said(report: AdmissionReport) -> str:
    return "\n".join(f"{defect.code}: {defect.message}" for defect in report.defects)


def test_a_good_adapter_passes(committed: tuple[Path, AdapterRef, BaseIdentity]) -> None:
    folder, ref, base = committed
    report = check(folder, base=base, expected=ref)
    assert report.ok, said(report)
    assert (report.tensors, report.notes) == (8, ())
    assert report.size_bytes == sum(array.nbytes for array in lora_tensors().values())
    report.raise_if_bad()


def test_a_flipped_bit_is_told(committed: tuple[Path, AdapterRef, BaseIdentity]) -> None:
    folder, ref, base = committed
    weights = folder / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-8] ^= 1
    weights.write_bytes(data)
    report = check(folder, base=base, expected=ref)
    assert [defect.code for defect in report.defects] == ["digest"]
    assert "was altered; fetch the adapter again" in said(report)
    with pytest.raises(InvalidInput, match=r"short@sha256:\w+ cannot be served: digest: tensor"):
        report.raise_if_bad()


def test_another_adapter_in_the_folder_is_told(
    committed: tuple[Path, AdapterRef, BaseIdentity],
) -> None:
    folder, ref, base = committed
    other = AdapterRef("short", "sha256:" + "0" * 64)
    report = check(folder, base=base, expected=other)
    assert said(report) == f"digest: the manifest's digest is {ref.digest}, not {other.digest}"


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("chat_template.jinja", "other", "the chat template"),
        ("tokenizer.json", "{}", "the base's tokenizer"),
        (
            "config.json",
            json.dumps(dict(BASE_CONFIG) | {"rope_theta": 5}),
            "the base's configuration",
        ),
    ],
)
def test_a_wrong_base_is_told(
    committed: tuple[Path, AdapterRef, BaseIdentity],
    base_folder: Path,
    file: str,
    content: str,
    part: str,
) -> None:
    (base_folder / file).write_text(content)
    report = check(committed[0], base=identify_base(base_folder), expected=committed[1])
    assert [defect.code for defect in report.defects] == ["base"]
    assert f"{part} at training was sha256:" in said(report)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "bf16"])
def test_values_that_are_not_finite_are_told(
    make_adapter: Adapters, value: float, dtype: str
) -> None:
    tensors = lora_tensors()
    matrix = tensors[f"{Q0}.lora_B.weight"].copy()
    matrix[15, 3] = value
    tensors[f"{Q0}.lora_B.weight"] = matrix.astype("f4" if dtype == "bf16" else dtype)
    folder = make_adapter(tensors)
    if dtype == "bf16":
        _as_bfloat16(folder / "adapter_model.safetensors", f"{Q0}.lora_B.weight", matrix)
    report = check(folder)
    assert [defect.code for defect in report.defects] == ["not_finite"]
    assert f"tensor {Q0}.lora_B.weight holds NaN or an infinity" in said(report)


def _as_bfloat16(path: Path, name: str, values: np.ndarray) -> None:
    """Writes a file with this one tensor replaced by its bfloat16 form; numpy has no such type."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    out: dict[str, Any] = {}
    pieces = b""
    for key, entry in header.items():
        begin, end = entry["data_offsets"]
        piece, dtype = body[begin:end], entry["dtype"]
        if key == name:
            piece, dtype = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes(), "BF16"
        offsets = [len(pieces), len(pieces) + len(piece)]
        out[key] = {"dtype": dtype, "shape": entry["shape"], "data_offsets": offsets}
        pieces += piece
    text = json.dumps(out).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + pieces)


CONFIGS = [
    ({"peft_type": "IA3"}, "only LORA works"),
    ({"use_dora": True}, "use_dora is True: vLLM does not serve it"),
    ({"bias": "all"}, "bias is 'all': vLLM does not serve it"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
    ({"init_lora_weights": "pissa"}, "changes the base's weights"),
    ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ({"r": 8}, f"{Q0.removeprefix('base_model.model.')} has rank 4; adapter_config.json says 8"),
    ({"r": "4"}, "r is '4', not a whole number"),
    ({"lora_alpha": None}, "lora_alpha is None"),
    ({"lora_alpha": 0}, "lora_alpha is 0, not a finite number other than 0"),
    ({"lora_alpha": float("nan")}, "lora_alpha is nan, not a finite number"),
    ({"alpha_pattern": {"v_proj": float("inf")}}, "alpha_pattern gives v_proj the alpha inf"),
    ({"rank_pattern": {"(a+)+$": 4}}, "only module names are taken"),
    ({"rank_pattern": {"v_proj": 2}}, "adapter_config.json says 2"),
    ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "target module o_proj has no tensor"),
    ({"target_modules": ["q_proj"]}, "v_proj has tensors, but adapter_config.json does not"),
]


@pytest.mark.parametrize(("change", "sentence"), CONFIGS)
def test_a_bad_configuration_is_told(
    make_adapter: Adapters, change: dict[str, Any], sentence: str
) -> None:
    assert sentence in said(check(make_adapter(config=change)))


def test_rslora_is_served(make_adapter: Adapters) -> None:
    assert check(make_adapter(config={"use_rslora": True})).ok


def _without(name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in lora_tensors().items() if key != name}


WEIGHTS = [
    (_without(f"{Q0}.lora_B.weight"), "pair", "lacks lora_B"),
    (lora_tensors(layers=3), "layer", "is in layer 2; the base has 2"),
    (
        lora_tensors() | {f"{Q0}.lora_A.weight": np.ones((4, 17), "f4")},
        "shape",
        "takes 17 values and gives 16; the base's takes 16 and gives 16",
    ),
    (
        lora_tensors() | {f"{Q0}.lora_B.weight": np.ones((16, 5), "f4")},
        "shape",
        "has lora_A [4, 16] and lora_B [16, 5]: no pair",
    ),
    (
        lora_tensors() | {"base_model.model.lm_head.weight": np.ones((32, 16), "f4")},
        "module",
        "is not a LoRA matrix of a linear layer",
    ),
    (
        lora_tensors()
        | {
            f"{PREFIX}.0.mlp.q_proj.lora_{part}.weight": np.ones(shape, "f4")
            for part, shape in (("A", (4, 16)), ("B", (16, 4)))
        },
        "module",
        "is not a linear layer of a llama model",
    ),
]


@pytest.mark.parametrize(("tensors", "code", "sentence"), WEIGHTS)
def test_bad_pairs_are_told(
    make_adapter: Adapters, tensors: dict[str, np.ndarray], code: str, sentence: str
) -> None:
    report = check(make_adapter(tensors))
    assert code in {defect.code for defect in report.defects}
    assert sentence in said(report)


def test_weights_above_the_limit_are_not_read(
    make_adapter: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_adapter()
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert check(folder, max_bytes=size).ok
    monkeypatch.setattr("tuneproof.adapters.admission.examine", lambda *_: pytest.fail("read"))
    report = check(folder, max_bytes=size - 1)
    assert f"has {size} bytes, above the limit of {size - 1}" in said(report)


def test_large_tensors_are_read_whole(make_adapter: Adapters) -> None:
    tensors = lora_tensors()
    name = f"{Q0}.lora_A.weight"
    values = np.random.default_rng(1).normal(size=(4, 1 << 18)).astype("f4")
    folder = make_adapter(tensors | {name: values})
    path = folder / "adapter_model.safetensors"
    facts = {tensor.name: found for tensor, found in examine(path, read_header(path))}
    assert facts.keys() == tensors.keys()
    for each, array in (tensors | {name: values}).items():
        assert facts[each].sha256 == f"sha256:{hashlib.sha256(array.tobytes()).hexdigest()}"
    values[3, -1] = np.nan
    report = check(make_adapter(tensors | {name: values}))
    assert "not_finite" in {defect.code for defect in report.defects}


def test_a_rank_above_the_engines_is_told(make_adapter: Adapters) -> None:
    report = check(make_adapter(), max_rank=3)
    assert "has rank 4, above the 3 that the engine was started for" in said(report)


def test_another_architecture_is_compared_pair_by_pair(make_adapter: Adapters) -> None:
    report = check(make_adapter(lora_tensors(layers=9)), base_config={"model_type": "mixtral"})
    assert report.ok
    assert any("shapes of mixtral are not known" in note for note in report.notes)
    odd = make_adapter(lora_tensors() | {f"{Q0}.lora_B.weight": np.ones((16, 5), "f4")})
    assert not check(odd, base_config={"model_type": "mixtral"}).ok


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "x.pkl"])
def test_pickles_are_refused_unread(make_adapter: Adapters, name: str) -> None:
    folder = make_adapter()
    (folder / name).write_bytes(b"\x80\x04.")
    assert [defect.code for defect in check(folder).defects] == ["pickle"]


def test_a_pickle_that_calls_itself_safetensors_is_told(make_adapter: Adapters) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").write_bytes(b"PK\x03\x04" + b"0" * 100)
    assert "is a pickle, which can run code when read" in said(check(folder))


def test_all_defects_are_told_at_once(make_adapter: Adapters) -> None:
    tensors = lora_tensors() | {f"{Q0}.lora_A.weight": np.full((4, 16), np.nan, "f4")}
    folder = make_adapter(tensors, {"use_dora": True, "bias": "all"})
    (folder / "old.bin").touch()
    report = check(folder)
    assert {"pickle", "unsupported", "not_finite"} <= {defect.code for defect in report.defects}
    with pytest.raises(InvalidInput) as caught:
        report.raise_if_bad()
    assert all(defect.message in caught.value.message for defect in report.defects)


@given(length=st.integers(0, 2000))
def test_every_truncation_is_told(length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = _whole_file(tmp_path_factory)
    path = tmp_path_factory.mktemp("cut") / "adapter_model.safetensors"
    data = whole.read_bytes()
    path.write_bytes(data[: min(length, len(data) - 1)])
    with pytest.raises(InvalidInput, match=r"is cut off|not JSON"):
        read_header(path)


@given(place=st.integers(0, 600), value=st.integers(0, 255))
def test_a_damaged_header_is_refused_or_read_within_the_file(
    place: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = _whole_file(tmp_path_factory)
    path = tmp_path_factory.mktemp("bad") / "adapter_model.safetensors"
    data = bytearray(whole.read_bytes())
    data[place] = value
    path.write_bytes(data)
    try:
        tensors = read_header(path)
    except InvalidInput:
        return
    assert sum(tensor.size for tensor in tensors) < len(data)
    assert len(list(examine(path, tensors))) == len(tensors)


@pytest.mark.parametrize(
    ("header", "said_of_it"),
    [
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, "not 4 of them"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, "a gap or an overlap"),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, "the shape"),
        ({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, "as I64; known are"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "4 bytes after its last"),
        ({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, "is cut off"),
        ({"a": {"dtype": "F32"}}, "malformed entry for tensor 'a'"),
        ({}, "holds no tensor"),
        ([], "not a JSON object"),
    ],
)
def test_insane_headers_are_told(tmp_path: Path, header: object, said_of_it: str) -> None:
    path = tmp_path / "adapter_model.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 8)
    with pytest.raises(InvalidInput, match=said_of_it):
        read_header(path)
    path.write_bytes((1 << 40).to_bytes(8, "little") + text)
    with pytest.raises(InvalidInput, match="says its header has 1099511627776 bytes"):
        read_header(path)


def _whole_file(factory: pytest.TempPathFactory) -> Path:
    path = factory.getbasetemp() / "whole.safetensors"
    if not path.exists():
        from safetensors.numpy import save_file

        save_file({"a": np.ones((20, 20), "f4"), "b": np.ones((3, 4), "f2")}, path)
    return path


def test_the_configuration_must_be_there(make_adapter: Adapters) -> None:
    folder = make_adapter()
    (folder / "adapter_config.json").write_text("[" * 100_000)
    assert "adapter_config.json is not JSON" in said(check(folder))
    (folder / "adapter_config.json").unlink()
    assert "no adapter_config.json" in said(check(folder))
    assert LORA_CONFIG["r"] == 4


def test_an_adapter_that_changes_nothing_is_told_and_may_be_allowed(make_adapter):
    tensors = lora_tensors()
    for name in tensors:
        if "lora_B" in name:
            tensors[name] = np.zeros_like(tensors[name])
    found = verify(make_adapter(tensors), max_rank=4)
    assert [defect.code for defect in found.defects] == ["no_effect"]
    assert found.changes_nothing
    allowed = verify(make_adapter(tensors), max_rank=4, allow_no_effect=True)
    assert (allowed.ok, allowed.changes_nothing) == (True, True)
    next(tensor for name, tensor in tensors.items() if "lora_B" in name)[0, 0] = -1e-30
    assert verify(make_adapter(tensors), max_rank=4).ok
