"""The page as text: whole, escaped, self-contained, every item and cell in it."""

import base64
import hashlib
import re
from dataclasses import replace

import pytest
from html_page import Page

from tuneproof.analysis import compare
from tuneproof.report import build_report
from tuneproof.report.answers.packing import Words
from tuneproof.results import StudyResults

EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&</details></script>'


def rendered(study: StudyResults) -> Page:
    return Page(build_report(study, compare(study)))


@pytest.fixture(scope="module")
def page(study: StudyResults) -> Page:
    return rendered(study)


def test_every_item_answer_passage_and_reason_is_there(page: Page, study: StudyResults) -> None:
    index, items, passages = (page.unpacked(name) for name in ("index", "items", "passages"))
    reasons = page.unpacked("reasons")
    words = Words(tuple(index["words"]), {})
    assert sorted(index["items"]["anchor"]) == [f"item-{item.id}" for item in study.items]
    by_id = {item.id: item for item in study.items}
    given = {(answer.item, answer.cell): answer for answer in study.answers}
    for place, name in enumerate(index["items"]["id"]):
        item = by_id[name]
        assert index["items"]["question"][place] == item.question
        found = [passages[number] for number, _, _ in items[place]["passages"]]
        shown = [[document, words.read(text)] for document, text in found]
        assert shown == [[one.document_id, one.text] for one in item.retrieved]
        for cell, packed, why in zip(
            study.cells, items[place]["answers"], reasons[place], strict=True
        ):
            answer = given[name, cell.name]
            said = " ".join(words.read(part[1:]) for part in packed["text"] if part[0] != "-")
            assert said.split() == answer.text.split()
            assert answer.grade is not None
            assert {
                criterion: [repeat.completion for repeat in grade.repeats]
                for criterion, grade in answer.grade.criteria.items()
            } == {
                criterion: [words.read(text) for _, _, _, text in repeats]
                for criterion, repeats in why.items()
            }


def test_the_largest_loss_comes_first_and_a_shared_passage_once(
    page: Page, study: StudyResults
) -> None:
    index, passages = page.unpacked("index"), page.unpacked("passages")
    width = len(study.cells)
    losses = []
    for number in range(len(study.items)):
        row = [scores[number * width : (number + 1) * width] for scores in index["scores"]]
        losses.append(min(one - scores[0] for scores in row for one in scores[1:]))
    assert losses == sorted(losses)
    assert len({tuple(one) for one in passages}) == len(passages)


