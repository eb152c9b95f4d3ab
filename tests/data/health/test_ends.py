from __future__ import annotations

import numpy as np
import pytest

from tests.data.health.sound_log import CLOCK, ROWS, SOUND, changed, check, names, only


def test_episodes_that_never_end() -> None:
    health = check(terminals=np.zeros(ROWS), timeouts=np.zeros(ROWS), horizon=CLOCK)
    assert names(health) == ["no-ends", "too-long", "unmarked-ends"]
    found = {finding.name: finding for finding in health.findings}
    assert (found["too-long"].rows, found["too-long"].count) == ((0,), 1)
    true_ends = np.flatnonzero(SOUND["terminals"] | SOUND["timeouts"])
    assert set(found["unmarked-ends"].rows) <= set(true_ends)
    assert found["unmarked-ends"].count > 0.3 * len(true_ends)


def test_an_unfinished_last_episode() -> None:
    ends = SOUND["terminals"] | SOUND["timeouts"]
    flags = {key: changed(key, -1, False) for key in ("terminals", "timeouts")}
    finding = only(check(**flags))
    assert (finding.severity, finding.name) == ("note", "unfinished-episode")
    assert finding.rows == (int(np.flatnonzero(ends[:-1])[-1]) + 1,)


def test_only_one_episode() -> None:
    one = np.zeros(ROWS, bool)
    one[-1] = True
    health = check(
        observations=np.cumsum(SOUND["observations"] - 0.5, axis=0) / 1000, terminals=one, timeouts=one & False
    )
    assert "one-episode" in names(health)


def test_flags_the_wrong_way_round() -> None:
    health = check(terminals=~SOUND["terminals"])
    assert health.findings[0].name == "mostly-terminal"
    assert health.findings[0].severity == "error"


def test_successes_that_are_marked_as_timeouts() -> None:
    ends = SOUND["terminals"] | SOUND["timeouts"]
    finding = next(
        it for it in check(rewards=ends, terminals=ends & False, timeouts=ends).findings if it.name == "lost-rewards"
    )
    assert finding.count == ends.sum()
    assert f"hold {ends.sum():,} of the {ends.sum():,} rewards" in finding.what
    assert "lost-rewards" not in {it.name for it in check(rewards=ends, terminals=ends, timeouts=ends & False).findings}


def test_rows_with_both_flags() -> None:
    both = np.flatnonzero(SOUND["terminals"])[:3]
    finding = only(check(timeouts=changed("timeouts", both, True)))
    assert (finding.severity, finding.name, finding.rows) == ("note", "both-flags", tuple(both))
    finding = only(check(timeouts=SOUND["timeouts"] | SOUND["terminals"]))
    assert (finding.severity, finding.count) == ("warning", SOUND["terminals"].sum())


def test_one_step_episodes() -> None:
    doubled = np.flatnonzero(SOUND["terminals"])[:2] - 1
    finding = only(check(terminals=changed("terminals", doubled, True)))
    assert (finding.severity, finding.name, finding.rows) == ("note", "one-step-episodes", tuple(doubled + 1))


def test_episodes_longer_than_the_clock() -> None:
    by_clock = np.flatnonzero(SOUND["timeouts"])[:-1]
    jumps = np.abs(SOUND["observations"][by_clock + 1] - SOUND["observations"][by_clock]).max(axis=1)
    missed = np.sort(by_clock[np.argsort(jumps)[-2:]])
    health = check(timeouts=changed("timeouts", missed, False), horizon=CLOCK)
    assert "too-long" in names(health)
    finding = next(finding for finding in health.findings if finding.name == "too-long")
    assert (finding.rows, finding.count) == (tuple(missed - CLOCK + 1), 2)
    finding = next(finding for finding in health.findings if finding.name == "unmarked-ends")
    assert finding.rows == tuple(missed)


def test_terminals_that_are_the_clocks() -> None:
    finding = only(check(terminals=SOUND["terminals"] | SOUND["timeouts"], timeouts=np.zeros(ROWS)))
    assert (finding.severity, finding.name) == ("warning", "terminals-at-the-clock")
    by_clock = np.flatnonzero(SOUND["timeouts"])
    assert set(finding.rows) <= set(by_clock)
    assert finding.count >= len(by_clock) - 1  # the last episode of the log may be shorter


def test_timeouts_that_look_like_terminals() -> None:
    fallen = np.flatnonzero(SOUND["terminals"])
    for horizon in (None, CLOCK):  # without it, the commonest length is taken for the clock's
        ends = SOUND["terminals"] | SOUND["timeouts"]
        finding = only(check(terminals=np.zeros(ROWS), timeouts=ends, horizon=horizon))
        assert (finding.severity, finding.name, finding.rows) == ("note", "early-timeouts", tuple(fallen[:5]))
    cut = np.zeros(ROWS, bool)
    cut[np.cumsum(np.arange(20, 140, 3))] = True
    found = [finding.what for finding in check(terminals=np.zeros(ROWS), timeouts=cut).findings]
    assert any("from 21 to 137 steps: no clock does that" in what for what in found)


@pytest.mark.parametrize(("shift", "side"), [(-1, "after"), (1, "before")])
def test_flags_that_are_shifted_by_a_row(shift: int, side: str) -> None:
    """A flag a row too early: the jump comes after it. A row too late: before."""
    health = check(**{key: np.roll(SOUND[key], shift) for key in ("terminals", "timeouts")})
    found = [finding for finding in health.findings if finding.name == "shifted-flags"]
    assert len(found) == 2
    for finding, key in zip(found, ("terminals", "timeouts"), strict=True):
        assert finding.severity == "warning"
        flagged = np.flatnonzero(np.roll(SOUND[key], shift)[:-1])
        assert (finding.rows, finding.count) == (tuple(flagged[:5]), len(flagged))
        assert f"one row {side} the flag" in finding.what


def test_terminals_within_an_episode() -> None:
    inside = np.flatnonzero(~(SOUND["terminals"] | SOUND["timeouts"]))[500:9000:50]
    terminals = np.zeros(ROWS, bool)
    terminals[inside] = True
    health = check(terminals=terminals, timeouts=SOUND["timeouts"] | SOUND["terminals"])
    finding = next(finding for finding in health.findings if finding.name == "terminals-go-on")
    assert set(finding.rows) <= set(inside)
    assert finding.count > 0.8 * len(inside)


def test_a_run_cut_into_pieces_by_timeouts() -> None:
    pieces = np.arange(ROWS) % 100 == 99
    run = np.cumsum(SOUND["actions"], axis=0)  # goes on and on
    health = check(observations=run / 100, terminals=np.zeros(ROWS), timeouts=pieces)
    assert "timeouts-go-on" in names(health)


def test_next_observations_that_are_not_the_next_row() -> None:
    following = np.roll(SOUND["observations"], -1, axis=0)
    ends = np.flatnonzero(SOUND["terminals"] | SOUND["timeouts"])
    following[ends] += 1
    assert check(next_observations=following).findings == ()
    loose = np.flatnonzero(~(SOUND["terminals"] | SOUND["timeouts"]))[[10, 800]]
    following[loose] += 0.01
    finding = only(check(next_observations=following))
    assert (finding.name, finding.rows) == ("loose-rows", tuple(loose))
