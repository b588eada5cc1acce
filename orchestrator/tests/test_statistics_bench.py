"""The bench of verdicts runs, tells every figure that has a bound, and sees a method that errs."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "benchmarks" / "verdicts"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("run")


def test_every_bound_is_of_a_figure_that_is_told(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only = [name for name in bench.SETTINGS if name not in ("s1", "s4")]
    monkeypatch.setattr(
        "sys.argv", ["run", "--studies", "20", "--seed", "1", "--workers", "1", "--only", *only]
    )
    bench.main()
    told = json.loads(capsys.readouterr().out)
    assert set(bench._LONGEST) == set(bench.SETTINGS)
    assert told["bench"] == "statistics"
    named = {key for key in bench.BOUNDS if key.partition("_")[0] in only}
    assert named <= told["results"].keys()
    assert {"s3_before", "s6_before", "blind"} <= told["results"].keys()


def test_a_bound_gives_four_errors_of_its_simulation_and_no_more(bench: ModuleType) -> None:
    bound = bench.Bound(most=0.025)
    assert bound.kept(0.031, 10_000)
    assert not bound.kept(0.032, 10_000)
    assert bench.Bound(least=0.93).kept(0.92, 10_000)
    assert not bench.Bound(least=0.93).kept(0.919, 10_000)
    assert not bench.Bound(most=1.1, share=False).kept(1.11, 10)
    # A simulated standard error is off by 1/√20,000 of itself: .7 %, four times.
    assert bench.Bound(most=1.1, by_spread=True).kept(1.13, 10_000)
    assert not bench.Bound(most=1.1, by_spread=True).kept(1.14, 10_000)


def test_a_missed_bound_and_a_bench_that_is_blind_fail(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"s3_max": 0.0, "s3_pass": 0.9, "s3_before": 0.2}
    monkeypatch.setattr("sys.argv", ["run", "--studies", "10", "--workers", "1", "--only", "s3"])

    def with_(**more: float) -> tuple[int, int]:
        monkeypatch.setitem(bench.SETTINGS, "s3", (lambda _random, _studies: figures | more,))
        code = bench.main()
        return code, json.loads(capsys.readouterr().out)["results"]["blind"]

    assert with_() == (0, 0)
    assert with_(s3_pass=0.1) == (1, 0)
    assert with_(s3_before=0.0) == (1, 1)
