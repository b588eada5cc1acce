"""`study label export` and `import` on a study that ran, with a scripted rater."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from pathlib import Path

import pytest
from fakes import served
from small_study import SmallStudy, invoke

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture
def small(tmp_path) -> SmallStudy:
    study = SmallStudy(tmp_path)

    async def run() -> None:
        async with served(study.world()) as target:
            await study.run(target)

    asyncio.run(run())
    return study


@pytest.fixture
def label(capsys, monkeypatch, small):
    """Runs `tuneproof study label` on the study."""

    def call(name: str, *rest: str) -> tuple[int, str, str]:
        flags = ["--state", str(small.state), *rest]
        return invoke(capsys, monkeypatch, "study", "label", name, str(small.file), *flags)

    return call


def content_of(page: Path) -> dict:
    found = re.search(r'id="content">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    return json.loads(found.group(1))


def rate(page: Path, file: Path, score, rater: str = "ann", count: int | None = None) -> Path:
    """What a rater saves who labels by `score(answer)`."""
    content = content_of(page)
    labels = [
        {
            "task": task["id"],
            "criterion": criterion["name"],
            "first": score(task["answers"][0]),
            "second": score(task["answers"][1]),
        }
        for task in content["tasks"][:count]
        for criterion in content["criteria"]
    ]
    head = {"schema": "tuneproof.labels/1", "study": content["study"], "sample": content["sample"]}
    file.write_text(json.dumps({**head, "rater": rater, "labels": labels}))
    return file


def test_from_the_page_to_the_report(label, small, capsys, monkeypatch, tmp_path) -> None:
    page, sheet = tmp_path / "label.html", tmp_path / "ann.json"
    sheet.write_text("{}")
    code, _, err = label("import", str(sheet))
    assert code == 1
    assert "nobody was asked about small" in err
    code, out, _ = label("export", "--plan")
    assert code == 0
    assert "accuracy" in out
    code, out, err = label("export", "--pairs", "8", "--repeats", "2", "--out", str(page))
    assert code == 0, err
    assert re.match(r"\d+ pairs to label, \d+ of them twice", out)
    assert "anchor 5" in page.read_text("utf-8")

    code, _, err = label("import", str(rate(page, sheet, lambda text: 6)))
    assert code == 2
    assert "6 is not on the scale" in err
    code, out, err = label("import", str(rate(page, sheet, lambda text: 3, count=6)))
    assert code == 0, err
    assert "labelled by 1 person" in out
    # The rest of the labels go on from these; others do not.
    code, _, err = label("import", str(rate(page, sheet, lambda text: 4)))
    assert code == 2
    assert "--replace" in err
    code, out, err = label("import", str(rate(page, sheet, lambda text: 3)), "--json")
    assert code == 0, err
    assert {one["criterion"] for one in json.loads(out)["agreement"]} == {
        "accuracy",
        "completeness",
    }

    report = partial(invoke, capsys, monkeypatch, "study", "report", str(small.file))
    code, out, _ = report("--state", str(small.state), "--json")
    assert code == 0
    told = json.loads(out)
    assert {one["criterion"] for one in told["agreement"]} == {"accuracy", "completeness"}
    assert all(one["raters"] == 1 for one in told["agreement"])


def test_a_page_is_written_again_but_never_drawn_again_unasked(label, tmp_path) -> None:
    page = tmp_path / "label.html"
    flags = ["--pairs", "6", "--out", str(page)]
    assert label("export", *flags)[0] == 0
    before = page.read_bytes()
    page.unlink()
    assert label("export", *flags)[0] == 0
    assert page.read_bytes() == before
    code, _, err = label("export", *flags, "--seed", "2")
    assert code == 2
    assert "--redraw" in err
    assert label("export", *flags, "--seed", "2", "--redraw")[0] == 0
    assert page.read_bytes() != before


def test_labels_of_answers_that_changed_are_left_out(label, small, tmp_path) -> None:
    page, sheet = tmp_path / "label.html", tmp_path / "ann.json"
    assert label("export", "--pairs", "6", "--repeats", "0", "--out", str(page))[0] == 0
    assert label("import", str(rate(page, sheet, lambda text: 3)))[0] == 0
    small.edit("generation: ", "prompt: {passage_words: 4}\ngeneration: ")

    async def again():
        async with served(small.world()) as target:
            return await small.run(target)

    results = asyncio.run(again())
    assert results.labels == ()
    assert any("labels are left out" in note for note in results.notes)
