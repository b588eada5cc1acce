"""Our pages in the system's chromium: what every one of them must hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tuneproof.analysis import compare
from tuneproof.report import build_report
from tuneproof.results import StudyResults

CHROMIUM = Path("/usr/bin/chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing; get it by: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


@contextmanager
def opened(
    browser: Browser,
    address: str,
    *,
    scheme: Literal["light", "dark"] = "light",
    width: int = 1280,
) -> Iterator[Page]:
    """The page; in the end no error on its console and no request but its own."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.set_default_timeout(10_000)
    page.goto(address)
    yield page
    page.close()
    assert troubles == []
    assert {url.split("#")[0] for url in requests} == {address}


def address_of(study: StudyResults, folder: Path) -> str:
    """The report of a study, written into a folder."""
    file = folder / "report.html"
    file.write_text(build_report(study, compare(study)), "utf-8")
    return file.as_uri()


def width_of(page: Page) -> int:
    """Pixels; more than the window's: the page scrolls sideways."""
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """What axe finds: the rule, and the elements that break it."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
