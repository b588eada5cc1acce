"""`study report` of several studies: one report over their data sets, one of each, from any mix of
study files and exported results."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest
from fakes import served
from html_page import Page
from small_study import SmallStudy, invoke

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture
def run(capsys, monkeypatch):
    return partial(invoke, capsys, monkeypatch)


@pytest.fixture
def two(tmp_path):
    """A study that ran, and a second one on other documents, in one state folder."""
    small = SmallStudy(tmp_path)
    other = tmp_path / "other.yaml"
    text = small.file.read_text().replace("study: small", "study: other")
    other.write_text(text.replace("seed: 7, documents: 20", "seed: 8, documents: 24"))

    async def both():
        first = small.file
        for file in (first, other):
            small.file = file
            async with served(small.world()) as target:
                await small.run(target)
        small.file = first

    asyncio.run(both())
    return small, other


def test_two_studies_get_one_report_and_one_each(two, run):
    small, other = two
    flags = ["--state", str(small.state)]
    code, out, err = run("study", "report", str(small.file), str(other), *flags)
    assert code == 0, err
    assert "telecom-7: The tuned adapters" in out
    assert "telecom-8: The tuned adapters" in out
    folder = small.state / "reports"
    assert {path.name for path in folder.iterdir()} >= {
        "together.html",
        "small.html",
        "other.html",
    }
    page = Page((folder / "together.html").read_text("utf-8"))
    assert {"small.html", "other.html"} <= set(page.values("href"))


def test_the_report_goes_where_it_is_wanted_and_its_links_lead_back(two, run, tmp_path):
    small, other = two
    joint = tmp_path / "elsewhere/all of them.html"
    flags = ["--state", str(small.state), "--out", str(joint), "--json"]
    code, out, err = run("study", "report", str(small.file), str(other), *flags)
    assert code == 0, err
    value = json.loads(out)
    assert value["report"] == str(joint)
    assert set(value["reports"]) == {"small", "other"}
    links = [one for one in Page(joint.read_text("utf-8")).values("href") if one.endswith(".html")]
    assert {(joint.parent / link).resolve() for link in links} == {
        Path(path).resolve() for path in value["reports"].values()
    }


def test_a_study_that_ran_elsewhere_joins_by_its_export(two, run, tmp_path):
    small, other = two
    export = tmp_path / "other.json"
    flags = ["--state", str(small.state)]
    code, _, err = run(
        "study", "export", str(other), *flags, "--format", "json", "--out", str(export)
    )
    assert code == 0, err
    other.unlink()
    code, out, err = run("study", "report", str(small.file), str(export), *flags, "--json")
    assert code == 0, err
    assert list(json.loads(out)["studies"]) == ["telecom-7", "telecom-8"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--data", "x.json"], "--data is for the report of one study"),
        (["absent.yaml"], "absent.yaml"),
    ],
)
def test_what_cannot_be_joined_is_told(two, run, more, told):
    small, other = two
    code, _, err = run(
        "study", "report", str(small.file), str(other), *more, "--state", str(small.state)
    )
    assert code == 2
    assert told in err


def test_one_study_twice_is_refused(two, run, tmp_path):
    small, _ = two
    again = tmp_path / "again.yaml"
    again.write_text(small.file.read_text())
    code, _, err = run("study", "report", str(small.file), str(again), "--state", str(small.state))
    assert code == 2
    assert "are one study, 'small': give each its own `study:` name" in err


def test_mlflow_gets_studies_one_by_one(two, run):
    small, other = two
    flags = ["--state", str(small.state), "--mlflow", "http://127.0.0.1:1"]
    code, _, err = run("study", "report", str(small.file), str(other), *flags)
    assert code == 0
    assert "MLflow gets one study at a time" in err
