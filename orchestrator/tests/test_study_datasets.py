"""A whole study on data sets from files, against fakes of the services."""

from __future__ import annotations

import json
import re

import pytest
from data_files import annotation, answer, asked, lines, paper, simplified, span
from fakes import served
from small_study import SmallStudy

from tuneproof.data.items import UNANSWERABLE

pytestmark = pytest.mark.timeout(120)


def small_on(folder, dataset):
    small = SmallStudy(folder)
    text = small.file.read_text()
    text = re.sub(r"dataset: .*", f"dataset: {dataset}", text)
    small.file.write_text(re.sub(r"checks: .*\n", "", text))
    lines(folder / "noise.jsonl", *({"id": f"noise-{n}", "text": f"Noise {n}."} for n in range(9)))
    return small


def natural_questions(folder):
    """Thirty questions about thirty pages."""
    long, short = span("<Ul>", "</Ul>"), span("small", "one")
    pages = (
        simplified(n, annotation(long, short), document_url=f"http://w/index.php?title=Page_{n}")
        for n in range(30)
    )
    unlike = (
        {**one, "document_text": one["document_text"].replace("Moss", f"Plant{n}")}
        for n, one in enumerate(pages)
    )
    lines(folder / "nq.jsonl.gz", *unlike)
    return "{name: natural-questions, path: nq.jsonl.gz, items: 24, distractors: noise.jsonl}"


def qasper(folder):
    """Thirty papers, each with a question that it answers and one that it does not."""
    papers = {}
    for n in range(30):
        some = answer(yes_no=False, evidence=[f"Moss {n} is green."])
        sections = [{"section_name": "Results", "paragraphs": [f"Moss {n} is green."]}]
        no = asked(f"no-{n}", answer(unanswerable=True), question=f"Who planted moss {n}?")
        yes = asked(f"yes-{n}", some, question=f"Is moss {n} red?")
        papers[f"p{n}"] = paper(yes, no, full_text=sections)
    (folder / "qasper.json").write_text(json.dumps(papers))
    return "{name: qasper, path: qasper.json, unanswerable: true, distractors: [noise.jsonl]}"


@pytest.mark.parametrize("make", [natural_questions, qasper])
async def test_a_study_on_files_runs_from_documents_to_grades(tmp_path, make):
    small = small_on(tmp_path, make(tmp_path))
    async with served(small.world()) as target:
        results = await small.run(target)
    assert len(results.answers) == 3 * 12
    assert all(answer.error == "" for answer in results.answers)
    assert not results.gold_only
    assert any("9 documents without evidence are searched too" in note for note in results.notes)
    assert results.retrieval is not None
    if make is qasper:
        wordings = {text for item in results.items for text in item.references["full"]}
        assert wordings == {"No", UNANSWERABLE}
        assert results.retrieval.items < len(results.items), "unanswerable ones have no gold"