def test_links_and_references_lead_to_anchors_in_the_page(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = page.values("href")
    assert {target[:1] for target in targets} == {"#"}
    ids += page.unpacked("index")["items"]["anchor"]
    assert {target[1:] for target in targets} <= set(ids)
    for attribute in ("aria-labelledby", "data-item"):
        named = {name for value in page.values(attribute) for name in value.split()}
        assert named <= set(ids)


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for attribute in ("src", "srcset", "style", "action", "poster", "data", "onclick", "onload"):
        assert page.values(attribute) == []
    assert not {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "base"}
    assert len(page.scripts) == len(page.styles) == 1
    for text in (*page.scripts, *page.styles):
        assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|import\(", text)


def test_the_policy_allows_this_script_and_this_style_only(page: Page) -> None:
    (policy,) = [value for value in page.values("content") if "default-src" in value]

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == source(page.scripts[0])
    assert rules["style-src"] == source(page.styles[0])


def test_hostile_text_stays_text(study: StudyResults) -> None:
    first, judged = study.items[0], study.answers[0]
    assert judged.grade is not None
    accuracy = judged.grade.criteria["accuracy"]
    looks = (replace(accuracy.repeats[0], completion=EVIL), *accuracy.repeats[1:])
    grade = replace(
        judged.grade,
        criteria={**judged.grade.criteria, "accuracy": replace(accuracy, repeats=looks)},
    )
    item = replace(
        first,
        question=EVIL,
        references={"full": (EVIL,)},
        cluster=EVIL,
        retrieved=(replace(first.retrieved[0], text=EVIL, document_id=EVIL),),
    )
    answers = tuple(
        replace(answer, text=EVIL, error=EVIL, grade=grade) if answer.item == first.id else answer
        for answer in study.answers
    )
    cells = (study.cells[0], replace(study.cells[1], label=EVIL), *study.cells[2:])
    evil = rendered(
        replace(
            study,
            name=EVIL,
            description=EVIL,
            notes=(EVIL,),
            provenance={EVIL: EVIL},
            items=(item, *study.items[1:]),
            answers=answers,
            cells=cells,
        )
    )
    assert len(evil.scripts) == 1
    assert "img" not in {tag for tag, _ in evil.elements}
    assert not any(name.startswith("on") for _, attrs in evil.elements for name in attrs)
    assert evil.text.count("<script>alert(1)</script>") > 5
    assert evil.unpacked("index")["items"]["question"].count(EVIL) == 1


def test_item_ids_that_look_alike_get_anchors_of_their_own(study: StudyResults) -> None:
    a, b = study.items[0], study.items[1]
    renamed = {a.id: "q 1/\N{GREEK SMALL LETTER ALPHA}", b.id: "q-1-"}
    odd = rendered(
        replace(
            study,
            items=(
                replace(a, id="q 1/\N{GREEK SMALL LETTER ALPHA}"),
                replace(b, id="q-1-"),
                *study.items[2:],
            ),
            answers=tuple(
                replace(answer, item=renamed.get(answer.item, answer.item))
                for answer in study.answers
            ),
        )
    )
    ids = odd.unpacked("index")["items"]["anchor"]
    assert len(ids) == len(set(ids)) == len(study.items)
    assert all(re.fullmatch(r"item-[A-Za-z0-9._-]+", one) for one in ids)


def test_the_head_says_what_the_verdict_rests_on(page: Page, study: StudyResults) -> None:
    assert "no evidence about real models" in page.text
    assert "Self-judged" in page.text
    bare = rendered(
        replace(study, synthetic=False, toy_model=True, self_judged=False, gold_only=True, notes=())
    )
    assert "no evidence about real models" not in bare.text
    assert "Gold-only corpus" in bare.text
    assert "its answers here mean nothing" in bare.text


def test_without_a_judge_the_primary_score_stands_beside_each_question(
    study: StudyResults,
) -> None:
    lexical = replace(
        study,
        judge_model="",
        answers=tuple(
            replace(answer, grade=replace(answer.grade, criteria={}))
            for answer in study.answers
            if answer.grade is not None
        ),
        primary=tuple(
            replace(one, measure="token_f1") for one in study.primary if one.measure == "accuracy"
        ),
        margin={"token_f1": 0.05},
    )
    shown = rendered(lexical)
    index = shown.unpacked("index")
    assert [index["measures"][place]["label"] for place in index["shown"]] == ["Token F1"]
    assert "loses Token F1" in shown.text


def test_checks_retrieval_training_and_stages_are_shown(page: Page) -> None:
    for words in (
        "the evidence among 12 facts",
        "the passages that retrieval found",
        "The judge in completeness",
        "Rows: the right score",
        "success@5",
        "Loss 2.",
        "skip_modules",
        "2 min 28 s",
        "Exploratory differences",
        "Do the answers still use the passages?",
        "How answers fail",
        "fewer than half as many words as the shortest reference",
    ):
        assert words in page.text


def test_a_study_with_neither_judge_nor_checks_nor_answers_has_a_page(study: StudyResults) -> None:
    empty = rendered(
        replace(
            study,
            judge_model="",
            answers=(),
            retrieval=None,
            reader_checks=(),
            judge_checks=(),
            stage_seconds={},
            provenance={},
        )
    )
    assert "No judge was configured" in empty.text
    assert "240 of 240 answers are missing" in empty.text
    assert "Can the instruments be trusted" not in empty.text


def test_the_same_results_give_the_same_bytes(study: StudyResults) -> None:
    assert build_report(study, compare(study)) == build_report(study, compare(study))
