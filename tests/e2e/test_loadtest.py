"""Adapters swapped under load in the real engine, and every answer held against what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT, Running, tuneproof

pytestmark = [pytest.mark.timeout(300), pytest.mark.e2e]

ADAPTERS = 3


def test_adapters_are_swapped_under_load_and_nobody_gets_a_wrong_one(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from marked_stock import make_stock

    stock = make_stock(
        ROOT / "demo" / "telecom-reader",
        running.state / "artifacts",
        tmp_path / "peft",
        names=ADAPTERS,
        count=2 * ADAPTERS,
    )
    files = {
        "pool": "\n".join(stock.refs),
        "probe": stock.probes(),
        "prompts": "\n".join(prompt.replace("\n", "\\n") for prompt in stock.prompts),
        "slo": "{failed: 0, wrong_adapter: 0, failed_swaps: 0, swaps: 2, requests: 20}",
    }
    flags = ["--report", str(tmp_path / "page.html"), "--state", str(running.state), "--json"]
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        flags += [f"--{name}", str(tmp_path / name)]
    flags += ["--adapters", str(ADAPTERS), "--swaps-per-minute", "40", "--answer-tokens", "6"]
    flags += ["--rate", "4", "--duration", "4", "--rounds", "1", "--base-share", "0.3"]
    flags += ["--full-in-flight", "4", "--full-duration", "2", "--timeout", "120"]

    done = tuneproof("loadtest", "swap", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["results"]["checked_digest"] == told["results"]["requests"]
    assert told["results"]["checked_text"] == told["results"]["requests"]
    came_in = [swap["new"] for swap in told["swaps"]]
    assert came_in[:ADAPTERS] == list(stock.refs[ADAPTERS:])[: len(came_in)]
    assert {"fetch", "verify", "load", "warm"} <= set(told["results"]["load"])
    left = tuneproof("loadtest", "run", "--model", stock.refs[0], *flags[2:4], "--duration", "1")
    assert left.returncode == 4
    assert "does not answer" in left.stderr
