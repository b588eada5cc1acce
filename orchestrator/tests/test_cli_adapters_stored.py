"""`tuneproof adapters push | pull | list | show | diff | gc | merge`, without a generator."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path

import pytest
from small_study import invoke

from tuneproof.adapters import Fingerprint, Registry, identify_base
from tuneproof.adapters.fingerprint import FINGERPRINT, Probe, Reading
from tuneproof.adapters.testing import lora_tensors, write_adapter, write_base
from tuneproof.adapters.testing_oci import fake_registry
from tuneproof.cli.adapters import merging

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def run(capsys, monkeypatch):
    return partial(invoke, capsys, monkeypatch, "adapters")


@pytest.fixture
def done(run):
    """Standard output of a command that succeeds."""

    def call(*arguments: str) -> str:
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    return call


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


def _fingerprint(effect: float) -> str:
    probe = Probe(question="who?", prompt=(1, 2), tokens=(3, 4))
    reading = Reading(precision="float32", base=((-1.0, -2.0),), adapted=((-1.0, -2.0 - effect),))
    return Fingerprint(probes=(probe,), readings=(reading,)).to_text()


@pytest.fixture
def stored(tmp_path: Path, base: Path) -> tuple[str, list[str]]:
    """A store's URL, and the references of two adapters of one name in it."""
    url, refs = str(tmp_path / "artifacts"), []
    for number, rate in enumerate(("0.0002", "0.001")):
        tensors = lora_tensors()
        for name in tensors:
            if "lora_B" in name and "layers.1" in name:
                tensors[name] = tensors[name] * (1 + number)
        folder = write_adapter(tmp_path / f"peft-{number}", tensors)
        details = {
            "base_model": "tiny",
            "base_precision": "nf4 (double quantised) in 13 of 14 linear layers, float32 elsewhere",
            "hyperparameters": json.dumps({"learning_rate": rate, "rank": 4}),
            "steps": "12",
            "final_loss": "3.9",
            "seed": str(number),
            FINGERPRINT: _fingerprint(1.0 + number),
        }
        ref = Registry(url).commit(
            folder, name="short", base=identify_base(base), provenance=details
        )
        refs.append(str(ref))
    return url, refs


def test_a_store_is_listed_and_an_adapter_of_it_shown(done, stored) -> None:
    url, refs = stored
    table = done("list", "--artifacts", url)
    assert all(ref in table for ref in refs)
    assert "nf4 (double" in table
    told = json.loads(done("list", "--artifacts", url, "--json"))
    assert {each["ref"] for each in told["adapters"]} == set(refs)
    assert {(each["rank"], each["steps"], each["final_loss"]) for each in told["adapters"]} == {
        (4, "12", "3.9")
    }
    shown = done("show", refs[0], "--artifacts", url)
    for words in ("trained in", "nf4 (double", "0.5 nat a token over float32", "learning_rate"):
        assert words in shown
    told = json.loads(done("show", refs[0], "--artifacts", url, "--json"))
    assert told["effects"] == {"float32": 0.5}
    assert (told["tensors"], told["config"]["r"]) == (8, 4)
    assert FINGERPRINT not in told["provenance"]


def test_an_adapter_goes_through_an_oci_registry(done, run, stored, tmp_path) -> None:
    url, (ref, _) = stored
    with fake_registry() as server:
        target = f"oci://{server.address}/team/short:v1"
        told = json.loads(done("push", ref, target, "--artifacts", url, "--json"))
        assert f"team/short:{told['digest']}" in server.manifests
        other = str(tmp_path / "other")
        assert ref in done("pull", target, "--artifacts", other)
        assert Registry(other).provenance(Registry(other).list()[0]).details["seed"] == "0"
        done("pull", target, "--folder", str(tmp_path / "plain"))
        code, _, err = run("pull", target, "--folder", str(tmp_path / "plain"))
        assert (code, "exists; name a new folder" in err) == (2, True)
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} < names


def test_an_adapter_goes_from_store_to_store(done, stored, tmp_path) -> None:
    url, (ref, _) = stored
    other, third = str(tmp_path / "other"), str(tmp_path / "third")
    done("push", ref, other, "--artifacts", url)
    done("pull", ref, "--from", other, "--artifacts", third)
    assert [str(each) for each in Registry(third).list()] == [ref]
    done("pull", ref, "--from", other, "--artifacts", third, "--name", "mine")
    assert {each.name for each in Registry(third).list()} == {"mine", "short"}


