"""The page on which one rater labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tuneproof.analysis.scores import answers_by_cell
from tuneproof.labels.sampling import Sample
from tuneproof.report.document import asset, environment, policy
from tuneproof.results import StudyResults
from tuneproof.rubrics import Rubric

_PACKAGE = "tuneproof.labels"


def build_page(results: StudyResults, sample: Sample, rubrics: Sequence[Rubric]) -> str:
    """One self-contained HTML file without a word on which cell gave which answer.

    It works from a file, loads nothing, and keeps what was labelled in the browser's storage; the
    rater saves the labels as a file, which also continues the work elsewhere.

    Args:
        rubrics: the judge's; raters see their descriptions and anchors.
    """
    style = asset("palette.css") + asset("label.css", _PACKAGE)
    script = asset("label.js", _PACKAGE)
    content = json.dumps(_content(results, sample, rubrics), ensure_ascii=False)
    return (
        environment(_PACKAGE)
        .get_template("label.html.j2")
        .render(
            study=sample.study,
            count=len(sample.tasks),
            # `</script>` or `<!--` in an answer must not end the element.
            content=content.replace("<", "\\u003c"),
            style=style,
            script=script,
            policy=policy(style, script),
        )
    )


def _content(results: StudyResults, sample: Sample, rubrics: Sequence[Rubric]) -> dict[str, Any]:
    answers = answers_by_cell(results)
    items = {one.id: one for one in results.items}
    tasks = []
    for task in sample.tasks:
        item = items[task.item]
        texts = [answers[cell][task.item].text for cell in (task.cell, task.against)]
        tasks.append(
            {
                "id": task.id,
                "question": item.question,
                "references": item.references.get(results.reference_style, ()),
                "passages": [passage.text for passage in item.retrieved],
                "answers": texts[::-1] if task.swapped else texts,
            }
        )
    criteria = [
        {
            "name": rubric.criterion,
            "description": rubric.description,
            "low": rubric.low,
            "high": rubric.high,
            "anchors": {str(score): words for score, words in rubric.scale.items()},
        }
        for rubric in rubrics
        if rubric.criterion in sample.criteria
    ]
    return {"study": sample.study, "sample": sample.digest, "criteria": criteria, "tasks": tasks}
