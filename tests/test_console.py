from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from itrpo import console as console_module
from itrpo.console import LiveLine, duration, progress_bar


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
        "training 200/400  0:04 left  50 steps/s (200 over 4 seeds)  critic_loss 0.0123  score 20",
        "training 300/400  0:02 left  50 steps/s (200 over 4 seeds)  critic_loss 0.0123  score 30",  # timed for 4 s
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
        "training 50/200  0:02 left  50 steps/s  score 10",
        "training 200/200  49.8 steps/s  score 20",
    ]


def test_a_phase_without_evaluations_leaves_its_last_values(clock):
    console = plain_console()
    with LiveLine(console, "fitting pi_beta", total=10_000, seeds=1, start=2_000) as line:
        clock[0] = 4.0
        line.update(10_000, {"nll": -1234.5})
    assert console.file.getvalue() == "fitting pi_beta 10,000/10,000  2,000 steps/s  nll -1,234\n"


def test_a_log_file_hears_of_it_while_nothing_is_updated(monkeypatch):
    """As during a long compilation or evaluation; and no longer than it lasts."""
    monkeypatch.setattr(console_module, "LINE_SECONDS", 0.02)
    console = plain_console()
    with LiveLine(console, "training", total=400, seeds=1) as line:
        while console.file.getvalue().count("\n") < 2:
            time.sleep(0.005)
        line.update(400, {"score": 3.0}, evaluated=True)
    lines = console.file.getvalue().splitlines()
    assert lines[:2] == ["training 0/400  compiling"] * 2
    assert lines[-1].startswith("training 400/400")
    time.sleep(0.1)
    assert console.file.getvalue().splitlines() == lines


def test_at_80_columns_time_left_and_speed_survive(clock):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, highlight=False)
    with LiveLine(console, "training itrpo_insample", total=1_000_000, seeds=4) as line:
        line.update(1, {})
        clock[0] = 10.0
        line.update(1_001, {"score": 41.0, "critic_loss": 1.5})
        (drawn,) = console.render_lines(line._render())
    shown = "".join(segment.text for segment in drawn)
    assert shown.startswith("training itrpo_insample 1,001/1,000,000  2:46:30 left  100 steps/s")
    assert len(shown) <= 80


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "0:04"), (7_445, "2:04:05"), (71 * 3600, "71:00:00"), (75 * 3600 + 60, "3 days 3 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


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
