"""AlgaeDICE: its losses by hand, and its dual value on a small MDP, where everything is known."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from itrpo.algorithms import algae_dice
from itrpo.algorithms.algae_dice import Config, Drawn, State
from itrpo.nn.actors import GaussianActor
from itrpo.nn.ensemble import Ensemble, ensemble
from itrpo.nn.network import Network
from itrpo.nn.soft import Networks
from itrpo.nn.trainable import trainable
from itrpo.theory import mdp
from itrpo.types import SpaceSpec, Transition

ROWS, K = 5, 0.3
RNG = np.random.default_rng(0)
POLICY = 0.5 * RNG.normal(size=(2, 2, 2))  # mean M s, log std S s
W, TARGETS = (
    RNG.normal(size=(2, 2, 4)),
    RNG.normal(size=(2, 2, 4)),
)  # [critic, ...]: Q_i(s,a) = w . (s, a) + v . (s, a)^2
W, TARGETS = W.astype(np.float32), TARGETS.astype(np.float32)
CONFIG = Config(divergence_weight=0.4, exponent=1.7, own_share=0.3, gamma=0.9, orthogonal_weight=0.2)


def q_of(params, observation, action):
    both = jnp.concatenate([observation, action], axis=1)
    return both @ params[0] + both**2 @ params[1]


NETWORKS = Networks(
    GaussianActor(
        lambda key: None,
        lambda params, observation: (observation @ params[0].T, observation @ params[1].T),
        SpaceSpec(2, 2),
    ),
    ensemble(Network(lambda key: None, q_of), 2),
    *[optax.set_to_zero()] * 3,
)
NOISE = RNG.normal(size=(2, ROWS, 2)).astype(np.float32)


def batch() -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(ROWS, 2)), rng.uniform(-1, 1, (ROWS, 2)), 3 * rng.normal(size=ROWS)]
    parts += [np.arange(ROWS) % 3 > 0, rng.normal(size=(ROWS, 2)), np.zeros((ROWS, 2))]
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


def value(params, s, a):
    both = np.concatenate([s, a])
    return params[0] @ both + params[1] @ both**2


def by_hand(policy, w):
    """(delta [2, B], Q(s0, a0) [2, B], mean log pi(a'|s'))."""
    delta, start, logs = np.zeros((2, ROWS)), np.zeros((2, ROWS)), []
    rows = zip(*(np.asarray(it, np.float64) for it in batch()[:5]), *NOISE, strict=True)
    for row, (s, a, r, c, after, own_noise, next_noise) in enumerate(rows):
        own = np.tanh(policy[0] @ s + np.exp(policy[1] @ s) * own_noise)
        u = policy[0] @ after + np.exp(policy[1] @ after) * next_noise
        log_prob = np.sum(
            -(next_noise**2) / 2 - policy[1] @ after - np.log(2 * np.pi) / 2 - np.log(1 - np.tanh(u) ** 2)
        )
        least = min(value(each, after, np.tanh(u)) for each in TARGETS)
        logs.append(log_prob)
        for i in (0, 1):
            mixed = 0.3 * value(w[i], after, np.tanh(u)) + 0.7 * least - K * log_prob
            delta[i, row] = r + 0.9 * c * mixed - value(w[i], s, a)
            start[i, row] = value(w[i], s, own)
    return delta, start, np.mean(logs)


def test_critic_loss_and_its_gradient():
    """Gradients pass through Q_i(s',a') in its share, and through no target."""

    def expected(w):
        delta, start, _ = by_hand(POLICY, w)
        return np.sum(np.mean(np.abs(delta) ** 1.7 / 1.7 + 0.1 * 0.4 * start, axis=1))

    drawn = algae_dice.draw(NETWORKS, jnp.asarray(POLICY), batch(), jnp.asarray(NOISE))

    def loss(w):
        return algae_dice.critic_loss(CONFIG, NETWORKS.critics, K, w, jnp.asarray(TARGETS), batch(), drawn)[0]

    found, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(W))
    np.testing.assert_allclose(found, expected(W.astype(np.float64)), rtol=1e-4)
    for index in ((0, 0, 1), (1, 0, 3), (0, 1, 2), (1, 1, 0)):
        step = np.zeros((2, 2, 4))
        step[index] = 1e-6
        np.testing.assert_allclose(gradient[index], (expected(W + step) - expected(W - step)) / 2e-6, rtol=2e-3)


def test_policy_loss_and_its_gradient():
    """f' is held constant, and 0 where delta is negative; layers are the slices of the parameters that are matrices."""
    held, _, _ = by_hand(POLICY, W)
    ratio = np.maximum(held, 0) ** 0.7
    assert 0 < (ratio == 0).mean() < 1

    def expected(policy):
        delta, start, _ = by_hand(policy, W)
        products = [each @ each.T for each in policy]
        orthogonal = sum(np.sum(it**2) - np.sum(np.diag(it) ** 2) for it in products)
        return -np.mean(ratio * delta + 0.1 * 0.4 * start) + 0.2 * orthogonal

    def loss(policy):
        return algae_dice.policy_loss(
            CONFIG, NETWORKS, K, policy, jnp.asarray(W), jnp.asarray(TARGETS), batch(), jnp.asarray(NOISE)
        )

    policy = tuple(jnp.asarray(each, jnp.float32) for each in POLICY)
    (found, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(policy)
    np.testing.assert_allclose(found, expected(POLICY), rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy"], -by_hand(POLICY, W)[2], rtol=1e-4)
    np.testing.assert_allclose(metrics["visitation_ratio"], ratio.mean() / 0.4, rtol=1e-4)
    for index in np.ndindex(2, 2, 2):
        step = np.zeros((2, 2, 2))
        step[index] = 1e-6
        numeric = (expected(POLICY + step) - expected(POLICY - step)) / 2e-6
        np.testing.assert_allclose(gradient[index[0]][index[1:]], numeric, rtol=5e-3, atol=5e-3)


# --- a small MDP ---------------------------------------------------------------------------------------------------

S, A = 3, 2
NEXT = np.array([[1, 2], [2, 0], [0, 1]])
COUNTS = np.array([[3, 1], [1, 2], [2, 3]])  # of rows in the data
CHOSEN = np.array([1, 0, 1])  # the policy's actions


def every_row(problem: mdp.FiniteMDP) -> tuple[Transition, Drawn]:
    """The data's rows, with a0 and a'."""
    cases = [(s, a) for s, a in np.ndindex(S, A) for _ in range(COUNTS[s, a])]
    s, a = (np.array(it) for it in zip(*cases, strict=True))
    eye, following, column = np.eye(S), NEXT[s, a], lambda it: jnp.asarray(it[:, None], jnp.float32)
    parts = [eye[s], a[:, None], problem.reward[s, a], np.ones(len(s)), eye[following], a[:, None]]
    rows = Transition(*(jnp.asarray(it, jnp.float32) for it in parts))
    return rows, Drawn(column(CHOSEN[s]), column(CHOSEN[following]), jnp.zeros(len(s)))


@pytest.mark.parametrize(("exponent", "weight"), [(2.0, 0.5), (1.5, 0.7), (3.0, 0.2)])
def test_the_dual_value_is_the_return_less_the_divergence(exponent, weight):
    """At the Q that makes f'(delta) / w the ratio d_pi / d_data its gradient is 0, and its value exact."""
    gamma, shares = 0.8, COUNTS / COUNTS.sum()
    problem = mdp.make_mdp(np.eye(S)[NEXT], np.array([[1.0, -0.5], [0.3, 2.0], [0.0, 0.7]]), shares.sum(1), gamma)
    policy = np.eye(A)[CHOSEN]
    ratio = mdp.occupancy(problem, policy)[:, None] * policy / shares
    dual_exponent = exponent / (exponent - 1)
    delta = (weight * ratio) ** (1 / (exponent - 1))
    q = mdp.action_values(problem._replace(reward=problem.reward - delta), policy)

    critics = Ensemble(
        None,
        lambda params, observation, action: jnp.einsum(
            "bs,nsa,ba->nb", observation, params, jax.nn.one_hot(action[:, 0].astype(int), A)
        ),
        None,
    )
    config = Config(divergence_weight=weight, exponent=exponent, own_share=1.0, gamma=gamma)
    rows, drawn = every_row(problem)

    def loss(params):
        return algae_dice.critic_loss(config, critics, 0.0, params, jnp.zeros((1, S, A)), rows, drawn)[0]

    found, gradient = jax.value_and_grad(loss)(jnp.asarray(q[None], jnp.float32))
    last_bit = 1e-6 ** (exponent - 1)  # f' at a delta that would be 0: what the policy never does
    np.testing.assert_allclose(gradient, 0, atol=max(last_bit, 1e-5))
    strength = weight ** (dual_exponent - 1)
    divergence = np.sum(shares * ratio**dual_exponent / dual_exponent)
    reached = (1 - gamma) * mdp.expected_return(problem, policy)
    np.testing.assert_allclose(found / weight, reached - strength * divergence, rtol=1e-5)
    assert strength * divergence > 0.05
    for change in np.random.default_rng(2).normal(size=(5, 1, S, A)):  # it is the least
        assert loss(jnp.asarray(q[None] + 0.1 * change, jnp.float32)) > found + 1e-5


# --- a known optimum -----------------------------------------------------------------------------------------------


def test_it_reaches_the_best_policy_under_its_divergence():
    """One decision, pi ~ N(m, s) of the data's spread s, data ~ N(mu, s), r = -(u - c)^2, p = 2:

    J(m) = -(m - c)^2 - s^2 - w / 2 exp((m - mu)^2 / s^2).
    """
    mu, spread, center, weight, steps = 0.1, 0.5, 0.8, 0.3, 4000
    falling = optax.adam(optax.exponential_decay(0.01, steps // 4, 0.3))
    critic = Network(
        lambda key: jnp.array([0.0, 0.0, 0.0, np.log(weight), 0.0]),
        lambda params, s, action: (
            lambda u: params[0] + params[1] * u + params[2] * u**2 - jnp.exp(params[3] + params[4] * u)
        )(jnp.arctanh(jnp.clip(action[:, 0], -1 + 1e-6, 1 - 1e-6))),
    )
    actor = GaussianActor(
        lambda key: jnp.asarray(mu),
        lambda params, observation: (
            jnp.full((len(observation), 1), params),
            jnp.full((len(observation), 1), np.log(spread)),
        ),
        SpaceSpec(1, 1),
    )
    networks = Networks(actor, ensemble(critic, 2), falling, optax.adam(0.01), optax.set_to_zero())
    config = Config(divergence_weight=weight, exponent=2.0, gamma=0.0, orthogonal_weight=0.0)
    state = State(
        trainable(networks.policy_optimizer, jax.jit(actor.init)(jax.random.key(0))),
        trainable(networks.critic_optimizer, jax.jit(networks.critics.init)(jax.random.key(0)), target=True),
        trainable(networks.entropy_optimizer, jnp.asarray(-9.0)),
        {name: jnp.zeros(()) for name in ("policy_loss", "entropy", "visitation_ratio")},
    )

    def body(step, state):
        data_key, key = jax.random.split(jax.random.fold_in(jax.random.key(1), step))
        u, zeros = mu + spread * jax.random.normal(data_key, (256, 1)), jnp.zeros((256, 1))
        rows = Transition(zeros, jnp.tanh(u), -jnp.square(u[:, 0] - center), zeros[:, 0], zeros, zeros)
        return algae_dice.update(config, networks, state, rows, key, step)[0]

    found = float(jax.jit(partial(jax.lax.fori_loop, 0, steps, body))(state).policy.params)

    def slope(m):
        return 2 * (center - m) - weight * (m - mu) / spread**2 * np.exp((m - mu) ** 2 / spread**2)

    best = optimize.brentq(slope, mu, center)
    assert mu + 0.2 < best < center - 0.1
    np.testing.assert_allclose(found, best, atol=0.02)


def test_actor_and_targets_wait_for_two_steps_of_the_critics():
    config = Config(policy_hidden=(6,), critic_hidden=(6,), policy_delay=2, initializer="fan_in")
    algorithm = algae_dice.make(config, SpaceSpec(2, 2), None)
    state, rows = jax.jit(algorithm.init)(jax.random.key(0), None), batch()
    update = jax.jit(algorithm.update)
    for step, moves in ((0, False), (1, True)):
        after, metrics = update(state, rows, jax.random.key(3), jnp.asarray(step))
        same = [
            all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, pair), strict=True))
            for pair in (
                (state.policy.params, after.policy.params),
                (state.critic.target_params, after.critic.target_params),
                (state.log_entropy_weight.params, after.log_entropy_weight.params),
            )
        ]
        assert same == [not moves] * 3
        assert (metrics["visitation_ratio"] > 0) == moves
    excess = float(metrics["entropy"]) + 2  # the policy's entropy above -A: the weight falls, by Adam's step
    np.testing.assert_allclose(after.log_entropy_weight.params, -1e-3 * np.sign(excess), rtol=1e-3)
