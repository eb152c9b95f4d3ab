from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from itrpo.data.health import Health, check_dataset
from itrpo.data.health.rows import Finding
from itrpo.errors import InputError
from itrpo.report.health import print_health
from tests.data.hdf5_files import write

ROWS, CLOCK = 12_000, 100


def sound_log(seed: int = 0) -> dict[str, np.ndarray]:
    """Episodes of a noisy linear system that starts near 1, and ends where |x| > 1.9 or after 100 steps."""
    rng = np.random.default_rng(seed)
    observations, actions = np.zeros((ROWS, 3)), np.zeros((ROWS, 2))
    terminals, timeouts = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
    state, age = np.zeros(3), CLOCK
    for row in range(ROWS):
        if age == CLOCK:
            state, age = 1 + 0.02 * rng.normal(size=3), 0
        action = np.tanh(0.4 * state[:2] + 0.5 * rng.normal(size=2))
        observations[row], actions[row] = state, action
        state = 0.98 * state - [*(0.05 * action), 0.03 * action[0]] + 0.15 * rng.normal(size=3)
        age += 1
        if np.abs(state).max() > 1.9:
            terminals[row], age = True, CLOCK
        elif age == CLOCK:
            timeouts[row] = True
    timeouts[-1] |= not terminals[-1]
    rewards = 1 - (observations**2).sum(axis=1)
    return {
        "observations": observations.astype(np.float32),
        "actions": actions.astype(np.float32),
        "rewards": rewards.astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }


SOUND = sound_log()


def check(**options: Any) -> Health:
    """Of the sound log with some arrays replaced."""
    arguments = {name: options.pop(name) for name in ("action_low", "action_high", "horizon", "env") if name in options}
    return check_dataset(SOUND | options, **arguments)


def names(health: Health) -> list[str]:
    return sorted(finding.name for finding in health.findings)


def only(health: Health) -> Finding:
    assert len(health.findings) == 1, health.findings
    return health.findings[0]


def changed(key: str, rows: Any, value: Any) -> np.ndarray:
    values = SOUND[key].copy()
    values[rows] = value
    return values


def test_a_sound_log_gives_no_finding_and_its_facts() -> None:
    assert SOUND["terminals"].sum() > 10 < SOUND["timeouts"].sum()
    health = check(horizon=CLOCK)
    assert health.findings == ()
    assert len(health.returns) == SOUND["terminals"].sum() + SOUND["timeouts"].sum()
    assert health.by_terminal.sum() == SOUND["terminals"].sum()
    assert health.facts["rows"].startswith("12,000, of which ")
    assert "2 dimensions" in health.facts["observations, actions"]


def test_the_noise_of_the_actions_is_measured() -> None:
    """Actions are tanh(mean + 0.5 normal): near 0 their standard deviation is 0.41, less where the tanh is flat."""
    assert 0.3 < float(check().facts["noise of actions"].split()[0]) < 0.42


def test_the_noise_is_read_off_recorded_densities(tmp_path: Any) -> None:
    std = 0.1
    densities = np.full(
        ROWS, -2 * (np.log(std) + 0.5 * np.log(2 * np.pi) + 0.5), np.float32
    )  # their mean, for two normals
    health = check_dataset(write(tmp_path / "a.hdf5", SOUND | {"infos/action_log_probs": densities}))
    assert health.facts["noise of actions"] == "0.1 (standard deviation in one state, from recorded densities)"


def test_the_effective_dimension_of_a_line_and_of_a_ball() -> None:
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(ROWS, 5)).astype(np.float32)
    assert check(observations=ball).facts["effective dimension"] == "5.0 of 5 observations"
    line = ball[:, :1] * np.float32([1, 2, -3, 4, 5])
    assert check(observations=line).facts["effective dimension"] == "1.0 of 5 observations"


@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
def test_values_that_are_not_finite(key: str) -> None:
    health = check(**{key: changed(key, [7, 11, 40], [[np.nan]] * 2 + [[-np.inf]] if key != "rewards" else np.nan)})
    finding = only(health)
    assert (finding.severity, finding.name, finding.rows, finding.count) == ("error", "not-finite", (7, 11, 40), 3)
    assert key in finding.what


def test_other_checks_go_on_where_values_are_not_finite() -> None:
    observations = np.concatenate([SOUND["observations"], np.full((ROWS, 1), 5, np.float32)], axis=1)
    observations[[3, 9], 0] = np.nan
    health = check(observations=observations)
    assert names(health) == ["constant-column", "not-finite"]