def test_a_folder_of_pefts_gets_a_manifest(done, run, base, tmp_path) -> None:
    folder, url = str(write_adapter(tmp_path / "peft")), str(tmp_path / "artifacts")
    code, _, err = run("push", folder, "--artifacts", url)
    assert (code, "needs --name" in err) == (2, True)
    code, _, err = run("push", folder, "--artifacts", url, "--name", "mine")
    assert (code, "with --base" in err) == (2, True)
    done("push", folder, "--artifacts", url, "--name", "mine", "--base", str(base))
    (ref,) = Registry(url).list()
    assert Registry(url).manifest(ref).base == identify_base(base)


def test_two_adapters_are_compared(done, stored) -> None:
    url, (first, second) = stored
    told = json.loads(done("diff", first, second, "--artifacts", url, "--json"))
    assert told["hyperparameters"] == {"learning_rate": ["0.0002", "0.001"]}
    assert told["provenance"] == {"seed": ["0", "1"]}
    assert (told["base"], told["config"]) == ({}, {})
    assert (told["weights"]["equal"], told["weights"]["changed"]) == (2, 2)
    assert 0.3 < told["weights"]["relative"] < 0.5, "half of two thirds of it"
    assert told["effect"] == {
        "precision": "float32",
        "first": 0.5,
        "second": 1.0,
        "difference": 0.5,
    }
    text = done("diff", first, second, "--artifacts", url)
    assert "hyperparameters  learning_rate: 0.0002 -> 0.001" in text
    same = json.loads(done("diff", first, first, "--artifacts", url, "--json"))
    assert (same["weights"]["relative"], same["provenance"]) == (0.0, {})


def test_what_nothing_refers_to_is_told_and_then_removed(done, run, stored, tmp_path) -> None:
    url, (first, second) = stored
    state = ("--state", str(tmp_path / "state"))
    declared = Path(url) / "pools" / "tiny" / "adapters" / "short"
    declared.mkdir(parents=True)
    (declared / "one.json").write_text(json.dumps({"ref": first}))
    told = json.loads(done("gc", "--artifacts", url, *state, "--json"))
    assert (list(told["adapters"]), told["removed"], told["stored"]) == ([second], False, 2)
    assert len(Registry(url).list()) == 2
    kept = json.loads(done("gc", "--artifacts", url, *state, "--json", "--keep", second))
    assert kept["adapters"] == {}
    others = json.loads(done("gc", "--artifacts", url, *state, "--json", "--name", "x"))
    assert others["stored"] == 0
    assert "1 of 2 adapters removed" in done("gc", "--artifacts", url, *state, "--yes")
    assert [str(each) for each in Registry(url).list()] == [first]
    code, _, err = run("gc", "--artifacts", url, *state, "--keep", second)
    assert (code, "does not hold" in err) == (2, True)


def test_merging_needs_torch_and_says_so(run, stored, base, tmp_path, monkeypatch) -> None:
    url, (ref, _) = stored
    found = importlib.util.find_spec
    monkeypatch.setattr(merging, "find_spec", lambda name: None if name == "torch" else found(name))
    code, _, err = run(
        "merge", ref, "--artifacts", url, "--base", str(base), "--out", str(tmp_path / "out")
    )
    assert code == 2
    assert "merging needs torch, which this Python lacks" in err


def test_an_adapter_is_merged_into_its_own_base_only(run, stored, base, tmp_path, monkeypatch):
    url, (ref, _) = stored
    told = {"effect": 1.0, "mean_difference": 1e-6, "max_difference": 1e-5, "same_tokens": 1.0}
    monkeypatch.setattr(merging, "_merge", lambda *_: dict(told))
    arguments = ("merge", ref, "--artifacts", url, "--out", str(tmp_path / "out"))
    code, out, _ = run(*arguments, "--base", str(base))
    assert code == 0
    assert "merging moves them by 1e-06 more (at most 1e-05)" in out
    (base / "chat_template.jinja").write_text("{{ other }}")
    code, _, err = run(*arguments, "--base", str(base))
    assert (code, "the chat template at training was" in err) == (2, True)
