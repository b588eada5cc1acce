"""`tuneproof data check | show | convert`, and what they find."""

from __future__ import annotations

import json
import random
import re
import sys
from functools import partial
from pathlib import Path

import pytest
from data_files import annotation, answer, asked, lines, paper, simplified, span
from small_study import STUDY, invoke

from tuneproof.data.examining import examine
from tuneproof.data.items import Dataset, Document, Item
from tuneproof.data.near_duplicates import near_pairs
from tuneproof.data.splits import Split

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "demo/telecom-reader")
SPLIT = "split: {seed: 1, test_share: 0.5, test_items: 2}\n"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return partial(invoke, capsys, monkeypatch, "data")


def questions(folder: Path, **more: object) -> Path:
    """A study file's part with four questions about four documents."""
    records = [
        {
            "id": name,
            "question": f"What colour does the {name} have in the evening light of autumn?",
            "references": {"full": f"The {name} is green."},
            "gold_documents": [f"d{name}"],
            "gold_texts": [f"{name} is green"],
        }
        | more
        for name in ("moss", "fern", "pine", "reed")
    ]
    lines(folder / "items.jsonl", *records)
    documents = [{"id": f"d{r['id']}", "text": f"The {r['id']} is green."} for r in records]
    lines(folder / "documents.jsonl", *documents)
    return file_of(folder, "{name: jsonl, path: items.jsonl, corpus: documents.jsonl}")


def file_of(folder: Path, dataset: str, *more: str) -> Path:
    path = folder / "data.yaml"
    path.write_text("\n".join([f"dataset: {dataset}", SPLIT, *more]))
    return path


def test_a_check_counts(run, tmp_path):
    code, out, err = run("check", str(questions(tmp_path)), "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {key: found[key] for key in ("documents", "items", "clusters", "tuning", "test")} == {
        "documents": 4,
        "items": 4,
        "clusters": 4,
        "tuning": 2,
        "test": 2,
    }
    assert (found["styles"], found["gold_documents"]) == ({"full": 4}, 4)
    assert found["problems"] == found["without_gold"] == found["lost_evidence"] == []
    assert found["context"] == 0


