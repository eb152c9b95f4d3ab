"""Fitted Q evaluation on exact MDPs: with tables, for many logs at once, and with networks."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.ope import bootstrap, fqe
from itrpo.ope.log import Log, make_log
from itrpo.theory.mdp import action_values, expected_return, random_mdp, random_policy
from itrpo.types import Transition
from tests.ope.tables import at, ending, policy_actions, simulate, table_critic

GAMMA = 0.8
RNG = np.random.default_rng(3)
MDP = random_mdp(RNG, 5, 3, GAMMA)
MDP = MDP._replace(reward=1 + MDP.reward)  # so that what lies behind a cut is not 0 on average
BEHAVIOR, POLICY = random_policy(RNG, 5, 3, 0.5), random_policy(RNG, 5, 3, 0.5)
ENDING = ending(MDP)
TABLES = fqe.FQE(steps=160, learning_rate=0.1, polyak_rate=0.2, batch_size=32)
CRITIC = table_critic(5, 3)


OPTIMIZER = optax.adam(optax.cosine_decay_schedule(TABLES.learning_rate, TABLES.steps or 0))
BEGIN = jax.jit(jax.vmap(jax.vmap(partial(fqe.begin, CRITIC, OPTIMIZER))))
BY_FOLD = jax.vmap(
    partial(fqe.steps_between, CRITIC, OPTIMIZER, TABLES, GAMMA), (0, 0, None, 0, None, None, None, None, None)
)
BY_LOG = jax.jit(jax.vmap(BY_FOLD, (0, 0, None, None, 0, None, None, None, None)))
TOGETHER = 50  # logs: a size for all, so that one program is compiled


def in_batches(logs: list[Log], policy: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[logs, F]: values by tables, of logs of one size."""
    keys = jax.random.split(jax.random.key(0), (len(logs), len(weights)))
    places = range(0, len(logs), TOGETHER)
    return np.concatenate(
        [batch_of(logs[it : it + TOGETHER], policy, weights, keys[it : it + TOGETHER]) for it in places]
    )


def batch_of(logs: list[Log], policy: np.ndarray, weights: np.ndarray, keys: jax.Array) -> np.ndarray:
    prepared = [fqe.prepare(log, *policy_actions(log, policy), GAMMA, weights, normalise=False) for log in logs]
    rows = jax.tree.map(lambda *columns: np.stack(columns), *(it for it, _ in prepared))
    state = BEGIN(keys)
    for start in range(0, 160, 40):
        state, value = BY_LOG(
            state, keys, 0, jnp.arange(len(weights)), rows, start, start + 40, start < 80, start == 40
        )
    units = [it for _, it in prepared]
    return np.stack([own.centre + own.scale * folds for own, folds in zip(units, np.asarray(value), strict=True)])


def test_intervals_cover_at_their_rate_and_miss_where_a_cut_is_taken_for_an_end():
    """Of 200 logs of 60 episodes, each cut after four steps, behind which 0.4 of the value lies."""
    truth, weights = float(expected_return(MDP, POLICY)), bootstrap.fold_weights(60, 9)
    logs = [simulate(MDP, BEHAVIOR, 60, 4, np.random.default_rng((5, seed))) for seed in range(200)]
    found = [bootstrap.interval(folds, 60) for folds in in_batches(logs, POLICY, weights)]
    covered = sum(low <= truth <= high for _, low, high in found)
    assert 180 <= covered <= 199, covered  # 190 expected, give or take 3.3 binomial deviations of 3.1
    assert abs(np.mean([value for value, _, _ in found]) - truth) < 0.1
    ended = [
        make_log(it.rows._replace(continues=np.where(np.isin(np.arange(240), it.ends), 0, 1).astype("f")), it.starts)
        for it in logs[:50]
    ]
    wrong = [bootstrap.interval(folds, 60) for folds in in_batches(ended, POLICY, weights)]
    assert sum(low <= truth <= high for _, low, high in wrong) == 0


