"""Arms: what each is tuned on, and what each asks with."""

from __future__ import annotations

import json

import pytest
from fakes import served
from small_study import ARMS, OLD_ARMS, SmallStudy

from tuneproof.analysis import compare
from tuneproof.data.evaluation import is_gold
from tuneproof.data.items import Item
from tuneproof.prompts import Pair, chat, closed_book_messages, conversation, rag_messages
from tuneproof.report import build_report, report_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.arms import RaftSpec
from tuneproof.study.design.prepare import Request, prepare
from tuneproof.study.state.codec import StoredPassage
from tuneproof.study.steps.pairs import example_pairs, raft_passages

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture
def small(tmp_path):
    small = SmallStudy(tmp_path)
    small.edit(OLD_ARMS, ARMS)
    small.edit("sizes: [8]", "sizes: [6, 12]")
    return small


def plan_of(small):
    return prepare(Request(small.file, small.state)).plan


def cells_of(small, arms, training="{sizes: [8], seeds: [1]}"):
    text = small.file.read_text()
    start, end = text.index("arms:"), text.index("judge:")
    small.file.write_text(f"{text[:start]}arms:\n{arms}training: {training}\n{text[end:]}")
    return plan_of(small).cells


def test_the_grid_has_cells_where_an_arm_uses_pairs(small):
    assert [(cell.name, cell.size, len(cell.items)) for cell in plan_of(small).cells] == [
        ("baseline", 0, 0),
        ("by-heart", 0, 0),
        ("alone-6-s1", 6, 6),
        ("alone-12-s1", 12, 12),
        ("raft-6-s1", 6, 6),
        ("raft-12-s1", 12, 12),
        ("shots-3-s1", 3, 3),
        ("near-6-s1", 6, 6),
        ("near-12-s1", 12, 12),
        ("ctx-6-s1", 6, 6),
        ("ctx-12-s1", 12, 12),
    ]


def test_no_test_item_is_among_the_examples(small):
    plan = plan_of(small)
    tested = {item.id for item in plan.test} | {item.question for item in plan.test}
    for cell in plan.cells:
        assert not tested & ({i.id for i in cell.items} | {i.question for i in cell.items})


async def test_every_arm_answers_every_question(small):
    world = small.world()
    async with served(world) as target:
        results = await small.run(target)
        asked = dict(world.calls)
        assert await small.run(target) == results
    assert world.calls == asked
    assert len(results.answers) == 11 * 12
    assert not [answer.error for answer in results.answers if answer.error]
    assert [cell.name for cell in results.cells if cell.tuned] == [
        "alone-6-s1", "alone-12-s1", "raft-6-s1", "raft-12-s1", "ctx-6-s1", "ctx-12-s1",
    ]  # fmt: skip
    assert world.calls["CreateRun"] == 6
    assert world.calls["FreezeCorpus"] == 3  # the documents, and the pairs at two sizes
    assert {one.cell for one in results.primary} == {"alone-12-s1", "raft-12-s1", "ctx-12-s1"}


async def test_a_report_tells_arms_and_kinds_of_questions_apart(small):
    async with served(small.world()) as target:
        results = await small.run(target)
    comparisons = compare(results)
    value = report_json(results, comparisons)
    tuned = {cell["name"]: cell["tuned"] for cell in value["cells"]}
    assert tuned["ctx-12-s1"]
    assert not tuned["shots-3-s1"]
    assert value["verdict"]["headline"].startswith(("The tuned adapters", "Some tuned", "Fine-t"))
    by_retrieval = [stratum for stratum in value["strata"] if not stratum["model"]]
    by_knowledge = [stratum for stratum in value["strata"] if stratum["model"]]
    for kinds in (by_retrieval, by_knowledge):
        assert sum(stratum["items"] for stratum in kinds) == 12
    for stratum in by_knowledge:  # The arm whose answers decide is no part of it.
        assert set(stratum["cells"]) == set(tuned) - {"by-heart"}
    for stratum in by_retrieval:
        assert set(stratum["cells"]) == set(tuned)
        assert stratum["cells"]["by-heart"]["answered"] == stratum["items"]
    page = build_report(results, comparisons)
    assert all(cell.label in page for cell in results.cells)


