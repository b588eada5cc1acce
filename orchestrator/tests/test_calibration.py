"""Figures of a judge beside people: against scikit-learn and scipy, and on real labels."""

import asyncio
import csv
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_pairs import around, judged
from small_study import SmallStudy, invoke

from tuneproof import calibration
from tuneproof.analysis.agreement import cohen_kappa, weighted_kappa
from tuneproof.analysis.correlation import jackknife, kendall, spearman
from tuneproof.analysis.intervals import estimate
from tuneproof.calibration.words import matches
from tuneproof.cli import asking as cli_asking
from tuneproof.gate import decide, load_policy
from tuneproof.results import CriterionGrade, Grade
from tuneproof.results.certificate import Certificate, read_certificate, why_not_certified
from tuneproof.rubrics import Rubric, RubricShelf, parse_rubric
from tuneproof.sdk import Endpoints, PairComparison, PairGrade
from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState
from tuneproof.study.design.prepare import Request, identities_for, prepare

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

ACCURACY = RubricShelf.load().get("accuracy@1")
LEVELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60)


@pytest.mark.slow
@settings(max_examples=150)
@given(LEVELS)
def test_agreement_equals_scikit_learns_and_scipys(pairs: list[tuple[int, int]]) -> None:
    from scipy import stats
    from sklearn.metrics import cohen_kappa_score

    first, second = zip(*pairs, strict=True)
    for ours, weights in ((cohen_kappa, None), (weighted_kappa, "quadratic")):
        found = ours(first, second, range(5))
        if len({*first, *second}) > 1:
            theirs = cohen_kappa_score(first, second, labels=range(5), weights=weights)
            assert found == pytest.approx(theirs, abs=1e-9)
    x, y = np.array(first, dtype=float), np.array(second, dtype=float)
    if len(set(first)) > 1 and len(set(second)) > 1:
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
        assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)
    else:
        assert (spearman(x, y), kendall(x, y)) == (0.0, 0.0)


def test_of_a_mean_the_jackknife_is_the_textbooks_variance() -> None:
    random = np.random.default_rng(1)
    values = random.normal(0.2, 0.1, 80)
    clusters = np.arange(80)
    found = jackknife(lambda at: float(values[at].mean()), clusters, 0.95)
    assert found is not None
    error = estimate(values, clusters).standard_error
    assert error is not None
    assert found.high - found.low == pytest.approx(2 * 1.990450 * error, rel=1e-4)
    assert jackknife(lambda at: 0.0, np.arange(9), 0.95) is None


@pytest.mark.slow
def test_intervals_cover_and_widen_with_clusters() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(120):
        effect = np.repeat(random.normal(0, 1, 40), 5)
        x = effect + random.normal(0, 1, 200)
        y = effect + random.normal(0, 1, 200)
        found = jackknife(
            lambda at, x=x, y=y: spearman(x[at], y[at]), np.repeat(np.arange(40), 5), 0.95
        )
        assert found is not None
        covered += found.low <= 0.483 <= found.high  # 6/π·asin(1/4): Pearson's is 1/2
    assert covered >= 105


def test_lexical_match_is_inside_and_normalised() -> None:
    assert matches("It was on The 18th, of May.", ("18th of May",))
    assert not matches("", ("x",))
    assert not matches("anything", ("?!",))


def real(name: str, criterion: str = "accuracy") -> calibration.LabelledSet:
    folder = Path(os.environ.get("TUNEPROOF_DATA", ""))
    try:
        return calibration.load_set(name, folder, criterion)
    except InvalidInput as error:
        pytest.skip(f"no data: {error}")


@pytest.mark.slow
def test_lexical_match_on_evouna() -> None:
    labelled = real("evouna")
    (words,) = calibration.beside(labelled)
    kappas = {one.name: round(one.kappa, 3) for one in words.by_system}
    assert kappas == {
        "fid": 0.795, "gpt35": 0.715, "chatgpt": 0.607, "gpt4": 0.6, "newbing": 0.572,
    }  # fmt: skip
    assert (len(labelled.answers), labelled.dropped) == (7552, 1233)
    missing = dict.fromkeys(kappas, 0)
    for one in labelled.answers:
        missing[one.system] += 1
    assert all(0.11 < 1 - count / 1757 < 0.17 for count in missing.values())


