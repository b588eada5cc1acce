"""Data sets of one's own: JSON Lines, CSV, Hugging Face; distractors; what a study wants."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from data_files import lines, load
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof.data import Dataset, Document, Item
from tuneproof.data.items import UNANSWERABLE
from tuneproof.data.loaders import own
from tuneproof.data.sources import JsonlData
from tuneproof.servicekit.errors import InvalidInput

pytestmark = pytest.mark.timeout(60)

FIELDS = {"question": "q", "references": {"full": "a"}}


def jsonl(folder: Path, *records: object, **more: object) -> Dataset:
    return load({"name": "jsonl", "path": str(lines(folder / "mine.jsonl", *records)), **more})


def csv(folder: Path, text: str, **more: object) -> Dataset:
    path = folder / "mine.csv"
    path.write_bytes(text.encode())
    return load({"name": "csv", "path": str(path), "fields": FIELDS, **more})


def documents(folder: Path, name: str = "docs.jsonl", **texts: str) -> str:
    return str(lines(folder / name, *({"id": id_, "text": text} for id_, text in texts.items())))


def test_the_houses_own_form(tmp_path):
    record = {
        "id": "a",
        "question": " Why? ",
        "references": {"full": ["Because.", "So."], "short": "so"},
        "gold_documents": ["d1"],
        "gold_texts": "because",
        "cluster": "c",
        "answerable": True,
    }
    dataset = jsonl(tmp_path, record, corpus=documents(tmp_path, d1="because", d2="x"))
    references = {"full": ("Because.", "So."), "short": ("so",)}
    assert dataset.items == (Item("a", "Why?", references, ("d1",), ("because",), "c"),)
    assert dataset.name == "mine"
    assert [document.id for document in dataset.documents] == ["d1", "d2"]


TEXTS = st.text(min_size=1, max_size=5).filter(lambda text: text == text.strip() != "")
ITEMS = st.builds(
    Item,
    id=TEXTS,
    question=TEXTS,
    references=st.dictionaries(
        st.sampled_from(["full", "short"]),
        st.lists(TEXTS, min_size=1, max_size=3, unique=True).map(tuple),
        min_size=1,
    ),
    gold_documents=st.lists(TEXTS, max_size=2, unique=True).map(tuple),
    gold_texts=st.lists(TEXTS, max_size=2, unique=True).map(tuple),
    cluster=TEXTS,
    answerable=st.just(True),
)


@settings(deadline=None)
@given(st.lists(ITEMS, max_size=4))
def test_what_is_written_is_read_again(items):
    records = (("here", json.loads(json.dumps(own.json_of(item)))) for item in items)
    assert own.load("x", records, own.ItemFields()).items == tuple(items)


def test_fields_of_any_name_and_parts_of_parts(tmp_path):
    record = {
        "q": "Why?",
        "answers": {"text": ["Because.", "Because."], "n": 1},
        "page": "A text.",
        "name": "T",
    }
    fields = {
        "question": "q",
        "references": {"short": "answers.text"},
        "context": "page",
        "title": "name",
    }
    dataset = jsonl(
        tmp_path, record, {**record, "q": "How?"}, {**record, "page": "B"}, fields=fields
    )
    first, second, third = dataset.items
    assert first.references == {"short": ("Because.",)}
    assert [item.id for item in dataset.items] == ["1", "2", "3"]
    assert first.gold_documents == second.gold_documents == ("context:1",)
    assert first.cluster == second.cluster != third.cluster
    assert dataset.documents == (
        Document("context:1", "A text.", "T"),
        Document("context:2", "B", "T"),
    )


def test_questions_that_share_a_gold_document_are_a_cluster(tmp_path):
    records = [
        {"id": name, "question": name, "references": {"full": "x"}, "gold_documents": gold}
        for name, gold in {"a": ["d1"], "b": ["d1", "d2"], "c": "d2", "d": []}.items()
    ]
    dataset = jsonl(tmp_path, *records, corpus=documents(tmp_path, d1="one", d2="two"))
    assert [item.cluster for item in dataset.items] == ["a", "a", "a", "d"]


def test_an_unanswerable_question_needs_no_reference(tmp_path):
    fields = FIELDS | {"answerable": "has"}
    records = [{"q": "Why?", "a": "", "has": False}, {"q": "How?", "a": "So.", "has": True}]
    dataset = jsonl(tmp_path, *records, fields=fields, unanswerable=True)
    assert [item.answerable for item in dataset.items] == [False, True]
    assert dataset.items[0].references == {"full": (UNANSWERABLE,)}
    assert len(jsonl(tmp_path, *records, fields=fields).items) == 1


@pytest.mark.parametrize(
    ("record", "fields", "what"),
    [
        ([1], {}, "line 2: is not an object"),
        ({"q": "x"}, FIELDS, "line 2: lacks the field 'a'; it has q"),
        ({"question": " "}, {}, "line 2: question: is not a text, or blank"),
        ({"question": "x"}, {}, "line 2: references: is not an object of styles; name the fields"),
        ({"q": "x", "a": [["y"]]}, FIELDS, "line 2: references.full: is not a text or a list"),
        ({"q": "x", "a": True}, FIELDS, "line 2: references.full: is not a text or a list"),
        ({"q": "x", "a": "y"}, {**FIELDS, "id": "no"}, "line 2: lacks the field 'no'"),
        (
            {"q": "x", "a": "y", "h": "maybe"},
            {**FIELDS, "answerable": "h"},
            "line 2: h: is 'maybe'",
        ),
        ({"q": "x", "a": "y", "c": 3}, {**FIELDS, "context": "c"}, "line 2: c: is not a text"),
    ],
)
def test_a_mistake_is_told_with_line_and_field(tmp_path, record, fields, what):
    with pytest.raises(InvalidInput, match=r"the questions cannot be used") as caught:
        jsonl(
            tmp_path,
            {"question": "w", "references": {}, **dict.fromkeys("qahc", "1")},
            record,
            fields=fields,
        )
    assert what in caught.value.message
    assert "line 1" not in caught.value.message or "'no'" in what


@pytest.mark.parametrize(
    ("records", "more", "what"),
    [
        ([], {}, "has no question that the study wants"),
        (["a", "a"], {}, "1 ids of questions of mine are there twice: a"),
        (["a"], {"gold": "d9"}, r"1 documents that hold the answers are missing: d9 \(item a\)"),
        (["a"], {"styles": ["short"]}, "left out: 1 without a 'short' reference"),
        (["a"], {"corpus": "none.jsonl"}, "there is no file or folder none.jsonl"),
        (["a"], {"distractors": "docs"}, "1 distractors have ids of documents of mine"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused(tmp_path, records, more, what):
    gold = more.pop("gold", "d1") if (more := dict(more)) else "d1"
    corpus = documents(tmp_path, d1="one")
    more = {key: corpus if value == "docs" else value for key, value in more.items()}
    values = [
        {"id": name, "question": name, "references": {"full": "x"}, "gold_documents": gold}
        for name in records
    ]
    with pytest.raises(InvalidInput, match=what):
        jsonl(tmp_path, *values, **{"corpus": corpus, **more})


def test_distractors_join_any_data_set(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/other.md").write_text("# Other\n\nNothing of it.")
    more = documents(tmp_path, "more.jsonl", x1="noise", x2="more noise")
    world = {"name": "telecom", "seed": 3, "documents": 2}
    plain, full = load(world), load({**world, "distractors": [str(tmp_path / "texts"), more]})
    assert full.documents[:2] == plain.documents
    assert [document.id for document in full.documents[2:]] == ["other.md", "x1", "x2"]
    assert full.items == plain.items
    assert full.notes[-1].startswith("3 documents without evidence are searched too: ")


def test_with_distractors_a_corpus_is_no_longer_gold_only(tmp_path):
    snippet = {"document": "d", "text": "Moss is green."}
    question = {"id": "q", "body": "What?", "ideal_answer": "Moss.", "snippets": [snippet]}
    path = tmp_path / "golden.json"
    path.write_text(json.dumps({"questions": [question]}))
    bioasq = {"name": "bioasq", "path": str(path)}
    assert load(bioasq).gold_only
    assert not load({**bioasq, "distractors": documents(tmp_path, x="noise")}).gold_only


def test_bad_distractors_are_named_by_line(tmp_path):
    file = tmp_path / "noise.jsonl"
    file.write_text('{"id": "x", "text": "noise"}\n{"id": "y"}\n')
    with pytest.raises(InvalidInput, match=r"noise.jsonl, line 2: lacks a text"):
        load({"name": "telecom", "seed": 3, "documents": 2, "distractors": str(file)})


def test_a_table_with_quotes_lines_and_lists(tmp_path):
    dataset = csv(
        tmp_path,
        '\ufeffq,a\r\n"Why, so?","Two\nlines"\r\n\r\nHow?,"[""A"", ""B""]"\r\nWho?,[1]\r\n',
    )
    assert [item.question for item in dataset.items] == ["Why, so?", "How?", "Who?"]
    assert [item.references["full"] for item in dataset.items] == [
        ("Two\nlines",),
        ("A", "B"),
        ("[1]",),
    ]


def test_a_table_with_another_delimiter_and_long_cells(tmp_path):
    dataset = csv(tmp_path, "q;a\nWhy?;" + "x" * 200_000, delimiter=";")
    assert len(dataset.items[0].references["full"][0]) == 200_000


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("q,a\nx,y\nx\n", r"mine.csv, row 2 \(line 3\): has 1 cells, the head 2"),
        ('q,a\n"x\ny",z\nx,y,z\n', r"row 2 \(line 4\): has 3 cells, the head 2"),
        ('q,a\nx,y\n\n"x', r"row 2 \(line 4\): cannot be read as CSV.*unexpected end of data"),
        ('q,a\nx,"y"z\n', r"row 1 \(line 2\): cannot be read as CSV"),
        ("", "mine.csv lacks a head"),
        ("q,a,q\nx,y,z\n", "mine.csv, head: 'q' names several columns"),
        ("q,b\nx,y\n", r"row 1 \(line 2\): lacks the field 'a'; it has q, b"),
        ("q,a\n,y\n", r"row 1 \(line 2\): q: is not a text, or blank"),
    ],
)
def test_a_broken_row_is_named_by_its_number(tmp_path, text, what):
    with pytest.raises(InvalidInput, match=what):
        csv(tmp_path, text)


def test_a_table_that_is_not_utf8_says_where(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(b"q,a\nx,y\nx,\xff\n")
    with pytest.raises(InvalidInput, match=r"mine.csv, line 3: is not UTF-8"):
        load({"name": "csv", "path": str(path), "fields": FIELDS})


def test_a_data_set_of_hugging_face(tmp_path):
    (tmp_path / "squad").mkdir()
    row = {"id": "5", "question": "Why?", "context": "It is so.", "answers": {"text": ["so"]}}
    lines(tmp_path / "squad/validation.jsonl", row)
    fields = {"context": "context", "references": {"short": "answers.text"}}
    values = {
        "name": "huggingface",
        "dataset": str(tmp_path / "squad"),
        "split": "validation",
        "fields": fields,
    }
    dataset = load(values)
    (item,) = dataset.items
    assert (item.id, item.references, item.gold_documents) == (
        "5",
        {"short": ("so",)},
        ("context:1",),
    )
    with pytest.raises(InvalidInput, match=r"validation\), row 0: lacks the field 'wrong'"):
        load({**values, "fields": {"references": {"short": "wrong"}}})
    with pytest.raises(InvalidInput, match=r"cannot load the data set .* split dev"):
        load({**values, "split": "dev"})


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    values = {"name": "huggingface", "dataset": "a/none", "fields": FIELDS}
    with pytest.raises(InvalidInput, match=r"pip install 'tuneproof\[datasets\]'"):
        load(values)


def test_paths_are_relative_to_the_study_file_and_the_flag_wins(tmp_path):
    values = {
        "name": "jsonl",
        "path": "q.jsonl",
        "corpus": ["docs", "hf:a/b"],
        "distractors": "noise.jsonl",
    }
    source = JsonlData.model_validate(values)
    located = source.located(tmp_path / "study.yaml", [])
    assert located.path == (tmp_path / "q.jsonl",)
    assert located.corpus == (str(tmp_path / "docs"), "hf:a/b")
    assert located.distractors == (str(tmp_path / "noise.jsonl"),)
    given_file = source.located(tmp_path / "study.yaml", [tmp_path / "other.jsonl"])
    assert given_file.path == (tmp_path / "other.jsonl",)
