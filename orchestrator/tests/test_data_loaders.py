"""Qasper, TeleQnA and NQ-open: made files in their exact forms, and the real NQ-open."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from data_files import answer, asked, lines, load, multiple, paper
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof.data.items import UNANSWERABLE
from tuneproof.servicekit.errors import InvalidInput

pytestmark = pytest.mark.timeout(30)


def written(folder: Path, name: str, value: Any) -> str:
    path = folder / name
    path.write_text(json.dumps(value))
    return str(path)


def corpus(folder: Path) -> str:
    return str(lines(folder / "corpus.jsonl", {"id": "d1", "text": "A gNB serves handsets."}))


def qasper(folder: Path, *questions: Any, **more: Any):
    path = written(folder, "qasper-dev-v0.3.json", {"1503.00841": paper(*questions)})
    return load({"name": "qasper", "path": path, **more})


@pytest.mark.parametrize(
    ("given_answer", "full", "short"),
    [
        ({"extractive_spans": ["300", " 300", "plants"]}, "300, plants", "300, plants"),
        ({"free_form_answer": "They use\nplants."}, "They use plants.", None),
        ({"yes_no": False}, "No", "No"),
        ({"yes_no": True}, "Yes", "Yes"),
        ({"free_form_answer": "No, never.", "yes_no": False}, "No, never.", "No"),
        ({"extractive_spans": ["300"], "free_form_answer": "Some."}, "300", "300"),
        ({"extractive_spans": [""], "free_form_answer": "Some."}, "Some.", None),
    ],
)
def test_qaspers_references_in_their_order(tmp_path, given_answer, full, short):
    (item,) = qasper(tmp_path, asked("q", answer(**given_answer))).items
    assert item.references == {"full": (full,)} | ({"short": (short,)} if short else {})
    assert item.answerable


def test_a_paper_is_a_document_and_a_cluster(tmp_path):
    evidence = ["It is small.", "It is\nsmall .", "FLOAT SELECTED: Table 1: Plants by colour"]
    question = asked("q", answer(free_form_answer="x", evidence=evidence))
    dataset = qasper(tmp_path, question)
    (document,), (item,) = dataset.documents, dataset.items
    assert document.text == (
        "We parse moss.\n\n## Introduction\n\nMoss is green.\n\nIt is small .\n\n"
        "## Data ::: Corpus\n\nWe use 300 plants.\n\nTable 1: Plants by colour"
    )
    assert (document.id, document.title) == ("1503.00841", "Parsing moss")
    assert (item.id, item.cluster, item.gold_documents) == ("q", "1503.00841", ("1503.00841",))
    assert item.gold_texts == ("It is small .", "Table 1: Plants by colour")
    assert "1 pieces of evidence are left out" in dataset.notes[0]
    assert not dataset.gold_only


def test_several_annotators_give_several_wordings_and_all_their_evidence(tmp_path):
    question = asked(
        "q",
        answer(unanswerable=True),
        answer(free_form_answer="Plants.", evidence=["We use 300 plants."]),
        answer(extractive_spans=["300 plants"], evidence=["Moss is green."]),
        answer(free_form_answer="Plants."),
    )
    (item,) = qasper(tmp_path, question).items
    assert item.references == {
        "full": ("Plants.", "300 plants", UNANSWERABLE),
        "short": ("300 plants", UNANSWERABLE),
    }
    assert item.gold_texts == ("We use 300 plants.", "Moss is green.")
    assert item.answerable


def test_an_unanswerable_question_is_left_out_or_kept(tmp_path):
    questions = [
        asked(
            "none", answer(unanswerable=True, free_form_answer="ignored"), answer(unanswerable=True)
        ),
        asked("some", answer(yes_no=False)),
        asked("empty", answer()),
        asked("unasked"),
    ]
    dataset = qasper(tmp_path, *questions)
    assert [item.id for item in dataset.items] == ["some"]
    assert dataset.left_out == {"unanswerable": 1, "without an answer": 2}
    assert dataset.notes == ("Questions left out: 2 without an answer, 1 unanswerable.",)
    kept, _ = qasper(tmp_path, *questions, unanswerable=True).items
    assert (kept.id, kept.answerable) == ("none", False)
    assert kept.references == dict.fromkeys(("full", "short"), (UNANSWERABLE,))
    assert kept.gold_documents == kept.gold_texts == ()


def test_styles_leave_out_what_lacks_them(tmp_path):
    questions = [asked("a", answer(free_form_answer="x")), asked("b", answer(yes_no=True))]
    dataset = qasper(tmp_path, *questions, styles="short")
    assert [item.id for item in dataset.items] == ["b"]
    assert dataset.left_out == {"without a 'short' reference": 1}


def test_a_mistake_in_qasper_is_told_with_paper_and_field(tmp_path):
    broken = asked("q", {"answer": {"yes_no": "perhaps"}})
    papers = {
        "1": paper(broken),
        "2": {"full_text": []},
        "3": paper(asked("r", question=" ")),
        "4": 5,
    }
    path = written(tmp_path, "dev.json", papers)
    with pytest.raises(InvalidInput) as caught:
        load({"name": "qasper", "path": path})
    for said in (
        "dev.json, paper 1: qas.0.answers.0.answer.yes_no: Input should be a valid boolean",
        "dev.json, paper 2: has no text",
        "dev.json, paper 3: question r is blank",
        "dev.json, paper 4: Input should be a valid dictionary",
    ):
        assert said in caught.value.message
    with pytest.raises(InvalidInput, match=r"not a file of Qasper 0\.3"):
        load({"name": "qasper", "path": written(tmp_path, "list.json", [])})


def test_a_question_of_teleqna_is_asked_without_its_options(tmp_path):
    questions = {
        "question 0": multiple(),
        "question 1": multiple(question="Which of the following is a handset?"),
        "question 2": multiple(
            **{"option 1": "All of the above", "answer": "option 1: All of the above"}
        ),
        "question 3": multiple(2, explanation=None),
        "question 4": multiple(
            **{"option 4": "Both options 1 and 2", "answer": "option 4: Both options 1 and 2"}
        ),
    }
    path = written(tmp_path, "TeleQnA.txt", questions)
    dataset = load({"name": "teleqna", "path": path, "corpus": corpus(tmp_path)})
    first, last = dataset.items
    assert first.question == "What is a gNB? [3GPP Release 18]"
    assert first.references == {
        "full": ("A gNB is the base station of 5G.",),
        "short": ("A base station",),
    }
    assert last.references == {"short": ("A handset",)}
    assert (first.cluster, last.cluster) == ("question 0", "question 3")
    assert first.gold_documents == ()
    assert dataset.left_out == {"cannot be asked without its options": 3}
    assert [document.id for document in dataset.documents] == ["d1"]


def test_a_mistake_in_teleqna_is_told_with_its_question(tmp_path):
    questions = {
        "question 0": multiple(answer="A base station"),
        "question 1": multiple(answer="option 9: A moon"),
        "question 2": multiple(question=""),
        "question 3": {"question": "x"},
    }
    path = written(tmp_path, "TeleQnA.txt", questions)
    with pytest.raises(InvalidInput) as caught:
        load({"name": "teleqna", "path": path, "corpus": corpus(tmp_path)})
    for said in (
        "TeleQnA.txt, question 0: answer: is not in the form `option 2: …`",
        "question 1: answer: there is no option 9",
        "question 2: question or answer is blank",
        "question 3: answer: Field required",
    ):
        assert said in caught.value.message


def test_nq_open_has_short_answers_only(tmp_path):
    file = lines(
        tmp_path / "NQ-open.dev.jsonl",
        {"question": "who", "answer": ["A", " A", "B"]},
        {"question": "what", "answer": []},
    )
    dataset = load({"name": "nq-open", "path": str(file), "corpus": corpus(tmp_path)})
    (item,) = dataset.items
    assert (item.id, item.references) == ("NQ-open.dev.jsonl:1", {"short": ("A", "B")})
    assert dataset.left_out == {"without an answer": 1}
    lines(file, {"question": "who"}, {"answer": ["x"]}, {"question": "a", "answer": "b"})
    with pytest.raises(InvalidInput, match=r"(?s)line 2: question: .*line 3: answer: ") as caught:
        load({"name": "nq-open", "path": str(file), "corpus": corpus(tmp_path)})
    assert "line 1" not in caught.value.message


def test_the_real_nq_open(tmp_path):
    folder = os.environ.get("TUNEPROOF_DATA")
    path = Path(folder or "") / "nq_open" / "NQ-open.dev.jsonl"
    if not folder or not path.exists():
        pytest.skip(
            "no NQ-open: get NQ-open.dev.jsonl from google-research-datasets/natural-questions"
        )
    dataset = load({"name": "nq-open", "path": str(path), "corpus": corpus(tmp_path)})
    assert len(dataset.items) == 3610
    assert all(item.references["short"] for item in dataset.items)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["question", "answer", "answers", "qas", "full_text", "paragraphs", "option 1"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(
    st.sampled_from(["qasper", "teleqna"]),
    st.dictionaries(st.text(max_size=3), VALUES, min_size=1, max_size=2),
)
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory, name, content):
    folder = tmp_path_factory.getbasetemp()
    path = written(folder, "any.json", content)
    more = {"corpus": corpus(folder)} if name == "teleqna" else {}
    with pytest.raises(InvalidInput):  # hypothesis finds no complete data set
        load({"name": name, "path": path, **more})
