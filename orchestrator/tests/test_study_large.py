"""A state of a million rows: what a command reads of it does not grow with them."""

from __future__ import annotations

import json
import sqlite3
from functools import partial

import pytest
from fakes import served
from small_study import SmallStudy, invoke

from tuneproof.study.state.store import FILE_NAME, Count, open_state

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

ROWS = 1_000_000
FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO results SELECT printf('sha256:%x', i), iif(i % 2, 'answer', 'grade'), '{}',
    '{"text": "the transmit power is 46 dBm when band seven is active"}', '2026-01-01' FROM n
"""
TICK = 1_000
"""Steps of SQLite's machine between two counts."""
STEP_LIMIT = ROWS / 10
"""A scan of all rows takes several steps for each."""


@pytest.fixture
def large(tmp_path):
    """A small study in a folder where others have a million results."""
    study = SmallStudy(tmp_path)
    with open_state(study.state, write=True):
        pass
    with sqlite3.connect(study.state / FILE_NAME) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(FILL, [ROWS])
    return study


@pytest.fixture
def steps(monkeypatch):
    """Counts the steps of all databases that are opened from now on."""
    taken = [0]
    connect = sqlite3.connect

    def counted(*arguments, **settings):
        database = connect(*arguments, **settings)

        def count():
            taken[0] += TICK

        database.set_progress_handler(count, TICK)
        return database

    monkeypatch.setattr(sqlite3, "connect", counted)
    return taken


@pytest.fixture
def run(capsys, monkeypatch):
    return partial(invoke, capsys, monkeypatch)


async def test_a_study_runs_and_is_planned_beside_a_million_rows(large, steps, run):
    async with served(large.world()) as target:
        results = await large.run(target)
    assert not any(answer.error for answer in results.answers)
    code, out, err = run("study", "plan", str(large.file), "--state", str(large.state), "--json")
    assert code == 0, err
    assert json.loads(out)["hours"]["training"] is not None
    assert steps[0] < STEP_LIMIT


async def test_the_status_of_a_study_of_a_million_rows_reads_a_row_for_each_stage(
    large, steps, run
):
    async with served(large.world()) as target:
        await large.run(target)
    with open_state(large.state, write=True) as state, state._database as database:
        database.execute(
            "UPDATE counts SET done = 400000, total = 500000, fresh = 1000, seconds = 60"
        )
    steps[0] = 0
    code, out, err = run("study", "status", str(large.file), "--state", str(large.state), "--json")
    assert code == 0, err
    answers = {stage["stage"]: stage for stage in json.loads(out)["stages"]}["answers"]
    assert (answers["done"], answers["total"]) == (400_000, 500_000)
    assert answers["seconds_left"] == 6000
    assert steps[0] < STEP_LIMIT / 10


def test_a_scan_of_all_rows_would_show(large, steps):
    with open_state(large.state, write=False) as state:
        state._database.execute("SELECT count(*) FROM results WHERE kind = 'answer'").fetchone()
    assert steps[0] > STEP_LIMIT


def test_what_is_left_follows_from_the_rate_of_the_run():
    assert Count("s", "answers", 50, 100, 0).seconds_left is None
    assert Count("s", "answers", 50, 100, 0, fresh=25, seconds=10).seconds_left == 20
    assert Count("s", "answers", 100, 100, 0).seconds_left == 0