@pytest.mark.slow
def test_people_and_gpt_4_on_nq301() -> None:
    from sklearn.metrics import cohen_kappa_score

    labelled = real("nq301")
    found = {one.source: one for one in calibration.beside(labelled)}
    people, gpt = found["another person"], found["GPT-4"]
    assert people.kappa is not None
    assert gpt.kappa is not None
    both = [one.raters for one in labelled.answers if one.raters]
    assert people.kappa.value == pytest.approx(
        cohen_kappa_score(*zip(*both, strict=True)), abs=1e-9
    )
    assert (people.answers, round(people.kappa.value, 3)) == (722, 0.746)
    assert (gpt.answers, round(gpt.kappa.value, 3)) == (727, 0.715)
    assert people.kappa.low is not None
    assert people.kappa.low < people.kappa.value < (people.kappa.high or 0)


def test_the_longer_answer_on_ragchecker() -> None:
    for criterion, answers in (("accuracy", 284), ("completeness", 284)):
        labelled = real("ragchecker", criterion)
        (longer,) = calibration.beside(labelled)
        assert (longer.source, longer.answers) == ("the longer answer", answers)
        assert longer.pairwise is not None
        assert longer.spearman.value > 0
    folder = Path(os.environ["TUNEPROOF_DATA"])
    with pytest.raises(InvalidInput, match="accuracy and completeness"):
        calibration.load_set("ragchecker", folder, "tone")


class Judge:
    """Gives 5 to what holds the reference, else 2, and may end in the middle."""

    def __init__(self, *, model: str = "toy", fails_after: int = 10**9) -> None:
        self.model, self.fails_after, self.asked = model, fails_after, 0

    async def rubric(self, name: str) -> Rubric:
        return RubricShelf.load().get(name)

    async def grade_many(self, inputs, *, in_flight: int) -> AsyncIterator:
        for name, one in inputs.items():
            self.asked += 1
            if self.asked > self.fails_after:
                yield name, Unavailable("gone")
                return
            mean = 5.0 if matches(one.answer, one.references) else 2.0
            mean = None if "unscored" in one.answer else mean
            grade = CriterionGrade("accuracy", "accuracy@1", ACCURACY.digest, mean, 0.0, ())
            yield name, Grade({"accuracy": grade}, {"token_f1": 0.5, "rouge_l": 0.5}, self.model)

    async def compare_many(self, inputs, *, in_flight: int) -> AsyncIterator:
        for name, one in inputs.items():
            longer = len(one.first) > len(one.second)
            pair = PairGrade(
                "accuracy", "accuracy@1", "sha256:p", 1.0 if longer else -1.0, 1.0, 0.25, ()
            )
            yield name, PairComparison({"accuracy": pair}, self.model)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "answer", "reference", "label", "label_2", "system"])
        for n in range(40):
            right = n % 3 > 0
            said = f"It is {n}" if right else "It is none"
            label = "yes" if right != (n == 4) else "no"
            rows.writerow([f"Q{n // 2}", said, f"{n}", label, label, "ab"[n % 2]])
        rows.writerow(["Q", "unscored", "x", "yes", "", "a"])
        rows.writerow(["Q", "no label", "x", "", "", "a"])
    return path


