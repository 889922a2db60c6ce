"""The HTML report in a browser: sorted and filtered by mouse and keyboard, on a phone, in the dark, alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from oracle.compare import Comparison
from oracle.report.html import render_html
from tests.oracle.report.pages import BARE, COMMAND, FULL, GOOD, RAISED, ROWS, hostile, trajectory

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 800}

ORDER = "[...document.querySelector('#port-1-tensors').tBodies[0].rows].map(row => row.cells[0].textContent)"
SHOWN = "[...document.querySelector('#port-1-tensors').tBodies[0].rows].filter(row => row.checkVisibility()).map(row => row.dataset.status)"

# WCAG's contrast of every text with what is painted below it, and how much it should have.
CONTRAST = """
() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (...colours) => {
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    const linear = (part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    const below = [];
    for (let each = element; each; each = each.parentElement) below.unshift(getComputedStyle(each).backgroundColor);
    const style = getComputedStyle(element);
    const colour = element.closest("svg") ? style.fill : style.color;
    const lights = [paint("white", ...below), paint("white", ...below, colour)].sort((a, b) => b - a);
    found.push([(lights[0] + 0.05) / (lights[1] + 0.05), walker.currentNode.textContent.trim()]);
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        # Root has no sandbox to offer, as in a container.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


Open = Callable[..., object]


@pytest.fixture
def opened(browser: object, tmp_path: Path) -> Open:
    """Opens the report of comparisons; at the end nothing may have been loaded, logged or raised."""

    @contextmanager
    def _open(*comparisons: Comparison, viewport: dict = DESK, scheme: str = "light", script: bool = True):
        path = tmp_path / "report.html"
        page_text = render_html(comparisons, command=COMMAND, trajectories=[("trained", trajectory())])
        path.write_text(page_text, encoding="utf-8")
        context = browser.new_context(viewport=viewport, color_scheme=scheme, java_script_enabled=script)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.set_default_navigation_timeout(30_000)
        faults: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        context.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        yield page
        assert faults == []
        # What a data: address holds is in the page.
        assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
        context.close()

    return _open


def header(page, name: str):
    return page.locator("#port-1-tensors thead th", has=page.get_by_role("button", name=name, exact=True))


def order(page) -> list[int]:
    return [int(text) for text in page.evaluate(ORDER)]


def test_a_click_sorts_and_another_turns_round(opened: Open) -> None:
    with opened(FULL) as page:
        assert header(page, "#").get_attribute("aria-sort") == "ascending"
        header(page, "max abs error").get_by_role("button").click()
        assert header(page, "max abs error").get_attribute("aria-sort") == "descending"
        assert header(page, "#").get_attribute("aria-sort") is None
        # The largest first; those without a number stay last, in the order of computation.
        assert order(page) == [5, 3, 1, 2, 4, 6, 7, 8, 9, 10]
        header(page, "max abs error").get_by_role("button").click()
        assert header(page, "max abs error").get_attribute("aria-sort") == "ascending"
        assert order(page) == [2, 1, 3, 5, 4, 6, 7, 8, 9, 10]


def test_every_column_sorts_by_what_it_shows(opened: Open) -> None:
    orders = {
        "#": list(range(10, 0, -1)),
        "status": [1, 2, 3, 8, 4, 6, 7, 10, 9, 5],
        "tensor": None,
        "max abs error": [5, 3, 1, 2, 4, 6, 7, 8, 9, 10],
        "shape": [3, 5, 4, 6, 1, 2, 7, 9, 10, 8],
        "at": [3, 5, 7, 1, 2, 6, 4, 8, 9, 10],
        "the port has": [6, 1, 2, 5, 3, 7, 4, 8, 9, 10],
        "the oracle has": [5, 1, 2, 6, 3, 7, 4, 8, 9, 10],
        "relative L2": [5, 3, 1, 2, 4, 6, 7, 8, 9, 10],
        "cosine": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        "noise": [1, 2, 3, 5, 4, 6, 7, 8, 9, 10],
        "needed": [3, 5, 1, 2, 4, 6, 7, 8, 9, 10],
        "held by": [1, 2, 5, 6, 7, 8, 9, 10, 4, 3],
        "note": None,
    }
    with opened(FULL) as page:
        names = [name.strip() for name in page.locator("#port-1-tensors thead th").all_inner_texts()]
        assert sorted(names) == sorted(orders)
        for name, expected in orders.items():
            header(page, name).get_by_role("button").click()
            if expected is not None:
                assert order(page) == expected, name
        header(page, "tensor").get_by_role("button").click()
        names = page.locator("#port-1-tensors tbody th").all_inner_texts()
        # By numbers within names: 2 before 10.
        assert names.index("gradient/layers_2/bias") < names.index("gradient/layers_10/bias")
        assert names[-1] == "output/decoder"
        header(page, "#").get_by_role("button").click()
        assert order(page) == list(range(1, 11))


def test_the_keyboard_alone_sorts_and_filters(opened: Open) -> None:
    with opened(FULL) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator(".skip").bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "results"
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.type") == "search":
                break
        page.keyboard.type("encoder BIAS")
        assert page.evaluate(SHOWN) == ["nonfinite"]
        assert page.locator("#port-1 output").inner_text() == "1 of 10 shown"
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.keyboard.press("Tab")
        page.keyboard.type("findings")
        assert page.evaluate(SHOWN) == [row.status for row in ROWS if row.status != "match"]
        # Past the box, which scrolls, to the header.
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert header(page, "#").get_attribute("aria-sort") == "descending"
        assert order(page) == list(range(10, 0, -1))
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid"


def test_filters_by_text_and_by_status(opened: Open) -> None:
    with opened(FULL) as page:
        select, search = page.locator("#port-1 select"), page.locator("#port-1 input")
        assert select.locator("option").all_inner_texts()[:3] == ["all (10)", "findings (8)", "match (2)"]
        for status in dict.fromkeys(row.status for row in ROWS):
            select.select_option(status)
            assert set(page.evaluate(SHOWN)) == {status}
        select.select_option("nonfinite")
        search.fill("projection")
        assert page.evaluate(SHOWN) == ["nonfinite"]
        header(page, "tensor").get_by_role("button").click()
        assert page.evaluate(SHOWN) == ["nonfinite"]
        select.select_option("")
        search.fill("lstm_cell/kernel:0")
        assert page.evaluate(SHOWN) == ["mismatch"]
        search.fill("nothing of the kind")
        assert page.evaluate(SHOWN) == []
        assert page.locator("#port-1 output").inner_text() == "0 of 10 shown"


def test_the_command_is_copied(opened: Open) -> None:
    with opened(FULL) as page:
        page.get_by_role("button", name="Copy").click()
        playwright.expect(page.locator("#command-copied")).to_have_text("copied")
        page.locator("#port-1 input").focus()
        page.keyboard.press("Control+V")
        assert page.locator("#port-1 input").input_value() == COMMAND


def test_without_a_clipboard_the_command_is_copied_too(opened: Open) -> None:
    with opened(FULL) as page:
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
        page.get_by_role("button", name="Copy").click()
        playwright.expect(page.locator("#command-copied")).to_have_text("copied")
        page.locator("#port-1 input").focus()
        page.keyboard.press("Control+V")
        assert page.locator("#port-1 input").input_value() == COMMAND


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(opened: Open, scheme: str) -> None:
    long = "gradient/" + "wrapped_" * 40 + "kernel"
    odd = msgspec.structs.replace(RAISED, port=msgspec.structs.replace(RAISED.port, model=long, data=long))
    rows = tuple(msgspec.structs.replace(row, name=long, variables=(long,)) for row in ROWS)
    wide = msgspec.structs.replace(FULL, rows=rows, left_out=(long,))
    with opened(wide, BARE, GOOD, odd, hostile(), viewport=PHONE, scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        boxes = page.evaluate(
            "[...document.querySelectorAll('.scroll')].map((box) => box.getBoundingClientRect().right)"
        )
        assert max(boxes) <= 360
        # The status is seen without scrolling.
        assert (
            page.evaluate("document.querySelector('#port-1-tensors td.bad').getBoundingClientRect().right")
            <= 360
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(opened: Open, scheme: str) -> None:
    with opened(FULL, GOOD, RAISED, hostile(), scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        found = page.evaluate(CONTRAST)
        assert len(found) > 300
        assert [text for ratio, text in found if ratio < 4.5] == []
        brightness = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert brightness == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")
        axes = page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
        assert axes == page.evaluate("getComputedStyle(document.body).color")


def test_without_a_script_everything_is_there(opened: Open) -> None:
    with opened(FULL, RAISED, script=False) as page:
        assert page.locator("#port-1-tensors tbody tr").first.is_visible()
        assert not page.locator("#port-1 input").is_visible()
        assert not page.get_by_role("button").count()
        page.locator("summary", has_text="Other candidates").click()
        assert page.get_by_text("docs/causes/C101.md").is_visible()


def test_nothing_from_outside_runs(opened: Open) -> None:
    with opened(hostile(), RAISED) as page:
        page.wait_for_timeout(200)
        assert page.evaluate("window.hit") is None


def test_figures_are_seen(opened: Open) -> None:
    with opened(FULL) as page:
        images = page.get_by_role("img")
        assert images.count() == 3
        assert [images.nth(n).bounding_box()["width"] > 200 for n in range(3)] == [True] * 3
        names = [images.nth(n).get_attribute("aria-labelledby").split()[0] for n in range(3)]
        told = [page.evaluate(f"document.getElementById('{name}').textContent") for name in names]
        assert told == ["Heat map of the forward pass", "Heat map of the backward pass", "trained"]


def test_thousands_of_tensors_sort_and_filter_at_once(opened: Open) -> None:
    rows = tuple(
        msgspec.structs.replace(ROWS[2], name=f"w{n}", max_abs=float(n * 7919 % 5000)) for n in range(5000)
    )
    with opened(Comparison(FULL.port, FULL.oracle, rows)) as page:
        took = page.evaluate(
            """async () => {
              const began = performance.now();
              document.querySelectorAll('#port-1-tensors thead button')[4].click();
              const search = document.querySelector('#port-1 input');
              search.value = 'w499';
              search.dispatchEvent(new Event('input'));
              await new Promise(requestAnimationFrame);
              return performance.now() - began;
            }"""
        )
        assert len(page.evaluate(SHOWN)) == 11
        shown = page.locator("#port-1-tensors tbody tr:not([hidden]) td:nth-child(5)").all_inner_texts()
        assert shown == sorted(shown, key=float, reverse=True)
        assert took < 10_000
        print(f"5,000 rows: {took:.0f} ms")
