"""Breakout and Asterix on a grid: their rules by hand, by symmetry and by counting. Whether they are MinAtar's is what
benchmarks/against_minatar.py checks."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from itrpo.evaluation.environments import known_elsewhere, make_env, spaces_of, time_limit
from itrpo.evaluation.grids import Asterix, Breakout
from itrpo.types import DiscreteSpec

STAY, LEFT, RIGHT = range(3)  # of Breakout


def started(left: bool) -> Breakout:
    """Breakout with the ball at one side."""
    env = Breakout()
    seed = next(seed for seed in range(100) if env.reset(seed=seed)[0].reshape(10, 10, 4)[3, 0, 1] == left)
    env.reset(seed=seed)
    return env


def cells(env: Breakout | Asterix, channel: int) -> list[tuple[int, int]]:
    """(column, row) of what a channel shows."""
    return [(int(column), int(row)) for row, column in np.argwhere(env.board()[:, :, channel])]


def test_the_ball_falls_turns_above_the_paddle_and_at_the_side_and_takes_a_brick():
    env = started(left=True)
    assert (cells(env, 0), cells(env, 1), cells(env, 2)) == ([(4, 9)], [(0, 3)], [(0, 3)])
    assert cells(env, 3) == [(column, row) for row in (1, 2, 3) for column in range(10)]
    path = [(1, 4), (2, 5), (3, 6), (4, 7), (5, 8), (6, 8), (7, 7), (8, 6), (9, 5), (9, 4), (8, 4), (7, 5)]
    rewards = [0] * 10 + [1, 0]  # the brick above (8, 4)
    before = (0, 3)
    for step, (place, reward) in enumerate(zip(path, rewards, strict=True)):
        _, paid, ended, truncated, _ = env.step(RIGHT if step == 5 else STAY)  # below (5, 8) as the ball leaves it
        assert (cells(env, 1), cells(env, 2), paid, ended, truncated) == ([place], [before], reward, False, False)
        before = place
    assert set(cells(started(left=True), 3)) - set(cells(env, 3)) == {(8, 3)}


def test_a_paddle_in_the_cell_ahead_sends_the_ball_back_as_it_came():
    env = started(left=True)
    for action in (STAY, STAY, STAY, STAY, RIGHT, RIGHT):
        env.step(action)
    assert (cells(env, 0), cells(env, 1)) == ([(6, 9)], [(6, 8)])
    env.step(STAY)
    assert cells(env, 1) == [(5, 7)]


def test_a_ball_that_is_missed_ends_the_episode_on_the_lowest_row():
    env = started(left=True)
    ends = [env.step(STAY)[2] for _ in range(6)]
    assert ends == [False] * 5 + [True]
    assert cells(env, 1) == [(6, 9)]


def test_a_brick_right_after_another_is_passed():
    env = started(left=True)
    env.ball, env.heading = (5, 4), (1, -1)
    env.bricks[3, 6] = True
    assert [env.step(STAY)[1] for _ in range(2)] == [1, 0]  # the brick at (6, 3); then down to (7, 5)
    env.ball, env.heading, env.struck = (5, 4), (1, -1), True
    assert env.step(STAY)[1] == 0
    assert env.ball == (6, 3)


def test_left_and_right_are_alike():
    one, other = started(left=True), started(left=False)
    other.paddle, rng, ends, mirrored = 5, np.random.default_rng(0), 0, {STAY: STAY, LEFT: RIGHT, RIGHT: LEFT}
    for _ in range(2_000):
        np.testing.assert_array_equal(one.board(), other.board()[:, ::-1])
        towards = (STAY, RIGHT, LEFT)[int(np.sign(one.ball[0] - one.paddle))]
        action = int(rng.integers(3)) if rng.random() < 0.2 else towards
        (_, *result), (_, *expected) = one.step(action), other.step(mirrored[action])
        assert result == expected
        if result[1]:
            one, other, ends = started(left=True), started(left=False), ends + 1
            other.paddle = 5
    assert ends > 10


def test_who_stays_below_the_ball_never_loses_and_every_brick_pays_once():
    """A paddle keeps up with a ball that moves one column per step. Thirty are a wall, then there is a new one."""
    env, rng, total = started(left=True), np.random.default_rng(0), 0.0
    walls = 0
    for _ in range(4_000):
        ahead = env.ball[1] == 8 and rng.random() < 0.5  # either way of turning, or it would run in a circle
        target = env.ball[0] + ahead * env.heading[0]
        bricks = env.bricks.sum()
        _, reward, ended, _, _ = env.step((STAY, RIGHT, LEFT)[int(np.sign(np.clip(target, 0, 9) - env.paddle))])
        total, walls = total + reward, walls + (env.bricks.sum() > bricks)
        assert not ended
        assert total == 30 * (walls + 1) - env.bricks.sum()
    assert walls >= 1


def test_things_enter_every_tenth_step_and_move_every_fifth():
    env = Asterix()
    env.reset(seed=0)
    assert (cells(env, 0), cells(env, 1), cells(env, 3)) == ([(5, 5)], [], [])
    places = []
    for step in range(1, 21):
        env.step(0)
        shown = cells(env, 1) + cells(env, 3)
        assert len(shown) == (step >= 11)
        places += shown
    first = places[0][0]
    assert first in (1, 8)  # it enters at a side and moves in the same step
    inwards = 1 if first == 1 else -1
    assert [column for column, _ in places] == [first] * 5 + [first + inwards] * 5
    assert cells(env, 2) == [(first, places[0][1])]


def test_gold_pays_and_goes_and_an_enemy_ends_the_episode():
    for gold in (True, False):
        env = Asterix()
        env.reset(seed=0)
        env.columns[4], env.headings[4], env.gold[4] = 4, 1, gold  # left of the player, in row 5
        assert env.step(3)[1:3] == (0, False)  # away from it
        env.step(1)
        _, reward, ended, _, _ = env.step(1)
        assert (reward, ended) == ((1, False) if gold else (0, True))
        assert cells(env, 3) == []
        assert cells(env, 1) == ([] if gold else [(4, 5)])


def test_what_comes_to_the_player_touches_it_too():
    env = Asterix()
    env.reset(seed=0)
    env.columns[4], env.headings[4], env.gold[4] = 4, 1, True
    assert [env.step(0)[1] for _ in range(6)] == [0, 0, 0, 0, 0, 1]  # things move at the sixth step


def test_the_player_stays_on_its_rows():
    env = Asterix()
    for action, end in ((1, (0, 5)), (2, (5, 1)), (3, (9, 5)), (4, (5, 8))):
        env.reset(seed=0)
        for _ in range(9):
            env.step(action)
        assert cells(env, 0) == [end]


def test_everything_becomes_faster():
    env = Asterix()
    env.reset(seed=0)
    for step in range(1, 1_001):
        env.step(0)
        times = min(step // 102, 9)
        assert (env.entry_every, env.move_every) == (max(10 - times, 1), max(5 - times // 2, 1))


def test_a_third_is_gold_and_half_comes_from_the_left():
    env, gold, left, lanes = Asterix(), [], [], []
    env.reset(seed=0)
    for _ in range(3_000):
        env.headings[:] = 0
        env._enter()
        lane = int(np.flatnonzero(env.headings)[0])
        gold.append(env.gold[lane])
        left.append(env.columns[lane] == 0)
        lanes.append(lane)
        assert (env.columns[lane], env.headings[lane]) in ((0, 1), (9, -1))
    np.testing.assert_allclose([np.mean(gold), np.mean(left)], [1 / 3, 1 / 2], atol=4 * 0.5 / np.sqrt(3_000))
    np.testing.assert_allclose(np.bincount(lanes) / 3_000, [1 / 8] * 8, atol=4 * 0.33 / np.sqrt(3_000))


@pytest.mark.parametrize("made", [Breakout, Asterix])
def test_a_seed_is_a_game(made: type[Breakout] | type[Asterix]):
    def game(seed: int) -> tuple[np.ndarray, list[float]]:
        env, rng = made(), np.random.default_rng(1)
        seen, rewards = [env.reset(seed=seed)[0]], []
        for _ in range(200):
            observation, reward, ended, _, _ = env.step(rng.integers(env.action_space.n))
            seen.append(env.reset()[0] if ended else observation)
            rewards.append(reward)
        return np.stack(seen), rewards

    first, again = game(3), game(3)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert any((game(seed)[0] != first[0]).any() for seed in range(4, 8))


@pytest.mark.parametrize(("env_id", "choices"), [("itrpo/Breakout-v0", 3), ("itrpo/Asterix-v0", 5)])
def test_they_go_by_name_and_keep_gymnasiums_contract(env_id: str, choices: int):
    assert spaces_of(env_id).spec == DiscreteSpec(400, choices)
    assert time_limit(env_id) == 1_000
    assert known_elsewhere(env_id)  # evaluations may play it in several processes
    check_env(make_env(env_id).unwrapped, skip_render_check=True)


def test_a_picture_shows_every_cell():
    env = Breakout("rgb_array")
    env.reset(seed=0)
    env.step(LEFT)
    picture, board = env.render()[12::24, 12::24], env.board()
    np.testing.assert_array_equal(picture.any(axis=-1), board.any(axis=-1))
    alone = board.sum(axis=-1) == 1
    colours = [np.unique(picture[(board[:, :, channel] == 1) & alone], axis=0) for channel in range(4)]
    assert [len(it) for it in colours] == [1, 1, 0, 1]  # the ball's start was in a brick
    assert len({tuple(it[0].tolist()) for it in colours if len(it)}) == 3
