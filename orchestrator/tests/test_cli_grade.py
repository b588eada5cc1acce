"""`tuneproof grade`, against a judge that fails by a script."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from small_study import command, invoke, rubric_message

from tuneproof.cli import asking
from tuneproof.grading import Results, grade_missing, keys_of, read_answers
from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1 import judge_pb2_grpc as stubs
from tuneproof.results import CriterionGrade, Grade, Usage
from tuneproof.rubrics import RubricShelf
from tuneproof.sdk import BATCH_PENDING, GradeInput
from tuneproof.servicekit.errors import InvalidInput, TuneproofError, Unavailable, WrongState
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

SHELF = RubricShelf.load()
ACCURACY = SHELF.get("accuracy@1")


class Judge:
    """Scores by the answer's length; an empty answer is unscored."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.fails: Callable[[str], TuneproofError | None] = lambda _: None
        """By the answer."""
        self.lost_after = 0
        """So many answers after which the stream breaks off, once."""
        self.model = "toy"

    async def rubric(self, name):
        return SHELF.get(name)

    async def grade_many(self, inputs, *, in_flight):
        async for name, one in inputs:
            self.asked[name] += 1
            yield name, self.fails(one.answer) or self.grade(one)
            if self.asked.total() == self.lost_after:
                raise Unavailable("the judge is gone")

    def grade(self, one: GradeInput) -> Grade:
        criteria = {}
        for name in one.rubrics:
            rubric = SHELF.get(name)
            mean = float(min(5, len(one.answer))) or None
            criteria[rubric.criterion] = CriterionGrade(
                rubric.criterion, name, rubric.digest, mean, None, ()
            )
        usage = Usage(100, requests=one.repeats, price=0.01, currency="USD")
        return Grade(criteria, {}, self.model, usage)


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def run(judge, capsys, monkeypatch, tmp_path: Path):
    """`tuneproof grade`: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asking, "_run", lambda _client, _endpoints, work: asyncio.run(work(judge)))
    return partial(invoke, capsys, monkeypatch, "grade")


def write(path: Path, *answers: str, **more) -> None:
    lines = [
        {"id": f"q{n}", "question": "What?", "answer": answer, "reference": "x", **more}
        for n, answer in enumerate(answers)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def lines_of(path: Path) -> dict[str, dict]:
    return {line["id"]: line for line in map(json.loads, path.read_text().splitlines())}


def test_a_file_is_graded_once(run, judge, tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", "a", "abc", "")
    code, out, err = run("mine.jsonl", "--repeats", "3", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["scores"]["accuracy"] == {"mean": 2.0, "scored": 2, "unscored": 1}
    assert (told["graded"], told["failed"], told["judge_model"]) == (3, {}, "toy")
    assert told["usage"]["requests"] == 9
    assert (told["price"], told["currency"]) == (pytest.approx(0.03), "USD")
    assert "1 of 3 answers are unscored" in err
    assert "grades     3/3" in err
    found = lines_of(tmp_path / "mine.grades.jsonl")
    assert found["q1"]["criteria"]["accuracy"]["mean"] == 3.0
    assert run("mine.jsonl", "--repeats", "3", "--json")[1] == out
    assert set(judge.asked.values()) == {1}
    code, out, _ = run("mine.jsonl", "--repeats", "3")
    assert "accuracy" in out
    assert "2.000" in out
    assert "toy: 300 tokens, 0.0300 USD" in out


def test_other_texts_options_or_models_need_another_file(run, judge, tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", "a", "b")
    run("mine.jsonl", "--out", "out.jsonl")
    write(tmp_path / "mine.jsonl", "a", "other")
    for words in (["mine.jsonl"], ["mine.jsonl", "--repeats", "2"]):
        code, _, err = run(*words, "--out", "out.jsonl")
        assert code == 1
        assert "was graded with other texts" in err
    write(tmp_path / "mine.jsonl", "a", "b", "c")
    judge.model = "another"
    code, _, err = run("mine.jsonl", "--out", "out.jsonl")
    assert code == 1
    assert "holds grades by toy" in err
    assert judge.asked == {"q0": 1, "q1": 1, "q2": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "mine.jsonl, line 1: is not JSON: column 2"),
        ("[]", "line 1: is not an object"),
        ('{"question": "What?"}', "line 1: lacks the field 'answer'; it has 'question'"),
        ('{"question": "What?", "answer": 1, "reference": "x"}', "line 1: answer: is not a text"),
        ('{"question": "What?", "answer": "a"}', "line 1: references: is missing or blank, and"),
        (
            '{"question": "", "answer": "a", "reference": "x"}',
            "question: is missing or blank, and the rubric accuracy@1 reads it",
        ),
        (
            '{"question": "What?", "answer": "a", "references": ["x", 1]}',
            "references[1]: is not a text",
        ),
        (
            '{"question": "What?", "answer": "\\ud800", "reference": "x"}',
            "answer: holds half a character",
        ),
        (
            '{"id": 1, "question": "What?", "answer": "a", "reference": "x"}\n' * 2,
            "line 2: id: '1' is that of mine.jsonl, line 1",
        ),
        ("", "holds no answer"),
    ],
)
def test_what_is_wrong_with_the_file_is_told_before_anything_is_asked(
    run, judge, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "mine.jsonl").write_text(text)
    code, _, err = run("mine.jsonl")
    assert code == 2
    assert said in err
    assert not judge.asked
    assert not (tmp_path / "mine.grades.jsonl").exists()


def test_one_bad_answer_ends_nothing_and_is_told(run, judge, tmp_path: Path) -> None:
    judge.fails = lambda answer: InvalidInput("answer is too long") if answer == "long" else None
    write(tmp_path / "mine.jsonl", "a", "long", "b")
    code, out, err = run("mine.jsonl", "--json")
    assert code == 3
    assert json.loads(out)["failed"] == {"q1": "answer is too long"}
    assert "1 answers could not be graded" in err
    assert set(lines_of(tmp_path / "mine.grades.jsonl")) == {"q0", "q2"}


def test_what_waits_for_a_batch_is_left_for_the_next_run(run, judge, tmp_path: Path) -> None:
    def waits(answer: str) -> Unavailable | None:
        return Unavailable("it waits", reason=BATCH_PENDING) if answer != "a" else None

    judge.fails = waits
    write(tmp_path / "mine.jsonl", "b", "a", "c")
    code, out, _ = run("mine.jsonl", "--in-flight", "1", "--json")
    assert (code, json.loads(out)["failed"]) == (3, {"q0": "it waits", "q2": "it waits"})
    judge.fails = lambda _: None
    code, out, _ = run("mine.jsonl", "--json")
    assert (code, json.loads(out)["graded"]) == (0, 3)


def test_a_judge_that_cannot_grade_ends_the_command(run, judge, tmp_path: Path) -> None:
    judge.fails = lambda _: WrongState("start it with --endpoint-url")
    write(tmp_path / "mine.jsonl", *"abc")
    code, _, err = run("mine.jsonl", "--in-flight", "1")
    assert code == 1
    assert "start it with --endpoint-url" in err
    assert sum(judge.asked.values()) == 1


def inputs_of(count: int) -> dict[str, GradeInput]:
    return {
        f"q{n}": GradeInput("What?", f"a{n}", ("x",), rubrics=("accuracy@1",)) for n in range(count)
    }


async def graded(judge: Judge, path: Path, count: int) -> list[float]:
    """The pauses that it took."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    inputs = inputs_of(count)
    with Results.opened(path, keys_of(inputs, [ACCURACY])) as results:
        assert await grade_missing(judge, inputs, results, sleep=sleep) == {}
    assert len(path.read_text().splitlines()) == len(lines_of(path)) == count
    return pauses


