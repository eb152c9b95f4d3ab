"""Algorithms over choices on tables: one update is one iteration of the theory's exact schemes.

Rows are all (s, a) of an MDP with known successors, the critic is a table, and a step of gradient descent goes all the
way to its target.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.algorithms import (
    action_values,
    bcq_discrete,
    brac_discrete,
    cql_discrete,
    dqn,
    exact_kl,
    iql_discrete,
    itrpo_discrete,
    munchausen_dqn,
    munchausen_iqn,
    qr_dqn,
    rem,
)
from itrpo.algorithms.action_values import Backbone
from itrpo.algorithms.exact_kl import Penalty
from itrpo.errors import InputError
from itrpo.nn.ensemble import Ensemble
from itrpo.nn.network import Network
from itrpo.nn.trainable import Trainable, trainable
from itrpo.theory import schemes
from itrpo.theory.mdp import make_mdp, optimal_values
from itrpo.training.configure import make_setup
from itrpo.types import DiscreteSpec, Transition

S, A, GAMMA = 4, 3, 0.8
RNG = np.random.default_rng(3)
NEXT = RNG.integers(0, S, (S, A))
MDP = make_mdp(np.eye(S)[NEXT], RNG.normal(size=(S, A)), np.ones(S) / S, GAMMA)
BEHAVIOR = RNG.dirichlet(np.ones(A), S)
BEFORE, CHOICE = (it.reshape(-1) for it in np.indices((S, A)))
ROWS = Transition(
    jnp.eye(S)[BEFORE],
    jnp.asarray(CHOICE, jnp.int32),
    jnp.asarray(MDP.reward.reshape(-1), jnp.float32),
    jnp.ones(S * A),
    jnp.eye(S)[NEXT.reshape(-1)],
    jnp.zeros(S * A, jnp.int32),
)
BACKBONE = Backbone(gamma=GAMMA, polyak_rate=1.0)


def table() -> action_values.Networks:
    """Q of a state that is coded one-hot: a row of the parameters [N, S, A, ...]."""
    apply = lambda params, observation: jnp.einsum("bs,ns...->nb...", observation, params)  # noqa: E731
    whole_way = float(S * A)  # the loss is a mean over so many rows
    return action_values.Networks(Ensemble(None, apply, None), optax.sgd(whole_way))


def log_prior(params: None, observation: jax.Array) -> jax.Array:
    return observation @ jnp.asarray(np.log(BEHAVIOR), jnp.float32)


def iterated(update, state, count: int, *fixed):
    """[count, S, A]: the tables of the iterates of `update`."""
    step = jax.jit(lambda state: update(*fixed, state, ROWS, jax.random.key(0), jnp.asarray(0))[0])
    tables = []
    for _ in range(count):
        state = step(state)
        tables.append(np.asarray(state.critic.params[0]))
    return np.stack(tables)


def kl_state(networks: action_values.Networks, alpha: float) -> exact_kl.State:
    return exact_kl.State(
        trainable(networks.critic_optimizer, jnp.zeros((1, S, A)), target=True), None, jnp.ones(()), jnp.asarray(alpha)
    )


@pytest.mark.parametrize(("tau", "low"), [(0.5, -np.inf), (0.9, -1.0)])
def test_an_update_of_itrpo_is_an_iteration_of_equation_5(tau: float, low: float):
    """Also where the author clips the log-ratio. What it converges to has lambda = alpha (1 - tau)."""
    alpha, networks = 0.7, table()
    config = itrpo_discrete.Config(tau=tau, log_ratio_low=low, penalty=Penalty(alpha), backbone=BACKBONE)
    found = iterated(itrpo_discrete.update, kl_state(networks, alpha), 60, config, networks, log_prior)
    exact = schemes.itrpo_vi(MDP, BEHAVIOR, alpha, tau, 60, low=low)
    np.testing.assert_allclose(found, exact.q_values[1:], rtol=1e-4, atol=1e-4)
    if low == -np.inf:
        q = found[-1].astype(np.float64)
        log_policy = np.log(BEHAVIOR) + q / alpha
        log_policy -= np.log(np.exp(log_policy).sum(1, keepdims=True))
        implicit = q - tau * alpha * (log_policy - np.log(BEHAVIOR))
        by_lambda = np.log(BEHAVIOR) + implicit / (alpha * (1 - tau))
        by_lambda -= np.log(np.exp(by_lambda).sum(1, keepdims=True))
        np.testing.assert_allclose(log_policy, by_lambda, atol=2e-3)
        same = schemes.brac_vi(MDP, BEHAVIOR, alpha * (1 - tau), 200)
        np.testing.assert_allclose(implicit, same.q_values[-1], atol=2e-3)


def test_brac_is_equation_4_and_itrpo_without_shaping():
    networks, penalty = table(), Penalty(0.7)
    brac = brac_discrete.Config(penalty=penalty, backbone=BACKBONE)
    found = iterated(brac_discrete.update, kl_state(networks, 0.7), 30, brac, networks, log_prior)
    np.testing.assert_allclose(found, schemes.brac_vi(MDP, BEHAVIOR, 0.7, 30).q_values[1:], rtol=1e-4, atol=1e-4)
    plain = itrpo_discrete.Config(tau=0.0, penalty=penalty, backbone=BACKBONE)
    np.testing.assert_array_equal(
        iterated(itrpo_discrete.update, kl_state(networks, 0.7), 30, plain, networks, log_prior), found
    )


def test_an_update_of_munchausen_dqn_is_an_iteration_of_munchausen_value_iteration():
    networks = table()
    config = munchausen_dqn.Config(tau=0.9, log_policy_low=-np.inf, penalty=Penalty(0.3), backbone=BACKBONE)
    found = iterated(munchausen_dqn.update, kl_state(networks, 0.3), 40, config, networks)
    np.testing.assert_allclose(found, schemes.munchausen_vi(MDP, 0.3, 0.9, 40).q_values[1:], rtol=1e-3, atol=1e-3)


def test_targets_of_munchausen_iqn_are_an_iteration_of_munchausen_value_iteration():
    """Rewards and successors are known, so all quantiles of a choice are its value."""
    apply = lambda q, observation, levels: jnp.repeat((observation @ q)[:, None], levels.shape[1], axis=1)  # noqa: E731
    networks = munchausen_iqn.Networks(Network(None, apply), optax.sgd(1.0))
    config = munchausen_iqn.Config(alpha=0.3, tau=0.9, log_policy_low=-np.inf, gamma=GAMMA)
    levels = jnp.asarray(RNG.uniform(size=(S * A, 5)))

    @jax.jit
    def iterate(q):
        return munchausen_iqn.critic_targets(
            config, networks, munchausen_iqn.State(Trainable(q, None, q)), ROWS, levels
        )

    q, found = jnp.zeros((S, A)), []
    for _ in range(40):
        targets = np.asarray(iterate(q))
        np.testing.assert_allclose(targets, np.broadcast_to(targets[:, :1], targets.shape), rtol=1e-5, atol=1e-5)
        q = jnp.asarray(targets[:, 0].reshape(S, A))
        found.append(np.asarray(q))
    np.testing.assert_allclose(found, schemes.munchausen_vi(MDP, 0.3, 0.9, 40).q_values[1:], rtol=1e-3, atol=1e-3)


def test_munchausen_iqn_learns_the_quantiles_of_a_return():
    """One state, two choices, episodes of one step: rewards U(0, 1) and U(0, 1) + 2 have quantiles u and u + 2."""
    config = munchausen_iqn.Config(
        tau=0.0, quantiles=8, target_quantiles=8, critic_hidden=(32, 32), critic_learning_rate=3e-3, kappa=0.02
    )
    networks = munchausen_iqn.make_networks(config, DiscreteSpec(1, 2))
    critic = trainable(networks.critic_optimizer, jax.jit(networks.critic.init)(jax.random.key(0)), target=True)

    def step(state, key):
        row_key, choice_key, update_key = jax.random.split(key, 3)
        choice = jax.random.randint(choice_key, (128,), 0, 2)
        ones = jnp.ones((128, 1))
        reward = jax.random.uniform(row_key, (128,)) + 2.0 * choice
        batch = Transition(ones, choice, reward, jnp.zeros(128), ones, choice)
        return munchausen_iqn.update(config, networks, state, batch, update_key, jnp.asarray(0))[0], None

    learn = jax.jit(lambda state, key: jax.lax.scan(step, state, jax.random.split(key, 2500))[0])
    state = learn(munchausen_iqn.State(critic), jax.random.key(1))
    levels = jnp.linspace(0.05, 0.95, 19)
    params = state.critic.target_params  # steps averaged
    found = jax.jit(networks.critic.apply)(params, jnp.ones((1, 1)), levels[None])[0]
    np.testing.assert_allclose(found, np.stack([levels, levels + 2.0], axis=1), atol=0.06)
    q = jax.jit(partial(munchausen_iqn.q_of, config, networks))(params, jnp.ones((1, 1)))
    np.testing.assert_allclose(q, [[0.5, 2.5]], atol=0.04)


def best_q() -> np.ndarray:
    values = optimal_values(MDP)
    return MDP.reward + GAMMA * values[NEXT]


def critic_state(networks: action_values.Networks, *each: int) -> action_values.State:
    return action_values.State(trainable(networks.critic_optimizer, jnp.zeros((1, S, A, *each)), target=True))


@pytest.mark.parametrize("double", [True, False])
def test_dqn_ends_at_the_optimal_values(double: bool):
    networks = table()
    config = dqn.Config(double, BACKBONE)
    found = iterated(dqn.update, critic_state(networks), 80, config, networks)
    np.testing.assert_allclose(found[-1], best_q(), atol=1e-4)


def test_double_q_takes_the_value_of_the_other():
    q, target_q = jnp.array([[1.0, 3.0, 2.0]]), jnp.array([[10.0, 20.0, 30.0]])
    assert action_values.double_q(q, target_q) == 20.0


def test_cql_pushes_down_what_the_data_do_not_do():
    """Its loss is NumPy's; without the push it is DQN."""
    networks, rows = table(), ROWS
    config = cql_discrete.Config(0.5, BACKBONE)
    params = jnp.asarray(RNG.normal(size=(1, S, A)), jnp.float32)
    targets = jnp.asarray(RNG.normal(size=S * A), jnp.float32)
    loss, metrics = jax.jit(partial(cql_discrete.critic_loss, config, networks))(params, rows, targets)
    q, terms, gaps = np.asarray(params[0]), [], []
    for s, a, y in zip(BEFORE, CHOICE, np.asarray(targets), strict=True):
        gaps.append(np.log(np.exp(q[s]).sum()) - q[s, a])
        terms.append(0.5 * (q[s, a] - y) ** 2 + 0.5 * gaps[-1])
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)
    np.testing.assert_allclose(metrics["conservative_gap"], np.mean(gaps), rtol=1e-5)
    plain = iterated(
        cql_discrete.update, critic_state(networks), 80, replace(config, conservative_weight=0.0), networks
    )
    np.testing.assert_allclose(plain[-1], best_q(), atol=1e-4)