@pytest.fixture
def run(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def call(judge: Judge, *words: str):
        def with_judge(client, endpoints, work):
            return asyncio.run(work(judge))

        monkeypatch.setattr(cli_asking, "_run", with_judge)
        return invoke(capsys, monkeypatch, "judge", "calibrate", *words)

    return call


def test_the_command_certifies_a_judge_on_ones_own_labels(run, table: Path, tmp_path: Path) -> None:
    files = ("--out", "cert.json", "--plot", "plot.svg")
    code, out, err = run(Judge(), str(table), *files)
    assert code == 0, err
    found = read_certificate(tmp_path / "cert.json")
    assert (found.judge_model, found.rubric_digest) == ("toy", ACCURACY.digest)
    assert (found.answers, found.unscored, found.dropped) == (40, 1, 1)
    assert found.kappa == pytest.approx(0.943, abs=0.01)
    assert set(found.figures) == {
        "judge", "token_f1", "rouge_l", "lexical match", "another person",
    }  # fmt: skip
    assert [one["name"] for one in found.figures["judge"]["by_system"]] == ["a", "b"]
    assert found.figures["another person"]["kappa"]["value"] == 1.0
    assert "| judge | 40 | 1 |" in out
    assert (tmp_path / "plot.svg").read_text().count("<polyline") >= 2


def test_a_killed_calibration_goes_on_and_asks_nothing_twice(
    run, table: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "grades.jsonl"
    code, _, err = run(Judge(fails_after=10), str(table), "--grades", str(kept))
    assert code == 4, err
    with kept.open("a") as file:
        file.write('{"key": "sha')
    judge = Judge()
    code, _, err = run(judge, str(table), "--grades", str(kept), "--json")
    assert code == 0, err
    assert judge.asked == 41 - 10
    again = Judge()
    assert run(again, str(table), "--grades", str(kept))[0] == 0
    assert again.asked == 0
    code, _, err = run(Judge(model="other"), str(table), "--grades", str(kept), "--seed", "2")
    assert code == 0, err  # other inputs, other keys
    half = "\n".join(kept.read_text().splitlines()[:5]) + "\n"
    kept.write_text(half)
    code, _, err = run(Judge(model="other"), str(table), "--grades", str(kept))
    assert code == 1
    assert "holds grades by toy" in err


def test_the_plan_asks_nothing(run, table: Path) -> None:
    judge = Judge()
    prices = ("--prompt-price", "1", "--completion-price", "2")
    code, out, err = run(judge, str(table), "--plan", *prices, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["answers"], told["completions"], judge.asked) == (41, 410, 0)
    assert told["completion_tokens"] == 410 * ACCURACY.max_tokens
    cost = (told["prompt_tokens"] + 2 * told["completion_tokens"]) / 1e6
    assert told["price"] == pytest.approx(cost)


def test_pairs_are_compared_in_both_orders(run) -> None:
    real("ragchecker")
    code, out, err = run(Judge(), "ragchecker", "--mode", "pairwise", "--json")
    assert code == 0, err
    told = json.loads(out)
    judge, longer = told["figures"]["judge"], told["figures"]["the longer answer"]
    assert told["position_bias"] == 0.25
    assert judge["pairs"] == longer["pairs"]
    assert told["mode"] == "pairwise"
    assert judge["kappa"] is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("question,answer\nq,a\n", "lacks the column reference, label"),
        ("question,answer,reference,label\nq,a,r,maybe\n", "label is 'maybe'"),
        ("question,answer,reference,label,id\nq,a,r,1,x\nq,b,r,0,x\n", "'x' appears twice"),
        ("question,answer,reference,label\nq,a,r,\n", "no labelled answer"),
        ("question,answer,reference,label\nq,a,r,9\nq,b,r,1\n", "labels from 1 to 9"),
    ],
)
def test_a_bad_table_is_told_by_line(run, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    code, _, err = run(Judge(), "bad.csv")
    assert code == 2
    assert said in err


def test_scores_on_the_rubrics_scale_have_a_weighted_kappa(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    lines = [f"q{n},a,r,{1 + n % 5}" for n in range(20)]
    path.write_text("\n".join(["question,answer,reference,label", *lines]))
    labelled = calibration.load_set(str(path), None, "accuracy")
    scores = {one.id: one.label for one in labelled.answers}
    scale = calibration.Scale(1.0, 5.0)
    found = calibration.figures_of(labelled, scores, scale, "judge", scale)
    assert found is not None
    assert found.kappa is not None
    assert (found.kappa.value, found.spearman.value, found.kendall.value) == (1.0, 1.0, 1.0)


def certificate(**more: object) -> Certificate:
    fields = {
        "judge_model": "toy", "rubric": "accuracy@1", "rubric_digest": "sha256:a",
        "criterion": "accuracy", "mode": "sampled", "repeats": 10, "temperature": 1.0,
        "data": "d", "data_digest": "sha256:d", "answers": 9, "dropped": 0, "unscored": 0,
        "figures": {"judge": {"kappa": {"value": 0.7}}},
    }  # fmt: skip
    return Certificate(**{**fields, **more})  # type: ignore[arg-type]


def test_a_changed_certificate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(certificate().to_json())
    assert read_certificate(path) == certificate()
    path.write_text(certificate().to_json().replace("0.7", "0.9"))
    with pytest.raises(InvalidInput, match="was changed"):
        read_certificate(path)
    path.write_text("{}")
    with pytest.raises(InvalidInput, match="no certificate"):
        read_certificate(path)


@pytest.mark.parametrize(
    ("has", "said"),
    [
        ([certificate()], ""),
        ([], "no certificate"),
        ([certificate(judge_model="other")], "no certificate is for the judge toy"),
        ([certificate(rubric_digest="sha256:b")], "this rubric"),
        ([certificate(figures={"judge": {"kappa": {"value": 0.5}}})], "0.50, below 0.6"),
        ([certificate(figures={"judge": {"kappa": None}})], "about pairs"),
    ],
)
def test_a_certificate_speaks_for_its_judge_and_rubric_alone(has, said: str) -> None:
    told = why_not_certified(has, judge_model="toy", rubric_digest="sha256:a", kappa=0.6)
    assert told == said or (said and said in told)


async def test_a_judge_with_another_rubric_is_refused(table: Path, tmp_path: Path) -> None:
    labelled = calibration.load_set(str(table), None, "accuracy")
    content = ACCURACY.model_dump(mode="json", by_alias=True)
    changed = Rubric.model_validate({**content, "max_tokens": 9})
    with pytest.raises(WrongState, match="another one now"):
        await calibration.calibrate(
            Judge(),
            labelled,
            calibration.Asking(changed),
            tmp_path / "g.jsonl",  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("more", "failed"),
    [
        ({}, []),
        ({"figures": {"judge": {"kappa": {"value": 0.4}}}}, ["accuracy: the judge's certificate"]),
        ({"judge_model": "other"}, ["accuracy: the judge's certificate"]),
    ],
)
def test_a_certificate_lets_the_gate_believe_the_judge(tmp_path: Path, more, failed) -> None:
    own = {"judge_model": "judge", "rubric_digest": ""}
    (tmp_path / "c.json").write_text(certificate(**{**own, **more}).to_json())
    (tmp_path / "gate.yaml").write_text("judge: {certificates: [c.json]}\n")
    results = judged(around(0.2, 0.2), judge_checks=())
    decision = decide(results, load_policy(tmp_path / "gate.yaml"), "tuned")
    assert [check.name for check in decision.failed] == failed


async def test_a_study_asks_for_certificates_before_it_spends_anything(tmp_path: Path) -> None:
    small = SmallStudy(tmp_path)
    small.edit("repeats: 2,", "repeats: 2, certificates: [c/a.json, c/b.json],")
    (tmp_path / "c").mkdir()
    request = Request(small.file, small.state)
    for name, criterion in (("a", "accuracy"), ("b", "completeness")):
        with pytest.raises(InvalidInput, match=rf"{name}\.json: cannot be read|certificate is for"):
            await identities_for(prepare(request), request, Endpoints(), external=False)
        rubric = parse_rubric((tmp_path / "rubrics" / f"{criterion}.yaml").read_bytes(), criterion)
        for each in ("a", "b"):
            path = tmp_path / "c" / f"{each}.json"
            if each == name or not path.exists():
                own = {"judge_model": "tiny", "rubric_digest": rubric.digest}
                path.write_text(certificate(**own).to_json())
    found = await identities_for(prepare(request), request, Endpoints(), external=False)
    assert found.judge_name == "tiny"
    small.edit("repeats: 2,", "repeats: 2, kappa: 0.8,")
    with pytest.raises(InvalidInput, match=r"0\.70, below 0\.8.*judge calibrate"):
        await identities_for(prepare(request), request, Endpoints(), external=False)