async def test_an_endpoint_that_is_away_is_waited_for_and_nothing_is_asked_twice(
    judge, tmp_path: Path
) -> None:
    refused: Counter[str] = Counter()

    def fails(answer: str) -> TuneproofError | None:
        refused[answer] += 1
        away = answer == "a5" and refused[answer] < 4
        return Unavailable("the endpoint is away") if away else None

    judge.fails = fails
    assert len(await graded(judge, tmp_path / "out.jsonl", 20)) == 3
    assert {name for name, times in judge.asked.items() if times > 1} == {"q5"}


async def test_a_judge_that_is_lost_in_the_middle_is_asked_for_the_rest(
    judge, tmp_path: Path
) -> None:
    judge.lost_after = 7
    assert len(await graded(judge, tmp_path / "out.jsonl", 20)) == 1
    assert set(judge.asked.values()) == {1}


async def test_a_judge_that_stays_away_ends_the_command(judge, tmp_path: Path) -> None:
    judge.fails = lambda _: Unavailable("away", retry_after=200)
    with pytest.raises(Unavailable, match="away"):
        await graded(judge, tmp_path / "out.jsonl", 3)
    assert judge.asked == {"q0": 1}


def test_half_a_line_is_cut_off_and_two_commands_never_write_at_once(tmp_path: Path) -> None:
    inputs = inputs_of(2)
    keys = keys_of(inputs, [ACCURACY])
    path = tmp_path / "out.jsonl"
    path.write_text('{"id": "q0", "key"')
    with Results.opened(path, keys) as results:
        assert results.lines == {}
        with (
            pytest.raises(WrongState, match="is being written by process"),
            Results.opened(path, keys),
        ):
            pass
    assert path.read_text() == ""
    path.write_text('{"id": "q0"}\n')
    with (
        pytest.raises(InvalidInput, match=r"out.jsonl, line 1: is not a grade"),
        Results.opened(path, keys),
    ):
        pass


