"""The gate: what it lets pass, what it refuses and why, and what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from judged_pairs import REF, around, judged
from small_study import invoke

from tuneproof.gate import (
    Policy,
    assert_passes,
    choose,
    decide,
    decide_all,
    junit,
    load_policy,
    markdown,
    report_of,
    rewrite,
)
from tuneproof.gate.policy import JudgePolicy
from tuneproof.results import Looks, StudyResults
from tuneproof.results.snapshot import results_json
from tuneproof.servicekit.errors import InvalidInput

POLICY = Policy()


def failures(results: StudyResults, policy: Policy = POLICY, **more) -> list[str]:
    return [check.name for check in decide(results, policy, "tuned", **more).failed]


def test_an_arm_that_is_as_good_passes() -> None:
    decision = decide(judged(around(0.0)), POLICY, "tuned")
    assert decision.passed
    assert (decision.adapter, decision.against, decision.tail) == (REF, "baseline", 0.025)
    assert {check.name for check in decision.checks} == {
        "accuracy: not worse, by judge judge",
        "accuracy: the judge's kappa",
        "accuracy: not worse, whatever the distribution",
        "accuracy: losses of 2 or more",
    }


def test_an_arm_that_is_worse_does_not() -> None:
    assert "accuracy: not worse, by judge judge" in failures(judged(around(-0.3)))


def test_disasters_fail_an_arm_whose_interval_passes() -> None:
    """One answer in twenty is ruined, the others are better: the mean is 0."""
    differences = [-2.0 if item % 20 == 0 else 2.0 / 19 for item in range(240)]
    assert failures(judged(differences)) == ["accuracy: losses of 2 or more"]


def test_a_judge_that_favours_the_arm_in_the_labels_is_not_believed() -> None:
    """By the judge it is better by .4; by people it is worse by .6, on 50 labels."""
    differences = around(0.4)
    people = {item: differences[item] - 1.0 for item in range(0, 200, 4)}
    assert failures(judged(differences, people)) == ["accuracy: not worse, anchored in 50 labels"]


def test_labels_stand_in_for_the_judges_certificate() -> None:
    differences = around(0.2, 0.2)
    agreeing = {item: differences[item] + 0.1 * (item % 3 - 1) for item in range(0, 200, 4)}
    bare = judged(differences, judge_checks=())
    assert failures(bare) == ["accuracy: the judge's kappa"]
    assert failures(judged(differences, agreeing, judge_checks=())) == []
    strict = Policy(judge=JudgePolicy(require="anchored"))
    assert failures(judged(differences), strict) == ["accuracy: anchored in people"]
    assert failures(judged(differences, agreeing), strict) == []


def test_unscored_answers_count_at_their_worst() -> None:
    results = judged(around(0.0), unscored=range(20))
    assert "accuracy: losses of 2 or more" in failures(results)


def test_each_stratum_must_hold_too() -> None:
    differences = [-0.5 if item % 5 == 0 else 0.3 for item in range(200)]
    results = judged(differences, missed=range(0, 200, 5))
    assert failures(results) == []
    failed = failures(results, Policy(strata=("retrieved", "missed")))
    assert failed
    assert all(", missed" in name for name in failed)


@pytest.mark.parametrize(
    ("policy", "taken", "refused"),
    [
        (Policy(cost_ratio=1.1), {"tokens": 15}, {"tokens": 30}),
        (Policy(seconds_ratio=1.5), {"seconds": 1.4}, {"seconds": 1.6}),
        (Policy(seconds=2.0), {"seconds": 1.9}, {"seconds": 2.1}),
    ],
)
def test_what_an_answer_takes(policy, taken, refused) -> None:
    assert failures(judged(around(0.0), **taken), policy) == []
    assert len(failures(judged(around(0.0), **refused), policy)) == 1


def test_a_choice_among_several_is_stricter() -> None:
    decisions = [decide(judged(around(centre)), POLICY, "tuned", among=2) for centre in (0.0, 0.1)]
    assert [one.tail for one in decisions] == [0.0125, 0.0125]
    assert choose(decisions) is decisions[1]
    assert choose([decide(judged(around(-1.0)), POLICY, "tuned")]) is None


def test_several_adapters_share_the_tail_as_the_policy_says() -> None:
    """One adapter passes at the whole tail, but not at half of it."""
    results = judged(around(0.0))
    named = ("good", "close")
    cells = [replace(results.cells[1], name=name) for name in named]
    centres = dict(zip(named, (0.0, -0.178), strict=True))
    answers = [one for one in results.answers if one.cell == "baseline"]
    for name, centre in centres.items():
        mine = judged(around(centre)).answers
        answers += [replace(one, cell=name) for one in mine if one.cell == "tuned"]
    both = replace(results, cells=(results.cells[0], *cells), answers=tuple(answers), primary=())

    def passing(choice: str, order=named) -> dict[str, bool]:
        policy = Policy(choice=choice, guaranteed=False, severe_loss=None)
        return {one.cell: one.passed for one in decide_all(both, policy, order)}

    assert passing("bonferroni") == {"good": True, "close": False}
    assert passing("holm") == {"good": True, "close": True}
    assert passing("sequence") == {"good": True, "close": True}
    lost = replace(both, answers=tuple(one for one in both.answers if one.cell != "good"))
    untested = decide_all(lost, Policy(choice="sequence"), named)[1]
    assert [check.name for check in untested.failed] == ["in its turn"]


def test_a_study_that_stopped_early_is_tested_as_its_look_demands() -> None:
    """What passes at the end of a study does not pass at a half-time that nobody planned for."""
    results = judged(around(-0.17))
    assert "accuracy: not worse, by judge judge" not in failures(results)
    early = replace(results, looks=Looks(2, 1, (0.5, 1.0)))
    assert "accuracy: not worse, by judge judge" in failures(early)


def test_an_unfinished_study_does_not_pass() -> None:
    assert failures(judged(around(0.0)), complete=False) == ["complete"]


def test_only_tuned_cells_are_for_the_gate() -> None:
    with pytest.raises(InvalidInput, match="the study has: tuned"):
        decide(judged(around(0.0)), POLICY, "baseline")


def test_helper_for_tests_tells_every_failed_check() -> None:
    assert_passes(judged(around(0.0)), POLICY, "tuned")
    with pytest.raises(AssertionError, match="not worse, by judge judge: from"):
        assert_passes(judged(around(-0.9)), POLICY, "tuned")


def test_files_for_people_and_for_ci() -> None:
    results = judged(around(-0.3))
    decision = decide(results, POLICY, "tuned")
    comment = markdown("a|b", [decision])
    assert comment.startswith("### Tuned does not pass (")
    assert "a\\|b" in comment
    suite = ElementTree.fromstring(junit("made", [decision])).find("testsuite")
    assert suite is not None
    assert suite.get("failures") == str(len(decision.failed))
    assert len(suite.findall("testcase/failure")) == len(decision.failed)
    json.dumps(report_of(results, POLICY, [decision]), allow_nan=False)


def test_a_route_first_splits_then_moves() -> None:
    decision = decide(judged(around(0.0)), POLICY, "tuned")
    first, then = yaml.safe_load_all(rewrite("live", decision, pool="readers", current="old@x"))
    assert first["apiVersion"] == "llm-d.ai/v1alpha2"
    assert first["spec"]["rules"][0]["targets"] == [
        {"modelRewrite": "old@x", "weight": 90},
        {"modelRewrite": REF, "weight": 10},
    ]
    assert then["spec"]["rules"][0]["targets"] == [{"modelRewrite": REF, "weight": 100}]
    (alone,) = yaml.safe_load_all(rewrite("live", decision, pool="readers"))
    assert alone == then


def test_a_policys_mistakes_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("margin: {accuracy: 0}\nstratum: [missed]\nseconds: fast\n")
    with pytest.raises(InvalidInput) as caught:
        load_policy(file)
    assert [line.split(":")[1] for line in caught.value.message.splitlines()] == ["1", "2", "3"]


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs `tuneproof gate` on exported results."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gate.yaml").write_text("margin: {accuracy: 0.25}\n")

    def call(results: StudyResults, *arguments: str) -> tuple[int, str, str]:
        (tmp_path / "ours.json").write_text(json.dumps(results_json(results, {})))
        return partial(invoke, capsys, monkeypatch)("gate", "ours.json", "gate.yaml", *arguments)

    return call


def test_the_command_writes_its_files_and_says_by_its_code(run, tmp_path: Path) -> None:
    files = ["--junit", "gate.xml", "--markdown", "gate.md", "--out", "gate.json"]
    route = ["--emit", "route.yaml", "--pool", "readers", "--alias", "live"]
    code, out, err = run(judged(around(0.0)), *files, *route, "--json")
    assert code == 0, err
    told = json.loads(out)
    written = json.loads((tmp_path / "gate.json").read_text())
    assert (told["passed"], written["passed"]) == (True, True)
    assert told["digest"].startswith("sha256:")
    assert (tmp_path / "gate.md").read_text().startswith("### Tuned passes")
    assert (tmp_path / "route.yaml").exists()

    (tmp_path / "route.yaml").unlink()
    code, out, _ = run(judged(around(-0.5)), *route, "--promote")
    assert code == 1
    assert "does not pass" in out
    assert not (tmp_path / "route.yaml").exists()


def test_flags_that_need_each_other(run) -> None:
    for flags, missing in ((["--promote"], "--alias"), (["--alias", "a", "--emit", "x"], "--pool")):
        code, _, err = run(judged(around(0.0)), *flags)
        assert code == 2
        assert missing in err
