"""The page in a real browser: search, filters, links, theme, accessibility, no request."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from browsing import opened, violations, width_of
from playwright.sync_api import Browser, Page, expect

from tuneproof.analysis import compare
from tuneproof.report import build_report
from tuneproof.results import StudyResults


@pytest.fixture(scope="module")
def short(study: StudyResults) -> StudyResults:
    """The first 24 items: enough to filter, and quick to open."""
    kept = {item.id for item in study.items[:24]}
    answers = tuple(answer for answer in study.answers if answer.item in kept)
    return replace(study, items=study.items[:24], answers=answers)


@pytest.fixture(scope="module")
def address(short: StudyResults, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(build_report(short, compare(short)), "utf-8")
    return file.as_uri()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page


def shown(page: Page) -> int:
    return page.locator(".item:not([hidden])").count()


def test_search_narrows_and_clear_widens(page: Page) -> None:
    search = page.get_by_role("searchbox", name="Search")
    search.fill("TEL-0010")
    expect(page.locator("#shown")).to_have_text("1 of 24 questions")
    assert shown(page) == 1
    search.fill("tilt elm")
    texts = page.locator(".item:not([hidden])").evaluate_all("all => all.map(n => n.textContent)")
    assert 0 < len(texts) < 24
    assert all("tilt" in text and "Elm" in text for text in texts)
    search.fill("no such words")
    expect(page.get_by_text("No answer matches all filters.")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#shown")).to_have_text("24 of 24 questions")
    assert shown(page) == 24


def test_filters_by_retrieval_and_cluster_show_what_they_say(
    page: Page, short: StudyResults
) -> None:
    page.locator("#retrieval").select_option("miss")
    missed = [item for item in short.items if not any(one.gold for one in item.retrieved)]
    assert 0 < shown(page) == len(missed) < 24
    assert page.locator(".item:not([hidden]) .hit").count() == 0
    page.get_by_role("button", name="Clear").click()
    page.locator("#cluster").select_option("doc-003")
    expect(page.locator("#shown")).to_have_text("1 of 24 questions")


def test_a_claim_leads_to_exactly_its_answers(page: Page, short: StudyResults) -> None:
    link = page.locator('a[data-cell="short-references-200-seed1"][data-measure="completeness"]')
    claimed = int(link.first.inner_text().split()[0])
    link.first.click()
    expect(page.locator("#shown")).to_have_text(f"{claimed} of 24 questions")
    expect(page.locator("#cell")).to_have_value("short-references-200-seed1")
    scores = {
        (one.cell, one.item): one.grade.criteria["completeness"].mean or 0.0
        for one in short.answers
        if one.grade
    }
    losses = [
        scores["short-references-200-seed1", name] - scores["baseline", name]
        for name in (
            node.removeprefix("item-")
            for node in page.locator(".item:not([hidden])").evaluate_all(
                "nodes => nodes.map(node => node.id)"
            )
        )
    ]
    assert all(loss < -0.25 for loss in losses)
    assert losses == sorted(losses)


def test_a_link_to_an_item_opens_it_though_filters_hide_it(page: Page) -> None:
    link = page.locator('a[href^="#item-"]').first
    anchor = str(link.get_attribute("href"))
    page.get_by_role("searchbox", name="Search").fill("no such words")
    link.click()
    expect(page.locator(anchor)).to_have_attribute("open", "")
    expect(page.locator(anchor)).to_be_in_viewport()
    expect(page.locator(f"{anchor} > summary")).to_be_focused()


def test_an_address_with_an_item_opens_it(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}#item-tel-0017")
    expect(page.locator("#item-tel-0017")).to_have_attribute("open", "")
    page.close()


def test_the_keyboard_reaches_search_items_and_reasons(page: Page) -> None:
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    item = page.locator(".item").first
    item.locator("> summary").focus()
    page.keyboard.press("Enter")
    expect(item.locator(".cells")).to_be_visible()
    reasons = item.locator(".judged").first
    reasons.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(reasons.locator("li").first).to_be_visible()
    assert reasons.locator("li").count() == 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_the_button(
    browser: Browser, address: str, scheme: str
) -> None:
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    page.goto(address)
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    before = page.evaluate(brightness)
    assert (before < 60) == (scheme == "dark")
    page.get_by_role("button", name="Dark").click()
    assert (page.evaluate(brightness) < 60) != (scheme == "dark")
    page.reload()
    assert (page.evaluate(brightness) < 60) != (scheme == "dark")
    context.close()


def test_print_is_light_whatever_the_theme(browser: Browser, address: str) -> None:
    context = browser.new_context(color_scheme="dark", viewport={"width": 720, "height": 1000})
    page = context.new_page()
    page.goto(address)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    expect(page.locator("#filters")).to_be_hidden()
    context.close()


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_the_page_is_never_wider_than_its_window(
    browser: Browser, address: str, width: int
) -> None:
    with opened(browser, address, width=width) as page:
        page.locator(".item > summary").first.click()
        assert width_of(page) <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(
    browser: Browser, address: str, scheme: Literal["light", "dark"]
) -> None:
    with opened(browser, address, scheme=scheme) as page:
        page.locator(".item > summary").first.click()
        page.locator(".item").first.locator(".judged > summary").first.click()
        # axe takes its time with thousands of nodes; closed items repeat the first ones.
        page.evaluate(
            "document.querySelectorAll('.item').forEach((n, i) => { if (i > 4) n.remove() })"
        )
        assert violations(page) == []


def test_hostile_answers_run_nothing(browser: Browser, short: StudyResults, tmp_path: Path) -> None:
    evil = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
    hostile = replace(
        short,
        answers=tuple(replace(answer, text=evil) for answer in short.answers),
        items=tuple(replace(item, question=evil) for item in short.items),
    )
    file = tmp_path / "report.html"
    file.write_text(build_report(hostile, compare(hostile)), "utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.locator(".item > summary").first.click()
    assert page.title() == "demo: tuneproof report"
    # Even markup that got past the escaping would meet the policy.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document"
                  ".title=1\">')")  # fmt: skip
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.title() == "demo: tuneproof report"
    page.close()
