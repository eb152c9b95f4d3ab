"""Ctrl-C and SIGTERM, for work that stops at its next checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def stop_on_signal(console: Console) -> Generator[list[int]]:
    """Turns the first Ctrl-C (or SIGTERM) into an entry of the list; the second ends the program at once, as safely."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])
        console.print("stopping at the next checkpoint; once more to stop at once")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
