"""A study's results for other programs: tables, promptfoo, Inspect, and one JSON and back."""

from __future__ import annotations

import asyncio
import csv
import json
import zipfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from fakes import served
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import SmallStudy, invoke

from tuneproof.analysis.rows import TABLES, rows_of
from tuneproof.exports.differences import Side, differences
from tuneproof.results.snapshot import results_from_json, results_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.opened import Study

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]
NOW = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A small study that ran."""
    small = SmallStudy(tmp_path_factory.mktemp("ran"))

    async def run():
        async with served(small.world()) as target:
            await small.run(target)

    asyncio.run(run())
    return small


@pytest.fixture
def study(ran) -> Study:
    return Study.open(ran.file, ran.state)


@pytest.fixture
def run(ran, capsys, monkeypatch):
    call = partial(invoke, capsys, monkeypatch)
    return lambda *words: call("study", *words, "--state", str(ran.state))


def test_a_table_has_a_row_for_each_and_the_same_keys_in_all(study):
    results = study.results
    asked = len(results.cells) * len(results.items)
    counts = {"answers": asked, "repeats": asked * 2 * 2, "cells": 3}
    for name in TABLES:
        rows = rows_of(name, results, study.comparisons)
        assert len(rows) == counts.get(name, len(rows)), name
        assert len({tuple(row) for row in rows}) == 1, name
    means = {row["cell"]: row["mean_accuracy"] for row in study.rows("cells")}
    scores = [r["score_accuracy"] for r in study.rows() if r["cell"] == "baseline"]
    assert means["baseline"] == pytest.approx(sum(scores) / len(scores))


def test_a_data_frame_holds_the_rows(study):
    frame = study.to_pandas()
    assert len(frame) == 36
    assert frame["cell"].nunique() == 3
    verdicts = study.to_pandas("comparisons").query("primary")["verdict"]
    assert set(verdicts) <= {"better", "worse", "equivalent", "undecided"}


def test_results_come_back_from_json_as_they_were(study, tmp_path):
    value = json.loads(json.dumps(results_json(study.results, study.design)))
    assert results_from_json(value, "x.json") == study.results
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    again = Study.read(path)
    assert again.comparisons == study.comparisons
    assert again.design["study"] == "small"
    del value["results"]["cells"]
    with pytest.raises(InvalidInput, match="cells"):
        results_from_json(value, "x.json")
    with pytest.raises(InvalidInput, match="schema 'other'"):
        results_from_json({"schema": "other"}, "x.json")


def test_csv_and_parquet_say_the_same(run, ran, tmp_path):
    from pyarrow import parquet

    for ending in ("csv", "parquet"):
        code, out, err = run("export", str(ran.file), "--out", str(tmp_path / f"a.{ending}"))
        assert code == 0, err
        assert out.strip() == str(tmp_path / f"a.{ending}")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(lines) == len(table) == 36
    for line, row in zip(lines, table, strict=True):
        assert line["answer"] == row["answer"]
        assert float(line["score_token_f1"]) == row["score_token_f1"]
        assert json.loads(line["passages"]) == row["passages"]
    assert not list(tmp_path.glob("*.part"))


def test_promptfoo_gets_a_column_for_each_cell(run, ran, study, tmp_path):
    out = tmp_path / "p.json"
    code, _, err = run("export", str(ran.file), "--format", "promptfoo", "--out", str(out))
    assert code == 0, err
    value = json.loads(out.read_text())
    summary = value["results"]
    assert summary["version"] == 3
    assert [one["label"] for one in summary["prompts"]] == [c.label for c in study.results.cells]
    assert len(summary["results"]) == 36
    for one in summary["results"]:
        assert one["prompt"]["id"] == one["promptId"] == summary["prompts"][one["promptIdx"]]["id"]
        assert one["testCase"]["description"] == study.results.items[one["testIdx"]].id
        assert 0 <= one["score"] <= 1
        assert one["success"] == (one["failureReason"] == 0)
    first = summary["results"][0]
    (answer,) = [
        a
        for a in study.results.answers
        if (a.cell, a.item) == ("baseline", study.results.items[0].id)
    ]
    mean = answer.grade.criteria["accuracy"].mean
    assert first["namedScores"]["accuracy"] == mean
    assert first["gradingResult"]["componentResults"][0]["score"] == (mean - 1) / 4
    assert summary["stats"]["successes"] + summary["stats"]["errors"] == 36


def test_inspect_gets_a_log_for_each_cell(run, ran, study, tmp_path):
    code, out, err = run(
        "export", str(ran.file), "--format", "inspect", "--out", str(tmp_path / "logs"), "--json"
    )
    assert code == 0, err
    files = json.loads(out)["files"]
    assert [Path(file).name for file in files] == [
        f"small_{cell.name}.eval" for cell in study.results.cells
    ]
    with zipfile.ZipFile(files[1]) as log:
        header = json.loads(log.read("header.json"))
        names = [name for name in log.namelist() if name.startswith("samples/")]
        sample = json.loads(log.read(names[0]))
        assert len(json.loads(log.read("summaries.json"))) == len(names) == 12
    assert header["status"] == "success"
    assert {one["name"] for one in header["results"]["scores"]} >= {"accuracy", "token_f1"}
    assert sample["scores"]["accuracy"]["metadata"]["repeats"]
    assert (
        sample["output"]["choices"][0]["message"]["content"]
        == sample["scores"]["accuracy"]["answer"]
    )


@pytest.mark.parametrize(
    "case",
    [
        (["export", "{file}"], "say what to write: --format csv | parquet | json"),
        (["export", "{file}", "--out", "x.doc"], "say what to write"),
        (["export", "nothing.json", "--format", "csv"], "there is no file nothing.json"),
        (["export", "{broken}", "--format", "csv"], "is not JSON"),
        (["export", "{list}", "--format", "csv"], "JSON, but not an object"),
        (["export", "{other}", "--format", "csv"], "of the schema 'x'"),
        (["export", "nothing.yaml", "--format", "csv"], "nothing.yaml"),
        (["diff", "{file}", "{other}"], "holds neither results nor a report"),
        (["diff", "{file}", "nothing.yaml"], "nothing.yaml"),
        (["gc", "nothing.yaml"], "nothing.yaml"),
    ],
)
def test_what_cannot_be_ends_with_one_message(run, ran, tmp_path, case):
    words, told = case
    texts = {"broken": "{", "list": "[]", "other": '{"schema": "x"}'}
    places = {"file": str(ran.file)}
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
        places[name] = str(tmp_path / f"{name}.json")
    ended, out, err = run(*[word.format(**places) for word in words])
    assert ended == 2, err
    assert told in err
    assert err.startswith("tuneproof: ")
    assert out == ""


async def test_diff_tells_design_verdicts_means_and_answers(ran, run, tmp_path):
    before = tmp_path / "before.json"
    assert run("export", str(ran.file), "--out", str(before))[0] == 0
    code, out, _ = run("diff", str(before), str(ran.file), "--json")
    assert code == 0
    assert json.loads(out)["same"]
    value = json.loads(before.read_text())
    changed = value["results"]["answers"][13]
    changed["text"] = "another"
    changed["grade"]["criteria"]["accuracy"]["mean"] += 1.5
    value["design"]["retrieval"]["k"] = 9
    value["results"]["cells"].append({**value["results"]["cells"][1], "name": "new"})
    after = tmp_path / "after.json"
    after.write_text(json.dumps(value))
    code, out, _ = run("diff", str(before), str(after), "--json")
    found = json.loads(out)
    assert code == 0
    assert not found["same"]
    assert found["design"] == [{"what": "retrieval.k", "a": 3, "b": 9}]
    assert found["only_b"] == ["new"]
    (answer,) = found["answers"]
    place = changed["cell"], changed["item"]
    assert (answer["cell"], answer["of"], answer["b"]) == (*place, "another")
    assert {(one["cell"], one["of"]) for one in found["means"]} >= {(changed["cell"], "accuracy")}
    assert [one["of"] for one in found["verdicts"]] == ["accuracy"]
    code, out, _ = run("diff", str(before), str(after))
    for told in ("retrieval.k: 3 → 9", "cells of b alone: new", "1 of 12", '"another"'):
        assert told in out


def test_diff_reads_study_files_alone_and_reports(ran, run, tmp_path):
    other = tmp_path / "other.yaml"
    text = ran.file.read_text().replace("study: small", "study: other").replace("k: 3", "k: 4")
    other.write_text(text.replace("{name: short, ", "{name: brief, "))
    code, out, err = run("diff", str(ran.file), str(other), "--json")
    assert code == 0, err
    found = json.loads(out)
    paths = {one["what"] for one in found["design"]}
    assert {"study", "retrieval.k", "arms.short.tune.references"} <= paths
    assert all(
        path in ("study", "retrieval.k") or path.startswith(("arms.short.", "arms.brief."))
        for path in paths
    )
    assert found["answers"] is found["verdicts"] is None
    code, report, _ = run("report", str(ran.file), "--json")
    (tmp_path / "report.json").write_text(report)
    code, out, _ = run("diff", str(tmp_path / "report.json"), str(ran.file), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["same"]
    assert found["design"] is None
    assert found["verdicts"] == found["means"] == []


@given(st.recursive(st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)))
@settings(max_examples=50)
def test_nothing_differs_from_itself(value):
    side = Side("x", {"v": value}, {}, (), {}, {}, {})
    assert differences(side, side).same