def test_what_bcq_leaves_out_is_below_the_rest_however_large_values_are():
    """2^26 - 1 is 2^26 in float32; the likely choice is the worst of both."""
    values, logits = jnp.asarray([[-3.6e7, -4e7]]), jnp.asarray([[-20.0, 0.0]])
    assert int(jnp.argmax(bcq_discrete.constrained(0.3, values, logits))) == 1


def test_bcq_is_dqn_over_the_likely_choices():
    """With b known, Q is the optimal value of the MDP without the unlikely choices."""
    networks, threshold = table(), 0.5
    fixed = Network(None, log_prior)
    config = bcq_discrete.Config(threshold, 0.0, BACKBONE)
    state = bcq_discrete.State(
        critic_state(networks).critic, trainable(networks.critic_optimizer, jnp.zeros(())), jnp.asarray(threshold)
    )
    found = iterated(bcq_discrete.update, state, 80, config, networks, fixed)[-1]
    likely = threshold * BEHAVIOR.max(1, keepdims=True) < BEHAVIOR
    assert (~likely).sum() > 0
    expected = np.zeros((S, A))
    for _ in range(200):
        expected = MDP.reward + GAMMA * np.where(likely, expected, -np.inf).max(1)[NEXT]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_iql_values_are_expectiles_and_its_losses_those_of_the_paper():
    q, value, logits = RNG.normal(size=(S, A)), RNG.normal(size=S), RNG.normal(size=(S, A))
    rows = lambda values: jnp.asarray(values, jnp.float32)  # noqa: E731
    networks = iql_discrete.Networks(
        Network(None, lambda params, observation: observation @ params),
        table(),
        Network(None, lambda params, observation: observation @ params),
        None,
        None,
    )
    config = iql_discrete.Config(expectile=0.8, inverse_temperature=2.0, weight_limit=3.0)
    own = q[BEFORE, CHOICE]
    u = own - value[BEFORE]
    loss, _ = iql_discrete.value_loss(config, networks, rows(value), ROWS, rows(own))
    np.testing.assert_allclose(loss, np.mean(np.where(u > 0, 0.8, 0.2) * u**2), rtol=1e-5)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    weight = np.minimum(np.exp(2.0 * u), 3.0)
    assert 0 < (weight == 3.0).mean() < 1
    loss, _ = iql_discrete.policy_loss(config, networks, rows(logits), ROWS, rows(u))
    np.testing.assert_allclose(loss, -np.mean(weight * log_probs[BEFORE, CHOICE]), rtol=1e-5)


