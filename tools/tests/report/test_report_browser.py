# SPDX-License-Identifier: GPL-2.0-only
"""The HTML report in a browser: it loads clean, and keyboard, filter and logs work."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from iommuq.report.html import to_html
from iommuq.results.runs.model import CommandRun
from records import broken, case, cell, queue, record

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
#: Milliseconds that anything may take on a machine that does much else.
PATIENCE = 240_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def wait_for_rows(page: Page, count: int) -> None:
    # By its own selectors: a predicate in JavaScript is what the page's policy forbids.
    rows = page.locator("#matrix tr[data-r]")
    pytest.importorskip("playwright.sync_api").expect(rows).to_have_count(count, timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        # The sandbox does not work for root, and nothing here is from anywhere else.
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=arguments, timeout=PATIENCE
        )
        yield running
        running.close()


class Shown:
    """A page, and whatever went wrong in it."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page = page
        self.wrong: list[str] = []
        self.fetched: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: self.wrong.append(message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.fetched.append(request.url))
        page.goto(file.as_uri())
        self.file = file

    def rows(self) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all(
            "#matrix tr[data-r] th", "found => found.map(one => one.textContent)"
        )
        return found


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[object]:
    shown: list[Shown] = []

    def open_page(run: CommandRun, width: int = 1280) -> Shown:
        (tmp_path / "run.html").write_text(to_html(run), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 844})
        shown.append(Shown(context.new_page(), tmp_path / "run.html"))
        return shown[-1]

    yield open_page
    for one in shown:
        # Whatever a test looked at: no error, no policy breached, nothing fetched.
        assert one.wrong == []
        assert set(one.fetched) == {one.file.as_uri()}
        one.page.context.close()


def test_a_queue_with_keyboard_and_filter(show) -> None:  # type: ignore[no-untyped-def]
    shown = show(queue())
    page = shown.page
    assert page.title() == "✓ iommuq run 6.12"
    assert shown.rows() == ["a", "b"]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.type("toy.B")
    wait_for_rows(page, 1)
    assert shown.rows() == ["b"]
    assert page.inner_text("#count") == "1 of 2"
    page.keyboard.press("Escape")
    wait_for_rows(page, 2)
    page.keyboard.press("Escape")
    # Through the table, and into a cell.
    page.focus("#matrix td button[tabindex='0']")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.inner_text("#panel-name") == "toy.a"
    assert page.inner_text("#panel-step").startswith("0001")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#panel-step") == "baseline"
    assert "Expected 1" in page.inner_text("#panel-body")
    assert "0001 fixes it" in page.inner_text("#panel-body")
    assert "iommuq kunit 6.12 'toy.a' --at baseline" in page.inner_text("#panel-body")
    page.keyboard.press("Escape")
    assert not page.is_visible("#panel")
    # Back where it was opened.
    assert page.evaluate("document.activeElement.closest('tr').dataset.r") == "0"
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")


def test_failures_a_hostile_log_and_a_link_to_a_cell(show, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    log = tmp_path / "x.log"
    log.write_text("<script>alert(1)</script>\n<img src=x onerror=alert(2)>\n# \u202e\x1b[31mred\n")
    bad = broken()
    more = record(*bad.cells, cell("0001", case("log.x", "fail", log=str(log))), exit_code=1)
    shown = show(more)
    page = shown.page
    page.keyboard.press("n")
    first = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "fails, and should not" in first
    page.click(".failures a.name >> text=log.x")
    page.wait_for_selector("#panel[open] .log")
    assert page.inner_text("#panel .log span >> nth=0") == "<script>alert(1)</script>"
    assert page.inner_text("#panel .log span >> nth=2") == "# \\u202ered"
    assert page.query_selector("#panel img, #panel .log script") is None
    assert "#cell-" in page.url
    page.click("#panel [data-do=close]")
    page.check("input[value=failing]", force=True)
    assert len(shown.rows()) == 4
    assert all("\u202e" not in name for name in shown.rows())
    page.check("input[value=all]", force=True)
    assert len(shown.rows()) == 7


def test_on_a_phone_the_page_is_no_wider_than_it(show) -> None:  # type: ignore[no-untyped-def]
    for run in (queue(), broken()):
        page = show(run, width=360).page
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.click("#matrix td button >> nth=0")
        assert (
            page.evaluate("document.querySelector('#panel').getBoundingClientRect().width") <= 360
        )


@pytest.mark.parametrize("width", [1280, 360])
def test_names_of_functions_are_not_broken(show, width: int) -> None:  # type: ignore[no-untyped-def]
    names = ["iommu_group_claim_dma_owner_of_all_its_devices", "toy_step"]
    counts = {"lines": 300, "lines_executed": 1, "branches": 9, "branches_executed": 0}
    # What was not executed may be long, and takes all the room that it can get.
    each = {"touched": True, **counts, "missed": list(range(1, 600, 2))}
    functions = [{"name": name, **each} for name in names]
    file = {"file": "a.c", "built": True, **counts, "functions": functions}
    page = show(record(cell("0001"), head={"coverage": {"files": [file]}}), width=width).page
    lines_of = """found => found.map(one => {
        const range = document.createRange();
        range.selectNodeContents(one);
        return [one.textContent, range.getClientRects().length];
    })"""
    shown = page.eval_on_selector_all("#coverage th[scope=row]", lines_of)
    assert shown == [[name, 1] for name in names]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark_differ(show) -> None:  # type: ignore[no-untyped-def]
    page = show(queue()).page
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]
    page.emulate_media(media="print")
    assert not page.is_visible("nav")
    assert not page.is_visible(".tools")
    assert page.is_visible("#matrix")


def test_50000_results_and_200_mb_of_logs_open_at_once(show, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Small files of few elements open at once; how soon depends on the machine, too."""
    logs = []
    for number in range(10):
        logs.append(tmp_path / f"{number}.log")
        with logs[-1].open("wb") as file:
            for line in range(20):
                file.write(b"line %d\n" % line * 1000)
            file.truncate(20 << 20)
            file.seek(20 << 20)
            file.write(b"\nthe end\n")
    tests = [
        case(
            f"suite{number % 100}.a_test_with_a_long_name_{number}",
            "fail" if number % 100 == 7 else "pass",
            message="Expected 1 == 2, but\n" * 5 if number % 100 == 7 else "",
            log=str(logs[number % 10]),
        )
        for number in range(50_000)
    ]
    run = record(cell("0001", *tests), exit_code=1)
    before = time.monotonic()
    shown = show(run)
    opened = shown.page.evaluate(
        "performance.timing.loadEventEnd - performance.timing.navigationStart"
    )
    spent = time.monotonic() - before
    print(f"{shown.file.stat().st_size >> 10} KiB, {spent:.1f} s, opened in {opened} ms")
    assert shown.file.stat().st_size < 24 << 20
    # What makes it quick, whatever else the machine does: few elements.
    assert shown.page.evaluate("document.querySelectorAll('*').length") < 8000
    shown.page.fill("#filter", "name_49907")
    wait_for_rows(shown.page, 1)
    shown.page.click("#matrix td button")
    shown.page.wait_for_selector("#panel[open]")
    assert "the middle is left out" in shown.page.inner_text("#panel .log")
    assert "the end" in shown.page.inner_text("#panel .log")
