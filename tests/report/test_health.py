from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from itrpo.report.health import print_health
from tests.data.health.sound_log import SOUND, changed, check


def test_what_is_printed() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    print_health(check(rewards=changed("rewards", [7, 9], np.nan), observations=SOUND["observations"] * 100), console)
    text = console.export_text()
    for part in (
        "error",
        "not-finite",
        "rows 7, 9",
        "-> training refuses them",
        "1 error, 1 note",
        "completed episodes",
    ):
        assert part in text
    console = Console(width=100, record=True, file=io.StringIO())
    print_health(check(), console)
    assert "Nothing unusual was found." in console.export_text()