def test_tables_find_the_known_values():
    log = simulate(ENDING, BEHAVIOR, 6_000, 6, np.random.default_rng(1), terminal=4)
    truth, q = float(expected_return(ENDING, POLICY)), action_values(ENDING, POLICY)
    weights = bootstrap.fold_weights(6_000, 4)
    settings = fqe.FQE(steps=1_500, learning_rate=0.03)
    both = [np.concatenate(it) for it in zip(*(policy_actions(log, p) for p in (POLICY, BEHAVIOR)), strict=True)]
    fitted = fqe.fit(log, *both, GAMMA, weights, settings, CRITIC, normalise=False)
    assert fitted.value.shape == (2, 4)
    assert fitted.path.shape == (2, 4, fqe.CHECKS)
    np.testing.assert_allclose(fitted.value[0], truth, atol=0.03)
    np.testing.assert_allclose(fitted.value[1], float(expected_return(ENDING, BEHAVIOR)), atol=0.03)
    assert (fitted.drift() < 0.05).all()
    visited = [(state, action) for state in range(4) for action in range(3)]
    states, actions = (np.eye(size, dtype="f")[[it[i] for it in visited]] for i, size in enumerate((5, 3)))
    found = fitted.q_values(0, states, actions[:, None])
    np.testing.assert_allclose(found, [q[it] for it in visited], atol=0.15)


def test_networks_find_the_known_value_in_any_unit():
    """Rewards and observations are a thousand times as large, and observations shifted."""
    log, unit = simulate(MDP, BEHAVIOR, 1_000, 5, np.random.default_rng(1)), 1_000.0
    truth, weights = float(expected_return(MDP, POLICY)), bootstrap.fold_weights(1_000, 2)
    rows = log.rows._replace(
        reward=(unit * log.rows.reward).astype("f"),
        observation=unit * log.rows.observation + 50 * unit,
        next_observation=unit * log.rows.next_observation + 50 * unit,
    )
    settings = fqe.FQE(steps=1_000, hidden=(32, 32), learning_rate=3e-3)
    fitted = fqe.fit(log._replace(rows=rows), *policy_actions(log, POLICY), GAMMA, weights, settings)
    assert fitted.value[0, 0] / unit == pytest.approx(truth, rel=0.03)


def test_rows_whose_next_action_is_unknown_are_left_out():
    """The log's own next actions, unknown where an episode was cut; were one made up, Q would be of it."""
    log = simulate(MDP, BEHAVIOR, 4_000, 5, np.random.default_rng(1))
    following = np.concatenate([log.rows.action[1:], log.rows.action[:1]])[None, :, None].copy()
    following[:, log.ends] = np.nan
    settings = fqe.FQE(steps=1_000, learning_rate=0.03)
    first = log.rows.action[log.starts][None, :, None]
    fitted = fqe.fit(log, following, first, GAMMA, np.ones((1, 4_000)), settings, CRITIC, normalise=False)
    assert fitted.value[0, 0] == pytest.approx(float(expected_return(MDP, BEHAVIOR)), abs=0.05)
    following[:, log.ends] = np.eye(3)[0]
    wrong = fqe.fit(log, following, first, GAMMA, np.ones((1, 4_000)), settings, CRITIC, normalise=False)
    assert wrong.value[0, 0] - fitted.value[0, 0] > 0.2


def test_rows_without_weight_change_no_bit_of_a_fit():
    """Those of episodes that are not in the fold, and those whose next action is not known."""
    log = simulate(MDP, BEHAVIOR, 40, 5, np.random.default_rng(1))
    weights, following = bootstrap.fold_weights(40, 2), policy_actions(log, POLICY)[0].copy()
    following[:, log.ends] = np.nan
    rows, _ = fqe.prepare(log, following, policy_actions(log, POLICY)[1], GAMMA, weights, normalise=False)
    without = (weights[1][log.episode] == 0) | np.isin(np.arange(200), log.ends)
    assert 60 < without.sum() < 140
    optimizer, key = optax.adam(0.1), jax.random.key(0)
    fit = jax.jit(partial(fqe.steps_between, CRITIC, optimizer, TABLES, GAMMA))
    given = fqe.begin(CRITIC, optimizer, key), key, 0, 1
    results = [
        fit(*given, rows._replace(reward=it), 0, 50, True, True) for it in (rows.reward, rows.reward + 9 * without)
    ]
    for mine, theirs in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    other = fit(*given[:3], 0, rows._replace(reward=rows.reward + 9 * without), 0, 50, True, True)
    assert other[1] > results[0][1] + 1  # fold 0 has all episodes


