"""studies/paper: each file is planned, on made data in the original formats."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from data_files import annotation, answer, asked, lines, multiple, paper, simplified
from small_study import invoke

from tuneproof.cli import plan_table
from tuneproof.data.lengths import Lengths
from tuneproof.servicekit.errors import InvalidInput

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]
STUDIES = Path(__file__).parents[2] / "studies/paper"
BASES = ("llama-2-7b", "llama-2-13b", "mistral-7b", "mixtral-8x7b")
QUESTIONS = 2400
"""Enough for 1,000 pairs and 500 test questions."""


def bioasq(folder: Path) -> None:
    questions = [
        {
            "id": f"q{number}",
            "type": "summary",
            "body": f"What does gene {number} do?",
            "documents": [f"http://www.ncbi.nlm.nih.gov/pubmed/{number}"],
            "snippets": [
                {
                    "document": f"http://www.ncbi.nlm.nih.gov/pubmed/{number}",
                    "text": f"Gene {number} does this and that.",
                    "beginSection": "abstract",
                    "endSection": "abstract",
                    "offsetInBeginSection": 0,
                    "offsetInEndSection": 20,
                }
            ],
            "ideal_answer": [f"Gene {number} does this."],
        }
        for number in range(QUESTIONS)
    ]
    half = QUESTIONS // 2
    (folder / "training13b.json").write_text(json.dumps({"questions": questions[:half]}))
    (folder / "12B1_golden.json").write_text(json.dumps({"questions": questions[half:]}))


def natural_questions(folder: Path) -> None:
    examples = []
    for number in range(QUESTIONS):
        page = f"<H1> Moss {number} </H1> <P> Moss {number} grows in {number} weeks . </P>"
        words = page.split(" ")
        start = words.index("<P>")
        long = {"start_token": start, "end_token": len(words)}
        short = {"start_token": len(words) - 4, "end_token": len(words) - 2}
        url = f"https://en.wikipedia.org//w/index.php?title=Moss_{number}&amp;oldid=12"
        notes = annotation(long, short)
        examples.append(simplified(number, notes, page=page, document_url=url))
    lines(folder / "simplified-nq-train.jsonl.gz", *examples)


def qasper(folder: Path) -> None:
    for part, name in enumerate(("train", "dev", "test")):
        papers = {}
        for number in range(QUESTIONS // 6):
            key = f"{part}.{number}"
            text = f"Moss {key} is green."
            noted = answer(free_form_answer="Moss.", evidence=[text])
            questions = [asked(f"{key}.{one}", noted) for one in range(2)]
            parts = [{"section_name": "Data", "paragraphs": [text]}]
            own = {"title": f"Moss {key}", "abstract": f"We parse {key}.", "full_text": parts}
            papers[key] = paper(*questions, **own, figures_and_tables=[])
        (folder / f"qasper-{name}-v0.3.json").write_text(json.dumps(papers))


def teleqna(folder: Path) -> None:
    questions = {
        f"question {number}": multiple(question=f"What is gNB {number}?")
        for number in range(QUESTIONS)
    }
    (folder / "TeleQnA.txt").write_text(json.dumps(questions))
    (folder / "telecom-documents").mkdir()
    (folder / "telecom-documents/38.300.txt").write_text("A gNB is a base station.")


MADE = {
    "bioasq": bioasq,
    "natural-questions": natural_questions,
    "qasper": qasper,
    "teleqna": teleqna,
}


def test_there_is_a_file_for_each_data_set():
    assert {path.stem for path in STUDIES.glob("*.yaml")} == set(MADE)


class Long:
    """A tokenizer of Llama 2's context, for which every text has 150 tokens."""

    context = 4096

    def __init__(self, model: str) -> None:
        of = "mixtral" if "Mixtral" in model else "llama"
        self.config = {"model_type": of, **SHAPES["13b" if "13b" in model else "7b"]}
        if of == "mixtral":
            self.config |= {"num_local_experts": 8, "intermediate_size": 14336}

    def lengths(self, texts):
        return Lengths(len(texts), 150, 150, 150, "")


SHAPES = {
    "7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "13b": {
        "vocab_size": 32000,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
}
"""Of Llama 2, and of Mistral and Mixtral but for their inner width and fewer key heads."""


@pytest.mark.parametrize("name", sorted(MADE))
def test_prompts_fit_llama_2_and_every_training_but_mixtrals_an_h100(
    name, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(plan_table, "open_tokenizer", Long)
    value = planned(name, tmp_path, capsys, monkeypatch)
    assert not [each for each in value["warnings"] if "the model reads" in each]
    large = {each.split(":")[0] for each in value["warnings"] if "more than is safe" in each}
    assert all(each.startswith("mixtral") for each in large)
    assert large
    memory = {cell["cell"]: cell["memory_gib"] for cell in value["grid"] if cell["tuned"]}
    assert memory["llama-2-7b-tuned-1000-s1"] < memory["llama-2-13b-tuned-1000-s1"] < 20
    assert memory["mixtral-8x7b-tuned-1000-s1"] > 80


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_study_of_the_paper_is_planned(name, tmp_path, capsys, monkeypatch):
    def no_hub(model):
        raise InvalidInput(f"{model} is on the hub")

    monkeypatch.setattr(plan_table, "open_tokenizer", no_hub)
    value = planned(name, tmp_path, capsys, monkeypatch)
    grid = value["grid"]
    tuned = {cell["arm"] for cell in grid if cell["tuned"]}
    assert {"tuned", "pairs"} <= tuned <= {"tuned", "pairs", "short"}
    assert {cell["size"] for cell in grid if cell["tuned"]} == {200, 500, 1000}
    assert {cell["seed"] for cell in grid if cell["tuned"]} == {1, 2, 3}
    assert value["counts"]["trainings"] == len(tuned) * 3 * 3 * len(BASES)
    assert value["counts"]["test questions"] == 500
    assert value["counts"]["judgements"] == value["counts"]["answers"] * 2 * 10
    assert value["counts"]["primary comparisons"] == 2 * 3 * 2
    # How large the pool is depends on the files, which are made here.
    assert all("share about" in warning for warning in value["warnings"])


def planned(name, tmp_path, capsys, monkeypatch):
    """The plan of a file of studies/paper, over data in its form."""
    study = tmp_path / f"{name}.yaml"
    shutil.copy(STUDIES / study.name, study)
    (tmp_path / "data").mkdir()
    MADE[name](tmp_path / "data")
    call = partial(invoke, capsys, monkeypatch)
    code, out, err = call("study", "plan", str(study), "--state", str(tmp_path / "s"), "--json")
    assert code == 0, err
    return json.loads(out)
