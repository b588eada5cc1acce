"""docs/results.ipynb, cell by cell, on the results of a study that ran."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path

import pytest
from fakes import served
from small_study import SmallStudy, invoke

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs/results.ipynb"


def runner():
    """demo/notebook.py, which runs the same cells on the demo's results in CI."""
    found = importlib.util.spec_from_file_location("notebook", ROOT / "demo/notebook.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def results(tmp_path, capsys, monkeypatch):
    """A study with two sizes and seeds, exported."""
    small = SmallStudy(tmp_path)
    small.edit("sizes: [8], seeds: [1]", "sizes: [4, 8], seeds: [1, 2]")

    async def run():
        async with served(small.world()) as target:
            await small.run(target)

    asyncio.run(run())
    words = ["study", "export", str(small.file), "--state", str(small.state), "--out", "r.json"]
    monkeypatch.chdir(tmp_path)
    assert invoke(capsys, monkeypatch, *words)[0] == 0
    return tmp_path / "r.json"


def test_every_cell_runs_and_shows_something(results, monkeypatch, capsys):
    monkeypatch.setenv("TUNEPROOF_RESULTS", str(results))
    book = json.loads(NOTEBOOK.read_text("utf-8"))
    assert not any(cell.get("outputs") for cell in book["cells"]), "committed without outputs"
    shown = [value for value in runner().run(NOTEBOOK) if value is not None]
    assert shown[0][:2] == ("small", 12)
    assert len(shown[1]) == 2 * 2 * 2, "two tuned arms at the largest size, by two criteria"
    assert set(shown[3].reset_index()["size"]) == {4, 8}
    assert list(shown[3]["count"]) == [2, 2, 2, 2]
    assert not any(len(frame) == 0 for frame in shown[1:])
    assert "baseline: " in capsys.readouterr().out
