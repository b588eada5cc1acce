"""A study of several bases: what each is asked, compared with and told as."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import pytest
from fakes import served
from small_study import SmallStudy, invoke

from tuneproof.analysis import compare
from tuneproof.report import build_report, report_json
from tuneproof.sdk import Endpoints
from tuneproof.servicekit.errors import InvalidInput, WrongState
from tuneproof.study.design.prepare import Request, prepare
from tuneproof.study.design.specfile import STUDY_FILE

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

TWO = """\
models:
  - {name: one, model: tiny, generator: "GENERATOR_ONE", trainer: "TRAINER"}
  - {name: two, model: second, generator: "GENERATOR_TWO", trainer: "TRAINER",
     hyperparameters: {rank: 2}}
"""
SERVICES = "services: {model: tiny, rubrics: rubrics, toy: true}"


class Bench:
    """A small study of two bases, with the services of both."""

    def __init__(self, small: SmallStudy) -> None:
        self.small = small
        folder = small.folder / "second"
        folder.mkdir()
        (folder / "config.json").write_text('{"other": true}')
        self.one, self.two = small.world(model="tiny"), small.world(model="second")
        self.one.judge_model = self.two.judge_model = "one"
        # One trainer serves both.
        self.two.runs = self.one.runs
        text = small.file.read_text().replace(SERVICES, SERVICES.replace("model: tiny, ", ""))
        self.text = text.replace("arms:\n", TWO + "arms:\n", 1)

    async def start(self, stack: AsyncExitStack) -> str:
        """Serves both, and writes the addresses into the file."""
        first = await stack.enter_async_context(served(self.one))
        second = await stack.enter_async_context(served(self.two))
        text = self.text.replace("GENERATOR_ONE", first).replace("GENERATOR_TWO", second)
        self.small.file.write_text(text.replace("TRAINER", first))
        return first


@pytest.fixture
def small(tmp_path):
    return SmallStudy(tmp_path)


@pytest.fixture
def bench(small):
    return Bench(small)


async def test_each_base_has_every_arm_and_its_own_baseline(bench):
    async with AsyncExitStack() as stack:
        results = await bench.small.run(await bench.start(stack))
    assert [(cell.name, cell.label, cell.arm, cell.model) for cell in results.cells] == [
        ("one-baseline", "one: baseline", "baseline", "one"),
        ("one-short-8-s1", "one: short", "short", "one"),
        ("one-closed-8-s1", "one: closed", "closed", "one"),
        ("two-baseline", "two: baseline", "baseline", "two"),
        ("two-short-8-s1", "two: short", "short", "two"),
        ("two-closed-8-s1", "two: closed", "closed", "two"),
    ]
    assert not [answer.error for answer in results.answers if answer.error]
    assert [(model.name, model.baseline) for model in results.models] == [
        ("one", "one-baseline"),
        ("two", "two-baseline"),
    ]
    assert len({model.content for model in results.models}) == 2
    served_by = {cell: set() for cell in ("one-baseline", "two-baseline")}
    for answer in results.answers:
        if answer.cell in served_by:
            served_by[answer.cell].add(answer.served_by)
    assert served_by == {"one-baseline": {"tiny"}, "two-baseline": {"second"}}
    pairs = {(one.cell, one.against) for one in results.primary}
    assert pairs == {
        ("one-short-8-s1", "one-baseline"),
        ("one-closed-8-s1", "one-baseline"),
        ("two-short-8-s1", "two-baseline"),
        ("two-closed-8-s1", "two-baseline"),
    }
    comparisons = compare(results)
    assert {
        one.cell.split("-")[0] == one.against.split("-")[0] for one in comparisons.exploratory
    } == {True}
    assert [check.model for check in results.reader_checks] == ["one", "two"]


async def test_one_trainer_tunes_both_bases_each_with_its_own_settings(bench):
    async with AsyncExitStack() as stack:
        await bench.small.run(await bench.start(stack))
    specs = [run.spec for run in bench.one.runs.values()]
    found = sorted((s.base_model, s.adapter_name, s.hyperparameters.rank) for s in specs)
    assert found == [
        ("one", "closed-8-s1", 4),
        ("one", "short-8-s1", 4),
        ("two", "closed-8-s1", 2),
        ("two", "short-8-s1", 2),
    ]
    assert bench.two.calls["CreateRun"] == 0


async def test_models_share_searches_pairs_and_forms(bench):
    async with AsyncExitStack() as stack:
        await bench.small.run(await bench.start(stack))
    assert bench.one.calls["SearchBatch"] == 12 + 8
    assert bench.two.calls["SearchBatch"] == 0
    data = {run.spec.data.digest for run in bench.one.runs.values()}
    assert len(data) == 2


async def test_listing_the_only_base_repeats_nothing(small):
    async with served(small.world()) as target:
        await small.run(target)
        rows = small.rows()
        text = small.file.read_text().replace(SERVICES, SERVICES.replace("model: tiny, ", ""))
        models = (
            f'models: [{{name: tiny, model: tiny, generator: "{target}", trainer: "{target}"}}]\n'
        )
        small.file.write_text(text.replace("arms:\n", models + "arms:\n", 1))
        results = await small.run(target)
    assert small.rows() == rows
    assert [cell.name for cell in results.cells] == ["baseline", "short-8-s1", "closed-8-s1"]


async def test_an_arm_and_a_comparison_may_name_their_bases(bench):
    bench.text = bench.text.replace(
        "tune: {references: short}}", "tune: {references: short}, models: one}"
    ).replace("margin: {", "primary: [{arm: closed, measure: accuracy, model: two}], margin: {")
    async with AsyncExitStack() as stack:
        results = await bench.small.run(await bench.start(stack))
    assert [cell.name for cell in results.cells if cell.arm == "short"] == ["one-short-8-s1"]
    assert [(one.cell, one.against) for one in results.primary] == [
        ("two-closed-8-s1", "two-baseline")
    ]


async def test_a_second_run_asks_nothing_and_a_new_base_only_its_own(bench):
    async with AsyncExitStack() as stack:
        target = await bench.start(stack)
        await bench.small.run(target)
        before = dict(bench.one.calls), dict(bench.two.calls)
        await bench.small.run(target)
        assert (dict(bench.one.calls), dict(bench.two.calls)) == before
        (bench.small.folder / "second" / "config.json").write_text('{"other": 2}')
        bench.two.started = bench.small.world().started
        await bench.small.run(target)
    changed = {name for name, count in bench.one.calls.items() if count != before[0].get(name, 0)}
    assert "GenerateBatch" not in changed
    assert bench.two.calls["GenerateBatch"] == 2 * before[1]["GenerateBatch"]


class OneAtATime:
    """A machine that serves one base after the other."""

    one_at_a_time = True

    def __init__(self, targets, shared):
        self.targets, self.shared = targets, shared
        self.serves, self.order, self.closed = "", [], 0

    async def start(self, model=""):
        self.serves = model or self.serves or next(iter(self.targets))
        if self.order[-1:] != [self.serves]:
            self.order.append(self.serves)
        target = self.targets[self.serves]
        return Endpoints(self.shared, target, self.shared, self.shared)

    async def restart(self, model=""):
        return None

    async def close(self):
        self.closed += 1


async def test_on_one_machine_the_base_that_judges_comes_last(bench):
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(served(bench.one))
        second = await stack.enter_async_context(served(bench.two))
        lines = [line for line in bench.text.splitlines() if "generator:" not in line]
        names = "  - {name: one, model: tiny}\n  - {name: two, model: second,\n"
        text = "\n".join(lines).replace("models:\n", "models:\n" + names) + "\n"
        bench.small.file.write_text(text)
        bench.one.model, bench.two.model = "one", "two"
        bench.one.judge_model = "one"
        source = OneAtATime({"one": first, "two": second}, first)
        results = await bench.small.run(source=source)
        assert source.order == ["two", "one"]
        assert source.closed == 1
        assert results.self_judged
        assert not [answer.error for answer in results.answers if answer.error]
        again = OneAtATime({"one": first, "two": second}, first)
        await bench.small.run(source=again)
        assert again.order == []


async def test_a_generator_that_serves_another_base_is_told_with_its_line(bench):
    bench.two.model = "third"
    async with AsyncExitStack() as stack:
        target = await bench.start(stack)
        with pytest.raises(WrongState) as caught:
            await bench.small.run(target)
    assert "small.yaml:10: models[1].model: the generator at 127.0.0.1:" in caught.value.message
    assert "serves 'third', not" in caught.value.message


async def test_a_generator_with_other_files_of_the_base_is_told(bench, monkeypatch):
    from tuneproof.study.design import sources

    class Mine:
        config_digest, tokenizer_digest, chat_template_digest = "c", "t", "x"

    monkeypatch.setattr(sources, "identify_base", lambda folder: Mine)
    bench.one.config_digest, bench.two.config_digest = "", "other"
    async with AsyncExitStack() as stack:
        target = await bench.start(stack)
        with pytest.raises(WrongState, match="another config and tokenizer and chat template"):
            await bench.small.run(target)


async def test_report_table_and_json_name_the_models(bench, capsys, monkeypatch):
    async with AsyncExitStack() as stack:
        results = await bench.small.run(await bench.start(stack))
    comparisons = compare(results)
    value = json.loads(json.dumps(report_json(results, comparisons)))
    assert [cell["model"] for cell in value["cells"]] == ["one"] * 3 + ["two"] * 3
    assert [model["name"] for model in value["models"]] == ["one", "two"]
    assert value["provenance"]["base model of two"].startswith("two sha256:")
    page = build_report(results, comparisons)
    assert "two: short" in page
    file, state = str(bench.small.file), str(bench.small.state)
    code, out, err = invoke(capsys, monkeypatch, "study", "report", file, "--state", state)
    assert code == 0, err
    assert "one: short" in out
    assert "reader two alone" in out
    code, out, err = invoke(capsys, monkeypatch, "study", "plan", file, "--state", state, "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["counts"]["cells"] == 6
    assert plan["counts"]["trainings"] == 4
    assert plan["hours"]["training"] > 0
    assert [cell["model"] for cell in plan["grid"]] == ["one"] * 3 + ["two"] * 3


def mistakes_of(small, *changes):
    text = Bench(small).text
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    with pytest.raises(InvalidInput) as caught:
        STUDY_FILE.parse(text.replace('"TRAINER"', "t:1"), "study.yaml")
    return caught.value.message.splitlines()


GOOD = [('"GENERATOR_ONE"', "a:1"), ('"GENERATOR_TWO"', "b:1")]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            [('"GENERATOR_ONE"', "a:1"), ('"GENERATOR_TWO"', "a:1")],
            "study.yaml:10: models[1].generator: a:1 is the generator of 'one' already",
        ),
        ([('"GENERATOR_ONE"', "nowhere")], "study.yaml:9: models[0].generator: expected host:port"),
        ([("name: two", "name: one")], "study.yaml:8: models: model name 'one' appears 2 times"),
        ([("model: second, ", "")], "study.yaml:10: models[1].model: is missing"),
        ([("{rank: 2}", "{rang: 2}")], "study.yaml:11: models[1].hyperparameters.rang: is not a"),
        ([("{rank: 2}", "{rank: 0}")], "study.yaml:11: models[1].hyperparameters.rank: "),
        (
            [("hyperparameters: {rank: 2}", "serving: {max_seqs: 3}")],
            "study.yaml:11: models[1].serving.max_seqs: is not a key",
        ),
        (
            [("hyperparameters: {rank: 2}", "serving: {dtype: int4}")],
            "study.yaml:11: models[1].serving.dtype: ",
        ),
        (
            [("services: {", "services: {model: tiny, ")],
            "services.model: `models` names the models: leave this out",
        ),
        (
            [("services: {", "services: {judge: three, ")],
            "services.judge: 'three' is not a base of `models`; there are: one, two",
        ),
        (
            [("references: short}}", "references: short}, models: [two, three]}")],
            "arms[1].models: 'three' is not a base of `models`; there are: one, two",
        ),
        (
            [("- name: baseline", "- {name: baseline, models: one}")],
            "arms[0].models: 'baseline' is the baseline, which every model has",
        ),
        (
            [("margin: {", "primary: [{arm: short, measure: accuracy, model: six}], margin: {")],
            "comparison.primary[0].model: 'six' is not a base of `models`; there are: one, two",
        ),
        (
            [("margin: {", "primary: [{arm: short, measure: accuracy, against: two}], margin: {")],
            "comparison.primary[0].against: 'two' is not an API model of `models`; there are: none",
        ),
        (
            [
                ("references: short}}", "references: short}, models: two}"),
                ("margin: {", "primary: [{arm: short, measure: accuracy, model: one}], margin: {"),
            ],
            "comparison.primary[0].model: 'short' has cells of two only",
        ),
    ],
)
def test_what_a_file_may_not_say_of_models_is_told_with_its_line(small, changes, told):
    known = {old for old, _ in changes}
    found = mistakes_of(small, *changes, *[pair for pair in GOOD if pair[0] not in known])
    assert len(found) == 1, found
    assert told in found[0]


def test_a_listed_study_takes_no_model_of_the_command_line(bench):
    text = bench.text.replace('"', "").replace("GENERATOR_ONE", "a:1")
    text = text.replace("GENERATOR_TWO", "b:1").replace("TRAINER", "c:1")
    bench.small.file.write_text(text)
    with pytest.raises(InvalidInput, match="lists its models under `models`: leave out --model"):
        prepare(Request(bench.small.file, bench.small.state, model="tiny"))


def test_without_up_every_base_needs_its_generator(bench, capsys, monkeypatch):
    text = bench.text.replace(', generator: "GENERATOR_ONE", trainer: "TRAINER"', "")
    text = text.replace('generator: "GENERATOR_TWO", trainer: "TRAINER",', "")
    bench.small.file.write_text(text)
    file, state = str(bench.small.file), str(bench.small.state)
    code, _, err = invoke(capsys, monkeypatch, "study", "run", file, "--state", state)
    assert code == 2
    assert "small.yaml:9: models[0].model: 'one' lacks `generator: host:port`" in err
    assert "small.yaml:10: models[1].model: 'two' lacks `generator: host:port`" in err


def test_a_revision_of_a_folder_is_refused(bench, capsys, monkeypatch):
    text = bench.text.replace('"GENERATOR_ONE"', "a:1, revision: v1").replace('"', "")
    bench.small.file.write_text(text.replace("GENERATOR_TWO", "b:1").replace("TRAINER", "c:1"))
    file, state = str(bench.small.file), str(bench.small.state)
    code, _, err = invoke(capsys, monkeypatch, "study", "run", file, "--state", state, "--up")
    assert code == 2
    assert "small.yaml:9: models[0].model:" in err
    assert "a revision is for ids of the hub" in err
