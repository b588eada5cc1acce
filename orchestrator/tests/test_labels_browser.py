"""The labelling page in a real browser: keys, resumption, the saved file, accessibility."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from browsing import opened, violations, width_of
from judged_pairs import around, judged
from playwright.sync_api import Browser, Page, expect
from test_labels import RUBRIC

from tuneproof.labels import Sample, build_page, draw, ratings_of
from tuneproof.results import StudyResults

pytestmark = pytest.mark.timeout(60)

RESULTS: StudyResults = replace(judged(around(0.0, count=20)), name="ours")
SAMPLE: Sample = draw(RESULTS, pairs=3, repeats=1, seed=1)


@pytest.fixture
def address(tmp_path: Path) -> str:
    file = tmp_path / "label.html"
    file.write_text(build_page(RESULTS, SAMPLE, [RUBRIC]), "utf-8")
    return file.as_uri()


def saved(page: Page, folder: Path) -> dict:
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save labels").click()
    file = folder / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return json.loads(file.read_text("utf-8"))


def test_a_rater_labels_by_keys_saves_and_goes_on_later(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    with opened(browser, address) as page:
        progress = page.locator("#progress")
        page.get_by_role("button", name="Save labels").click()
        expect(page.get_by_role("alert")).to_contain_text("Write your name first")
        page.get_by_label("Your name").fill("Ann 7")
        expect(progress).to_have_text("0 of 4 pairs")
        page.locator("#question").focus()
        page.keyboard.press("4")
        page.keyboard.press("9")  # no score
        page.keyboard.press("2")
        expect(progress).to_have_text("1 of 4 pairs")
        page.keyboard.press("Backspace")
        page.keyboard.press("3")
        page.keyboard.press("Enter")
        for key in "15":
            page.keyboard.press(key)
        expect(progress).to_have_text("2 of 4 pairs")
        page.keyboard.press("p")
        expect(
            page.get_by_role("group", name="accuracy of answer A").get_by_label("4")
        ).to_be_checked()

        # The browser keeps what was done.
        page.reload()
        expect(progress).to_have_text("2 of 4 pairs")
        expect(page.get_by_label("Your name")).to_have_value("Ann 7")
        expect(
            page.get_by_role("group", name="accuracy of answer A").get_by_label("4")
        ).to_be_checked()
        sheet = saved(page, tmp_path)
    first, second, *_ = SAMPLE.tasks
    assert (tmp_path / "labels-ours-Ann-7.json").exists()
    assert sheet["labels"] == [
        {"task": first.id, "criterion": "accuracy", "first": 4, "second": 3},
        {"task": second.id, "criterion": "accuracy", "first": 1, "second": 5},
    ]
    rater, ratings = ratings_of(sheet, SAMPLE, RESULTS)
    assert (rater, len(ratings)) == ("Ann 7", 2)


def test_another_browser_continues_from_the_file(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    labels = [
        {"task": task.id, "criterion": "accuracy", "first": 2, "second": 5}
        for task in SAMPLE.tasks[:3]
    ]
    head = {"schema": "tuneproof.labels/1", "study": "ours", "sample": SAMPLE.digest}
    mine, other = tmp_path / "mine.json", tmp_path / "other.json"
    mine.write_text(json.dumps({**head, "rater": "bob", "labels": labels}))
    other.write_text(json.dumps({**head, "rater": "bob", "labels": labels, "sample": "sha256:0"}))
    with opened(browser, address) as page:
        chosen = page.get_by_label("Continue from a file")
        chosen.set_input_files(str(other))
        expect(page.get_by_role("alert")).to_contain_text("it is of another page")
        chosen.set_input_files(str(mine))
        expect(page.locator("#progress")).to_have_text("3 of 4 pairs")
        assert saved(page, tmp_path)["labels"] == labels
        page.get_by_role("group", name="accuracy of answer A").get_by_label("1").check()
        page.get_by_role("group", name="accuracy of answer B").get_by_label("2").check()
        expect(page.locator("#progress")).to_have_text("4 of 4 pairs")
        expect(page.get_by_role("button", name="Next pair")).to_be_disabled()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_fits_its_window_and_axe_finds_no_violation(
    browser: Browser, address: str, scheme: Literal["light", "dark"], width: int
) -> None:
    with opened(browser, address, scheme=scheme, width=width) as page:
        assert width_of(page) <= width
        assert violations(page) == []
