"""Answers of other systems: an arm of the study that nothing tunes and nothing generates."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pytest
from fakes import served
from small_study import OLD_ARMS, SmallStudy, invoke

from tuneproof.analysis import compare
from tuneproof.data.answers import read_answers
from tuneproof.data.chat_tokens import ChatTokenizer
from tuneproof.report import report_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.prepare import Request, prepare

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]
READER = Path(__file__).parents[2] / "demo/telecom-reader"
ARMS = """\
  - name: baseline
  - {name: other, import: {path: answers.jsonl, system: our old pipeline}}
"""


@pytest.fixture
def small(tmp_path):
    small = SmallStudy(tmp_path)
    names = [item.id for item in prepare(Request(small.file, small.state)).plan.test]
    small.edit(OLD_ARMS, ARMS)
    small.edit("training: {sizes: [8], seeds: [1], hyperparameters: {rank: 4}}\n", "")
    write(small, "".join(map(line, names)))
    return small


def line(name, **more):
    return json.dumps({"id": name, "answer": f"answer to {name}", **more}) + "\n"


def write(small, text):
    (small.folder / "answers.jsonl").write_text(text)


@pytest.fixture
def run(small, capsys, monkeypatch):
    call = partial(invoke, capsys, monkeypatch)
    return lambda *words: call("study", *words, "--state", str(small.state))


async def test_an_imported_arm_is_judged_and_compared(small):
    world = small.world()
    async with served(world) as target:
        results = await small.run(target)
        given = {a.item: a for a in results.answers if a.cell == "other"}
        assert len(given) == 12
        assert all(a.text == f"answer to {name}" for name, a in given.items())
        assert all(a.served_by == "our old pipeline" and a.grade for a in given.values())
        asked = dict(world.calls)
        assert "CreateRun" not in asked
        assert world.prompts.total() == 12 + 5, "the baseline, and the reader's check"
        write(small, (small.folder / "answers.jsonl").read_text().replace("answer to", "Answer:"))
        again = await small.run(target)
    assert {a.text for a in again.answers if a.cell == "other"} == {f"Answer: {n}" for n in given}
    assert world.prompts.total() == 12 + 5
    assert sum(world.grades.values()) == len(results.answers) + 12 + 5 + 6
    value = report_json(again, compare(again))
    assert value["verdict"]["headline"].startswith(("Another system", "This study cannot decide"))
    assert value["provenance"]["answers of other"].startswith("answers.jsonl sha256:")


def test_each_mistake_is_told_with_its_line(small):
    lines = (small.folder / "answers.jsonl").read_text().splitlines(keepends=True)
    names = [json.loads(each)["id"] for each in lines]
    broken = [
        lines[0],
        lines[1],
        line(names[0]),
        line("nobody"),
        "not json\n",
        "[]\n",
        json.dumps({"id": names[2]}) + "\n",
        json.dumps({"id": names[3], "answer": 5}) + "\n",
        json.dumps({"id": True, "answer": ""}) + "\n",
        line(names[4], seconds=-1),
        line(names[5], prompt_tokens=1.5),
        line(names[6], prompt_token_ids=["a"]),
        line(names[7], prompt_digest=5),
        json.dumps({"id": names[8], "answer": "\ud800"}) + "\n",
    ]
    write(small, "".join(broken))
    with pytest.raises(InvalidInput) as wrong:
        prepare(Request(small.file, small.state))
    told = wrong.value.message
    for number, what in {
        3: f"{names[0]!r} has an answer already, at {small.folder}/answers.jsonl, line 1",
        4: "the data set has no question 'nobody'",
        5: "is not JSON",
        6: "is not an object",
        7: "lacks the field 'answer'",
        8: "answer: is not a text",
        9: "id: is neither a text nor a whole number",
        10: "seconds: is -1, not a number from 0",
        11: "prompt_tokens: is 1.5, not a whole number from 0",
        12: "prompt_token_ids: is not a list of whole numbers",
        13: "prompt_digest: is not a text",
        14: "answer: holds half a character",
    }.items():
        assert f"line {number}: {what}" in told, told
    assert f"lacks answers to 10 of 12: {names[2]}, " in told


def test_answers_to_questions_that_are_not_tested_are_left_out(small, run):
    plan = prepare(Request(small.file, small.state)).plan
    with (small.folder / "answers.jsonl").open("a") as file:
        file.write(line(plan.tuning[0].id))
    code, out, err = run("import", str(small.file))
    assert code == 0, err
    assert "12 answers; 1 to questions that are not tested, left out" in out
    assert not small.state.exists()


def test_csv_holds_the_same(small, tmp_path):
    names = [json.loads(each)["id"] for each in (small.folder / "answers.jsonl").open()]
    path = tmp_path / "answers.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question id", "reply", "seconds", "prompt_token_ids"])
        rows.writerows([name, f"line 1\nline 2, {name}", "0.5", "[1, 2]"] for name in names)
    given = {"id_field": "question id", "answer_field": "reply", "test": names, "known": names}
    found = read_answers(path, **given)
    first = found.by_item[names[0]]
    assert first.text == f"line 1\nline 2, {names[0]}"
    assert (first.seconds, first.prompt_token_ids) == (0.5, (1, 2))
    with path.open("a") as file:
        file.write("alone\n")
    with pytest.raises(InvalidInput, match=r"row 13 \(line 26\): has 1 cells, the head 4"):
        read_answers(path, **given)


async def test_a_prompt_that_is_given_must_be_the_studys(small, run, tmp_path):
    async with served(small.world()) as target:
        await small.run(target)
        out = tmp_path / "prompts.jsonl"
        code, _, err = run("export", str(small.file), "--format", "prompts", "--out", str(out))
        assert code == 0, err
        prompts = [json.loads(each) for each in out.read_text().splitlines()]
        assert len(prompts) == 12
        assert prompts[0]["messages"][-1]["content"].endswith(prompts[0]["question"])
        same = [line(p["id"], prompt_digest=p["prompt_digest"]) for p in prompts]
        write(small, "".join(same))
        code, out, err = run("import", str(small.file), "--json")
        assert code == 0, err
        (arm,) = json.loads(out)["arms"]
        assert (arm["by_digest"], arm["waiting"]) == (12, 0)
        another = line(prompts[2]["id"], prompt_digest="sha256:" + "0" * 64)
        write(small, "".join([*same[:2], another, *same[3:]]))
        code, out, err = run("import", str(small.file))
        assert code == 2
        assert "line 3: its prompt is not the study's, by its digest" in err
        with pytest.raises(InvalidInput, match="by its digest"):
            await small.run(target)
        write(small, "".join(line(p["id"], prompt_token_ids=[1]) for p in prompts))
        code, _, err = run("import", str(small.file))
        assert code == 2
        assert "tokenizer" in err, "the test's model has none"
        small.edit("model: tiny", f"model: {READER}")
        ids = ChatTokenizer(str(READER)).ids
        given = [line(p["id"], prompt_token_ids=list(ids(p["messages"]))) for p in prompts]
        write(small, "".join(given))
        code, out, err = run("import", str(small.file))
        assert code == 0, err
        assert "prompts are the study's, 12 by token ids" in out
        write(small, "".join([line(prompts[0]["id"], prompt_token_ids=[7]), *given[1:]]))
        code, out, err = run("import", str(small.file))
        assert code == 2
        assert "line 1: its prompt is not the study's, by its token ids" in err


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("import: {path", "tune: {references: full}, import: {path", "leave out `tune`"),
        ("import: {path", "examples: {k: 1, references: full}, import: {path", "out `examples`"),
        ("import: {path", "context: none, import: {path", "leave out `context`"),
        ("name: baseline", "name: baseline\n    import: {path: answers.jsonl}", "the baseline"),
        ("path: answers.jsonl", "path: gone.jsonl", "there is no file"),
        ("path: answers.jsonl, ", "", "path"),
        ("system: ", "sistem: ", "sistem"),
    ],
)
def test_a_wrong_arm_ends_with_one_message(small, run, old, new, told):
    small.edit(old, new)
    code, out, err = run("plan", str(small.file))
    assert code == 2
    assert told in err
    assert out == ""


def test_a_study_without_such_an_arm_says_what_to_name(small, run):
    small.edit(ARMS, "  - name: baseline\n  - {name: alone, context: none}\n")
    code, _, err = run("import", str(small.file))
    assert code == 2
    assert "import: {path: answers.jsonl}" in err