def test_constant_columns() -> None:
    observations = np.insert(SOUND["observations"], 1, np.float32(2.5), axis=1)
    finding = only(check(observations=observations))
    assert (finding.severity, finding.name) == ("warning", "constant-column")
    assert "observation 1 = 2.5" in finding.what
    assert "action 1 = 0" in only(check(actions=SOUND["actions"] * np.float32([1, 0]))).what


def test_duplicate_columns() -> None:
    health = check(observations=SOUND["observations"][:, [0, 1, 0, 2, 1]])
    assert names(health) == ["duplicate-column", "duplicate-column"]
    assert [finding.what for finding in health.findings] == [
        "observation 2 equals observation 0 in all rows",
        "observation 4 equals observation 1 in all rows",
    ]


def test_columns_that_are_sums_of_others() -> None:
    total = SOUND["observations"] @ np.ones((3, 1), np.float32) * 2 - 1
    assert names(check(observations=np.concatenate([SOUND["observations"], total], axis=1))) == ["dependent-columns"]


def test_actions_and_rewards_among_the_observations() -> None:
    both = np.concatenate([SOUND["observations"], SOUND["actions"][:, 1:], SOUND["rewards"][:, None]], axis=1)
    health = check(observations=both)
    assert names(health) == ["action-in-observation", "reward-in-observation"]
    assert health.findings[0].severity == "error"
    assert "observation 3 is action 1 of the same row" in health.findings[0].what


def test_actions_out_of_range_suggest_bounds() -> None:
    actions = SOUND["actions"] * np.float32([1.97, 0.5])
    finding = only(check(actions=actions))
    assert (finding.severity, finding.name) == ("error", "action-range")
    outside = np.flatnonzero((np.abs(actions) > 1).any(axis=1))
    assert (finding.rows, finding.count) == (tuple(outside[:5]), len(outside))
    low, high = actions.min(axis=0), actions.max(axis=0)
    words = finding.advice.split("--action-low ")[1].replace("--action-high ", "").split()
    suggested = np.array([float(word) for word in words]).reshape(2, 2)
    assert (suggested[0] <= low).all()
    assert (suggested[1] >= high).all()
    assert np.abs(suggested - [low, high]).max() < 0.1
    health = check(actions=actions, action_low=[-2, -0.5], action_high=[2, 0.5])
    assert health.findings == ()
    assert health.facts["actions rescaled from"] == "[-2.0, -0.5] to [2.0, 0.5]"
    assert (
        only(check(actions=actions, action_low=-1.2, action_high=1.2)).advice == "widen --action-low and --action-high"
    )


@pytest.mark.parametrize(("limit", "severity"), [(0.6, "warning"), (0.85, "note")])
def test_clipped_actions(limit: float, severity: str) -> None:
    actions = SOUND["actions"].copy()
    actions[:, 0] = actions[:, 0].clip(-1, limit)
    finding = only(check(actions=actions))
    piled = np.flatnonzero(actions[:, 0] == np.float32(limit))
    assert (finding.severity, finding.name) == (severity, "clipped-actions")
    assert finding.count == len(piled) + 1  # and the single smallest one
    assert set(finding.rows) <= {*piled, int(actions[:, 0].argmin())}
    assert f"{len(piled) / ROWS:.1%} at {limit}" in finding.what
    assert "action 1" not in finding.what


def test_discrete_and_narrow_actions() -> None:
    finding = only(check(actions=np.sign(SOUND["actions"])))
    assert finding.name == "discrete-actions"
    assert "action 0 (-1, 1), action 1 (-1, 1)" in finding.what
    assert only(check(actions=SOUND["actions"] / 10)).name == "narrow-actions"


def test_constant_rewards() -> None:
    finding = only(check(rewards=np.ones(ROWS)))
    assert (finding.severity, finding.name) == ("warning", "constant-reward")  # longer episodes still pay more
    health = check(rewards=np.ones(ROWS), terminals=np.zeros(ROWS), timeouts=SOUND["timeouts"] | SOUND["terminals"])
    assert health.findings[0].name == "constant-reward"
    assert health.findings[0].severity == "error"


def test_rewards_out_of_proportion() -> None:
    quiet = np.flatnonzero(~SOUND["terminals"])[[50, 700]]
    finding = only(check(rewards=changed("rewards", quiet, [-1e4, 500])))
    assert (finding.severity, finding.name, finding.rows) == ("warning", "reward-outliers", tuple(quiet))
    assert "up to -10000" in finding.what
    ends = np.flatnonzero(SOUND["terminals"])
    finding = only(check(rewards=changed("rewards", ends, -300)))
    assert (finding.severity, finding.name, finding.count) == ("note", "reward-outliers", len(ends))
    assert "in terminal rows" in finding.what


