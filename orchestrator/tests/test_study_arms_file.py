"""What a study file may not say of its arms, and what arms need of the data."""

from __future__ import annotations

import json

import pytest
from small_study import ARMS, OLD_ARMS, STUDY, SmallStudy

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.prepare import Request, prepare
from tuneproof.study.design.specfile import STUDY_FILE

pytestmark = pytest.mark.timeout(120)

LONG_GRID = "{effective_batch_size: [1024, 2048], learning_rate: [0.0001, 0.0002]}"


@pytest.fixture
def small(tmp_path):
    small = SmallStudy(tmp_path)
    small.edit(OLD_ARMS, ARMS)
    return small


def plan_of(small):
    return prepare(Request(small.file, small.state)).plan


def mistakes_of(old, new):
    with pytest.raises(InvalidInput) as caught:
        STUDY_FILE.parse(STUDY.replace(OLD_ARMS, ARMS).replace(old, new), "study.yaml")
    return caught.value.message.splitlines()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("raft: {gold_share: 0.5}", "raft: {gold_share: 1.5}", ":12: arms[3].tune.raft.gold_share"),
        ("raft: {gold_share: 0.5}", "raft: {p: 1}", ":12: arms[3].tune.raft.p: is not a key"),
        (
            "raft: {gold_share: 0.5}",
            "context: none, raft: {}",
            ":12: arms[3].tune.raft: needs passages in the prompt: leave out `context: none`",
        ),
        ("k: 3, references", "k: 0, references", ":13: arms[4].examples.k"),
        ("k: 3, references", "references", ":13: arms[4].examples.k: is missing"),
        ("choose: nearest", "choose: best", ":14: arms[5].examples.choose"),
        (
            "k: 2, references",
            "k: 9, references",
            ":14: arms[5].examples.k: shows more pairs than the smallest of training.sizes has (8)",
        ),
        ("{name: by-heart, context: none}", "{name: by-heart, context: some}", ":10: arms[1].con"),
        (
            "{name: by-heart, context: none}",
            "{name: by-heart}",
            ":10: arms[1]: 'by-heart' is the baseline again: give it `tune`, `examples`, `import`",
        ),
        (
            "- name: baseline",
            "- {name: baseline, context: none, examples: {k: 1, references: full}}",
            ":9: arms[0].context: 'baseline' is the baseline: leave out `context`",
        ),
        (
            "examples: {k: 3",
            "tune: {references: full}, examples: {k: 3",
            ":13: arms[4].examples: 'shots' is tuned and has examples: make two arms of it",
        ),
        (
            "raft: {gold_share: 0.5}",
            "hyperparameters: {rank: 0}",
            ":12: arms[3].tune.hyperparameters.rank: Input should be greater than or equal",
        ),
        (
            "raft: {gold_share: 0.5}",
            "hyperparameters: {dropout: 0.1}",
            ":12: arms[3].tune.hyperparameters.dropout: is not a key",
        ),
        (
            "raft: {gold_share: 0.5}",
            "hyperparameters: {rank: [8, 8]}",
            ":12: arms[3].tune.hyperparameters.rank: rank '8' appears 2 times",
        ),
        (
            "raft: {gold_share: 0.5}",
            "hyperparameters: {epochs: 0}",
            ":12: arms[3].tune.hyperparameters: with those of the study: epochs and max_steps",
        ),
        (
            "hyperparameters: {rank: 4}",
            "hyperparameters: {rank: 4, early_stopping_patience: 2}",
            ":16: training.hyperparameters.early_stopping_patience: needs examples to validate on",
        ),
        (
            "hyperparameters: {rank: 4}",
            "hyperparameters: {target_parameters: [mlp.experts.down_proj]}",
            ":16: training.hyperparameters.target_parameters: makes adapters that no generator",
        ),
        (
            "hyperparameters: {rank: 4}",
            "hyperparameters: {method: lora, skip_modules: [q_proj]}",
            ":16: training.hyperparameters.skip_modules: has no use, because method lora",
        ),
        (
            "name: raft, tune: {references: full, raft: {gold_share: 0.5}",
            f"name: {'r' * 40}, tune: {{references: full, hyperparameters: {LONG_GRID}",
            ":12: arms[3].name: the cell 'rrrr",
        ),
        (
            "comparison: {",
            "comparison: {primary: [{arm: raft, measure: accuracy, size: 7}], ",
            ":18: comparison.primary[0].size: 'raft' has cells of the sizes 8",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(old, new, told):
    mistakes = mistakes_of(old, new)
    assert any(each.startswith(f"study.yaml{told}") for each in mistakes), mistakes


def test_nearest_examples_need_a_pool():
    arm = "{name: near, examples: {k: 1, references: full, choose: nearest}}"
    text = STUDY.replace(OLD_ARMS, f"  - name: baseline\n  - {arm}\n")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("training:"))
    with pytest.raises(InvalidInput) as caught:
        STUDY_FILE.parse(text, "study.yaml")
    assert caught.value.message == (
        "study.yaml:10: arms[1].examples.choose: needs pairs to search,"
        " so `training: {sizes: [...]}` is needed"
    )


def ask_own_questions(small, folder):
    """The study's data set becomes one of full references without gold documents."""
    lines = [
        json.dumps({"question": f"What is {n}?", "references": {"full": f"It is {n}."}})
        for n in range(40)
    ]
    (folder / "own.jsonl").write_text("\n".join(lines))
    (folder / "docs.jsonl").write_text('{"id": "d", "text": "Numbers."}\n')
    text = small.file.read_text()
    start = text.index("dataset:")
    end = text.index("split:")
    own = "dataset: {name: jsonl, path: own.jsonl, corpus: [docs.jsonl]}\n"
    text = (text[:start] + own + text[end:]).replace("references: short", "references: full")
    small.file.write_text("\n".join(x for x in text.splitlines() if not x.startswith("checks")))


def test_a_style_that_the_data_lack_is_told_for_each_arm(small, tmp_path):
    small.edit("k: 3, references: short", "k: 3, references: exact")
    ask_own_questions(small, tmp_path)
    with pytest.raises(InvalidInput, match="lack a 'exact' reference answer, which shots needs"):
        plan_of(small)


def test_raft_needs_gold(small, tmp_path):
    ask_own_questions(small, tmp_path)
    with pytest.raises(InvalidInput, match="gold documents are unknown, which the RAFT of raft"):
        plan_of(small)
