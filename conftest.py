"""For every test: its marks and its group by the fixtures that it uses, and two checks.

Two workers run the tests, but those on a cluster. Tests of one group run in one worker, one after
the other, so that what a session fixture starts is started once. The longest groups start first.

A test that starts a Python process without a mark that says so fails: `make test-quick` picks by
marks. With TUNEPROOF_REQUIRE_ALL set, as in CI, a skipped test fails.
"""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine's load than about the code.
settings.register_profile("tuneproof", deadline=None)
settings.load_profile("tuneproof")

# Nothing that is imported for the tests is garbage.
gc.disable()

# A shell ignores SIGINT in what it starts in the background, and so would the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

STARTS = {
    "generator": "engine",
    "make_generator": "engine",
    "running": "e2e",
    "browser": "browser",
    "pools": "process",
    "trainers": "process",
    "weaviate_server": "process",
    "cluster": "cluster",
}
"""The mark of a test by a fixture that it uses, directly or through another one."""

STARTING = frozenset({"process", "engine", "e2e", "faults", "cluster"})
"""Marks of tests that may start Python processes."""

# A worker is given two groups at the start: the first and the third, the second and the fourth.
GROUPS = ("e2e", "tests/faults/test_kills.py", "engine", "browser", "engines")
"""In the order in which they start; the other tests are grouped by file, and follow."""


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("loadgroup", False) and not all(
        item.nodeid.endswith(f"@{_group(item)}") for item in session.items
    ):
        raise pytest.UsageError("pytest-xdist makes no groups with this pytest: run make setup")
    # What the imports made stays: a collection that looks through it all again takes a second.
    gc.freeze()
    gc.enable()


# Not in pytest_collection_modifyitems: xdist has read the groups by then.
def pytest_itemcollected(item: pytest.Item) -> None:
    for fixture in getattr(item, "fixturenames", ()):
        if fixture in STARTS:
            item.add_marker(STARTS[fixture])
    group = _group(item)
    item.add_marker(pytest.mark.xdist_group(group))
    if group == "engines":
        item.add_marker(group)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def _group(item: pytest.Item) -> str:
    for name in ("e2e", "browser"):
        if item.get_closest_marker(name):
            return name
    if item.get_closest_marker("engine"):
        return "engine" if "generator" in getattr(item, "fixturenames", ()) else "engines"
    return str(item.path.relative_to(item.config.rootpath))


def _place(item: pytest.Item) -> int:
    group = _group(item)
    return GROUPS.index(group) if group in GROUPS else len(GROUPS)


_unmarked = ""
"""The test that runs now, if it may start no Python process."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    global _unmarked  # noqa: PLW0603 - an audit hook is given nothing of ours
    _unmarked = "" if STARTING & {mark.name for mark in item.iter_markers()} else item.nodeid


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    global _unmarked  # noqa: PLW0603 - see above
    _unmarked = ""  # The last test of a session ends what other tests share.


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    starts = event == "subprocess.Popen" and Path(str(arguments[0])).name.startswith("python")
    if starts and _unmarked:
        raise RuntimeError(f"{_unmarked} starts a Python process: mark it `process`")


sys.addaudithook(_refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("TUNEPROOF_REQUIRE_ALL"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report
