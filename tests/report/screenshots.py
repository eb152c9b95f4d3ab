"""Pictures of a report's page, to be looked at: light and dark, 400 and 1,400 pixels wide.

python tests/report/screenshots.py report/report.html FOLDER
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.report import browser as chromium


def main(page: Path, folder: Path) -> None:
    program = chromium.find()
    if program is None:
        sys.exit("there is no Chromium; install it, or name one in CHROMIUM")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, chromium.running(program, Path(profile)) as browser:
        for scheme in ("light", "dark"):
            browser.media(scheme)
            for width, height in ((1400, 1500), (400, 1800)):
                browser.resize(width, height)
                browser.open(page.resolve().as_uri())
                browser.evaluate("drawAll().then(() => 1)")
                whole = browser.evaluate("document.documentElement.scrollHeight")
                for index, top in enumerate(range(0, whole, height - 100)):
                    browser.evaluate(f"window.scrollTo(0, {top})")
                    time.sleep(0.1)
                    browser.screenshot(folder / f"{scheme}-{width}-{index:02}.png")
        print("\n".join(browser.problems()) or "no errors, no requests")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