@pytest.mark.parametrize("gamma", [0.99, 0.999])
def test_the_level_is_that_of_all_rows_of_a_log(gamma):
    """Rewards are noise and no episode ends: fitted Q of such a log is their mean / (1 - gamma). Of 8,192 rows that are
    drawn the mean would put it off by 1.1 and by 11.
    """
    rng, episodes, length = np.random.default_rng(0), 20, 1_000
    count = episodes * length
    observation, nothing = rng.normal(size=(count, 1)).astype(np.float32), np.zeros((count, 1), np.float32)
    reward, following = rng.normal(size=count).astype(np.float32), np.roll(observation, -1, axis=0)
    rows = Transition(observation, nothing, reward, np.ones(count, np.float32), following, nothing)
    log = make_log(rows, np.arange(0, count, length))
    actions = np.zeros((1, count, 1, 1)), np.zeros((1, episodes, 1, 1))
    settings = fqe.FQE(steps=2_000, hidden=(4,))
    fitted = fqe.fit(log, *actions, gamma, np.ones((1, episodes)), settings)
    assert fitted.path[0, 0, fqe.LEVELLED - 1] == pytest.approx(reward.mean() / (1 - gamma), abs=0.05)
    assert fitted.value[0, 0] == pytest.approx(reward.mean() / (1 - gamma), abs=0.5)


def test_policies_share_their_draws():
    """One policy twice is one value twice, in every fold: differences have no noise of their own."""
    log = simulate(MDP, BEHAVIOR, 50, 5, np.random.default_rng(1))
    actions = [np.concatenate([it, it]) for it in policy_actions(log, POLICY)]
    fitted = fqe.fit(log, *actions, GAMMA, bootstrap.fold_weights(50, 3), fqe.FQE(steps=60), CRITIC, normalise=False)
    assert (fitted.value[0] == fitted.value[1]).all()
    assert len(set(fitted.value[0])) == 3
    assert at(POLICY, log.rows.observation).shape == (250, 3)


def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    log, kept, written = simulate(MDP, BEHAVIOR, 50, 5, np.random.default_rng(1)), tmp_path / "it", []
    given = log, *policy_actions(log, POLICY), GAMMA, bootstrap.fold_weights(50, 3)
    whole = fqe.fit(*given, fqe.FQE(steps=60), CRITIC, normalise=False)
    write = fqe.write_kept

    def killed(*words):
        write(*words)
        written.append(words)
        if len(written) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(fqe, "write_kept", killed)
    with pytest.raises(KeyboardInterrupt):
        fqe.fit(*given, fqe.FQE(steps=60), CRITIC, normalise=False, kept=kept)
    again = fqe.fit(*given, fqe.FQE(steps=60), CRITIC, normalise=False, kept=kept)
    assert len(written) == fqe.CHECKS
    np.testing.assert_array_equal(again.path, whole.path)
    name, state = written[-1][1:3]
    assert len(fqe.read_kept(kept, name, state)[1]) == fqe.CHECKS
    assert fqe.read_kept(kept, "of another fit", state) == (state, [])
    kept.write_bytes(kept.read_bytes()[:-100])
    assert fqe.read_kept(kept, name, state) == (state, [])


def test_a_far_horizon_settles_in_as_few_steps():
    """gamma 0.99: by Polyak averaging alone an error of the level falls to a third in 2,000 steps, not in 300."""
    mdp = MDP._replace(discount=np.array(0.99))
    log = simulate(mdp, BEHAVIOR, 1_000, 5, np.random.default_rng(1))
    settings = fqe.FQE(steps=600, learning_rate=0.1)
    given = *policy_actions(log, POLICY), 0.99, np.ones((1, 1_000)), settings, CRITIC
    fitted = fqe.fit(log, *given, normalise=False)
    assert fitted.value[0, 0] == pytest.approx(float(expected_return(mdp, POLICY)), rel=0.03)
