"""`tuneproof adapters verify`: an adapter's folder, checked here and without a generator."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from small_study import invoke

from tuneproof.adapters import Registry, identify_base
from tuneproof.adapters.testing import PREFIX, lora_tensors, write_adapter, write_base

pytestmark = pytest.mark.timeout(60)

_ALONE = """
import socket, sys
from tuneproof.cli.main import main

def refuse(*arguments, **more):
    raise AssertionError("the network was asked")

socket.socket.connect = refuse
sys.argv = ["tuneproof", "adapters", "verify", *sys.argv[1:]]
try:
    main()
finally:
    print("HEAVY", sorted({"torch", "transformers", "vllm"} & set(sys.modules)))
"""


@pytest.fixture
def run(capsys, monkeypatch):
    return partial(invoke, capsys, monkeypatch, "adapters", "verify")


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


def committed(tmp_path, base):
    """The place of a good adapter in a registry."""
    registry = Registry(str(tmp_path / "artifacts"))
    folder = write_adapter(tmp_path / "peft")
    ref = registry.commit(folder, name="short", base=identify_base(base), provenance={})
    return tmp_path / "artifacts" / "adapters" / "short" / ref.hex, ref


def test_a_good_adapter_of_peft(tmp_path, run, base):
    folder = write_adapter(tmp_path / "peft")
    code, out, _ = run(str(folder), "--base", str(base), "--max-rank", "4")
    assert code == 0
    assert f"{folder}: no defect (8 tensors" in out
    assert "no manifest" in out
    code, out, _ = run(str(folder), "--json")
    said = json.loads(out)
    assert (code, said["ok"], said["defects"], said["tensors"]) == (0, True, [], 8)
    assert any("--max-rank" in note for note in said["notes"])
    assert any("base was not given" in note for note in said["notes"])


def test_all_defects_are_listed_at_once(tmp_path, run, base):
    tensors = lora_tensors(rank=8)
    tensors[f"{PREFIX}.0.self_attn.q_proj.lora_A.weight"][0, 0] = np.nan
    tensors[f"{PREFIX}.7.self_attn.q_proj.lora_A.weight"] = np.zeros((8, 16), "f4")
    tensors[f"{PREFIX}.7.self_attn.q_proj.lora_B.weight"] = np.zeros((16, 8), "f4")
    folder = write_adapter(tmp_path / "peft", tensors, {"r": 8})
    (folder / "optimizer.pt").write_bytes(b"\x80\x04.")
    code, out, err = run(str(folder), "--base", str(base), "--max-rank", "4", "--json")
    assert (code, err) == (1, "")
    said = json.loads(out)
    assert not said["ok"]
    assert {"pickle", "not_finite", "layer", "rank"} <= {each["code"] for each in said["defects"]}
    code, out, _ = run(str(folder), "--base", str(base), "--max-rank", "4")
    assert code == 1
    assert "optimizer.pt may be a pickle" in out
    assert f"{len(said['defects'])} defects: not fit to be served" in out


def test_what_lies_in_a_registry_must_be_what_its_place_says(tmp_path, run, base):
    place, ref = committed(tmp_path, base)
    code, out, _ = run(str(place), "--base", str(base))
    assert code == 0
    assert f"{ref}: no defect" in out
    elsewhere = place.with_name("0" * 64)
    place.rename(elsewhere)
    code, out, _ = run(str(elsewhere))
    assert code == 1
    assert f"the manifest's digest is {ref.digest}, not sha256:{'0' * 64}" in out


def test_another_base_is_a_defect(tmp_path, run, base):
    place, _ = committed(tmp_path, base)
    (base / "chat_template.jinja").write_text("another")
    code, out, _ = run(str(place), "--base", str(base))
    assert code == 1
    assert "the chat template at training was" in out


@pytest.mark.parametrize(
    ("path", "flags", "told"),
    [
        ("nowhere", [], "nowhere does not exist"),
        ("base/config.json", [], "config.json is a file"),
        ("base", ["--base", "nowhere"], "no config.json in nowhere"),
    ],
)
def test_a_folder_that_is_none_is_bad_input(tmp_path, run, base, monkeypatch, *, path, flags, told):
    monkeypatch.chdir(base.parent)
    code, out, err = run(path, *flags)
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.process
def test_it_takes_neither_torch_nor_a_network(tmp_path, base):
    folder = write_adapter(tmp_path / "peft")
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(folder), "--base", str(base), "--max-rank", "4"],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"
