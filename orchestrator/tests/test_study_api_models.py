"""API models as baselines: asked with the baseline's prompts, counted, priced, and asked again."""

from __future__ import annotations

import json

import pytest
from api_endpoint import api_endpoint
from fakes import served
from small_study import SmallStudy, invoke

from tuneproof.analysis import compare
from tuneproof.report import build_report, report_json
from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState
from tuneproof.study.api_models import ApiModel
from tuneproof.study.design.models import ApiSpec
from tuneproof.study.design.specfile import STUDY_FILE

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]
MESSAGES = [{"role": "user", "content": "[1] The mast is tall.\nQuestion: how tall?"}]


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("API_KEY", "secret")
    return SmallStudy(tmp_path)


def with_api(small, target, url, more="", primary=""):
    """Adds an API model to the small study's file."""
    small.edit("services: {model: tiny, ", "services: {")
    models = (
        f'models:\n  - {{name: tiny, model: tiny, generator: "{target}", trainer: "{target}"}}\n'
        f'  - {{name: big, url: "{url}", model: big-1, key: API_KEY{more}}}\n'
    )
    small.edit("arms:\n", models + "arms:\n")
    if primary:
        small.edit("margin: {", f"primary: [{primary}], margin: {{")


async def test_it_answers_the_baselines_prompts_and_is_a_row(small):
    async with served(small.world()) as target, api_endpoint(key="secret") as endpoint:
        with_api(small, target, endpoint.url, ", input_price: 2, output_price: 10")
        results = await small.run(target)
        await small.run(target)
    assert len(endpoint.requests) == 12
    prompts = {request["messages"][-1]["content"] for request in endpoint.requests}
    asked = {
        json.loads(inputs)["messages"][-1]["content"]
        for kind, inputs, _ in small.rows().values()
        if kind == "answer" and json.loads(inputs)["base"].startswith("sha256:")
    }
    assert prompts <= asked
    assert {request["max_tokens"] for request in endpoint.requests} == {32}
    cell = results.cells[-1]
    assert (cell.name, cell.label, cell.model, cell.tuned) == ("big-baseline", "big", "big", False)
    answers = [answer for answer in results.answers if answer.cell == cell.name]
    assert {answer.served_by for answer in answers} == {"big-1-2026"}
    assert all(answer.grade and answer.text.startswith("I say: ") for answer in answers)
    assert cell not in results.compared
    assert all(cell.name not in (one.cell, one.against) for one in results.primary)
    comparisons = compare(results)
    assert all(cell.name not in (one.cell, one.against) for one in comparisons.exploratory)
    cost = report_json(results, comparisons)["cells"][-1]["cost"]
    assert (cost["prompt_tokens"], cost["completion_tokens"]) == (100, 10)
    assert cost["price"] == pytest.approx(100 * 2e-6 + 10 * 10e-6)
    assert report_json(results, comparisons)["cells"][0]["cost"]["price"] is None
    assert "big" in build_report(results, comparisons)
    assert "big-1 at http://127.0.0.1" in results.provenance["API model of big"]


async def test_it_is_compared_where_the_file_says_so(small):
    primary = (
        "{arm: short, measure: accuracy, against: big},"
        " {arm: baseline, measure: accuracy, against: big}, {arm: short, measure: accuracy}"
    )
    async with served(small.world()) as target, api_endpoint() as endpoint:
        with_api(small, target, endpoint.url, primary=primary)
        results = await small.run(target)
    assert [(one.cell, one.against) for one in results.primary] == [
        ("tiny-short-8-s1", "big-baseline"),
        ("tiny-baseline", "big-baseline"),
        ("tiny-short-8-s1", "tiny-baseline"),
    ]
    assert len(compare(results).primary) == 3


async def test_a_broken_set_up_fails_its_answers_and_nothing_else(small):
    async with served(small.world()) as target, api_endpoint(key="other") as endpoint:
        with_api(small, target, endpoint.url, ", concurrency: 1")
        results = await small.run(target)
        errors = {answer.cell: answer.error for answer in results.answers if answer.error}
        assert set(errors) == {"big-baseline"}
        assert "does not accept the key" in errors["big-baseline"]
        assert "set API_KEY to one that may use it" in errors["big-baseline"]
        assert len(endpoint.requests) == 1
        endpoint.key = "secret"
        results = await small.run(target)
    assert not [answer.error for answer in results.answers if answer.error]


async def test_settings_that_it_refuses_are_told(small):
    refuses = {"temperature", "max_tokens"}
    async with served(small.world()) as target, api_endpoint(refuses=refuses) as endpoint:
        with_api(small, target, endpoint.url, ", concurrency: 1, max_tokens: 500")
        results = await small.run(target)
    assert results.models[-1].refused == ("temperature",)
    assert results.provenance["refused settings of big"] == "temperature"
    assert any("does not take the settings temperature" in note for note in results.notes)
    assert len(endpoint.requests) == 12 + 2
    last = endpoint.requests[-1]
    assert last["max_completion_tokens"] == 500
    assert "temperature" not in last
    assert last["seed"] == 0


def spec(url, **more):
    return ApiSpec(name="big", url=url, model="big-1", **more)


@pytest.fixture
def slept():
    return []


