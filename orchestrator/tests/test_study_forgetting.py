"""lm-eval before and after tuning; here a script that writes lm-eval's files stands for it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial

import pytest
from fakes import served
from small_study import SmallStudy, invoke

from tuneproof.analysis import compare
from tuneproof.report import build_report, report_json
from tuneproof.report.forgetting import forgetting_rows
from tuneproof.results import Model
from tuneproof.servicekit.errors import Corrupted, InvalidInput
from tuneproof.study.steps.lm_eval import read_results

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]
SERVICES = "services: {model: tiny"
SCRIPT = """\
#!/bin/sh
echo "$@" >> {folder}/calls
while [ "$1" != --output_path ]; do [ "$1" = --model_args ] && model=$2; shift; done
[ -e {folder}/broken ] && {{ echo "first"; echo "no such task: arc" >&2; exit 3; }}
case $model in *@sha256*) score=0.25;; *) score=0.75;; esac
mkdir -p "$2/some__model"
cat > "$2/some__model/results_2026-11-28T00-00-00.json" <<END
{{"results": {{"arc": {{"alias": "arc", "acc,none": $score, "acc_stderr,none": 0.03,
  "exact_match,strict": 1, "exact_match_stderr,strict": "N/A"}}, "group": {{"alias": " group"}}}},
 "n-samples": {{"arc": {{"original": 500, "effective": 40}}}}, "lm_eval_version": "0.4.13"}}
END
"""


@pytest.fixture
def small(tmp_path):
    small = SmallStudy(tmp_path)
    script = tmp_path / "lm-eval"
    script.write_text(SCRIPT.format(folder=tmp_path))
    script.chmod(0o755)
    section = "{tasks: [arc], limit: 40, fewshot: 2, command: [./lm-eval], url: 'http://g:1/v1'}"
    small.edit(SERVICES, f"forgetting: {section}\n{SERVICES}")
    return small


@pytest.fixture
def run(small, capsys, monkeypatch):
    call = partial(invoke, capsys, monkeypatch)
    return lambda *words: call("study", *words, "--state", str(small.state))


def calls(small):
    return (small.folder / "calls").read_text().splitlines()


async def test_the_base_and_each_adapter_are_measured_once(small, run):
    async with served(small.world()) as target:
        results = await small.run(target)
        await small.run(target)
    made = calls(small)
    assert len(made) == 3
    for words in made:
        assert "--tasks arc" in words
        assert "--limit 40 --num_fewshot 2" in words
        assert "base_url=http://g:1/v1/completions" in words
        assert f"tokenizer={small.folder / 'tiny'}" in words
    assert "model=tiny," in made[0]
    assert "model=short-8-s1@sha256:" in made[1]
    base, short, closed = results.cells
    assert [(s.task, s.metric, s.value, s.samples) for s in base.forgetting] == [
        ("arc", "acc", 0.75, 40),
        ("arc", "exact_match (strict)", 1.0, 40),
    ]
    assert short.forgetting[0].value == closed.forgetting[0].value == 0.25
    assert short.forgetting[1].standard_error is None
    row = forgetting_rows(results)[0]
    shown = (row.before, row.after, row.difference.replace("\N{MINUS SIGN}", "-"), row.error)
    assert shown == ("0.750", "0.250", "-0.500", "0.042")
    comparisons = compare(results)
    value = report_json(results, comparisons)
    assert value["cells"][1]["forgetting"][0]["value"] == 0.25
    assert "lm-eval" in build_report(results, comparisons)
    code, out, err = run("report", str(small.file))
    assert code == 0, err
    assert "lm-eval, before and after" in out


async def test_each_base_is_its_own_before(small):
    async with served(small.world()) as target:
        results = await small.run(target)
    base, short, closed = results.cells
    score = replace(base.forgetting[0], value=0.5)
    other = replace(base, name="other-baseline", model="other", forgetting=(score,))
    models = (
        Model("tiny", "", base.name),
        Model("other", "", other.name),
    )
    cells = (base, short, other, replace(closed, model="other"))
    both = replace(results, cells=cells, models=models)
    assert [row.before for row in forgetting_rows(both)] == ["0.750", "1.000", "0.500"]


async def test_a_failure_is_told_and_tried_again(small, run):
    (small.folder / "broken").touch()
    async with served(small.world()) as target:
        results = await small.run(target)
        assert all(cell.forgetting == () for cell in results.cells)
        assert any("ended with 3" in note and "no such task: arc" in note for note in results.notes)
        assert run("report", str(small.file))[0] == 3
        (small.folder / "broken").unlink()
        results = await small.run(target)
    assert all(cell.forgetting for cell in results.cells)
    assert not results.notes or "lm-eval" not in " ".join(results.notes)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[./lm-eval]", "[./gone]", "there is no program"),
        ("url: 'http://g:1/v1'", "in_flight: 2", "forgetting: {url: http://host:port/v1}"),
    ],
)
async def test_what_only_a_run_shows_ends_with_one_message(small, run, old, new, told):
    small.edit(old, new)
    async with served(small.world()) as target:
        with pytest.raises(InvalidInput, match=re.escape(told)):
            await small.run(target)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("tasks: [arc]", "tasks: []", "forgetting.tasks"),
        ("tasks: [arc], ", "", "forgetting.tasks"),
        ("limit: 40", "limit: 0", "forgetting.limit"),
        ("limit: 40", "include: gone", "forgetting.include: there is no folder"),
        ("limit: 40", "number: 40", "forgetting.number"),
    ],
)
def test_bad_keys_are_told(small, run, old, new, told):
    small.edit(old, new)
    code, out, err = run("plan", str(small.file))
    assert code == 2
    assert told in err
    assert out == ""


def test_other_files_are_refused(tmp_path):
    with pytest.raises(Corrupted, match="without a file of results"):
        read_results(tmp_path)
    path = tmp_path / "results_1.json"
    for text in ("{", "[]", "{}", json.dumps({"results": {"a": 1}})):
        path.write_text(text)
        with pytest.raises(Corrupted, match="cannot be read"):
            read_results(tmp_path)
