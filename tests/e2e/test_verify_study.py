"""`make verify-study`, small: several bases, one after the other, beside an API model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_study_of_several_models_survives_a_kill(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/verify_study.py", "--small", "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=850,
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["cells"] == 13
    assert figures["trainings"] == 4
    assert figures["errors"] == 0
    assert figures["kept_at_kill"] > 0
    assert set(figures["generation"]) == {"reader", "second"}
    assert figures["api_price_of_an_answer"] > 0