def test_sparse_and_large_rewards() -> None:
    goals = np.flatnonzero(SOUND["terminals"])
    finding = only(check(rewards=np.where(SOUND["terminals"], 1.0, 0.0)))
    assert (finding.severity, finding.name, finding.count) == ("note", "sparse-rewards", len(goals))
    sparse = np.where(SOUND["terminals"], 1 + 0.1 * SOUND["rewards"], 0)
    sparse[goals[3]] = 1e6
    assert "reward-outliers" in names(check(rewards=sparse))
    assert names(check(rewards=SOUND["rewards"] * 1000)) == ["large-rewards"]


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


def test_repeated_rows_and_episodes() -> None:
    again = {key: SOUND[key].copy() for key in SOUND}
    for key in ("observations", "actions", "rewards"):
        again[key][[301, 302, 5000]] = again[key][[300, 300, 40]]
    finding = only(check(**again))
    assert (finding.severity, finding.name, finding.rows) == ("note", "duplicate-rows", (301, 302, 5000))

    ends = np.flatnonzero(SOUND["terminals"] | SOUND["timeouts"])
    first = slice(0, int(ends[1]) + 1)  # two episodes
    doubled = {key: np.concatenate([SOUND[key], SOUND[key][first]]) for key in SOUND}
    finding = only(check_dataset(doubled))
    assert (finding.severity, finding.name, finding.rows) == (
        "warning",
        "duplicate-episodes",
        (ROWS, ROWS + ends[0] + 1),
    )
    assert f"{ends[1] + 1:,} rows" in finding.what


def test_many_repeated_rows_are_a_warning() -> None:
    times = 1 + ((np.arange(ROWS) % 20 == 0) & ~SOUND["terminals"] & ~SOUND["timeouts"])
    health = check_dataset({key: np.repeat(SOUND[key], times, axis=0) for key in SOUND})
    finding = next(finding for finding in health.findings if finding.name == "duplicate-rows")
    assert (finding.severity, finding.name, finding.rows[:2]) == ("warning", "duplicate-rows", (1, 22))


@pytest.mark.parametrize(("factor", "severity"), [(40, "note"), (4000, "warning")])
def test_observations_of_unequal_size(factor: float, severity: str) -> None:
    finding = only(check(observations=SOUND["observations"] * np.float32([1, factor, 1])))
    assert (finding.severity, finding.name) == (severity, "scales")
    assert "observation 1 is largest" in finding.what
    assert "--normalize-observations" in finding.advice


def test_a_small_dataset() -> None:
    cut = SOUND["timeouts"][:9000] | (np.arange(9000) == 8999)
    finding = only(check_dataset({key: SOUND[key][:9000] for key in SOUND} | {"timeouts": cut}))
    assert (finding.severity, finding.name) == ("warning", "small")


def test_behaviour_without_noise() -> None:
    states = SOUND["observations"]
    actions = np.tanh(states[:, :2] - 0.5 * states[:, 1:]) * 0.9
    finding = only(check(actions=actions))
    assert (finding.severity, finding.name) == ("warning", "little-noise")


def test_columns_are_named_as_the_user_named_them() -> None:
    log = {"temp": SOUND["observations"][:, 0], "speed": np.full(ROWS, 3.0), "valve": SOUND["actions"][:, 0]}
    log |= {key: SOUND[key] for key in ("rewards", "terminals", "timeouts")}
    columns = {"observations": "temp,speed", "actions": "valve", "rewards": "rewards", "terminals": "terminals"}
    health = check_dataset(log, columns=columns | {"timeouts": "timeouts"})
    assert "observation 1 (speed) = 3" in health.findings[0].what
    assert health.action_names == ("action 0 (valve)",)


def test_a_file_of_nothing_but_faults_is_reported_and_not_raised() -> None:
    health = check_dataset(
        {
            "observations": np.full((5, 2), np.nan),
            "actions": np.full((5, 1), np.inf),
            "rewards": np.full(5, np.nan),
            "terminals": np.ones(5),
            "timeouts": np.zeros(5),
        }
    )
    assert {"not-finite", "mostly-terminal", "small"} <= set(names(health))
    with pytest.raises(InputError, match="no key 'actions'"):
        check_dataset({"observations": np.zeros((5, 2)), "rewards": np.zeros(5), "terminals": np.zeros(5)})


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