async def test_prompts_hold_what_their_arm_says(small):
    world = small.world()
    plan = plan_of(small)
    async with served(world) as target:
        await small.run(target)
    item = plan.test[-1]  # the first ones are asked by the reader's check too
    prompts = [(model, text) for model, text in world.prompts if text.endswith(item.question)]
    # Of a chat the fake keeps the last turn: with passages, or the question alone.
    closed = closed_book_messages(item.question)[0]["content"]
    assert sum(model == "" and text == closed for model, text in prompts) == 1
    assert {model.partition("@")[0] for model, text in prompts if text == closed} == {
        "",
        "alone-6-s1",
        "alone-12-s1",
    }
    with_passages = {text for _, text in prompts if text != closed}
    assert len(with_passages) == 1
    answers = [json.loads(inputs) for kind, inputs, _ in small.rows().values() if kind == "answer"]
    chats = [each["messages"] for each in answers if each["messages"][-1]["content"].endswith(
        item.question)]  # fmt: skip
    shots = next(each for each in chats if len(each) == 7)
    cell = next(cell for cell in plan.cells if cell.name == "shots-3-s1")
    assert [turn["content"] for turn in shots[1::2]] == [
        each.references["short"][0] for each in cell.items
    ]
    assert all(turn["content"].startswith("Answer the question from") for turn in shots[::2])
    near = [each for each in chats if len(each) == 5]
    assert {turn["content"] for each in near for turn in each[:4:2]} <= {
        f"Question: {each.question}" for each in plan.tuning
    }


async def test_an_example_is_a_line_of_the_tuning_data(small):
    async with served(small.world()) as target:
        await small.run(target)
    files = (small.state / "artifacts" / "datasets").iterdir()
    tuned = [json.loads(line)["messages"] for file in files for line in file.open()]
    answers = [json.loads(inputs) for kind, inputs, _ in small.rows().values() if kind == "answer"]
    shown = [each["messages"] for each in answers if len(each["messages"]) == 7]
    assert len(shown) == 12
    for turns in shown:
        assert all(turns[start : start + 2] in tuned for start in (0, 2, 4))


async def test_raft_is_tuned_on_gold_and_on_distractors_alone(small):
    async with served(small.world()) as target:
        await small.run(target)
    cell = next(cell for cell in plan_of(small).cells if cell.name == "raft-12-s1")
    gold = {item.question: item for item in cell.items}
    files = (small.state / "artifacts" / "datasets").iterdir()
    seen = []
    for prompt, _ in (json.loads(line)["messages"] for file in files for line in file.open()):
        *passages, question = prompt["content"].split("\n\n")
        item = gold.get(question.removeprefix("Question: "))
        if item and len(passages) == 4:
            found = [is_gold(each, item.gold_documents[0], item) for each in passages]
            seen.append(sum(found))
    assert 0 in seen
    assert 1 in seen


async def test_the_nearest_pairs_are_those_of_the_retriever(small):
    async with served(small.world()) as target:
        await small.run(target)
    plan = plan_of(small)
    cell = next(cell for cell in plan.cells if cell.name == "near-12-s1")
    item = plan.test[0]

    def shared(pair):
        return len(set(item.question.split()) & set(pair.question.split()))

    best = max(map(shared, cell.items))
    last = [
        inputs["messages"][2]["content"].removeprefix("Question: ")
        for kind, text, _ in small.rows().values()
        if kind == "answer"
        and len((inputs := json.loads(text))["messages"]) == 5
        and inputs["messages"][-1]["content"].endswith(item.question)
    ]
    by_question = {each.question: each for each in cell.items}
    assert any(q in by_question and shared(by_question[q]) == best for q in last)


