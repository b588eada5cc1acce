"""`tuneproof grade`, against a small judge in this process that fails by a script."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import grpc
import pytest
from small_study import command, invoke, rubric_message

from tuneproof.grading import Results, grade_missing, keys_of, read_answers
from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1 import judge_pb2_grpc as stubs
from tuneproof.rubrics import RubricShelf
from tuneproof.sdk import GradeInput, JudgeClient
from tuneproof.servicekit.errors import InvalidInput, TuneproofError, Unavailable, WrongState
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.status import status_of
from tuneproof.servicekit.testing import serving

pytestmark = pytest.mark.timeout(60)

SHELF = RubricShelf.load()
ACCURACY = SHELF.get("accuracy@1")


class Judge(stubs.JudgeServiceServicer):
    """Scores by the answer's length; an empty answer is unscored."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.fails: Callable[[str], TuneproofError | None] = lambda _: None
        """By the answer."""
        self.seconds = 0.0
        self.model = "toy"

    async def GetRubric(self, request, context):
        return pb.GetRubricResponse(rubric=rubric_message(SHELF.get(request.id)))

    async def GradeBatch(self, request_iterator, context):
        async for request in request_iterator:
            await asyncio.sleep(self.seconds)
            self.asked[request.id] += 1
            if error := self.fails(request.grade.answer):
                yield pb.GradeBatchResponse(id=request.id, error=status_of(error))
            else:
                yield pb.GradeBatchResponse(id=request.id, result=self._grade(request.grade))

    def _grade(self, request: pb.GradeRequest) -> pb.Grade:
        grade = pb.Grade(judge_model=self.model)
        grade.usage.prompt_tokens, grade.usage.requests = 100, request.repeats
        grade.usage.price, grade.usage.currency = 0.01, "USD"
        for name in request.rubrics:
            rubric = SHELF.get(name)
            entry = grade.criteria.add(
                rubric=name, rubric_digest=rubric.digest, criterion=rubric.criterion
            )
            if request.answer:
                entry.mean = min(5, len(request.answer))
        return grade


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
async def target(judge) -> AsyncIterator[str]:
    async def ready() -> None: ...

    service = Service(
        register=lambda server: stubs.add_JudgeServiceServicer_to_server(judge, server),
        descriptors=[pb.DESCRIPTOR.services_by_name["JudgeService"]],
        check_ready=ready,
    )
    async with serving(service) as found:
        yield found


