"""A load test's page in a real browser: accessibility, widths, plots in words, no request."""

import re
from typing import Literal

import pytest
from browsing import opened, violations, width_of
from loadtest_result import load_result
from playwright.sync_api import Browser, expect

from tuneproof.loadtest import Slo, build_page, checks_of
from tuneproof.loadtest.slo import Latency

pytestmark = pytest.mark.timeout(60)

RESULT = load_result()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    slo = Slo(requests=100, checked_text=100, throughput_ratio=0.9, first_token=Latency(p99=0.5))
    file = tmp_path_factory.mktemp("loadtest") / "loadtest.html"
    file.write_text(build_page(RESULT, checks_of(slo, RESULT.figures)), "utf-8")
    return file.as_uri()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_fits_its_window_and_axe_finds_no_violation(
    browser: Browser, address: str, scheme: Literal["light", "dark"], width: int
) -> None:
    with opened(browser, address, scheme=scheme, width=width) as page:
        assert width_of(page) <= width
        cut = page.locator(".wide").evaluate_all(
            "all => all.filter(n => n.scrollWidth > n.clientWidth).map(n => n.ariaLabel)"
        )
        # On a telephone the tables of many columns scroll in themselves; no other does.
        assert cut == ([] if width == 1280 else ["Table of latencies", "Wrong answers"])
        assert violations(page) == []


def test_the_labels_of_a_plot_stand_beside_what_they_label_at_any_width(
    browser: Browser, address: str
) -> None:
    with opened(browser, address, width=390) as page:
        number, left, right, plot = page.locator("#time .plot").first.evaluate(
            """figure => {
              const labels = [...figure.querySelectorAll('.tick[text-anchor="end"]')];
              const boxes = labels.map(label => label.getBoundingClientRect());
              return [boxes.length, Math.min(...boxes.map(box => box.left)),
                Math.max(...boxes.map(box => box.right)),
                figure.querySelector('.grid').getBoundingClientRect().left];
            }"""
        )
        assert number == page.locator("#time .plot").first.locator(".grid").count() > 3
        assert 16 < left < right < plot
        boxes = ".map(n => n.getBoundingClientRect())"
        touching = page.locator("#time .plot").last.evaluate(
            f"""figure => {{
              const names = [...figure.querySelectorAll('.tick:not([text-anchor])')]{boxes};
              const states = [...figure.querySelectorAll('.state')]{boxes};
              return [names.length, names.filter(a => states.some(b =>
                a.top < b.bottom && b.top < a.bottom)).length];
            }}"""
        )
        assert touching == [3, 0]


def test_every_plot_says_in_words_what_it_shows(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        plots = page.locator("#time").get_by_role("img")
        spread = r"\d+\.\d\d to \d+\.\d\d"
        figures = RESULT.figures
        told = [
            *(rf"seconds: median {spread}, 95th percentile {spread}$" for _ in range(2)),
            rf"a second: answers a second {spread}$",
            rf": {figures.swaps} swaps of 3 aliases, {figures.failed_swaps} failed$",
        ]
        expect(plots).to_have_count(page.locator("figure svg.over-time").count())
        for number, text in enumerate(told):
            expect(plots.nth(number)).to_have_accessible_name(re.compile(text))
        expect(plots).to_have_count(len(told))
