"""The page of a study over models, arms, sizes and seeds: rows on demand, two answers of many."""

from typing import Literal

import pytest
from browsing import address_of, opened, violations, width_of
from paper_study import paper_study
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.slow

ITEMS = 130


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return address_of(paper_study(items=ITEMS), tmp_path_factory.mktemp("report"))


def test_rows_are_made_when_they_are_wanted(page: Page) -> None:
    items = page.locator(".item")
    expect(items).to_have_count(50)
    expect(page.locator("#shown")).to_have_text(f"{ITEMS} of {ITEMS} questions")
    later = page.locator("#later")
    expect(later).to_have_text("Show 50 more, of 80")
    later.click()
    expect(items).to_have_count(100)
    expect(items.nth(50).locator("> summary")).to_be_focused()
    later.click()
    expect(items).to_have_count(ITEMS)
    expect(later).to_be_hidden()


def test_an_address_reaches_a_row_that_is_not_made_yet(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    names = page.evaluate("unpack('index').then(index => index.items.anchor)")
    page.goto(f"{address}#{names[110]}")
    expect(page.locator(f"#{names[110]}")).to_have_attribute("open", "")
    expect(page.locator(".item")).to_have_count(25)
    page.locator("#earlier").click()
    expect(page.locator(".item")).to_have_count(75)
    page.close()


def test_of_many_answers_the_worst_stands_beside_its_own_baseline(page: Page) -> None:
    item = page.locator(".item").first
    item.locator("> summary").click()
    cards = item.locator(".cell h3")
    expect(cards).to_have_text(["Llama baseline", "Llama short 200 #1"])
    page.locator("#cell").select_option(label="Mistral full 500 #2")
    page.locator(".item > summary").first.click()
    expect(cards).to_have_text(["Mistral baseline", "Mistral full 500 #2"])
    item.get_by_role("button", name="Show all 29 answers").click()
    expect(cards).to_have_count(29)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_fits_its_window_and_axe_finds_no_violation(
    browser: Browser, address: str, scheme: Literal["light", "dark"], width: int
) -> None:
    with opened(browser, address, scheme=scheme, width=width) as page:
        page.locator(".item > summary").first.click()
        expect(page.locator(".item .cell").first).to_be_visible()
        assert width_of(page) <= width
        # axe takes its time with thousands of nodes; rows repeat the first ones.
        page.evaluate(
            "document.querySelectorAll('.item, tbody tr, .row').forEach("
            "(node, place) => { if (place % 9) node.remove() })"
        )
        assert violations(page) == []
