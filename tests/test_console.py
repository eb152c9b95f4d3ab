from __future__ import annotations

import io

import pytest
from rich.console import Console

from itrpo import console as console_module
from itrpo.console import LiveLine, progress_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: `clock[0]` is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    return now


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=40, highlight=False)


def test_a_log_file_gets_one_whole_line_per_evaluation(clock):
    console = plain_console()
    with LiveLine(console, "training", total=400, seeds=4) as line:
        for step, seconds in ((100, 60.0), (200, 62.0), (300, 64.0), (400, 66.0)):
            clock[0] = seconds
            line.update(step, {"critic_loss": 0.012345, "score": step / 10}, evaluated=step != 300)
    assert console.file.getvalue().splitlines() == [
        "training 100/400  critic_loss 0.0123  score 10",  # no speed: this block compiled
        "training 200/400  50 steps/s (200 over 4 seeds)  0:04 left  critic_loss 0.0123  score 20",
        "training 400/400  50 steps/s (200 over 4 seeds)  critic_loss 0.0123  score 40",
    ]


def test_an_evaluation_that_is_over_later_is_named_by_its_own_step(clock):
    console = plain_console()
    with LiveLine(console, "training", total=200, seeds=1) as line:
        line.update(1, {})
        clock[0] = 2.0
        line.update(101, {})
        line.update(50, {"score": 10.0}, evaluated=True)
        clock[0] = 4.0
        line.update(200, {"score": 20.0}, evaluated=True)
    assert console.file.getvalue().splitlines() == [
        "training 50/200  50 steps/s  0:02 left  score 10",
        "training 200/200  49.8 steps/s  score 20",
    ]


def test_a_phase_without_evaluations_leaves_its_last_values(clock):
    console = plain_console()
    with LiveLine(console, "fitting pi_beta", total=10_000, seeds=1, start=2_000) as line:
        clock[0] = 4.0
        line.update(10_000, {"nll": -1234.5})
    assert console.file.getvalue() == "fitting pi_beta 10,000/10,000  2,000 steps/s  nll -1,234\n"


def test_a_terminal_line_is_redrawn_and_never_wider_than_the_terminal(clock):
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None, highlight=False)
    with LiveLine(console, "training", total=200, seeds=1) as line:
        line.update(100, {f"a_long_metric_name_{i}": 1.0 for i in range(5)}, evaluated=True)
        lines = console.render_lines(line._render())
    assert len(lines) == 1
    assert console.file.getvalue().endswith("a_long_metric_name_4 1\n")  # the last values stay, whole


def test_progress_in_a_log_file_is_one_line():
    console = plain_console()
    with progress_bar(console, "making hopper-demo", 200) as advance:
        advance(100)
        advance(100)
    assert console.file.getvalue() == "making hopper-demo ...\n"
