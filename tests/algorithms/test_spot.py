"""SPOT against its equations: values worked out in NumPy loops from the paper, not from our code."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itrpo.algorithms import spot, td3, td3_bc
from itrpo.algorithms.spot import SPOT, Config, Draws
from itrpo.algorithms.td3 import Backbone
from itrpo.behavior import cvae
from itrpo.nn.ensemble import first_member
from itrpo.types import SpaceSpec
from tests.algorithms.td3_problem import NETWORKS, P, W, assert_gradient_is_slope, batch, q_of
from tests.compiled import compiled

SPEC = SpaceSpec(2, 2)
LAMBDA = 0.7
MODEL = compiled(cvae.make(cvae.Config(hidden=(5,)), SPEC, 0))
RNG = np.random.default_rng(0)
B, NOISE = RNG.normal(size=8), RNG.normal(size=(4, 4))  # L(s, a, noise) = B . (s, a, noise) + 3 |a|^2


def bound(params, observation, action, noise):
    return jnp.concatenate([observation, action, noise], axis=1) @ params + 3 * jnp.sum(action**2, axis=1)


def by_hand(p, scale=None):
    """(-Q_1 / mean |Q_1| + lambda L, 1 / mean |Q_1|), means over the batch; `scale` stands for the latter if given."""
    states = np.asarray(batch().observation)
    actions = [np.tanh(p @ s) for s in states]
    q = np.array([q_of(0, s, a) for s, a in zip(states, actions, strict=True)])
    rows = zip(states, actions, NOISE, strict=True)
    mean_bound = np.mean([B @ np.concatenate([s, a, e]) + 3 * (a**2).sum() for s, a, e in rows])
    scale = 1 / np.abs(q).mean() if scale is None else scale
    return -scale * q.mean() + LAMBDA * mean_bound, scale


def test_policy_loss_and_its_gradient_hold_the_normaliser_constant():
    expected, scale = by_hand(P)
    model = MODEL._replace(negative_elbo=bound)

    def loss(p):
        draws = Draws(jnp.asarray(NOISE, jnp.float32), None)
        fixed = (jnp.asarray(W[0]), jnp.asarray(B), batch().observation, draws)
        return spot.policy_loss(Config(support_weight=LAMBDA), NETWORKS, model, p, *fixed)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(P, jnp.float32))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert_gradient_is_slope(gradient, lambda p: by_hand(p, scale)[0], P)


def trained(config, steps: int):
    """[(state, metrics) after each step of real updates], the start first."""
    algorithm = SPOT.make(config, SPEC, MODEL)
    update = jax.jit(algorithm.update)
    states = [(jax.jit(algorithm.init)(jax.random.key(0), MODEL.params(MODEL.init(jax.random.key(1)))), None)]
    for step in range(steps):
        states.append(update(states[-1][0], batch(8), jax.random.key(10 + step), jnp.asarray(step)))
    return states


SMALL = Backbone(policy_hidden=(6,), critic_hidden=(6,), batch_size=8, gamma=0.9, polyak_rate=0.25)


@pytest.fixture(scope="module")
def steps():
    fast = replace(SMALL, policy_learning_rate=0.03, critic_learning_rate=0.03)
    config = Config(support_weight=0.7, backbone=fast)
    return config, trained(config, 4)


def test_the_actor_and_all_targets_wait_for_every_second_step(steps):
    for step, ((before, _), (after, _)) in enumerate(zip(steps[1], steps[1][1:], strict=False)):
        waits = step % 2 == 0
        for part in ("policy", "critic"):
            old, new = getattr(before, part), getattr(after, part)
            leaves = (jax.tree.leaves(tree) for tree in (old.params, new.params, old.target_params, new.target_params))
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
    networks = td3.make_networks(config.backbone, SPEC)
    target_key, policy_key = jax.random.split(jax.random.key(11))
    random_draws = jax.jit(spot.random_draws, static_argnums=(0, 2, 3))
    with_dropout = random_draws(config, target_key, 8, 2)
    assert [mask.shape for mask in with_dropout.masks] == [(8, 6)]  # a mask of its own for each row

    @jax.jit
    def mean_target(draws):
        rows, policy = batch(8), before.policy.target_params
        action = spot.policy_action(networks, policy, rows.next_observation, draws.masks)
        given = (before.critic.target_params, rows, action, draws.noise)
        return jnp.mean(td3.critic_targets(config.backbone, networks, *given))

    np.testing.assert_allclose(metrics["q_target"], mean_target(with_dropout), rtol=1e-5)
    assert abs(float(mean_target(with_dropout) - mean_target(with_dropout._replace(masks=None)))) > 1e-5

    @jax.jit
    def loss(draws):
        fixed = (first_member(after.critic.params), before.behavior_params, batch(8).observation, draws)
        return spot.policy_loss(config, networks, MODEL, before.policy.params, *fixed)[0]

    draws = random_draws(config, policy_key, 8, 4)
    np.testing.assert_allclose(metrics["policy_loss"], loss(draws), rtol=1e-5)
    assert abs(float(loss(draws) - loss(draws._replace(masks=None)))) > 1e-5

    act = compiled(SPOT.make(config, SPEC, MODEL)).acting.act
    actions = [act(after, jnp.array([[0.3, -1.0]]), jax.random.key(key), False) for key in (0, 1)]
    np.testing.assert_array_equal(*actions)


def test_with_weight_zero_and_no_dropout_it_is_td3():
    """Written out again from TD3's equations, with td3_bc's actor at a weight so large that it does not clone."""
    config = Config(support_weight=0.0, policy_dropout=0.0, backbone=SMALL)
    ours = trained(config, 0)[0][0]
    theirs_config = td3_bc.Config(q_weight=1e6, backbone=SMALL)
    state = jax.jit(td3_bc.TD3_BC.make(theirs_config, SPEC, None).init)(jax.random.key(0), None)
    for left, right in zip(jax.tree.leaves(ours.policy), jax.tree.leaves(state.policy), strict=True):
        np.testing.assert_array_equal(left, right)  # both draw the same networks from one key
    networks = td3.make_networks(SMALL, SPEC)
    first = first_member(state.critic.params)

    def ours_loss(p):
        draws = Draws(jnp.zeros((8, 4)), None)
        return spot.policy_loss(config, networks, MODEL, p, first, ours.behavior_params, batch(8).observation, draws)[0]

    def theirs_loss(p):
        return td3_bc.policy_loss(theirs_config, networks, p, first, batch(8))[0] / 1e6

    slopes = (jax.jit(jax.grad(loss))(state.policy.params) for loss in (ours_loss, theirs_loss))
    for left, right in zip(*map(jax.tree.leaves, slopes), strict=True):
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
    from itrpo.training.configure import make_setup

    found = make_setup("spot", task=task).algorithm_config
    assert (found.support_weight, found.policy_dropout) == (weight, dropout)
    assert found.backbone.policy_learning_rate == (1e-4 if dropout == 0 else 3e-4)
