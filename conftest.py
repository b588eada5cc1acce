"""For every test: with TUNEPROOF_REQUIRE_ALL set, as in CI, a skipped test is a failed one."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes says more about the machine's load than about the code.
settings.register_profile("tuneproof", deadline=None)
settings.load_profile("tuneproof")

# A shell ignores SIGINT in what it starts in the background, and so would the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("TUNEPROOF_REQUIRE_ALL"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report