def test_a_check_of_a_study_counts_in_its_models_tokens(run):
    code, out, _ = run("check", str(ROOT / "studies/demo.yaml"), "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["items"], found["context"]) == (900, 4096)
    assert found["lengths"]["question"] | {"longest_id": ""} == {
        "texts": 900,
        "median": 8,
        "p95": 13,
        "longest": 13,
        "longest_id": "",
    }
    assert found["longest_prompt"] < found["context"]


def test_a_check_for_people(run, tmp_path):
    file = questions(tmp_path, gold_texts=["nowhere"])
    code, out, _ = run("check", str(file), "--model", MODEL)
    assert code == 0
    assert "questions     4 in 4 clusters" in out
    assert "references    full 4" in out
    assert "do not hold verbatim (4): moss; fern; pine; reed" in out
    assert re.search(r"question tokens \d+ median, \d+ at 95 %, \d+ at most", out)


def test_a_style_that_an_arm_needs_and_the_data_lack_is_told(run, tmp_path):
    lines(tmp_path / "nq.jsonl", *({"question": f"What {n}?", "answer": ["x"]} for n in range(30)))
    lines(tmp_path / "corpus.jsonl", {"id": "d", "text": "x"})
    section = "{name: nq-open, path: nq.jsonl, corpus: corpus.jsonl}"
    study = re.sub(r"dataset: .*", f"dataset: {section}", STUDY)
    study = study.replace("  - {name: short, tune: {references: short}}\n", "")
    study = re.sub(r"checks: .*\n", "", study) + "references: short\n"
    file = tmp_path / "study.yaml"
    file.write_text(study)
    code, out, err = run("check", str(file))
    assert code == 2, err
    assert "problem: 15 of 15 questions lack a 'full' reference answer, which closed needs" in out
    file.write_text(study.replace(section, section.replace("}", ", styles: full}")))
    code, _, err = run("check", str(file))
    assert code == 2
    assert "has no question that the study wants; left out: 30 without a 'full'" in err


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("dataset: {name: qasper}", 2, "data.yaml leaves open where its data are: say --data PATH"),
        ("dataset: {name: qasper, path: gone.json}", 2, "gone.json: No such file"),
        ("dataset: {name: qasper, pth: x}", 2, "data.yaml:1: dataset.pth: is not a key of a study"),
        ("dataset: {name: squad}", 2, "data.yaml:1: dataset: "),
        ("dataset: {name: nq-open, path: x}", 2, "data.yaml:1: dataset.corpus: is missing"),
        ("dataset: {name: nq-open, path: x, corpus: []}", 2, "at least 1 item"),
        ("dataset: {name: csv, path: x}", 2, "data.yaml:1: dataset.fields: is missing"),
        ("dataset: {name: csv, path: x, fields: {colour: q}}", 2, "dataset.fields.colour: is not"),
        ("dataset: {name: csv, path: x, fields: {}, delimiter: ab}", 2, "at most 1 character"),
        ("dataset: {name: natural-questions, path: x, items: 0}", 2, "dataset.items: "),
        ("dataset: {name: natural-questions, path: x, documents: lines}", 2, "dataset.documents: "),
        ("dataset: {name: telecom, seed: 1, documents: 2, styles: [A b]}", 2, "1 to 40 characters"),
        (
            "dataset: {name: telecom, seed: 1, documents: 2, distractors: gone}",
            2,
            "there is no file or folder",
        ),
        ("study: x\ndataset: {name: telecom, seed: 1, documents: 2}", 2, "data.yaml:1: arms: is"),
        ("split: {seed: 1}", 2, "dataset: is missing"),
    ],
)
def test_a_mistake_in_the_file_has_one_clear_message(run, tmp_path, text, code, message):
    (tmp_path / "data.yaml").write_text(text + "\n")
    got, _, err = run("check", "data.yaml")
    assert message in err
    assert got == code
    assert "Traceback" not in err


def test_bad_flags_have_one_clear_message(run, tmp_path, monkeypatch):
    file = str(questions(tmp_path))
    for arguments, message in (
        (("show", file, "oak"), "items has no question 'oak'"),
        (("check", file, "--data", "gone.jsonl"), "cannot read"),
        (("check", file, "--model", str(tmp_path)), "cannot read the tokenizer of"),
        (("check", str(ROOT / "studies/demo.yaml"), "--data", "x"), "--data does not fit"),
    ):
        code, _, err = run(*arguments)
        assert (code, message in err) == (2, True), err
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    code, _, err = run("check", file, "--model", MODEL)
    assert (code, "pip install 'tuneproof[tokens]'" in err) == (2, True)


def test_too_few_clusters_are_a_problem_and_the_rest_is_told(run, tmp_path):
    file = questions(tmp_path, cluster="all")
    code, out, _ = run("check", str(file), "--json")
    found = json.loads(out)
    assert code == 2
    assert (found["items"], found["test"]) == (4, 0)
    assert "needs 2 clusters or more" in found["problems"][0]


def test_questions_are_shown(run, tmp_path):
    file = str(questions(tmp_path))
    code, out, _ = run("show", file, "--first", "2")
    assert code == 0
    assert out.count("question ") == 2
    assert "full       The moss is green.\n" in out
    assert "evidence   moss is green" in out
    code, out, _ = run("show", file, "reed", "--json")
    assert [each["id"] for each in json.loads(out)] == ["reed"]


