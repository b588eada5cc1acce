"""The page in a real browser: search, filters, links, theme, accessibility, no request."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from browsing import address_of, opened, violations, width_of
from playwright.sync_api import Browser, Page, expect

from tuneproof.analysis import compare, failures_by_cell
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
    return address_of(short, tmp_path_factory.mktemp("report"))


def shown(page: Page) -> int:
    return page.locator(".item").count()


def names(page: Page) -> list[str]:
    ids: list[str] = page.locator(".item").evaluate_all("all => all.map(node => node.id)")
    return [name.removeprefix("item-") for name in ids]


def test_search_narrows_and_clear_widens(page: Page) -> None:
    search = page.get_by_role("searchbox", name="Search")
    search.fill("TEL-0010")
    expect(page.locator("#shown")).to_have_text("1 of 24 questions")
    assert shown(page) == 1
    search.fill("no such words")
    expect(page.get_by_text("No answer matches all filters.")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#shown")).to_have_text("24 of 24 questions")
    assert shown(page) == 24


def test_search_finds_words_of_passages_and_answers(page: Page, short: StudyResults) -> None:
    search = page.get_by_role("searchbox", name="Search")
    text = short.items[7].retrieved[-1].text
    search.fill(text)
    expect(page.locator("#shown")).not_to_have_text("24 of 24 questions")
    wanted = text.lower().split()
    answers = {item.id: "" for item in short.items}
    for answer in short.answers:
        answers[answer.item] += f" {answer.text}"
    held = [
        item.id
        for item in short.items
        if all(
            word in " ".join([item.id, item.cluster, item.question, answers[item.id],
                              *(one for each in item.references.values() for one in each),
                              *(one.text for one in item.retrieved),
                              *(one.document_id for one in item.retrieved)]).lower()
            for word in wanted
        )
    ]  # fmt: skip
    assert sorted(names(page)) == sorted(held)
    assert short.items[7].id in held


def test_filters_by_kind_of_question_and_cluster_show_what_they_say(
    page: Page, short: StudyResults
) -> None:
    page.locator("#stratum").select_option("missed")
    missed = [item.id for item in short.items if item.stratum == "missed"]
    assert 0 < len(missed) < 24
    assert sorted(names(page)) == sorted(missed)
    assert page.locator(".item .hit").count() == 0
    page.get_by_role("button", name="Clear").click()
    page.locator("#cluster").fill("doc-003")
    expect(page.locator("#shown")).to_have_text("1 of 24 questions")
    options = page.locator("#clusters option").count()
    assert options == len({item.cluster for item in short.items})


@pytest.mark.parametrize("way", ["Different", "Lost", "Gained", "Failed"])
def test_each_button_shows_what_it_says_and_as_many_as_it_counts(
    page: Page, short: StudyResults, way: str
) -> None:
    cell = "short-references-200-seed1"
    page.locator("#cell").select_option(label="Short references, 200")
    button = page.get_by_role("button", name=way)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    given = {(one.cell, one.item): one for one in short.answers}
    broken = failures_by_cell(short)[cell]

    def moved(item: str) -> list[float]:
        mine, base = given[cell, item].grade, given["baseline", item].grade
        assert mine is not None
        assert base is not None
        return [
            (mine.criteria[name].mean or 0.0) - (base.criteria[name].mean or 0.0)
            for name in mine.criteria
        ]

    wanted = {
        "Different": lambda item: given[cell, item].text != given["baseline", item].text,
        "Lost": lambda item: min(moved(item)) < -0.2500001,
        "Gained": lambda item: max(moved(item)) > 0.2500001,
        "Failed": lambda item: item in broken,
    }[way]
    expected = sorted(item.id for item in short.items if wanted(item.id))
    assert sorted(names(page)) == expected
    assert int(button.locator("span").inner_text()) == len(expected)
    if way == "Lost":
        losses = [min(moved(item)) for item in names(page)]
        assert losses == sorted(losses)


def test_a_claim_leads_to_exactly_its_answers(page: Page, short: StudyResults) -> None:
    link = page.locator('#verdict a[data-show="worse"][data-cell="1"]').nth(1)
    claimed = int(link.inner_text().split()[0])
    link.click()
    expect(page.locator("#shown")).to_have_text(f"{claimed} of 24 questions")
    chosen = page.locator("#cell").evaluate("one => one.selectedOptions[0].label")
    assert chosen == "Short references, 200"
    scores = {
        (one.cell, one.item): one.grade.criteria["completeness"].mean or 0.0
        for one in short.answers
        if one.grade
    }
    losses = [
        scores["short-references-200-seed1", name] - scores["baseline", name]
        for name in names(page)
    ]
    assert all(loss < -0.25 for loss in losses)
    assert losses == sorted(losses)


def test_a_count_of_failures_leads_to_exactly_these(page: Page, short: StudyResults) -> None:
    link = page.locator('#failures a[data-cell="1"]').first
    claimed = int(link.inner_text())
    link.click()
    expect(page.locator("#shown")).to_have_text(f"{claimed} of 24 questions")
    rule = page.locator("#rule").evaluate("one => one.selectedOptions[0].label")
    page.locator(".item > summary").first.click()
    expect(page.locator(".item").first.locator(".cell").nth(1).locator(".broken")).to_contain_text(
        rule
    )


def test_a_link_to_an_item_opens_it_though_filters_hide_it(page: Page) -> None:
    link = page.locator('#verdict a[href^="#item-"]').first
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
    expect(page.locator("#item-tel-0017 .cell")).to_have_count(3)
    page.close()


def test_the_keyboard_reaches_search_items_and_reasons(page: Page) -> None:
    expect(page.locator(".item").first).to_be_visible()
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
    expect(reasons.locator("li")).to_have_count(10)


def test_j_and_k_walk_through_the_questions(page: Page) -> None:
    items = page.locator(".item")
    expect(items.first).to_be_visible()
    for key, place in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        expect(items.nth(place).locator("> summary")).to_be_focused()
        expect(page.locator(".item[open]")).to_have_count(1)
        expect(items.nth(place)).to_have_attribute("open", "")
    page.get_by_role("searchbox", name="Search").focus()
    page.keyboard.press("j")
    expect(page.get_by_role("searchbox", name="Search")).to_have_value("j")


def test_two_answers_side_by_side_mark_what_the_other_lacks(
    page: Page, short: StudyResults
) -> None:
    page.locator("#cell").select_option(label="Short references, 200")
    page.locator(".item > summary").first.click()
    cards = page.locator(".item").first.locator(".cell")
    expect(cards).to_have_count(2)
    name = names(page)[0]
    texts = {one.cell: one.text for one in short.answers if one.item == name}
    cells = ("baseline", "short-references-200-seed1")
    for place, cell in enumerate(cells):
        assert cards.nth(place).locator(".text").inner_text().split() == texts[cell].split()
    assert cards.nth(0).locator("del").count() > 0
    assert cards.nth(0).locator("ins").count() == cards.nth(1).locator("del").count() == 0
    page.locator(".item").first.get_by_role("button", name="Show all 3 answers").click()
    expect(cards).to_have_count(3)


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
        expect(page.locator(".item").first.locator(".judged li").first).to_be_visible()
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