def test_a_search_that_finds_too_few_pairs_is_filled_up(small):
    cell = next(cell for cell in plan_of(small).cells if cell.name == "near-12-s1")
    nearest, first, second = cell.items[7], cell.items[0], cell.items[1]
    shown = example_pairs(cell, [nearest.id], {}, 3)
    assert [pair.question for pair in shown] == [first.question, nearest.question]
    shown = example_pairs(cell, [], {}, 3)
    assert [pair.question for pair in shown] == [second.question, first.question]
    assert example_pairs(cell, None, {}, 3) is None


def test_examples_tuning_and_serving_have_the_same_words():
    pair = Pair("Who?", "She.", ("One  two.", "Three."))
    turns = conversation(pair, 1)
    assert turns[:-1] == rag_messages("Who?", pair.passages, passage_words=1)
    assert turns[-1] == {"role": "assistant", "content": "She."}
    prompt = chat("What?", ["Four five."], examples=[pair], passage_words=1)
    assert prompt == [*turns, *rag_messages("What?", ["Four"])]
    assert chat("What?", None, examples=[Pair("Who?", "She.", None)]) == [
        *closed_book_messages("Who?"),
        {"role": "assistant", "content": "She."},
        *closed_book_messages("What?"),
    ]


def found_for(item, gold_at, count=10):
    texts = [f"noise {n}" for n in range(count)]
    if gold_at is not None:
        texts[gold_at] = f"It is said that {item.gold_texts[0]}"
    return [StoredPassage(f"p{n}", f"d{n}", text, 1.0) for n, text in enumerate(texts)]


def an_item(n):
    gold = f"the mast {n} is made of fine old steel"
    return Item(f"i{n}", f"Of what is mast {n}?", {"full": (gold,)}, (), (gold,), f"c{n}")


@pytest.mark.parametrize("gold_at", [0, 7, None])
def test_raft_shows_gold_among_distractors_or_distractors_only(gold_at):
    with_gold, places = 0, set()
    for n in range(300):
        item = an_item(n)
        found = found_for(item, gold_at)
        shown = raft_passages(item, found, RaftSpec(gold_share=0.8), k=4, seed=1)
        assert shown == raft_passages(item, found, RaftSpec(gold_share=0.8), k=4, seed=1)
        assert len(shown) == len(set(shown)) == 4
        gold = [place for place, text in enumerate(shown) if is_gold(text, "", item)]
        assert len(gold) <= 1
        with_gold += len(gold)
        places |= set(gold)
    assert 0.7 < with_gold / 300 < 0.9
    assert places == {0, 1, 2, 3}


def test_an_unanswerable_question_gets_distractors_only():
    item = Item("u", "Who?", {"full": ("Unanswerable",)}, (), (), "c", answerable=False)
    found = [StoredPassage(f"p{n}", f"d{n}", f"noise {n}", 1.0) for n in range(10)]
    shown = raft_passages(item, found, RaftSpec(gold_share=1), k=4, seed=1)
    assert sorted(shown) == [f"noise {n}" for n in range(4)]


def test_larger_sets_repeat_the_smaller_ones_and_seeds_differ(small):
    cells = cells_of(small, ARMS, "{sizes: [6, 12], seeds: [1, 2]}")
    by_name = {cell.name: {item.id for item in cell.items} for cell in cells}
    assert by_name["raft-6-s1"] < by_name["raft-12-s1"]
    assert by_name["raft-12-s1"] != by_name["raft-12-s2"]
    assert by_name["shots-3-s1"] != by_name["shots-3-s2"]


