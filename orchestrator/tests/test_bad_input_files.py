"""Study files and data that cannot be used, at the command line: file, place, what to do."""

from __future__ import annotations

import json
from functools import partial

import pytest
from small_study import STUDY, SmallStudy, invoke

pytestmark = pytest.mark.timeout(60)

BIOASQ = """\
study: papers
dataset: {name: bioasq}
split: {seed: 1, test_share: 0.5, test_items: 1}
retrieval: {k: 3}
arms:
  - name: baseline
judge: none
comparison: {margin: {token_f1: 0.05}}
"""


@pytest.fixture
def run(capsys, monkeypatch):
    return partial(invoke, capsys, monkeypatch)


def refused(outcome: tuple[int, str, str]) -> str:
    """What was told of bad input, and nothing else."""
    code, out, err = outcome
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    return err.removeprefix("tuneproof: ")


def question(name: str, **changes) -> dict:
    snippet = {"document": "http://www.ncbi.nlm.nih.gov/pubmed/1", "text": "It is so."}
    made = {"id": name, "type": "summary", "body": "What?", "snippets": [snippet]}
    made = {**made, "ideal_answer": ["So."], **changes}
    return {key: value for key, value in made.items() if value is not None}


@pytest.mark.parametrize("command", ["run", "plan", "status", "report"])
def test_a_study_file_that_is_not_there_is_named(tmp_path, run, command):
    small = SmallStudy(tmp_path)
    small.state.mkdir()
    path = tmp_path / "gone.yaml"
    state = [] if command == "plan" else ["--state", str(small.state)]
    told = refused(run("study", command, str(path), *state))
    assert told == f"{path}: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("k: 3", "k: 3, kk: 4", "6: retrieval.kk: is not a key of a study file"),
        ("k: 3", "k: many", "6: retrieval.k: Input should be a valid integer, unable to parse"),
        ("k: 3", "k: [3]", "6: retrieval.k: Input should be a valid integer, got [3]"),
        ("name: telecom, ", "", "3: dataset"),
        ("  - name: baseline", "  - nothing", "9: arms[0]: Input should be a valid dictionary"),
        ("study: small", "study: small\n\tx: 1", "2:1: is not YAML"),
    ],
)
def test_a_mistake_in_a_study_file_has_its_line(tmp_path, run, *, old, new, told):
    small = SmallStudy(tmp_path)
    assert old in STUDY
    small.edit(old, new)
    assert refused(run("study", "plan", str(small.file))).startswith(f"{small.file}:{told}")


def test_data_that_are_named_nowhere_say_where_they_come_from(tmp_path, run):
    file = tmp_path / "papers.yaml"
    file.write_text(BIOASQ)
    told = refused(run("study", "plan", str(file)))
    assert "leaves open where its data are: say --data PATH" in told


@pytest.mark.parametrize(
    ("questions", "told"),
    [
        ([question("q1", ideal_answer=None)], "question 1 (id q1): lacks an ideal_answer"),
        ([question("q1"), question("q1")], "question 2: the id q1 is that of an earlier question"),
        ([question("q1", body="  ")], "question 1 (id q1): its body is empty"),
        ([question("q1", snippets=[])], "question 1 (id q1): lacks snippets"),
        ([], "expected an object with a list"),
    ],
    ids=["no ideal answer", "duplicate id", "empty question", "no snippets", "no questions"],
)
def test_data_that_cannot_be_used_name_file_and_question(tmp_path, run, *, questions, told):
    file, data = tmp_path / "papers.yaml", tmp_path / "golden.json"
    file.write_text(BIOASQ)
    data.write_text(json.dumps({"questions": questions}))
    said = refused(run("study", "plan", str(file), "--data", str(data)))
    assert "golden.json" in said
    assert told in said


def test_data_cut_in_the_middle_say_so(tmp_path, run):
    file, data = tmp_path / "papers.yaml", tmp_path / "golden.json"
    file.write_text(BIOASQ)
    whole = json.dumps({"questions": [question("q1"), question("q2")]}, indent=1)
    data.write_text(whole[: len(whole) // 2])
    said = refused(run("study", "plan", str(file), "--data", str(data)))
    assert said.startswith(f"{data} is not JSON: line ")
    assert "the file seems to be cut off, fetch it again" in said


def test_data_that_are_not_there_are_named(tmp_path, run):
    file = tmp_path / "papers.yaml"
    file.write_text(BIOASQ)
    said = refused(run("study", "plan", str(file), "--data", str(tmp_path / "gone.json")))
    assert said == f"cannot read {tmp_path / 'gone.json'}: No such file or directory\n"


def test_rubrics_that_cannot_be_used_are_named(tmp_path, run):
    small = SmallStudy(tmp_path)
    (tmp_path / "rubrics" / "odd.yaml").write_text("id: odd@1\n")
    told = refused(run("study", "run", str(small.file), "--state", str(small.state)))
    odd = tmp_path / "rubrics" / "odd.yaml"
    lacking = ("criterion", "description", "scale", "steps", "template")
    assert told.splitlines() == [f"{odd}:1: {field}: is missing" for field in lacking]


def test_a_rubric_that_nobody_has_is_named_with_those_that_are_there(tmp_path, run):
    small = SmallStudy(tmp_path)
    small.edit("tele-accuracy@1", "tele-clarity@1")
    told = refused(run("study", "run", str(small.file), "--state", str(small.state)))
    assert told == (
        "there is no rubric 'tele-clarity@1'; there are abstention@1, accuracy@1,"
        " completeness@1, faithfulness@1, relevance@1,"
        f" tele-accuracy@1, tele-completeness@1 (built in and in {tmp_path / 'rubrics'});"
        " see --rubrics\n"
    )


def test_an_empty_question_is_not_asked(tmp_path, run):
    told = refused(run("ask", " ", "--state", str(tmp_path)))
    assert told.startswith("the question is empty: give it in quotes")
