"""The site, built with warnings as errors and opened from the disk in a real browser. Slow; needs `make docs` once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import itrpo
from itrpo import cli, registry
from tests.report import browser as chromium

REPOSITORY = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="`make docs` installs what builds the site"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_reference_has_every_public_name_command_and_algorithm(site):
    python, commands, algorithms = (
        (site / "reference" / f"{name}.html").read_text("utf-8") for name in ("python", "commands", "algorithms")
    )
    assert [name for name in itrpo.__all__ if not name.startswith("_") and f".{name}" not in python] == []
    assert [name for name in cli.COMMANDS if f'id="itrpo-{name.replace(" ", "-")}"' not in commands] == []
    assert [name for name in registry.ALGORITHMS if f'<h2 id="{name}"' not in algorithms] == []


def test_no_formula_is_left_as_text(site):
    for page in ("theory.html", "errata.html"):
        text = (site / page).read_text("utf-8")
        assert text.count("<math") > 20
        assert 'class="arithmatex"' not in text


def test_it_works_from_the_disk_on_every_page_wide_and_narrow(site, tmp_path):
    """No error, no request, nothing wider than a phone; the search finds; the dark one is dark."""
    program = chromium.find()
    if program is None:
        pytest.skip("no Chromium")
    with chromium.running(program, tmp_path) as browser:
        for scheme, width in (("dark", 400), ("light", 1400)):
            browser.media(scheme)
            browser.resize(width, 1000)
            for page in sorted({*site.rglob("*.html")} - {site / "404.html"}):  # whose paths are of a server
                browser.open(page.as_uri())
                over = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert over <= 0, f"{page.name} is {over} pixels too wide at {width}"
            browser.open((site / "index.html").as_uri())
            time.sleep(1.0)
            shade = browser.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (shade == "rgb(255, 255, 255)") == (scheme == "light")
        browser.evaluate("document.querySelector('.md-search__input').focus()")
        for letter in "holdout":
            browser.send("Input.dispatchKeyEvent", {"type": "keyDown", "text": letter, "key": letter})
            browser.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": letter})
        time.sleep(5.0)
        found = "[...document.querySelectorAll('.md-search-result__item h1')].map(it => it.textContent).join()"
        assert "Judging without a simulator" in browser.evaluate(found)
        assert browser.problems() == []