def test_an_arm_has_hyper_parameters_of_its_own(small):
    cells = cells_of(
        small,
        "  - name: baseline\n"
        "  - {name: one, tune: {references: full, hyperparameters: {rank: 8, epochs: 3}}}\n"
        "  - {name: two, tune: {references: full}}\n",
        "{sizes: [8], hyperparameters: {rank: 4, learning_rate: 1e-3}}",
    )
    values = {cell.name: cell.hyperparameters for cell in cells if cell.tune}
    assert (values["one-8-s1"].rank, values["one-8-s1"].epochs) == (8, 3)
    assert values["one-8-s1"].learning_rate == 1e-3
    assert (values["two-8-s1"].rank, values["two-8-s1"].epochs) == (4, 1)


def test_a_grid_has_a_named_cell_for_each_combination(small):
    grid = "{rank: [4, 8], learning_rate: [0.00015, 1], epochs: 2, "
    grid += "target_modules: [[q_proj], [q_proj, v_proj]]}"
    arm = f"{{name: g, tune: {{references: full, hyperparameters: {grid}}}}}"
    cells = cells_of(small, f"  - name: baseline\n  - {arm}\n")
    tuned = [cell for cell in cells if cell.tune]
    assert len(tuned) == 8
    assert tuned[0].name == "g-rank-4-lr-15e-5-modules-1-8-s1"
    assert tuned[0].label == "g-rank-4-lr-15e-5-modules-1"
    last = tuned[-1].hyperparameters
    assert (last.rank, last.learning_rate, last.epochs) == (8, 1, 2)
    assert last.target_modules == ("q_proj", "v_proj")
    assert len({cell.name for cell in tuned}) == 8


@pytest.mark.parametrize("name", ["g-rank-4", "g-rank-4-8-s1"])
def test_a_name_that_two_cells_would_have_is_refused(small, name):
    arms = "  - name: baseline\n"
    arms += "  - {name: g, tune: {references: full, hyperparameters: {rank: [4, 8]}}}\n"
    other = "context: none" if name.endswith("s1") else "tune: {references: short}"
    with pytest.raises(InvalidInput, match="two cells are called g-rank-4-8-s1: give their arms"):
        cells_of(small, f"{arms}  - {{name: {name}, {other}}}\n")


async def test_the_trainer_gets_the_arms_hyper_parameters(small):
    cells_of(
        small,
        "  - name: baseline\n"
        "  - {name: g, tune: {references: full, hyperparameters: {rank: [2, 4]}}}\n",
    )
    world = small.world()
    async with served(world) as target:
        results = await small.run(target)
    specs = {run.spec.adapter_name: run.spec for run in world.runs.values()}
    ranks = {name: spec.hyperparameters.rank for name, spec in specs.items()}
    assert ranks == {"g-rank-2-8-s1": 2, "g-rank-4-8-s1": 4}
    assert {cell.arm for cell in results.cells} == {"baseline", "g-rank-2", "g-rank-4"}


@pytest.mark.parametrize(
    ("primary", "cells"),
    [
        ("all", {"a-4-s1", "a-8-s1", "b-4-s1", "b-8-s1", "by-heart"}),
        ("[]", {"a-8-s1", "b-8-s1"}),
        ("[{arm: a, measure: accuracy}]", {"a-4-s1", "a-8-s1"}),
        ("[{arm: a, measure: accuracy, size: 4}]", {"a-4-s1"}),
        ("[{arm: by-heart, measure: accuracy}]", {"by-heart"}),
    ],
)
def test_primary_comparisons_are_few_unless_the_file_names_more(small, primary, cells):
    small.edit("comparison: {", f"comparison: {{primary: {primary}, ")
    cells_of(
        small,
        "  - name: baseline\n"
        "  - {name: a, tune: {references: full}}\n"
        "  - {name: b, tune: {references: short}}\n"
        "  - {name: by-heart, context: none}\n",
        "{sizes: [4, 8]}",
    )
    prepared = prepare(Request(small.file, small.state))
    measures = prepare_measures(prepared)
    assert {one.cell for one in prepared.plan.primary(measures)} == cells


def prepare_measures(prepared):
    from tuneproof.study.design.identity import identify

    return identify(prepared.spec, prepared.sources).measures