def test_what_is_converted_is_the_same_data_set(run, tmp_path):
    question = asked("no", answer(unanswerable=True))
    some = asked("yes", answer(yes_no=False, evidence=["Moss is green."]))
    (tmp_path / "qasper.json").write_text(json.dumps({"1": paper(question, some)}))
    file = file_of(tmp_path, "{name: qasper, path: qasper.json, unanswerable: true}")
    code, out, _ = run("convert", str(file), "made/deep", "--json")
    assert code == 0
    written = json.loads(out)
    assert (written["items"], written["documents"]) == (2, 1)
    again = file_of(tmp_path / "made/deep", written["dataset"])
    before, after = (json.loads(run("show", str(one), "--json")[1]) for one in (file, again))
    assert before == after
    assert [each["answerable"] for each in after] == [False, True]
    assert not list((tmp_path / "made/deep").glob("*.part"))
    document = json.loads((tmp_path / "made/deep/documents.jsonl").read_text())
    assert document["title"] == "Parsing moss"


def test_natural_questions_from_file_to_split(run, tmp_path):
    examples = [
        simplified(n, annotation(span("<Ul>", "</Ul>")), document_url=f"http://w/{n}", page=page)
        for n, page in enumerate(
            f"<P> Page {n} . </P> <Ul> <Li> {'word ' * n}here </Li> </Ul>" for n in range(1, 7)
        )
    ]
    for example in examples:
        tokens = example["document_text"].split(" ")
        long = example["annotations"][0]["long_answer"]
        long["start_token"], long["end_token"] = tokens.index("<Ul>"), len(tokens)
    lines(tmp_path / "nq.jsonl.gz", *examples)
    file = file_of(tmp_path, "{name: natural-questions, path: nq.jsonl.gz, items: 5}")
    code, out, err = run("check", str(file), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["items"], found["clusters"], found["test"]) == (5, 5, 2)
    assert found["left_out"] == {"passed over by the draw": 1}


def item(name: str, question: str, *gold: str) -> Item:
    return Item(name, question, {"full": ("x",)}, gold, (), name)


def test_what_an_examination_finds():
    long = "The moss on the northern wall is green in spring and brown in late summer."
    documents = {"a": long, "b": long.replace("late", "the"), "c": "Else.", "d": "else", "e": long}
    items = (
        item("1", "Where does the moss grow on the old northern wall?", "a"),
        item("2", "Where does the moss grow on that old northern wall?", "b"),
        item("3", "where does the moss grow on the old northern WALL", "c"),
        item("4", "Something that nobody else asks"),
    )
    dataset = Dataset("x", tuple(Document(*pair) for pair in documents.items()), items)
    found = examine(dataset, Split(items[:1], items[1:]))
    assert [(pair.one, pair.other) for pair in found.near_questions] == [("1", "3"), ("1", "2")]
    assert found.near_questions[0].similarity == 1
    assert [(pair.one, pair.other) for pair in found.near_documents] == [("a", "b")]
    assert {(pair.one, pair.other) for pair in found.near_gold} == {
        ("d", "c"),
        ("e", "a"),
        ("e", "b"),
    }
    assert found.same_questions == (("1", "3"),)
    assert found.same_documents == (("a", "e"), ("c", "d"))
    assert found.without_gold == ("4",)
    assert examine(dataset).near_questions == ()


WORDS = [f"word{n}" for n in range(400)]


@pytest.mark.parametrize("threshold", [0.6, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_near_pairs_are_those_of_all_comparisons(seed, threshold):
    rng = random.Random(seed)
    one = {f"a{n}": " ".join(rng.choices(WORDS, k=40)) for n in range(8)}
    changed = {
        f"b{n}": " ".join(word if rng.random() > n / 40 else "other" for word in text.split())
        for n, text in enumerate(one.values())
    }
    other = changed | {"blank": "", "short": "a"}

    def shingles(text: str) -> set[str]:
        return {text[at : at + 5] for at in range(max(1, len(text) - 4))}

    expected = {
        (name, there): len(shingles(text) & shingles(second))
        / len(shingles(text) | shingles(second))
        for name, text in one.items()
        for there, second in other.items()
    }
    found = {(p.one, p.other): p.similarity for p in near_pairs(one, other, threshold=threshold)}
    assert found.items() <= expected.items()
    sure = min(threshold + 0.1, 1.0)
    assert found.keys() >= {pair for pair, likeness in expected.items() if likeness >= sure}
    assert min(found.values(), default=1) >= threshold
