"""`tuneproof judge steps`, against a judge that drafts by a script."""

import json
from functools import partial
from pathlib import Path

import pytest
from small_study import invoke

from tuneproof.cli import asking
from tuneproof.rubrics import parse_rubric
from tuneproof.sdk import StepsDraft

pytestmark = pytest.mark.timeout(20)

RUBRIC = """\
id: tone@1
criterion: tone
description: Whether it is polite.
scale: {1: Rude., 3: Polite.}
low: 1
high: 3
template: "{{steps}} {{answer}} {{form}}"
"""


@pytest.fixture
def run(capsys, monkeypatch, tmp_path: Path):
    asked = []

    class Judge:
        async def draft_steps(self, *given, seed):
            asked.append((*given, seed))
            return StepsDraft(("Read it.", "Choose."), "toy")

    async def drafted(work):
        return await work(Judge())

    def run_with(client, endpoints, work):
        import asyncio

        return asyncio.run(drafted(work))

    monkeypatch.setattr(asking, "_run", run_with)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tone.yaml").write_text(RUBRIC)
    call = partial(invoke, capsys, monkeypatch)
    return lambda *words: (call(*words), asked)


def test_steps_are_drafted_and_frozen_in_the_written_rubric(run, tmp_path: Path) -> None:
    (code, out, err), asked = run(
        "judge", "steps", "tone.yaml", "--out", "whole.yaml", "--seed", "3", "--json"
    )
    assert code == 0, err
    assert asked == [("tone", "Whether it is polite.", {1: "Rude.", 3: "Polite."}, 3)]
    written = parse_rubric((tmp_path / "whole.yaml").read_bytes(), "whole.yaml")
    assert written.steps == ("Read it.", "Choose.")
    assert json.loads(out)["digest"] == written.digest
    assert "by toy, seed 3" in (tmp_path / "whole.yaml").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (RUBRIC + "steps: [Read.]\n", "has steps already"),
        (RUBRIC.replace("3: Polite.", "2: Polite."), "scale"),
        ("- 1", "expected a rubric"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_file_that_is_no_rubric_without_steps_is_refused(
    run, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "tone.yaml").write_text(content)
    (code, _, err), asked = run("judge", "steps", "tone.yaml", "--out", "whole.yaml")
    assert (code, asked) == (2, [])
    assert said in err
    assert not (tmp_path / "whole.yaml").exists()
