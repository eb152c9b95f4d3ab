"""SPOT against its equations: values worked out in NumPy loops from the paper, not from our code."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import spot, td3_bc
from itrpo.algorithms.spot import SPOT, Config, Draws, Networks
from itrpo.behavior import cvae
from itrpo.errors import InputError
from itrpo.nn.ensemble import first_member
from itrpo.nn.network import Network
from itrpo.types import SpaceSpec, Transition

SPEC = SpaceSpec(2, 2)
LAMBDA = 0.7
CONFIG = Config(support_weight=LAMBDA, gamma=0.9)
MODEL = cvae.make(cvae.Config(hidden=(5,)), SPEC, 0)

# pi(s) = tanh(P s);  Q(s, a) = w . (s, a) + (sum of a)^2;  L(s, a, noise) = B . (s, a, noise) + 3 |a|^2
CRITIC = Network(
    lambda key: None,
    lambda params, observation, action: params @ jnp.concatenate([observation, action]) + jnp.sum(action) ** 2,
)
NETWORKS = Networks(
    Network(lambda key: None, lambda params, observation: params @ observation),
    CRITIC,
    Network(lambda key: None, jax.vmap(CRITIC.apply, in_axes=(0, None, None))),
    MODEL._replace(
        negative_elbo=lambda params, observation, action, noise: (
            params @ jnp.concatenate([observation, action, noise]) + 3 * jnp.sum(action**2)
        )
    ),
)
RNG = np.random.default_rng(0)
P, B, NOISE = RNG.normal(size=(2, 2)), RNG.normal(size=8), RNG.normal(size=(4, 4))
W = np.array([[0.2, -0.4, 1.0, -0.7], [-0.3, 0.1, -0.6, 0.9]])  # of Q_1 and Q_2


def batch(rows: int = 4) -> Transition:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows)]
    parts += [np.arange(rows) % 3 > 0, 2 * rng.normal(size=(rows, 2)), np.zeros((rows, 2))]
    return Transition(*(jnp.asarray(it, jnp.float32) for it in parts))


def q_of(i, s, a):
    return W[i] @ np.concatenate([s, a]) + a.sum() ** 2


def test_target_is_td3s():
    """The least Q at the target actor's action, smoothed and clipped."""
    it, noise, expected = batch(), np.array([[1.0, -0.5], [0.3, 4.0], [-9.0, 0.1], [2.0, 2.0]]), []
    for s, r, c, e in zip(*map(np.asarray, (it.next_observation, it.reward, it.continues)), noise, strict=True):
        a = np.clip(np.tanh(P @ s) + np.clip(0.2 * e, -0.5, 0.5), -1, 1)
        expected.append(r + 0.9 * c * min(q_of(0, s, a), q_of(1, s, a)))
    found = jax.vmap(
        lambda row, e: spot.critic_target(NETWORKS, CONFIG, jnp.asarray(P), jnp.asarray(W), row, Draws(e, None))
    )(it, jnp.asarray(noise))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def by_hand(p, scale=None, weight=LAMBDA):
    """(-Q_1 / mean |Q_1| + lambda L, 1 / mean |Q_1|), means over the batch; `scale` stands for the latter if given."""
    states = np.asarray(batch().observation)
    actions = [np.tanh(p @ s) for s in states]
    q = np.array([q_of(0, s, a) for s, a in zip(states, actions, strict=True)])
    rows = zip(states, actions, NOISE, strict=True)
    bound = np.mean([B @ np.concatenate([s, a, e]) + 3 * (a**2).sum() for s, a, e in rows])
    scale = 1 / np.abs(q).mean() if scale is None else scale
    return -scale * q.mean() + weight * bound, scale


def test_policy_loss_and_its_gradient_hold_the_normaliser_constant():
    expected, scale = by_hand(P)

    def loss(p):
        draws = Draws(jnp.asarray(NOISE, jnp.float32), None)
        fixed = (jnp.asarray(W[0]), jnp.asarray(B), batch().observation, draws)
        return spot.policy_loss(NETWORKS, CONFIG, p, *fixed)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(P, jnp.float32))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for index in np.ndindex(2, 2):
        step = np.zeros((2, 2))
        step[index] = 1e-5
        slope = (by_hand(P + step, scale)[0] - by_hand(P - step, scale)[0]) / 2e-5
        np.testing.assert_allclose(gradient[index], slope, rtol=1e-3, atol=1e-5)


def trained(config, steps: int, model=MODEL):
    """[(state, metrics) after each step of real updates], the start first."""
    algorithm = SPOT.make(config, SPEC, model)
    update = jax.jit(algorithm.update)
    states = [(jax.jit(algorithm.init)(jax.random.key(0), model.params(model.init(jax.random.key(1)))), None)]
    for step in range(steps):
        states.append(update(states[-1][0], batch(8), jax.random.key(10 + step), jnp.asarray(step)))
    return states


SIZES = {"policy_hidden": (6,), "critic_hidden": (6,), "batch_size": 8, "gamma": 0.9, "polyak_rate": 0.25}


@pytest.fixture(scope="module")
def steps():
    config = Config(**SIZES, support_weight=0.7, policy_learning_rate=0.03, critic_learning_rate=0.03)
    return config, trained(config, 4)


