"""`tuneproof study gc`: what no study file refers to goes, and nothing else."""

from __future__ import annotations

import json

import pytest
from fakes import served
from small_study import SmallStudy, invoke

from tuneproof.local import Supervisor
from tuneproof.study.opened import Study

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture
def small(tmp_path):
    return SmallStudy(tmp_path)


@pytest.fixture
def gc(small, capsys, monkeypatch):
    def call(*words):
        arguments = ["study", "gc", *words, "--state", str(small.state), "--json"]
        code, out, err = invoke(capsys, monkeypatch, *arguments)
        return code, json.loads(out) if out else err

    return call


def kinds(found):
    return {one["kind"]: one["pieces"] for one in found["unused"]}


async def test_what_a_study_refers_to_stays(small, gc):
    world = small.world()
    async with served(world) as target:
        await small.run(target)
        code, found = gc(str(small.file))
        assert code == 0
        assert found == {
            "removed": False, "bytes": 0, "unused": [], "studies": [], "paths": []
        }  # fmt: skip
        before, done = Study.open(small.file, small.state).results, small.rows()
        small.edit("k: 3", "k: 2")
        await small.run(target)
        grown = small.rows()
        _, found = gc(str(small.file))
        assert kinds(found)["answer"] == 36
        assert found["bytes"] > 0
        assert small.rows() == grown, "a dry run removes nothing"
        code, told = gc(str(small.file), "--yes")
        assert code == 0
        assert told == {**found, "removed": True}
        assert len(small.rows()) == len(grown) - sum(
            count
            for kind, count in kinds(found).items()
            if kind in ("answer", "grade", "training", "timing")
        )
        calls = dict(world.calls)
        await small.run(target)
        assert world.calls == calls, "all that the file refers to is still there"
        small.edit("k: 2", "k: 3")
        await small.run(target)
    after = Study.open(small.file, small.state).results
    assert [a.text for a in after.answers] == [a.text for a in before.answers]
    assert {key for key, row in done.items() if row[0] != "pool"} <= set(small.rows())


async def test_files_of_what_goes_go_too(small, gc):
    async with served(small.world()) as target:
        await small.run(target)
        trained = [row for row in small.rows().values() if row[0] == "training"]
        refs = [json.loads(output)["adapter_ref"] for _, _, output in trained]
        places = []
        for ref in refs:
            name, _, digest = ref.partition("@sha256:")
            places.append(small.state / "artifacts/adapters" / name / digest)
            places[-1].mkdir(parents=True)
            (places[-1] / "adapter_model.safetensors").write_bytes(b"x" * 1000)
        pool = small.state / "artifacts/pools/tiny/declared"
        pool.mkdir(parents=True)
        (pool / "one.json").write_text(json.dumps({"digest": refs[0].partition("@")[2]}))
        (frozen,) = [json.loads(row[2]) for row in small.rows().values() if row[0] == "corpus"]
        corpus = small.state / "corpora" / frozen["name"]
        corpus.mkdir(parents=True)
        data = list((small.state / "artifacts/datasets").glob("*.jsonl"))
        assert len(data) == 2
        small.edit("seeds: [1]", "seeds: [2]")
        small.edit("max_tokens: 64", "max_tokens: 65")
        await small.run(target)
    code, found = gc(str(small.file), "--yes")
    assert code == 0, found
    assert kinds(found)["tuning data"] == 2
    assert places[0].exists(), "a pool declares it"
    assert not places[1].exists()
    assert not any(path.exists() for path in data)
    assert len(list((small.state / "artifacts/datasets").glob("*.jsonl"))) == 2
    assert not corpus.exists()


async def test_another_studys_results_go_with_its_name(small, gc, tmp_path):
    async with served(small.world()) as target:
        await small.run(target)
        other = tmp_path / "other.yaml"
        other.write_text(small.file.read_text().replace("study: small", "study: other"))
        file, small.file = small.file, other
        await small.run(target)
    _, found = gc(str(other))
    assert found["studies"] == ["small"]
    assert found["unused"] == [], "both studies share all their work"
    small.file = file
    _, found = gc(str(file), str(other))
    assert found["studies"] == []


async def test_nothing_goes_under_running_services(small, gc, monkeypatch):
    async with served(small.world()) as target:
        await small.run(target)
    monkeypatch.setattr(Supervisor, "running", lambda self: {"generator": 7})
    code, err = gc(str(small.file), "--yes")
    assert code == 1
    assert "services of" in err
    assert "tuneproof down" in err
    assert gc(str(small.file))[0] == 0


def test_without_a_state_it_says_so(small, gc):
    code, err = gc(str(small.file), "--yes")
    assert code == 1
    assert "there is no study state" in err
    assert not small.state.exists()
