"""How large a report of 10,000 answers is, and how soon a browser shows it.

    make bench-report
    python benchmarks/report.py --loads 2 --check   # as CI does: ends with 1 where a bar is missed

Each answer has 80 words and twenty reasons of the judge (two criteria, ten repeats) of 30 words;
each question has five passages of 100 words that no other question has. Words are drawn by Zipf's
law from 20,000 made ones, each independently of the last, so they pack worse than real text.

`megabytes` (10⁶ bytes) is the file. `seconds_to_interactive` is the time from the start of the
navigation, from a file, until the rows are drawn and the filters work, two frames later; the median
of the loads. `seconds_to_open` is the time from then on from a click on a row until its answers
show, `seconds_to_reasons` from a click on a grade until its reasons show, and `seconds_to_search`
from a word typed until all texts are searched. `seconds_to_write` is the time that making the file
takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuneproof.analysis import compare
from tuneproof.report import build_report
from tuneproof.results import (
    Answer,
    Cell,
    CriterionGrade,
    Grade,
    ItemResult,
    Repeat,
    Retrieved,
    StudyResults,
)
from tuneproof.results.testing import results_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BARS = {"megabytes": 30.0, "seconds_to_interactive": 2.0}
"""The most that `--check` lets pass."""
CRITERIA = ("accuracy", "completeness")
CHROMIUM = "/usr/bin/chromium"

_SYLLABLES = (
    "ta",
    "re",
    "mo",
    "li",
    "sen",
    "dor",
    "vi",
    "ka",
    "lun",
    "pe",
    "ster",
    "no",
    "gra",
    "el",
)

_INTERACTIVE = """() => new Promise(done => {
  const frames = () => requestAnimationFrame(() =>
    requestAnimationFrame(() => done(performance.now())));
  const look = () => document.documentElement?.dataset.ready === undefined
    ? setTimeout(look, 2) : frames();
  look();
})"""

_UNTIL = """([action, selector]) => new Promise(done => {
  const start = performance.now();
  const look = () => document.querySelector(selector)
    ? requestAnimationFrame(() => done(performance.now() - start)) : setTimeout(look, 5);
  new Function(action)();
  look();
})"""


def main() -> None:
    """Makes the report, opens it, prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--cells", type=int, default=2, help="the baseline among them")
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="end with 1 where a bar is missed")
    parser.add_argument("--keep", type=Path, help="where the report is to stay")
    given = parser.parse_args()
    results = study(given.answers // given.cells, given.cells)
    print(f"{len(results.answers)} answers to {len(results.items)} questions", file=sys.stderr)
    comparisons = compare(results)
    start = time.perf_counter()
    page = build_report(results, comparisons)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "report.html"
        path.write_text(page, "utf-8")
        figures: dict[str, float] = {"megabytes": round(path.stat().st_size / 1e6, 2)}
        figures |= opened(path.resolve().as_uri(), given.loads)
    figures["seconds_to_write"] = round(seconds, 2)
    missed = [
        f"{name} {figures[name]} > {bar:g}" for name, bar in BARS.items() if figures[name] > bar
    ]
    for text in missed:
        print(f"missed: {text}", file=sys.stderr)
    print(json.dumps({"bench": "report", "results": figures}))
    sys.exit(1 if given.check and missed else 0)


def opened(address: str, loads: int) -> dict[str, float]:
    """Loads the page several times, each in a browser window of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        rounds = [_load(browser, address) for _ in range(loads)]
        browser.close()
    return {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}


def _load(browser: Browser, address: str) -> dict[str, float]:
    # A page's policy forbids the scripts of tests too.
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(address, wait_until="commit")
    ready = page.evaluate(_INTERACTIVE)
    first = "document.querySelector('.item > summary').click()"
    grade = "document.querySelector('.judged > summary').click()"
    search = (
        "const box = document.getElementById('search'); box.value = 'nowhere';"
        "box.dispatchEvent(new Event('input', { bubbles: true }));"
    )
    done = {
        "seconds_to_interactive": ready,
        "seconds_to_open": page.evaluate(_UNTIL, [first, ".item[open] .cell .text"]),
        "seconds_to_reasons": page.evaluate(_UNTIL, [grade, ".judged[open] li"]),
        "seconds_to_search": page.evaluate(_UNTIL, [search, "#filters[data-searched]"]),
    }
    context.close()
    return {name: value / 1000.0 for name, value in done.items()}


@dataclass
class Words:
    """A made language."""

    rng: np.random.Generator
    vocabulary: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, seed: int, size: int = 20_000) -> Words:
        """The same language for the same seed."""
        rng = np.random.default_rng(seed)
        made = {"".join(rng.choice(_SYLLABLES, rng.integers(1, 5))) for _ in range(3 * size)}
        vocabulary = np.array(sorted(made)[:size])
        rng.shuffle(vocabulary)
        weights = 1.0 / np.arange(1, len(vocabulary) + 1)
        return cls(rng, vocabulary, weights / weights.sum())

    def texts(self, count: int, words: int) -> list[str]:
        """Texts of so many words each."""
        drawn = self.rng.choice(self.vocabulary, (count, words), p=self.weights)
        return [" ".join(row) for row in drawn]


def study(items: int, cells: int) -> StudyResults:
    """A study of so many questions and cells, one of them the baseline."""
    words = Words.of(1)
    rng = words.rng
    made = [Cell("baseline", "Baseline", "baseline", 0, 0, None, tuned=False)]
    made += [
        Cell(f"arm-200-s{seed}", f"arm 200 #{seed}", "arm", 200, seed, None)
        for seed in range(1, cells)
    ]
    questions = []
    answers: list[Answer] = []
    for number in range(items):
        texts = words.texts(5, 100)
        found = tuple(
            Retrieved(f"p{number}-{place}", f"doc-{number}", text, 0.9 - place / 10, place == 0)
            for place, text in enumerate(texts)
        )
        reference, *given = words.texts(1 + cells, 80)
        question = " ".join(reference.split()[:12])
        name = f"q{number:05d}"
        questions.append(
            ItemResult(name, f"{question}?", {"full": (reference,)}, f"doc-{number}", found)
        )
        for cell, text in zip(made, given, strict=True):
            grades = {one: _grade(one, words.texts(10, 30), rng) for one in CRITERIA}
            overlap = {"exact_match": 0.0, "token_f1": 0.4, "rouge_l": 0.3}
            answers.append(
                Answer(cell.name, name, text, "stop", 900, 110, 1.2, cell.name,
                       Grade(grades, overlap, "judge"))
            )  # fmt: skip
    return results_of(
        questions,
        made,
        answers,
        name="large",
        description="A report of a large study.",
        synthetic=True,
    )


def _grade(criterion: str, reasons: list[str], rng: np.random.Generator) -> CriterionGrade:
    scores = rng.integers(1, 6, len(reasons))
    repeats = tuple(
        Repeat(seed, int(score), "", text)
        for seed, (score, text) in enumerate(zip(scores, reasons, strict=True))
    )
    mean, spread = float(scores.mean()), float(scores.std(ddof=1))
    return CriterionGrade(criterion, f"{criterion}@1", "sha256:0", mean, spread, repeats)


if __name__ == "__main__":
    main()