class Slow(stubs.JudgeServiceServicer):
    """A judge of a process, which takes its time."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.seconds = 0.02

    async def GetRubric(self, request, context):
        return pb.GetRubricResponse(rubric=rubric_message(SHELF.get(request.id)))

    async def GradeBatch(self, request_iterator, context):
        async for request in request_iterator:
            await asyncio.sleep(self.seconds)
            self.asked[request.id] += 1
            grade = pb.Grade(judge_model="toy")
            grade.criteria.add(criterion="accuracy", rubric="accuracy@1", mean=3.0)
            yield pb.GradeBatchResponse(id=request.id, result=grade)


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_after_a_kill_the_same_command_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    judge = Slow()

    async def ready() -> None: ...

    service = Service(
        register=lambda server: stubs.add_JudgeServiceServicer_to_server(judge, server),
        descriptors=[pb.DESCRIPTOR.services_by_name["JudgeService"]],
        check_ready=ready,
    )
    write(tmp_path / "mine.jsonl", *(f"answer {n}" for n in range(40)))
    grades = tmp_path / "mine.grades.jsonl"
    words = ["grade", str(tmp_path / "mine.jsonl"), "--in-flight", "1", "--json", "--judge"]
    async with serving(service) as target:
        process = await command(*words, target)
        while not grades.exists() or grades.read_text().count("\n") < 5:
            assert process.returncode is None
            await asyncio.sleep(0.01)
        os.kill(process.pid, number)
        _, err = await process.communicate()
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert b"the same command goes on" in err
        judge.seconds = 0.0
        process = await command(*words, target)
        out, err = await process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["graded"] == len(grades.read_text().splitlines()) == 40
    # What the judge had at the kill, and nothing else.
    assert judge.asked.total() <= 42


def test_what_a_rubric_does_not_read_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "What?", "answer": "a"}\n\n{"question": "So?", "answer": ""}\n')
    found = read_answers(path, [SHELF.get("relevance@1")])
    assert list(found) == ["1", "3"]
    with pytest.raises(InvalidInput, match="passages: is missing or blank"):
        read_answers(path, [SHELF.get("faithfulness@1")])
