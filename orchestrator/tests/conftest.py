"""Lets tests import the modules that lie beside them (`fakes`, `small_study`)."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

sys.path.insert(0, str(Path(__file__).parent))


# Imported late: only tests with a browser pay for it. Of a module, not of the session: while
# playwright's sync API is open, no async test can run.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from browsing import chromium

    with chromium() as launched:
        yield launched
