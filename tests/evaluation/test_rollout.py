from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

from itrpo.errors import DivergenceError, InputError, ItrpoError
from itrpo.evaluation import rollout
from itrpo.evaluation.rollout import evaluate, make_pool


class Countdown(gymnasium.Env):
    """Observes (n, k): an episode has n steps (drawn from its seed, 3 to 12), k are done. Pays 1 + the action."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.done = int(self.np_random.integers(3, 13)), 0
        return self._observation(), {}

    def step(self, action):
        assert self.done < self.length, "stepped after its episode ended"
        self.done += 1
        return self._observation(), 1.0 + float(action[0]), self.done == self.length, False, {}

    def _observation(self):
        return np.array([self.length, self.done], np.float64)


@pytest.fixture
def countdown() -> Iterator[str]:
    gymnasium.register("ItrpoCountdown-v0", entry_point=Countdown)
    yield "ItrpoCountdown-v0"
    del gymnasium.registry["ItrpoCountdown-v0"]


class Recorder:
    """Seed k plays the constant action k / 4; keeps what it saw."""

    def __init__(self, actions=lambda s: s / 4):
        self.seen: list[np.ndarray] = []
        self.actions = actions

    def __call__(self, observations):
        self.seen.append(observations.copy())
        seeds, episodes, _ = observations.shape
        return np.broadcast_to(self.actions(np.arange(seeds))[:, None, None], (seeds, episodes, 1))


def act_on_hopper(observations):
    return np.tanh(observations[..., :3] * np.array([3.0, -2.0, 1.0], np.float32))


def test_only_the_first_episode_of_each_slot_counts(countdown):
    act = Recorder()
    returns, lengths = evaluate(make_pool(countdown, 3, 8), act, seed=0, step=0)
    drawn = act.seen[0][..., 0]
    assert len(np.unique(drawn)) > 3  # slots start differently
    np.testing.assert_array_equal(lengths, drawn)
    np.testing.assert_allclose(returns, drawn * (1 + np.arange(3)[:, None] / 4))
    assert len(act.seen) == drawn.max()  # and the loop ends with the longest episode
    assert returns.dtype == np.float64
    assert lengths.dtype == np.int64


def test_an_ended_slot_keeps_its_last_observation(countdown):
    act = Recorder()
    evaluate(make_pool(countdown, 2, 5), act, seed=0, step=0)
    for elapsed, observations in enumerate(act.seen):
        assert observations.dtype == np.float32
        np.testing.assert_array_equal(observations[..., 1], np.minimum(elapsed, observations[..., 0]))


def test_start_states_depend_on_seed_index_slot_and_step_alone(countdown):
    pool = make_pool(countdown, 2, 50)
    lengths = {key: evaluate(pool, Recorder(), *key).lengths for key in ((0, 0), (0, 5000), (1, 0))}
    np.testing.assert_array_equal(evaluate(pool, Recorder(lambda s: -s / 4), 0, 0).lengths, lengths[0, 0])
    np.testing.assert_array_equal(evaluate(make_pool(countdown, 2, 50), Recorder(), 0, 0).lengths, lengths[0, 0])
    assert (lengths[0, 0] != lengths[0, 5000]).any()
    assert (lengths[0, 0] != lengths[1, 0]).any()
    assert (lengths[0, 0][0] != lengths[0, 0][1]).any()
    # more seeds or slots do not move the ones that were there
    np.testing.assert_array_equal(
        evaluate(make_pool(countdown, 3, 60), Recorder(), 0, 0).lengths[:2, :50], lengths[0, 0]
    )


def test_evaluations_of_hopper_repeat_bit_for_bit_and_differ_between_steps():
    pool = make_pool("Hopper-v4", 2, 3)
    first, again, later = (evaluate(pool, act_on_hopper, seed=0, step=step) for step in (5000, 5000, 10000))
    np.testing.assert_array_equal(first.returns, again.returns)
    np.testing.assert_array_equal(first.lengths, again.lengths)
    assert len(np.unique(first.returns)) == 6
    assert (first.returns != later.returns).all()
    pool.close()


@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_changes_no_bit(processes):
    results = []
    for count in (1, processes):
        pool = make_pool("Hopper-v4", 2, 4, count)
        results.append([evaluate(pool, act_on_hopper, seed=0, step=step) for step in (0, 5)])
        pool.close()
    np.testing.assert_array_equal(np.array(results[0]), np.array(results[1]))


def test_an_environment_known_to_this_process_alone_stays_here(countdown):
    pool = make_pool(countdown, 10, 10)
    assert not pool.elsewhere
    evaluate(pool, Recorder(), seed=0, step=0)


def test_a_process_that_was_killed_is_an_error_and_not_a_hang():
    pool = make_pool("Hopper-v4", 2, 4, 2)
    pool.elsewhere[0]._process._process.kill()
    with pytest.raises(ItrpoError, match=r"evaluates in Hopper-v4 ended \(status -9\)"):
        evaluate(pool, lambda observations: np.zeros((*observations.shape[:2], 3)), seed=0, step=0)
    pool.close()


def test_hopper_returns_are_those_of_a_plain_loop():
    returns, lengths = evaluate(make_pool("Hopper-v4", 1, 1), act_on_hopper, seed=3, step=7)
    with warnings.catch_warnings(action="ignore"):  # "-v4 is out of date"
        env = gymnasium.make("Hopper-v4")
    observation, _ = env.reset(seed=int(np.random.SeedSequence([3, 0, 0, 7]).generate_state(1)[0]))
    total, steps, ended = 0.0, 0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(act_on_hopper(observation.astype(np.float32)))
        total, steps, ended = total + float(reward), steps + 1, terminated or truncated
    assert steps > 10
    assert (returns.item(), lengths.item()) == (total, steps)


def test_a_policy_that_is_not_finite_is_an_error_and_never_a_number(countdown):
    pool = make_pool(countdown, 2, 2)
    with pytest.raises(DivergenceError, match="seed 1, training step 9: an action of the policy in"):
        evaluate(pool, Recorder(lambda s: np.where(s == 1, np.nan, 0.0)), seed=0, step=9)


def test_an_environment_that_never_ends_is_an_error(countdown, monkeypatch):
    monkeypatch.setattr(rollout, "MAX_EPISODE_STEPS", 2)
    with pytest.raises(InputError, match="max_episode_steps"):
        evaluate(make_pool(countdown, 1, 1), Recorder(), seed=0, step=0)


def test_what_a_pool_needs(countdown):
    with pytest.raises(InputError, match="at least one seed and one episode"):
        make_pool(countdown, 1, 0)
    with pytest.raises(InputError, match="needs a flat Box"):
        make_pool("FrozenLake-v1", 1, 1)


def test_choices_are_played_as_whole_numbers():
    """CartPole pushed one way falls within a dozen steps, pushed to and fro later."""
    pool = make_pool("CartPole-v1", 2, 3)
    beat = itertools.count()

    def act(observations: np.ndarray) -> np.ndarray:
        """[2, 3]: always 1; 0 and 1 in turn."""
        return np.stack([np.ones(3, np.int64), np.full(3, next(beat) % 2)])

    returns, lengths = evaluate(pool, act, 0, 0)
    pool.close()
    np.testing.assert_array_equal(returns, lengths)
    assert returns[0].max() < 12 < returns[1].mean()