def test_the_actor_and_all_targets_wait_for_every_second_step(steps):
    for step, ((before, _), (after, _)) in enumerate(zip(steps[1], steps[1][1:], strict=False)):
        waits = step % 2 == 0
        for part in ("policy", "critic"):
            old, new = getattr(before, part), getattr(after, part)
            leaves = (jax.tree.leaves(it) for it in (old.params, new.params, old.target_params, new.target_params))
            for x, y, target, moved in zip(*leaves, strict=True):
                assert np.array_equal(x, y) == (waits and part == "policy")
                if waits:
                    np.testing.assert_array_equal(target, moved)
                else:
                    np.testing.assert_allclose(moved, 0.75 * target + 0.25 * y, rtol=1e-4, atol=1e-7)
        for x, y in zip(jax.tree.leaves(before.behavior_params), jax.tree.leaves(after.behavior_params), strict=True):
            np.testing.assert_array_equal(x, y)


def test_dropout_acts_in_the_actor_and_in_its_target_but_not_when_acting(steps):
    config, states = steps
    (before, _), (after, metrics) = states[1:3]  # the step in which the actor moves
    networks = spot.make_networks(config, SPEC, MODEL)
    target_key, policy_key = jax.random.split(jax.random.key(11))
    with_dropout, without = (spot.random_draws(config, target_key, (8, 2)), None)
    without = with_dropout._replace(masks=None)
    assert [it.shape for it in with_dropout.masks] == [(8, 6)]  # a mask of its own for each row

    def mean_target(draws):
        params = (before.policy.target_params, before.critic.target_params)
        return jnp.mean(
            jax.vmap(lambda row, it: spot.critic_target(networks, config, *params, row, it))(batch(8), draws)
        )

    np.testing.assert_allclose(metrics["q_target"], mean_target(with_dropout), rtol=1e-5)
    assert abs(float(mean_target(with_dropout) - mean_target(without))) > 1e-5

    def loss(draws):
        fixed = (first_member(after.critic.params), before.behavior_params, batch(8).observation, draws)
        return spot.policy_loss(networks, config, before.policy.params, *fixed)[0]

    draws = spot.random_draws(config, policy_key, (8, 4))
    np.testing.assert_allclose(metrics["policy_loss"], loss(draws), rtol=1e-5)
    assert abs(float(loss(draws) - loss(draws._replace(masks=None)))) > 1e-5

    algorithm = SPOT.make(config, SPEC, MODEL)
    actions = [algorithm.act(after, jnp.array([0.3, -1.0]), jax.random.key(key), False) for key in (0, 1)]
    np.testing.assert_array_equal(*actions)


def test_with_weight_zero_and_no_dropout_it_is_td3():
    """Written out again from TD3's equations, with td3_bc's actor at a weight so large that it does not clone."""
    config = Config(**SIZES, support_weight=0.0, policy_dropout=0.0)
    ours = [state for state, _ in trained(config, 2)]
    theirs_config = td3_bc.Config(**SIZES, q_weight=1e6)
    algorithm = td3_bc.TD3_BC.make(theirs_config, SPEC, None)
    state = jax.jit(algorithm.init)(jax.random.key(0), None)
    for left, right in zip(jax.tree.leaves(ours[0].policy), jax.tree.leaves(state.policy), strict=True):
        np.testing.assert_array_equal(left, right)  # both draw the same networks from one key
    networks = spot.make_networks(config, SPEC, MODEL)
    theirs = td3_bc.make_networks(theirs_config, SPEC)
    noise = jax.random.normal(jax.random.key(3), (8, 2))

    params = (state.policy.target_params, state.critic.target_params)
    target = partial(spot.critic_target, networks, config, *params)
    np.testing.assert_allclose(
        jax.vmap(lambda row, e: target(row, Draws(e, None)))(batch(8), noise),
        td3_bc.critic_targets(theirs, theirs_config, *params, batch(8), noise),
        rtol=1e-5,
    )

    def ours_loss(p):
        draws = Draws(jnp.zeros((8, 4)), None)
        fixed = (first_member(state.critic.params), ours[0].behavior_params, batch(8).observation, draws)
        return spot.policy_loss(networks, config, p, *fixed)[0]

    def theirs_loss(p):
        return td3_bc.policy_loss(theirs, theirs_config, p, first_member(state.critic.params), batch(8))[0] / 1e6

    slopes = (jax.jit(jax.grad(it))(state.policy.params) for it in (ours_loss, theirs_loss))
    for left, right in zip(*(jax.tree.leaves(it) for it in slopes), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)
        assert float(jnp.abs(left).max()) > 1e-3


@pytest.mark.parametrize(
    ("task", "weight", "dropout"),
    [
        ("hopper-medium-expert", 0.2, 0.1),
        ("walker2d-medium-expert", 0.5, 0.1),
        ("halfcheetah-random", 0.05, 0.1),
        ("antmaze-umaze-diverse", 0.25, 0.0),
        ("antmaze-large-play", 0.025, 0.0),
        (None, 0.1, 0.1),
    ],
)
def test_constants_by_task(task, weight, dropout):
    from itrpo.training.configure import make_config

    found = make_config("spot", task=task).algorithm_config
    assert (found.support_weight, found.policy_dropout) == (weight, dropout)
    assert found.policy_learning_rate == (1e-4 if dropout == 0 else 3e-4)


def test_values_are_checked():
    for bad in ({"support_weight": -0.1}, {"policy_dropout": 1.0}, {"policy_delay": 0}, {"gamma": 1.0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            SPOT.validate(Config(**bad), "cvae", None)
