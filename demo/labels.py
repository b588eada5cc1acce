"""The whole way from the demo's answers to an anchored verdict, with a rater who is a program.

    python demo/labels.py [STUDY] [--state FOLDER]

The program knows the right scores, and likes the adapter that the judge finds best two points less
than they say. So the judge's verdict on that adapter is wrong about this rater. The page is
exported, rated and imported by the commands that people use, on a copy of the study's state. Ends
with 1 where the anchored verdicts are not what the rater thinks of all pairs.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tuneproof.data.telecom import score
from tuneproof.results import StudyResults
from tuneproof.study.opened import Study

DISLIKE = 2
"""Points that the rater takes off an answer of the adapter."""

PAIRS = 60


class Rater:
    """Scores an answer to a question, whoever gave it."""

    def __init__(self, results: StudyResults, disliked: str) -> None:
        self._items = {item.question: item for item in results.items}
        texts: dict[str, dict[str, str]] = {}
        for answer in results.answers:
            texts.setdefault(answer.cell, {})[answer.item] = answer.text
        self._mine, self._usual = texts[disliked], texts[results.baseline]

    def score(self, question: str, answer: str, criterion: str) -> int:
        """The right score, less the dislike."""
        item = self._items[question]
        right = score(item.references["full"][0], answer)[criterion]
        is_disliked = answer == self._mine[item.id] != self._usual[item.id]
        return max(1, right - DISLIKE * is_disliked)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", nargs="?", type=Path, default=Path("studies/demo.yaml"))
    parser.add_argument("--state", type=Path, default=Path(".tuneproof"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        for file in options.state.glob("study.sqlite*"):
            shutil.copy(file, state)
        return _loop(options.study, state)


def _loop(study: Path, state: Path) -> int:
    results = Study.open(study, state).results
    before = _run("study", "report", study, "--state", state)
    disliked = max(
        (one for one in before["comparisons"] if one["verdict"] == "better"),
        key=lambda one: one["interval"]["low"],
    )["cell"]
    rater = Rater(results, disliked)
    page, sheet = state / "label.html", state / "labels.json"
    _run("study", "label", "export", study, "--state", state, "--pairs", PAIRS, "--out", page)
    sheet.write_text(json.dumps(_rated(page, rater)))
    _run("study", "label", "import", study, sheet, "--state", state)
    after = _run("study", "report", study, "--state", state)
    wrong = list(_wrong(after, results, rater, disliked))
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


def _rated(page: Path, rater: Rater) -> dict[str, Any]:
    """What the page saves when the rater is done."""
    found = re.search(r'id="content">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    content = json.loads(found.group(1)) if found else {}
    labels = []
    for task in content["tasks"]:
        for criterion in content["criteria"]:
            first, second = (
                rater.score(task["question"], answer, criterion["name"])
                for answer in task["answers"]
            )
            labels.append({"task": task["id"], "criterion": criterion["name"],
                           "first": first, "second": second})  # fmt: skip
    head = {"schema": "tuneproof.labels/1", "study": content["study"], "sample": content["sample"]}
    return {**head, "rater": "script", "labels": labels}


def _wrong(report: dict[str, Any], results: StudyResults, rater: Rater, disliked: str) -> list[str]:
    """What is not as the rater thinks."""
    texts = {(one.cell, one.item): one.text for one in results.answers}
    wrong, judged_wrong = [], 0
    for judged, support in zip(report["comparisons"], report["support"], strict=True):
        cell, against, criterion = judged["cell"], judged["against"], judged["measure"]
        truth = sum(
            rater.score(item.question, texts[cell, item.id], criterion)
            - rater.score(item.question, texts[against, item.id], criterion)
            for item in results.items
        ) / len(results.items)
        anchored = support["anchored"]
        spans = [one["interval"] for one in (judged, anchored)]
        told = [f"{span['low']:+.2f} to {span['high']:+.2f}" for span in spans]
        print(
            f"{cell}, {criterion}: {truth:+.2f} by the rater on all pairs; {judged['words']}"
            f" by the judge ({told[0]}), {anchored['words']} anchored in {anchored['labels']}"
            f" labels ({told[1]})"
        )
        holds = [span["low"] <= truth <= span["high"] for span in spans]
        if not holds[1]:
            wrong.append(f"{cell}, {criterion}: the anchored interval misses {truth:+.2f}")
        if cell == disliked:
            judged_wrong += judged["verdict"] == "better" and not holds[0]
            if anchored["verdict"] != "worse":
                wrong.append(f"{cell}, {criterion}: {anchored['words']}, not worse")
    if not judged_wrong:
        wrong.append(f"the judge's verdicts on {disliked} are right: nothing is shown")
    label = next(one["label"] for one in report["cells"] if one["name"] == disliked)
    first = [one["text"] for one in report["warnings"] if one["kind"] == "caution"]
    if not any(text.startswith(label) and text.endswith("The labels count.") for text in first):
        wrong.append("the report does not say first that people disagree with the judge")
    return wrong


def _run(*arguments: object) -> Any:
    """What a command tells as JSON."""
    command = [sys.executable, "-m", "tuneproof.cli.main", *map(str, arguments), "--json"]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ended.stdout)


if __name__ == "__main__":
    sys.exit(main())