@pytest.fixture
def run(target, capsys, monkeypatch, tmp_path: Path):
    """`tuneproof grade` in a thread: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    call = partial(invoke, capsys, monkeypatch)
    return lambda *words: asyncio.to_thread(call, "grade", *words, "--judge", target)


def write(path: Path, *answers: str, **more) -> None:
    lines = [
        {"id": f"q{n}", "question": "What?", "answer": answer, "reference": "x", **more}
        for n, answer in enumerate(answers)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def lines_of(path: Path) -> dict[str, dict]:
    return {line["id"]: line for line in map(json.loads, path.read_text().splitlines())}


async def test_a_file_is_graded_once(run, judge, tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", "a", "abc", "")
    code, out, err = await run("mine.jsonl", "--repeats", "3", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["scores"]["accuracy"] == {"mean": 2.0, "scored": 2, "unscored": 1}
    assert (told["graded"], told["failed"], told["judge_model"]) == (3, {}, "toy")
    assert told["usage"]["requests"] == 9
    assert (told["price"], told["currency"]) == (pytest.approx(0.03), "USD")
    assert "1 of 3 answers are unscored" in err
    assert "300 tokens, 0.0300 USD" in err or "grades     3/3" in err
    found = lines_of(tmp_path / "mine.grades.jsonl")
    assert found["q1"]["criteria"]["accuracy"]["mean"] == 3.0
    assert (await run("mine.jsonl", "--repeats", "3", "--json"))[1] == out
    assert set(judge.asked.values()) == {1}
    code, out, _ = await run("mine.jsonl", "--repeats", "3")
    assert "accuracy" in out
    assert "2.000" in out


async def test_other_texts_options_or_models_need_another_file(run, judge, tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", "a", "b")
    await run("mine.jsonl", "--out", "out.jsonl")
    write(tmp_path / "mine.jsonl", "a", "other")
    for words in (["mine.jsonl"], ["mine.jsonl", "--repeats", "2"]):
        code, _, err = await run(*words, "--out", "out.jsonl")
        assert code == 1
        assert "was graded with other texts" in err
    write(tmp_path / "mine.jsonl", "a", "b", "c")
    judge.model = "another"
    code, _, err = await run("mine.jsonl", "--out", "out.jsonl")
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
async def test_what_is_wrong_with_the_file_is_told_before_anything_is_asked(
    run, judge, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "mine.jsonl").write_text(text)
    code, _, err = await run("mine.jsonl")
    assert code == 2
    assert said in err
    assert not judge.asked
    assert not (tmp_path / "mine.grades.jsonl").exists()


async def test_one_bad_answer_ends_nothing_and_is_told(run, judge, tmp_path: Path) -> None:
    judge.fails = lambda answer: InvalidInput("answer is too long") if answer == "long" else None
    write(tmp_path / "mine.jsonl", "a", "long", "b")
    code, out, err = await run("mine.jsonl", "--json")
    assert code == 3
    assert json.loads(out)["failed"] == {"q1": "answer is too long"}
    assert "1 answers could not be graded" in err
    assert set(lines_of(tmp_path / "mine.grades.jsonl")) == {"q0", "q2"}


async def test_a_judge_that_cannot_grade_ends_the_command(run, judge, tmp_path: Path) -> None:
    judge.fails = lambda _: WrongState("start it with --endpoint-url")
    write(tmp_path / "mine.jsonl", *"abc")
    code, _, err = await run("mine.jsonl", "--in-flight", "1")
    assert code == 1
    assert "start it with --endpoint-url" in err
    assert sum(judge.asked.values()) == 1


def inputs_of(count: int) -> dict[str, GradeInput]:
    return {
        f"q{n}": GradeInput("What?", f"a{n}", ("x",), rubrics=("accuracy@1",)) for n in range(count)
    }


async def test_an_endpoint_that_is_away_is_waited_for_and_nothing_is_asked_twice(
    judge, target, tmp_path: Path
) -> None:
    pauses, refused = [], Counter()

    def fails(answer: str) -> TuneproofError | None:
        refused[answer] += 1
        away = answer == "a5" and refused[answer] < 4
        return Unavailable("the endpoint is away") if away else None

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    judge.fails = fails
    inputs = inputs_of(20)
    with Results.opened(tmp_path / "out.jsonl", keys_of(inputs, [ACCURACY])) as results:
        async with JudgeClient(target) as client:
            failed = await grade_missing(client, inputs, results, in_flight=2, sleep=sleep)
    assert failed == {}
    assert len(lines_of(tmp_path / "out.jsonl")) == 20
    assert len(pauses) == 3
    assert {name for name, times in judge.asked.items() if times > 1} == {"q5"}


async def test_a_judge_that_is_lost_in_the_middle_is_asked_for_the_rest(
    judge, target, tmp_path: Path, monkeypatch
) -> None:
    lost = []

    class Lossy(Judge):
        async def GradeBatch(self, request_iterator, context):
            async for each in judge.GradeBatch(request_iterator, context):
                yield each
                if sum(judge.asked.values()) == 7 and not lost:
                    lost.append(True)
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "it is gone")

    async def ready() -> None: ...

    service = Service(
        register=lambda server: stubs.add_JudgeServiceServicer_to_server(Lossy(), server),
        descriptors=[pb.DESCRIPTOR.services_by_name["JudgeService"]],
        check_ready=ready,
    )

    async def at_once(_: float) -> None: ...

    inputs = inputs_of(20)
    async with serving(service) as lossy, JudgeClient(lossy) as client:
        with Results.opened(tmp_path / "out.jsonl", keys_of(inputs, [ACCURACY])) as results:
            assert await grade_missing(client, inputs, results, in_flight=1, sleep=at_once) == {}
    assert lost
    text = (tmp_path / "out.jsonl").read_text()
    assert len(text.splitlines()) == len(lines_of(tmp_path / "out.jsonl")) == 20


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


@pytest.mark.process
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_after_a_kill_the_same_command_goes_on(
    judge, target, tmp_path: Path, number: signal.Signals
) -> None:
    judge.seconds = 0.02
    write(tmp_path / "mine.jsonl", *(f"answer {n}" for n in range(40)))
    words = ["grade", str(tmp_path / "mine.jsonl"), "--judge", target, "--in-flight", "1", "--json"]
    grades = tmp_path / "mine.grades.jsonl"
    process = await command(*words)
    while not grades.exists() or grades.read_text().count("\n") < 5:
        assert process.returncode is None
        await asyncio.sleep(0.01)
    os.kill(process.pid, number)
    _, err = await process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert b"the same command goes on" in err
    judge.seconds = 0.0
    process = await command(*words)
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["graded"] == len(grades.read_text().splitlines()) == 40
    # What the judge had at the kill, and nothing else.
    assert sum(judge.asked.values()) <= 42


def test_what_a_rubric_does_not_read_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "What?", "answer": "a"}\n\n{"question": "So?", "answer": ""}\n')
    found = read_answers(path, [SHELF.get("relevance@1")])
    assert list(found) == ["1", "3"]
    with pytest.raises(InvalidInput, match="passages: is missing or blank"):
        read_answers(path, [SHELF.get("faithfulness@1")])
