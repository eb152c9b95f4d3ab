"""A linear plant, aligned and with its sensors read after the action; successors that repeat their row."""

from __future__ import annotations

import numpy as np
import pytest

from itrpo.data.episodes import episode_statistics
from itrpo.data.health import alignment
from itrpo.data.health.rows import prepare
from itrpo.data.load import read_episodes
from tests.data.health.sound_log import ROWS, SOUND, changed, check, names, only

CLOCK = 50


def plant(noise: float, explore: float, gain: float = 0.5, delay: int = 0, rows: int = 4000) -> dict[str, np.ndarray]:
    """x' = M x + B a + noise, steered by a = K x + exploration, in episodes of CLOCK steps; a is late by `delay`."""
    rng = np.random.default_rng(0)
    m, b = np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 0.8]]), np.array([0.1, 0.0, 0.3])
    observations, actions, state = np.zeros((rows, 3), np.float32), np.zeros((rows, 1), np.float32), np.zeros(3)
    for row in range(rows):
        state = rng.normal(size=3) if row % CLOCK == 0 else state
        action = np.clip(-gain * state.sum() + explore * rng.normal(), -1, 1)
        observations[row], actions[row] = state, action
        state = m @ state + b * actions[max(row - delay, 0)] + noise * rng.normal(size=3)
    timeouts = np.arange(rows) % CLOCK == CLOCK - 1
    flags, rewards = np.zeros(rows, bool), -np.square(observations).sum(axis=1)
    return {"observations": observations, "actions": actions, "rewards": rewards, "terminals": flags} | {
        "timeouts": timeouts
    }


def late(log: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same log with each row's sensors read after its action: the last row of an episode has no such reading."""
    kept = np.flatnonzero(~log["timeouts"])
    timeouts = np.append(np.diff(kept) > 1, True)
    return {key: values[kept] for key, values in log.items()} | {
        "observations": log["observations"][kept + 1],
        "timeouts": timeouts,
    }


def findings(log: dict[str, np.ndarray]) -> list[str]:
    episodes = read_episodes(log)
    assert len(episode_statistics(episodes)[0]) == 80
    return [it.name for it in alignment.misaligned(prepare(episodes, episodes.actions, False, None))]


@pytest.mark.parametrize(("noise", "explore"), [(0.05, 0.3), (0.0, 0.3), (0.3, 0.5), (0.05, 0.0)])
def test_sensors_read_after_the_action_are_found_out(noise: float, explore: float) -> None:
    log = plant(noise, explore)
    assert findings(log) == []
    assert findings(late(log)) == ["misaligned"]


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_sensors_that_are_several_rows_ahead_are_found_out_too(rows: int) -> None:
    log = plant(0.05, 0.3)
    for _ in range(rows):
        log = late(log)
    episodes = read_episodes(log)
    (found,) = alignment.misaligned(prepare(episodes, episodes.actions, False, None))
    assert f"of their row, by {rows} rows:" in found.what
    assert f"the observation {rows} rows before it" in found.advice


@pytest.mark.parametrize("delay", [1, 3])
def test_dead_time_is_not_taken_for_sensors_that_are_ahead(delay: int) -> None:
    assert findings(plant(0.05, 0.3, delay=delay)) == []


def test_with_next_observations_too() -> None:
    log = late(plant(0.05, 0.3))
    following = np.roll(log["observations"], -1, axis=0)
    following[log["timeouts"]] = 0
    assert findings(log | {"next_observations": following}) == ["misaligned"]
    following[1::2] += 1  # rows that do not follow each other say nothing
    assert findings(log | {"next_observations": following}) == []


@pytest.mark.parametrize("explore", [0.0, 0.3])
def test_dead_time_alone_is_no_misalignment(explore: float) -> None:
    assert findings(plant(0.05, explore, delay=2)) == []


def test_a_saturated_controller_is_no_misalignment() -> None:
    """Clipped, with little exploration: the row before tells much about an action, and the row after as much."""
    assert findings(plant(0.05, 0.05, gain=2.0)) == []


def test_the_evidence_is_in_the_words() -> None:
    episodes = read_episodes(late(plant(0.0, 0.3)))
    (it,) = alignment.misaligned(prepare(episodes, episodes.actions, False, None))
    assert "they explain 100% of the step to it and" in it.what
    assert "pair each action with the observation of the row before it" in it.advice


def test_successors_that_repeat_the_last_observation() -> None:
    ends = np.flatnonzero(SOUND["terminals"] | SOUND["timeouts"])
    following = np.roll(SOUND["observations"], -1, axis=0)
    following[ends] = SOUND["observations"][ends] + 0.01
    assert names(check(next_observations=following)) == []
    following[ends] = SOUND["observations"][ends]
    finding = only(check(next_observations=following))
    assert (finding.severity, finding.name) == ("warning", "repeated-successors")
    assert (finding.rows, finding.count) == (tuple(ends[:5]), len(ends))


def test_a_last_row_that_repeats_the_one_before() -> None:
    last = np.flatnonzero(SOUND["terminals"] | SOUND["timeouts"])
    last = last[~np.isin(last - 1, last)]
    finding = only(check(observations=changed("observations", last, SOUND["observations"][last - 1])))
    assert (finding.severity, finding.name, finding.rows) == ("warning", "repeated-successors", tuple(last[:5] - 1))


def test_a_frozen_sensor_and_a_stuck_actuator() -> None:
    row = int(np.flatnonzero(SOUND["timeouts"])[3]) + 10
    observations = changed("observations", (slice(row, row + 40), 1), SOUND["observations"][row, 1])
    finding = only(check(observations=observations))
    assert (finding.severity, finding.name, finding.rows) == ("warning", "frozen-sensor", (row,))
    assert f"observation 1 = {observations[row, 1]:.6g} for 40 rows" in finding.what
    actions = changed("actions", (slice(row, row + 40), 0), np.float32(0.25))
    finding = only(check(actions=actions))
    assert (finding.name, finding.rows) == ("stuck-actuator", (row,))
    assert "action 0 = 0.25 for 40 rows" in finding.what


def test_what_stands_still_by_nature_is_no_fault() -> None:
    """A setpoint, a saturated sensor, and a plant at rest as a whole; but a sensor that falls to 0 is one."""
    setpoint = np.repeat(np.random.default_rng(0).normal(size=(ROWS // 40, 1)), 40, axis=0).astype(np.float32)
    assert names(check(observations=np.concatenate([SOUND["observations"], setpoint], axis=1))) == []
    wave = np.minimum(1.5 * np.sin(np.arange(ROWS)[:, None] / 30), 1).astype(np.float32)
    assert names(check(observations=np.concatenate([SOUND["observations"], wave], axis=1))) == []
    still = slice(200, 230)
    rest = {key: changed(key, still, SOUND[key][200]) for key in ("observations", "actions")}
    assert "frozen-sensor" not in names(check(**rest))
    dead = changed("observations", (slice(200, 300), 2), np.float32(-30.0))
    assert "frozen-sensor" in names(check(observations=dead))
