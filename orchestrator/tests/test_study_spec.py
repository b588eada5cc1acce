"""Study files: what is accepted, and what each mistake is called."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import STUDY

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.specfile import STUDY_FILE, load_spec

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]


def mistakes_of(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        STUDY_FILE.parse(text, "study.yaml")
    return caught.value.message.splitlines()


def test_a_whole_file_is_read():
    spec = STUDY_FILE.parse(STUDY, "study.yaml")
    assert spec.baseline.name == "baseline"
    assert [arm.name for arm in spec.tuned] == ["short", "closed"]
    assert spec.training.hyperparameters.rank == 4
    assert spec.training.hyperparameters.learning_rate == 2e-4
    assert spec.comparison.primary == ()


@pytest.mark.parametrize("name", ["demo.yaml", "bioasq.yaml"])
def test_the_ready_studies_are_valid(name):
    spec = load_spec(ROOT / "studies" / name)
    assert spec.study == name.removesuffix(".yaml")


def test_a_number_in_scientific_notation_is_a_number():
    spec = STUDY_FILE.parse(STUDY.replace("rank: 4", "learning_rate: 1e-3"), "study.yaml")
    assert spec.training.hyperparameters.learning_rate == 1e-3


def test_reranking_names_its_model():
    text = STUDY.replace("k: 3}", "k: 3, rerank: {model: org/reranker, depth: 50}}")
    assert STUDY_FILE.parse(text, "study.yaml").retrieval.rerank.depth == 50
    assert STUDY_FILE.parse(STUDY, "study.yaml").retrieval.rerank is None
    [mistake] = mistakes_of(STUDY.replace("k: 3}", "k: 3, rerank: {depth: 50}}"))
    assert "retrieval.rerank.model" in mistake


def test_judge_none_means_no_judge():
    text = STUDY.replace(
        "judge: {rubrics: [tele-accuracy@1, tele-completeness@1], repeats: 2, seed: 1}",
        "judge: none",
    ).replace(", judge: {forms: 6}", "")
    text = text.replace("{accuracy: 0.25, completeness: 0.25}", "{token_f1: 0.05}")
    assert STUDY_FILE.parse(text, "study.yaml").judge is None


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("joint: true, settled_after: 2, repeats: 3", []),
        ("joint: true, mode: weighted", ["joint: goes with the mode sampled only"]),
        ("joint: true, certificates: [a.json]", ["joint: certificates are about a form for each"]),
        ("settled_after: 1", ["settled_after: one score always agrees with itself"]),
        ("settled_after: 2, repeats: 2", ["settled_after: must be below `repeats` (2)"]),
    ],
)
def test_how_a_judge_saves_requests(keys: str, told: list[str]):
    text = STUDY.replace("repeats: 2, seed: 1}", f"seed: 1, {keys}}}")
    if not told:
        judge = STUDY_FILE.parse(text, "study.yaml").judge
        assert (judge.joint, judge.settled_after) == (True, 2)
        return
    found = mistakes_of(text)
    assert len(found) == len(told)
    assert all(f"study.yaml:13: judge.{one}" in found[n] for n, one in enumerate(told))
    alone = text.replace("tele-accuracy@1, tele-completeness@1", "tele-accuracy@1")
    assert ("has no use with one rubric" in str(mistakes_of(alone))) == ("joint" in keys)


def test_every_mistake_is_listed_with_its_line():
    text = (
        STUDY.replace("study: small", "study: Small")
        .replace("documents: 20", "documents: none")
        .replace("k: 3", "k: 0")
        .replace("tune: {references: short}", "tune: {reference: short}")
        .replace("repeats: 2", "repeats: 1000")
    )
    name = "expected 1 to 40 characters of a-z, 0-9 and `-`, beginning with a letter, got 'Small'"
    number = "Input should be a valid integer, unable to parse string as an integer, got 'none'"
    assert mistakes_of(text) == [
        f"study.yaml:1: study: {name}",
        f"study.yaml:3: dataset.documents: {number}",
        "study.yaml:6: retrieval.k: Input should be greater than or equal to 1, got 0",
        "study.yaml:10: arms[1].tune.reference: is not a key of a study file",
        "study.yaml:10: arms[1].tune.references: is missing",
        "study.yaml:13: judge.repeats: Input should be less than or equal to 100, got 1000",
    ]


def test_contradictions_are_listed_together():
    text = (
        STUDY.replace("name: closed", "name: short")
        .replace("sizes: [8]", "sizes: [8, 8]")
        .replace("max_tokens: 64}", "max_tokens: 64, overlap_tokens: 64}")
    )
    assert mistakes_of(text) == [
        "study.yaml:5: corpus.overlap_tokens: must be below max_tokens (64)",
        "study.yaml:8: arms: arm name 'short' appears 2 times",
        "study.yaml:12: training.sizes: size 8 appears 2 times",
    ]


def test_a_key_that_stands_twice_is_a_mistake():
    (mistake,) = mistakes_of(STUDY.replace("k: 3", "k: 3, k: 5"))
    assert mistake == "study.yaml:6: retrieval.k: appears twice"


def test_an_unknown_data_set_names_the_known_ones():
    (mistake,) = mistakes_of(STUDY.replace("name: telecom", "name: squad"))
    assert mistake.startswith("study.yaml:3: dataset")
    assert "'telecom'" in mistake
    assert "'bioasq'" in mistake


def test_tuned_arms_need_a_training_and_one_baseline():
    lines = [line for line in STUDY.splitlines() if not line.startswith("training")]
    text = "\n".join(lines).replace("- name: baseline", "- {name: b, tune: {references: full}}")
    assert mistakes_of(text) == [
        "study.yaml:1: training: arms are tuned, so `training: {sizes: [...]}` is needed",
        "study.yaml:13: comparison.baseline: 'baseline' is not an arm; there are: b, short, closed",
    ]


def test_the_baseline_is_named_and_every_other_arm_is_tuned():
    text = STUDY.replace("- name: baseline", "- name: base").replace(
        "comparison: {", "comparison: {baseline: base, "
    )
    assert STUDY_FILE.parse(text, "study.yaml").baseline.name == "base"
    assert mistakes_of(
        text.replace("- name: base", "- {name: base, tune: {references: full}}")
    ) == [
        "study.yaml:9: arms[0].tune: 'base' is the baseline: leave out `tune`",
    ]
    told = "is the baseline again: give it `tune`, `examples`, `import` or `context: none`"
    assert mistakes_of(text.replace("baseline: base", "baseline: short")) == [
        f"study.yaml:9: arms[0]: 'base' {told}",
        "study.yaml:10: arms[1].tune: 'short' is the baseline: leave out `tune`",
    ]


def test_a_primary_comparison_names_an_arm():
    text = STUDY.replace(
        "comparison: {", "comparison: {primary: [{arm: long, measure: accuracy}], "
    )
    (mistake,) = mistakes_of(text)
    assert mistake == (
        "study.yaml:14: comparison.primary[0].arm: 'long' is not an arm to compare;"
        " there are: short, closed"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "study.yaml:1: expected a study"),
        ("- a\n- b\n", "study.yaml:1: expected a study"),
        ("study: [a\n", "study.yaml:2:1: is not YAML"),
        ("study: !!python/object:os.system {}", "study.yaml:1:8: is not YAML"),
        ("a: &x [*x]\n", "study.yaml"),
    ],
)
def test_what_is_no_study_is_told_so(text, told):
    assert mistakes_of(text)[0].startswith(told)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"nothing\.yaml: cannot be read: No such file"):
        load_spec(tmp_path / "nothing.yaml")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "seed", "k", "tune", "rubrics", "sizes", "primary", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
SECTIONS = [line.partition(":")[0] for line in STUDY.splitlines() if not line.startswith(" ")]


@given(st.dictionaries(st.sampled_from(SECTIONS), values, min_size=1))
@settings(max_examples=60, deadline=None)
def test_any_content_is_read_or_refused_with_lines(changes):
    text = yaml.safe_dump({**yaml.safe_load(STUDY), **changes}, sort_keys=False)
    message = ""
    try:
        STUDY_FILE.parse(text, "study.yaml")
    except InvalidInput as error:
        message = error.message
    assert all(line.startswith("study.yaml:") for line in message.splitlines()), message
