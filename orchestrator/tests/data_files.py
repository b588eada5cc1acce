"""Data sets for tests, in the exact forms in which they are published."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tuneproof.data import Dataset
from tuneproof.data.sources import DataSource

Json = dict[str, Any]

PAGE = (
    "<H1> Moss </H1> <P> Moss is a plant ( a small one ) . It grows in 3 weeks . </P>"
    " <Table> <Tr> <Th> Part </Th> <Th> Size </Th> </Tr> <Tr> <Td> Leaf </Td> <Td> 2 mm </Td> </Tr>"
    " </Table> <Ul> <Li> It has no roots , </Li> <Li> nor flowers . </Li> </Ul>"
)
"""The tokens of a page, with one space between them."""


def load(values: Json) -> Dataset:
    """What `dataset:` of a study file describes."""
    return TypeAdapter(DataSource).validate_python(values).load()


def span(first: str, last: str) -> Json:
    """Of the page: from its first such token to before the one after the next such last one."""
    words = PAGE.split(" ")
    start = words.index(first)
    return {"start_token": start, "end_token": words.index(last, start) + 1}


NONE = {"start_token": -1, "end_token": -1, "candidate_index": -1}


def annotation(long: Json = NONE, *short: Json, yes_no: str = "NONE") -> Json:
    return {
        "annotation_id": 7,
        "long_answer": {"candidate_index": 0, **long},
        "short_answers": list(short),
        "yes_no_answer": yes_no,
    }


def simplified(number: int, *annotations: Json, page: str = PAGE, **more: Any) -> Json:
    """A question in the simplified form."""
    tokens = page.split(" ")
    candidates = [
        {
            "start_token": start,
            "end_token": tokens.index(f"</{tag[1:]}", start) + 1,
            "top_level": True,
        }
        for start, tag in enumerate(tokens)
        if tag in ("<P>", "<Table>", "<Ul>")
    ]
    return {
        "document_text": page,
        "long_answer_candidates": candidates,
        "question_text": f"question {number}",
        "annotations": list(annotations),
        "document_url": "https://en.wikipedia.org//w/index.php?title=Moss_%28plant%29&amp;oldid=12",
        "example_id": number,
        **more,
    }


def original(example: Json) -> Json:
    """The same question in the original form, its keys in the order of the original files."""
    at, tokens = 0, []
    for token in example["document_text"].split(" "):
        tokens.append(
            {
                "end_byte": at + len(token.encode()),
                "html_token": token.startswith("<"),
                "start_byte": at,
                "token": token,
            }
        )
        at += len(token.encode()) + 1
    made = {key: value for key, value in example.items() if key != "document_text"} | {
        "document_html": f"<html>{example['document_text']}</html>",
        "document_title": "Moss (plant)",
        "document_tokens": tokens,
        "question_tokens": example["question_text"].split(),
    }
    return dict(sorted(made.items()))


def lines(path: Path, *values: Any) -> Path:
    """A file of JSON Lines, packed if its name says so."""
    text = "".join(json.dumps(value) + "\n" for value in values).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def answer(**more: Any) -> Json:
    """An annotator's answer as Qasper has it; empty but for what is given."""
    given = {
        "unanswerable": False,
        "extractive_spans": [],
        "yes_no": None,
        "free_form_answer": "",
        "evidence": [],
        "highlighted_evidence": [],
    }
    return {"answer": given | more, "annotation_id": "a", "worker_id": "w"}


def asked(name: str, *answers: Json, **more: Any) -> Json:
    """A question as Qasper has it."""
    return {
        "question": f"What is {name}?",
        "question_id": name,
        "nlp_background": "two",
        "topic_background": "unfamiliar",
        "paper_read": "no",
        "search_query": "",
        "question_writer": "w",
        "answers": list(answers),
        **more,
    }


def paper(*questions: Json, **more: Any) -> Json:
    """A paper as Qasper has it."""
    return {
        "title": "Parsing moss",
        "abstract": "We parse moss.",
        "full_text": [
            {"section_name": "Introduction", "paragraphs": ["Moss is green.", "It is\nsmall ."]},
            {"section_name": None, "paragraphs": []},
            {"section_name": "Data ::: Corpus", "paragraphs": ["We use 300 plants.", ""]},
        ],
        "qas": list(questions),
        "figures_and_tables": [{"file": "1-Table1-1.png", "caption": "Table 1: Plants by colour"}],
        **more,
    }


def multiple(right: int = 1, **more: Any) -> Json:
    """A question as TeleQnA has it."""
    options = {"option 1": "A base station", "option 2": "A handset", "option 3": "A core"}
    return {
        "question": "What is a gNB? [3GPP Release 18]",
        **options,
        "answer": f"option {right}: {options[f'option {right}']}",
        "explanation": "A gNB is the base station of 5G.",
        "category": "Standards specifications",
        **more,
    }
