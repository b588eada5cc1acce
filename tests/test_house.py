"""What holds for every source file of the house."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("libs", "services", "orchestrator", "demo", "benchmarks", "tests")
GENERATED = ROOT / "libs" / "api" / "src"
MOST_LINES = 400


def sources() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return [path for path in found if not path.is_relative_to(GENERATED)]


def test_no_file_is_too_long_to_have_one_subject() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in sources()}
    assert len(lengths) > 300
    long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MOST_LINES}
    assert not long, "cut by subject what has more than 400 lines"