async def ask(endpoint, slept, **more):
    async def sleep(seconds):
        slept.append(seconds)

    async with ApiModel(spec(endpoint.url, **more), sleep=sleep) as model:
        return await model.answer(MESSAGES, 20)


async def test_it_waits_as_long_as_the_endpoint_asks(slept):
    busy = (429, {"message": "slow down"}, {"Retry-After": "7"})
    async with api_endpoint(failures=[busy, (503, {"message": "restarting"}, {})]) as endpoint:
        answer = await ask(endpoint, slept)
    assert answer["text"] == "I say: The mast is tall."
    assert (answer["prompt_tokens"], answer["completion_tokens"]) == (100, 10)
    first, second = slept
    assert 7.25 <= first <= 7.5
    assert 0.5 <= second <= 1.0


async def test_it_gives_up_when_its_time_is_over(slept):
    busy = (429, {"message": "slow down"}, {"Retry-After": "60"})
    async with api_endpoint(failures=[busy] * 20) as endpoint:
        with pytest.raises(Unavailable, match=r"big at http://127.* answered HTTP 429"):
            await ask(endpoint, slept, answer_seconds=50)
    assert not slept
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("failure", "kind", "told"),
    [
        ((404, {"message": "no such model"}, {}), WrongState, "does not know 'big-1'"),
        (
            (429, {"message": "pay", "code": "insufficient_quota"}, {}),
            WrongState,
            "has spent its quota",
        ),
        ((400, {"message": "too long a prompt"}, {}), InvalidInput, "refuses this prompt"),
        (
            (400, {"message": "max_tokens must be below 10", "param": "max_tokens"}, {}),
            InvalidInput,
            "refuses this prompt",
        ),
    ],
)
async def test_what_no_repeat_helps_is_not_repeated(slept, failure, kind, told):
    async with api_endpoint(failures=[failure]) as endpoint:
        with pytest.raises(kind, match=told):
            await ask(endpoint, slept)
    assert len(endpoint.requests) == 1


async def test_an_endpoint_that_refuses_everything_ends(slept):
    refuses = {"temperature", "top_p", "seed", "max_tokens", "max_completion_tokens"}
    async with api_endpoint(refuses=refuses) as endpoint:
        with pytest.raises(InvalidInput, match="refuses this prompt"):
            await ask(endpoint, slept)
    assert len(endpoint.requests) == 2


async def test_nobody_there_is_told_after_all_attempts(slept):
    async with api_endpoint() as endpoint:
        pass
    with pytest.raises(Unavailable, match="no answer of big at"):
        await ask(endpoint, slept)
    assert len(slept) == 7


def test_a_missing_key_is_told_before_anything_runs(small, capsys, monkeypatch):
    with_api(small, "127.0.0.1:1", "http://127.0.0.1:1/v1")
    monkeypatch.delenv("API_KEY")
    file, state = str(small.file), str(small.state)
    code, _, err = invoke(capsys, monkeypatch, "study", "run", file, "--state", state, "--up")
    assert code == 2
    assert "small.yaml:10: models[1].key: the variable API_KEY is not set" in err
    code, out, _ = invoke(capsys, monkeypatch, "study", "plan", file, "--state", state)
    assert code == 0
    assert "big" in out


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("key: API_KEY", "key: api-key", "models[1].key: expected the name of an environment"),
        ("key: API_KEY", "trainer: a:1", "models[1].trainer: is not a key of a study file"),
        ("key: API_KEY", "input_price: -1", "models[1].input_price: "),
        ("key: API_KEY", "input_price: 1", "models[1].input_price: needs `output_price` beside"),
        ("key: API_KEY", "output_price: free", "models[1].output_price: "),
        ("key: API_KEY", "concurrency: 0", "models[1].concurrency: "),
        ("key: API_KEY", "request_seconds: 0", "models[1].request_seconds: "),
        ("key: API_KEY", "answer_seconds: 0", "models[1].answer_seconds: "),
        ("key: API_KEY", "max_tokens: 0", "models[1].max_tokens: "),
        ("http://api/v1", "api/v1", "models[1].url: expected a URL such as https://host/v1"),
        ("model: big-1, ", "", "models[1].model: is missing"),
        (
            "references: short}}",
            "references: short}, models: big}",
            "arms[1].models: 'big' is not a base of `models`; there are: tiny",
        ),
        (
            "margin: {",
            "primary: [{arm: short, measure: accuracy, against: large}], margin: {",
            "primary[0].against: 'large' is not an API model of `models`; there are: big",
        ),
    ],
)
def test_mistakes_have_their_line(small, old, new, told):
    with_api(small, "g:1", "http://api/v1")
    small.edit(old, new)
    with pytest.raises(InvalidInput) as caught:
        STUDY_FILE.load(small.file)
    (mistake,) = caught.value.message.splitlines()
    assert mistake.startswith(f"{small.file}:")
    assert told in mistake


def test_a_study_needs_a_base(small):
    with_api(small, "g:1", "http://api/v1")
    line = next(row for row in small.file.read_text().splitlines() if "name: tiny" in row)
    small.edit(f"{line}\n", "")
    with pytest.raises(InvalidInput, match=r":8: models: names API models only: add a base"):
        STUDY_FILE.load(small.file)
