"""The page of a conversion in a real browser: no error, no request, no overflow, and search and filters work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.devtools import MISSING, Browser, find_browser
from page_cases import hostile_page, large_page, mixed_page, refused_page

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason=MISSING)

PAGES = {"mixed": mixed_page, "refused": refused_page, "hostile": hostile_page, "large": large_page}
SIZES = [
    (name, width, dark)
    for name in PAGES
    for width in (380, 820, 1280)
    for dark in (False, True)
    if name != "large" or (width != 820 and not dark)
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert BROWSER is not None
    with Browser(BROWSER) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (folder / f"{name}.html").write_bytes(make())
    return {name: folder / f"{name}.html" for name in PAGES}


def shown_rows(browser: Browser) -> int:
    rows: int = browser.evaluate("[...document.querySelectorAll('#all tbody tr')].filter((r) => r.offsetHeight).length")
    return rows


def search(browser: Browser, words: str) -> None:
    browser.evaluate(
        "(() => { const box = document.getElementById('search'); box.value = " + repr(words) + ";"
        " box.dispatchEvent(new Event('input')); })()"
    )


@pytest.mark.parametrize("name", PAGES)
def test_the_page_runs_without_an_error_and_asks_for_nothing(
    name: str, browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages[name])
    assert browser.complaints() == []
    assert browser.requests() == [pages[name].resolve().as_uri()]
    assert not browser.evaluate("document.getElementById('tools').hidden")


def test_the_browser_would_tell_of_an_error_and_of_a_request(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<!DOCTYPE html><script>throw new Error('x')</script><img src='none.png'>")
    browser.open(page)
    assert any("Uncaught" in text for text in browser.complaints())
    assert any(address.endswith("none.png") for address in browser.requests())


@pytest.mark.parametrize(("name", "width", "dark"), SIZES)
def test_nothing_is_wider_than_the_window(
    name: str, width: int, dark: bool, browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages[name], width=width, dark=dark)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(f"matchMedia('(prefers-color-scheme: dark)').matches === {str(dark).lower()}")
    closed = "thead, details > :not(summary)"
    outside = browser.evaluate(
        f"[...document.querySelectorAll('main *')].filter((e) => !e.closest('{closed}'))"
        ".map((e) => [e.tagName, e.getBoundingClientRect()])"
        ".filter(([, box]) => box.width && (box.right > innerWidth + 1 || box.left < -1)).map(([tag]) => tag)"
    )
    assert outside == []


@pytest.mark.parametrize("width", [380, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_no_two_texts_of_the_drawing_lie_on_each_other(
    name: str, width: int, browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages[name], width=width)
    overlaps = browser.evaluate(
        "(() => { const texts = [...document.querySelectorAll('.map text')].map((t) => [t.textContent,"
        " t.getBoundingClientRect()]).filter(([, b]) => b.width); const found = [];"
        " texts.forEach(([one, a], i) => texts.slice(i + 1).forEach(([other, b]) => {"
        " if (a.left + 1 < b.right && b.left + 1 < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom)"
        " found.push([one, other]); })); return found; })()"
    )
    assert overlaps == []


def test_searching_leaves_the_rows_that_have_all_words(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["mixed"])
    everything = shown_rows(browser)
    search(browser, "ENCODER pad:end")
    assert shown_rows(browser) == 1
    assert browser.evaluate("document.getElementById('found').textContent") == f"1 of {everything} rows"
    search(browser, "no such tensor")
    assert shown_rows(browser) == 0
    search(browser, "")
    assert shown_rows(browser) == everything


def test_a_state_can_be_chosen_and_lineage_opened(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["mixed"])
    everything = shown_rows(browser)
    press = "document.querySelector('button[data-f={}]').click()"
    browser.evaluate(press.format("dropped"))
    assert shown_rows(browser) == 1
    browser.evaluate(press.format("adapted"))
    assert shown_rows(browser) == 2
    for state in ("dropped", "adapted"):
        browser.evaluate(press.format(state))
    assert shown_rows(browser) == everything
    browser.evaluate("document.getElementById('expand').click()")
    assert browser.evaluate("[...document.querySelectorAll('#all details')].every((d) => d.open)")


def test_without_scripts_everything_can_be_read(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["mixed"], scripts=False)
    assert browser.evaluate("document.getElementById('tools').offsetHeight") == 0
    assert shown_rows(browser) == browser.evaluate("document.querySelectorAll('#all tbody tr').length")


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_has_the_scheme_that_is_asked_for(dark: bool, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["mixed"], dark=dark)
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(16, 20, 24)" if dark else "rgb(255, 255, 255)")
