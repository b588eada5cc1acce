"""Reading BioASQ golden files: made ones for each rule, and a real one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tuneproof.data import Dataset
from tuneproof.data.components import components
from tuneproof.data.loaders import bioasq
from tuneproof.data.sources import DataSource
from tuneproof.servicekit.errors import InvalidInput

pytestmark = pytest.mark.timeout(30)

_URL = "http://www.ncbi.nlm.nih.gov/pubmed/{}"


def load_dataset(values: dict[str, Any]) -> Dataset:
    """What `dataset:` of a study file describes."""
    return TypeAdapter(DataSource).validate_python(values).load()


def _snippet(document: int, text: str, begin: int = 0, section: str = "abstract") -> dict[str, Any]:
    return {
        "document": _URL.format(document),
        "text": text,
        "beginSection": section,
        "endSection": section,
        "offsetInBeginSection": begin,
        "offsetInEndSection": begin + len(text),
    }


def _question(name: str, *snippets: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "type": "summary",
        "body": f"What is {name}?",
        "documents": [snippet.get("document") for snippet in snippets],
        "snippets": list(snippets),
        "ideal_answer": [f"It is {name}."],
        **more,
    }


def _file(folder: Path, *questions: Any, name: str = "golden.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"questions": questions}))
    return path


def test_documents_are_their_snippets_in_order(tmp_path):
    path = _file(
        tmp_path,
        _question("a", _snippet(1, "third", 50), _snippet(1, "second", 9)),
        _question(
            "b", _snippet(1, "first", 0, "title"), _snippet(1, "third", 50), _snippet(2, "x")
        ),
    )
    dataset = bioasq.load(path)
    first, second = dataset.documents
    assert (first.id, first.text, first.title) == ("pubmed:1", "first\n\nsecond\n\nthird", "")
    assert first.metadata == {"url": _URL.format(1)}
    assert second.id == "pubmed:2"
    assert dataset.gold_only
    assert not dataset.synthetic
    assert "easier" in dataset.notes[0]


def test_a_snippet_within_another_is_written_once_and_stays_evidence(tmp_path):
    path = _file(tmp_path, _question("a", _snippet(1, "the long one", 0), _snippet(1, "long", 4)))
    dataset = bioasq.load(path)
    assert dataset.documents[0].text == "the long one"
    assert dataset.items[0].gold_texts == ("the long one", "long")


def test_both_addresses_of_pubmed_mean_one_document(tmp_path):
    other = _snippet(7, "b") | {"document": "https://pubmed.ncbi.nlm.nih.gov/7/"}
    dataset = bioasq.load(_file(tmp_path, _question("a", _snippet(7, "a"), other)))
    assert [document.id for document in dataset.documents] == ["pubmed:7"]


def test_clusters_are_what_documents_connect(tmp_path):
    path = _file(
        tmp_path,
        _question("q4", _snippet(1, "a")),
        _question("q2", _snippet(2, "b")),
        _question("q3", _snippet(1, "a"), _snippet(2, "b")),
        _question("q1", _snippet(3, "c")),
    )
    dataset = bioasq.load(path)
    assert {item.id: item.cluster for item in dataset.items} == {
        "q4": "q2",
        "q2": "q2",
        "q3": "q2",
        "q1": "q1",
    }


@pytest.mark.parametrize(
    ("kind", "exact", "expected"),
    [
        ("yesno", "yes", ("yes",)),
        ("factoid", ["FOXP2"], ("FOXP2",)),
        ("factoid", [["FOXP2", "forkhead box P2"]], ("FOXP2", "forkhead box P2")),
        ("list", [["a", "alpha"], ["b"]], ("a, b",)),
        ("list", [[], ["b"]], ("b",)),
        ("list", [], None),
        ("summary", None, None),
    ],
)
def test_exact_answers(tmp_path, kind, exact, expected):
    question = _question("a", _snippet(1, "x"), type=kind, exact_answer=exact)
    [item] = bioasq.load(_file(tmp_path, question)).items
    assert item.references["full"] == ("It is a.",)
    assert item.references.get("exact") == expected


def test_an_ideal_answer_may_be_one_text_or_several(tmp_path):
    path = _file(
        tmp_path,
        _question("a", _snippet(1, "x"), ideal_answer="One."),
        _question("b", _snippet(2, "y"), ideal_answer=["One.", " ", "Two. "]),
    )
    first, second = bioasq.load(path).items
    assert (first.references["full"], second.references["full"]) == (("One.",), ("One.", "Two."))


def test_several_files_are_one_data_set(tmp_path):
    one = _file(tmp_path, _question("a", _snippet(1, "x")), name="one.json")
    two = _file(tmp_path, _question("b", _snippet(1, "y", 9)), name="two.json")
    dataset = load_dataset({"name": "bioasq", "path": [str(one), str(two)]})
    assert [document.text for document in dataset.documents] == ["x\n\ny"]
    assert {item.cluster for item in dataset.items} == {"a"}


def test_all_mistakes_are_told_at_once(tmp_path):
    path = _file(
        tmp_path,
        _question("fine", _snippet(1, "x")),
        _question("mute", _snippet(1, "x"), ideal_answer=[]),
        _question("fine", _snippet(1, "x")),
        _question("blank", _snippet(1, "x"), body=" "),
        _question("bare"),
        _question("holed", _snippet(1, "x"), {"text": "y"}),
        "no object",
        {"body": "?"},
    )
    with pytest.raises(InvalidInput) as caught:
        bioasq.load(path)
    for said in (
        "question 2 (id mute): lacks an ideal_answer",
        "question 3: the id fine is that of an earlier question",
        "question 4 (id blank): its body is empty",
        "question 5 (id bare): lacks snippets",
        "question 6 (id holed): snippet 2 lacks a document or a text",
        "question 7: is not an object",
        "question 8: lacks an id",
    ):
        assert f"golden.json, {said}" in caught.value.message
    assert "question 1 " not in caught.value.message


def test_a_long_list_of_mistakes_is_cut(tmp_path):
    questions = [_question(f"q{n}", ideal_answer=["x"]) for n in range(33)]
    with pytest.raises(InvalidInput) as caught:
        bioasq.load(_file(tmp_path, *questions))
    assert caught.value.message.count("lacks snippets") == 20
    assert "and 13 more" in caught.value.message


def test_a_file_that_was_cut_off_says_where(tmp_path):
    path = _file(tmp_path, _question("a", _snippet(1, "x")))
    whole = json.dumps(json.loads(path.read_text()), indent=1)
    path.write_text(whole[: whole.index('"type"') + 3])
    with pytest.raises(InvalidInput, match=r"golden\.json.*line 5, column 4.*cut off"):
        bioasq.load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"questions": [,]}', "line 1, column 16"),
        (b"[]", "not a BioASQ golden file"),
        (b'{"questions": []}', "not empty"),
        (b'{"questions": {"a": 1}}', "not a BioASQ golden file"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"\x1f\x8b\x08\x00", "unpacked"),
        (b"[" * 200_000, "cannot be read"),
    ],
)
def test_other_files_are_told_apart(tmp_path, content, said):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=said) as caught:
        bioasq.load(path)
    assert "x.json" in caught.value.message
    assert "cut off" not in caught.value.message


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = _file(tmp_path, _question("a", _snippet(1, "x")))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(bioasq.load(path).items) == 1


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"gone\.json: No such file"):
        bioasq.load(tmp_path / "gone.json")
    with pytest.raises(InvalidInput, match="directory"):
        bioasq.load(tmp_path)
    with pytest.raises(InvalidInput, match="no BioASQ file"):
        bioasq.load()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "body", "snippets", "ideal_answer", "document", "text", "type"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.lists(_JSON, min_size=1, max_size=3))
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory, questions):
    path = _file(tmp_path_factory.getbasetemp(), *questions, name="any.json")
    refusal = ""
    try:
        read = len(bioasq.load(path).items)
    except InvalidInput as error:
        read, refusal = 0, error.message
    assert read == len(questions) or "any.json" in refusal


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=3), st.sets(st.integers(0, 8), max_size=3)))
def test_components_are_the_least_equivalence(links):
    found = components(links)
    assert set(found) == set(links)
    for one in links:
        assert found[found[one]] == found[one] <= one
        reached, todo = {one}, [one]
        while todo:
            node = todo.pop()
            for other in links:
                if other not in reached and links[node] & links[other]:
                    reached.add(other)
                    todo.append(other)
        assert {other for other in links if found[other] == found[one]} == reached


def test_the_real_file():
    folder = os.environ.get("TUNEPROOF_DATA")
    path = Path(folder or "") / "bioasq" / "12B1_golden.json"
    if not folder or not path.exists():
        pytest.skip(
            "no BioASQ data: get Task12BGoldenEnriched from participants-area.bioasq.org (free"
            " registration), unpack 12B1_golden.json into a folder bioasq and set TUNEPROOF_DATA"
            " to the folder above"
        )
    dataset = load_dataset({"name": "bioasq", "path": str(path)})
    assert len(dataset.items) == 85
    assert len({item.cluster for item in dataset.items}) == 82
    texts = {document.id: document.text for document in dataset.documents}
    for item in dataset.items:
        assert set(item.gold_documents) <= set(texts)
        for evidence in item.gold_texts:
            assert any(evidence in texts[name] for name in item.gold_documents)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"name": "squad"}, ["'squad'", "'telecom', 'bioasq'"]),
        ({}, ["discriminator 'name'"]),
        ({"name": ["telecom"]}, ["tag '['telecom']'", "'telecom', 'bioasq'"]),
        ({"name": "bioasq"}, ["path is missing"]),
        ({"name": "bioasq", "path": 3}, ["path", "input_value=3"]),
        (
            {"name": "telecom", "seed": -1, "sed": 2},
            ["seed\n", "input_value=-1", "documents\n  Field required", "sed\n  Extra inputs"],
        ),
        (
            {"name": "telecom", "seed": True, "documents": 0},
            ["expected a whole number", "input_value=True", "documents\n", "input_value=0"],
        ),
    ],
)
def test_a_wrong_description_of_a_data_set(spec, said):
    with pytest.raises((InvalidInput, ValidationError)) as caught:
        load_dataset(spec)
    for words in said:
        assert words in str(caught.value)


def test_the_telecom_world_by_name():
    dataset = load_dataset({"name": "telecom", "seed": 3, "documents": 4, "facts_per_document": 2})
    assert dataset.synthetic
    assert len(dataset.documents) == 4
    assert dataset == load_dataset(
        {"name": "telecom", "seed": 3, "documents": 4, "facts_per_document": 2}
    )
