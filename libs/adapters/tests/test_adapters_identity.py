"""References, base identity, manifests: what changes a digest and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters import AdapterRef, BaseIdentity, Manifest, TensorEntry, identify_base
from tuneproof.adapters.loraconfig import normalise
from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.errors import Corrupted, InvalidInput

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
DIGESTS = HEX.map(lambda digits: f"sha256:{digits}")
ENTRIES = st.builds(
    TensorEntry,
    name=st.text(min_size=1, max_size=20),
    dtype=st.sampled_from(["F32", "BF16"]),
    shape=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    sha256=DIGESTS,
)
MANIFESTS = st.builds(
    Manifest,
    tensors=st.lists(ENTRIES, max_size=4, unique_by=lambda entry: entry.name).map(
        lambda entries: tuple(sorted(entries, key=lambda entry: entry.name))
    ),
    config=st.dictionaries(st.text(max_size=9), st.integers() | st.text(max_size=9), max_size=4),
    base=st.builds(BaseIdentity, DIGESTS, DIGESTS, DIGESTS),
)


@given(st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True), DIGESTS)
def test_a_reference_reads_back_what_it_writes(name: str, digest: str) -> None:
    assert AdapterRef.parse(str(AdapterRef(name, digest))) == AdapterRef(name, digest)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain", "write name@sha256"),
        ("Upper@sha256:" + "0" * 64, "beginning with a letter"),
        ("a" * 64 + "@sha256:" + "0" * 64, "1 to 63 characters"),
        ("x@sha256:" + "0" * 63, "64 hexadecimal digits"),
        ("x@sha256:" + "G" * 64, "64 hexadecimal digits"),
        ("x/../y@sha256:" + "0" * 64, "beginning with a letter"),
    ],
)
def test_a_malformed_reference_is_told(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        AdapterRef.parse(text)


@given(MANIFESTS)
def test_a_manifest_reads_back_and_its_digest_is_that_of_its_bytes(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.to_bytes()) == manifest
    assert manifest.digest == sha256_of_bytes(manifest.to_bytes())


@given(MANIFESTS, MANIFESTS)
def test_manifests_have_equal_digests_only_if_equal(one: Manifest, other: Manifest) -> None:
    assert (one.digest == other.digest) == (one == other)


@given(st.binary(max_size=200))
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(Corrupted, match=r"manifest\.json"):
        Manifest.parse(data)


def test_the_digest_covers_values_not_the_file(
    make_adapter: Callable[..., Path], base_folder: Path
) -> None:
    base = identify_base(base_folder)
    one = Manifest.describe(make_adapter(metadata={"format": "pt"}), base)
    other = Manifest.describe(make_adapter(metadata={"written": "elsewhere"}), base)
    assert one.digest == other.digest
    assert [entry.name for entry in one.tensors] == sorted(entry.name for entry in one.tensors)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"base_model_name_or_path": "elsewhere", "peft_version": "9"}, True),
        ({"target_modules": ["q_proj", "v_proj"]}, True),
        ({"a_new_switch": False, "another": None, "a_list": []}, True),
        ({"lora_dropout": 0.0, "inference_mode": True}, True),
        ({"lora_alpha": 9}, False),
        ({"use_rslora": True}, False),
        ({"target_modules": ["q_proj"]}, False),
    ],
)
def test_the_digest_covers_what_changes_answers(change: dict[str, object], same: bool) -> None:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"]}
    assert (normalise(config) == normalise(config | change)) is same


def test_a_base_is_the_same_after_another_save(base_folder: Path) -> None:
    before = identify_base(base_folder)
    config = json.loads((base_folder / "config.json").read_text())
    config |= {"transformers_version": "9.9", "dtype": "bfloat16", "_name_or_path": "x"}
    (base_folder / "config.json").write_text(json.dumps(config, indent=3))
    tokenizer = json.loads((base_folder / "tokenizer.json").read_text())
    tokenizer["truncation"] = {"max_length": 7}
    (base_folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    tokenizer_config = {"eos_token": {"content": "</s>", "lstrip": False}}
    (base_folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    assert identify_base(base_folder) == before


@pytest.mark.parametrize(
    ("file", "content", "field"),
    [
        ("config.json", '{"model_type": "llama", "hidden_size": 17}', "config_digest"),
        ("tokenizer.json", '{"model": {"vocab": {"b": 0, "a": 1}}}', "tokenizer_digest"),
        ("tokenizer_config.json", '{"eos_token": "<|end|>"}', "tokenizer_digest"),
        ("chat_template.jinja", "{{ messages }} ", "chat_template_digest"),
    ],
)
def test_a_changed_base_differs_in_its_part_only(
    base_folder: Path, file: str, content: str, field: str
) -> None:
    before = identify_base(base_folder).to_json()
    (base_folder / file).write_text(content)
    after = identify_base(base_folder).to_json()
    assert {name for name in before if before[name] != after[name]} == {field}


def test_the_template_may_lie_in_the_tokenizer_config(base_folder: Path) -> None:
    before = identify_base(base_folder)
    (base_folder / "chat_template.jinja").unlink()
    (base_folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "</s>", "chat_template": "{{ messages }}"})
    )
    assert identify_base(base_folder) == before


@pytest.mark.parametrize(
    ("file", "said"), [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer in")]
)
def test_an_incomplete_base_is_told(base_folder: Path, file: str, said: str) -> None:
    (base_folder / file).unlink()
    with pytest.raises(InvalidInput, match=said):
        identify_base(base_folder)


def test_a_tensor_changed_in_one_value_changes_the_digest(
    make_adapter: Callable[..., Path], base_folder: Path
) -> None:
    base = identify_base(base_folder)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    values = np.ones((4, 16), "f4")
    one = Manifest.describe(make_adapter({name: values}), base)
    values[3, 15] = np.nextafter(np.float32(1), np.float32(2))
    assert Manifest.describe(make_adapter({name: values}), base).digest != one.digest
