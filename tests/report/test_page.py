"""The report's page in a real browser: no error, no request, every figure drawn, tables that sort, on a phone and
dark.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from itrpo.report.page.write import make_report
from tests.report.browser import BOTH_WAYS, Browser, check_figures, needs_browser, opened
from tests.report.canned_results import HOSTILE, everything

FIRST_TABLE = "document.querySelector('table.sortable')"
COLUMN = "(n) => [...document.querySelector('table.sortable').tBodies[0].rows].map((row) => row.cells[n].innerText)"


@pytest.fixture(scope="module")
def report():
    return make_report(everything())


@pytest.fixture(scope="module")
def page(report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report.page, "utf-8")
    return path


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(page, tmp_path_factory.mktemp("profile")) as running:
        yield running


@needs_browser
def test_a_pointer_over_a_curve_shows_values(browser: Browser):
    browser.evaluate("drawAll().then(() => document.querySelector('.chart').scrollIntoView({ block: 'center' }))")
    x, y, width, height = browser.evaluate(
        "(() => { const it = document.querySelector('.chart svg.marks').getBoundingClientRect();"
        " return [it.x, it.y, it.width, it.height]; })()"
    )
    browser.hover(x + width / 2, y + height / 2)
    browser.hover(x + width / 2 + 4, y + height / 2)
    text = browser.evaluate(
        "new Promise((done) => setTimeout(() => done(document.getElementById('vg-tooltip-element')?.innerText), 300))"
    )
    assert text is not None
    assert "95 % from" in text


@needs_browser
@BOTH_WAYS
def test_every_figure_is_drawn_and_nothing_is_wider_than_the_window(browser: Browser, width: int, scheme: str):
    assert check_figures(browser, width, scheme) > 10


@needs_browser
def test_dark_and_light_follow_the_system_and_the_switch(browser: Browser):
    ground = "getComputedStyle(document.body).backgroundColor"
    label = "getComputedStyle(document.querySelector('.chart svg .role-axis-label text')).fill"
    seen = {}
    for scheme in ("light", "dark"):
        browser.media(scheme)
        seen[scheme] = browser.evaluate(f"[{ground}, {label}]")
    assert seen["light"] == ["rgb(245, 246, 247)", "rgb(98, 103, 109)"]
    assert seen["dark"] == ["rgb(16, 18, 21)", "rgb(160, 167, 175)"]
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate(f"[{ground}, {label}]") == seen["light"]
    browser.media("light", "print")  # on paper it is light, whatever was chosen
    browser.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert browser.evaluate(label) == seen["light"][1]
    browser.evaluate("delete document.documentElement.dataset.theme; localStorage.clear()")
    browser.media("light")


@needs_browser
def test_tables_sort_by_click_and_by_key_and_what_did_not_run_stays_last(browser: Browser):
    tasks = browser.evaluate(f"({COLUMN})(0)")
    header = f"{FIRST_TABLE}.tHead.rows[0].cells"
    names = browser.evaluate(f"[...{header}].map((it) => it.querySelector('button').innerText)")
    column = names.index("PBRL")  # its five runs on walker2d are missing

    def means() -> list[float | None]:
        texts = browser.evaluate(f"({COLUMN})({column})")
        return [None if it.startswith("not run") else float(re.sub("[●\\s]", "", it.split("±")[0])) for it in texts]

    browser.evaluate(f"{header}[{column}].querySelector('button').click()")
    values = means()
    assert values[-5:] == [None] * 5
    assert values[:-5] == sorted(values[:-5], reverse=True)
    assert browser.evaluate(f"{header}[{column}].getAttribute('aria-sort')") == "descending"
    browser.evaluate(f"{header}[{column}].querySelector('button').focus()")
    browser.press("Enter")
    values = means()
    assert values[-5:] == [None] * 5
    assert values[:-5] == sorted(values[:-5])
    assert sorted(browser.evaluate(f"({COLUMN})(0)")) == sorted(tasks)
    browser.evaluate(f"{header}[0].querySelector('button').click()")
    browser.evaluate(f"{header}[0].querySelector('button').click()")
    assert tasks in (browser.evaluate(f"({COLUMN})(0)"), browser.evaluate(f"({COLUMN})(0).reverse()"))


@needs_browser
def test_the_protocol_is_switched(browser: Browser):
    before = browser.evaluate(f"({COLUMN})(1)")
    browser.evaluate("document.querySelector('#protocol input[value=last]').click()")
    after = browser.evaluate(f"({COLUMN})(1)")
    browser.evaluate("document.querySelector('#protocol input[value=paper]').click()")
    assert sorted(browser.evaluate(f"({COLUMN})(1)")) == sorted(before)
    assert sorted(after) != sorted(before)


@needs_browser
def test_what_files_say_is_text_and_no_markup(browser: Browser, report):
    assert HOSTILE not in report.page
    assert html.escape(HOSTILE) in report.page
    assert browser.evaluate("document.title") == "iTRPO: the paper’s evidence, run again"
    assert browser.problems() == []