def test_the_quantiles_of_qr_dqn_are_those_of_the_return():
    """Rewards are known, so all quantiles of a choice are the optimal value."""
    networks, each = table(), 5
    networks = networks._replace(critic_optimizer=optax.adam(0.03))
    config = qr_dqn.Config(each, 1.0, replace(BACKBONE, polyak_rate=0.5))
    step = jax.jit(lambda state: qr_dqn.update(config, networks, state, ROWS, jax.random.key(0), jnp.asarray(0))[0])
    state = critic_state(networks, each)
    for _ in range(700):
        state = step(state)
    found = np.asarray(state.critic.params[0])
    np.testing.assert_allclose(found, np.broadcast_to(best_q()[..., None], found.shape), atol=0.15)


def test_a_step_of_rem_trains_one_mixture_towards_its_own_targets():
    """By hand; and a mixture's weights add to 1, with u_k / sum u in the mean over draws 1 / K."""
    networks, params, targets = table(), *(RNG.normal(size=(1, S, A, 3)) for _ in range(2))
    config = rem.Config(3, replace(BACKBONE, huber_limit=1.0))
    drawn = jax.vmap(lambda key: rem.draw_weights(key, 3))(jax.random.split(jax.random.key(2), 4000))
    np.testing.assert_allclose(drawn.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(drawn.mean(0), 1 / 3, atol=4 * drawn.std() / np.sqrt(4000))
    weights = np.asarray(drawn[0], np.float64)
    assert np.ptp(weights) > 0.1
    state = critic_state(networks, 3)
    state = state._replace(critic=state.critic._replace(target_params=jnp.asarray(targets, jnp.float32)))
    mixture = rem.mixed(networks, drawn[0])
    y = rem.critic_targets(config, mixture, state, ROWS)
    mixed_targets = (targets[0] @ weights).max(1)
    expected = MDP.reward + GAMMA * mixed_targets[NEXT]
    np.testing.assert_allclose(y, expected.reshape(-1), rtol=1e-4)
    loss, _ = action_values.critic_loss(config.backbone, mixture, jnp.asarray(params, jnp.float32), ROWS, y)
    error = np.abs(params[0] @ weights - expected)
    assert 0 < (error > 1).mean() < 1
    np.testing.assert_allclose(loss, np.mean(np.where(error > 1, error - 0.5, error**2 / 2)), rtol=1e-4)


def test_rem_ends_at_the_optimal_values():
    """With every head, though only their mixtures are trained."""
    networks, start = table(), jnp.asarray(RNG.normal(size=(1, S, A, 3)), jnp.float32)
    config = rem.Config(3, BACKBONE)
    state = action_values.State(trainable(networks.critic_optimizer, start, target=True))

    def body(step, state):
        return rem.update(config, networks, state, ROWS, jax.random.fold_in(jax.random.key(0), step), step)[0]

    found = np.asarray(jax.jit(lambda state: jax.lax.fori_loop(0, 2000, body, state))(state).critic.params[0])
    np.testing.assert_allclose(found, np.broadcast_to(best_q()[..., None], found.shape), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [("qr_dqn", {"quantiles": 1}, "quantiles"), ("munchausen_iqn", {"critic_hidden": ()}, "critic_hidden is empty")],
)
def test_networks_that_can_not_be_made_are_refused(name, fields, words):
    with pytest.raises(InputError, match=words):
        make_setup(name, fields=fields)
