"""BCQ, PLAS, SPOT and BEAR on one decision whose best supported action is known.

One state, one action a in [-1, 1], reward 1 - (a - c)^2; c lies where the data is, or beyond it. The real `update`
runs, with a critic quadratic in a, so that Q is the reward, and a model of the data that is given, not fitted: each
method's own notion of support has a boundary that can be worked out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from itrpo.algorithms import bcq, bear, mmd_actor_critic, plas, spot, td3
from itrpo.behavior import cvae
from itrpo.nn.actors import DeterministicActor, GaussianActor
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Network
from itrpo.types import SpaceSpec, Transition

SPEC = SpaceSpec(1, 1)


def quadratic(params, observation, action):
    a = action[..., 0]
    return jnp.stack([jnp.ones_like(a), a, a**2], axis=-1) @ params


CRITICS = ensemble(Network(lambda key: jnp.zeros(3), quadratic), 2)


def given_model(mean: float, scale: float, negative_elbo=None):
    """Decodes z [2] to mean + scale * z_0, before the tanh; it never moves."""
    model = cvae.make(cvae.Config(hidden=(2,)), SPEC, 0)
    return model._replace(
        init=lambda key: jnp.zeros(()),
        params=lambda state: state,
        fit_step=lambda state, batch, key: (state, {}),
        decode=lambda params, observation, latent: mean + scale * latent[..., :1],
        negative_elbo=negative_elbo,
    )


def reward(a, c):
    return 1 - (a - c) ** 2


def settle(make, steps: int, c, **swept):
    """States after `steps` updates, one for each entry of c, on actions drawn evenly, whose reward ends the episode.

    make(field=value, ...) gives the algorithm; swept: field -> one value for each entry of c. All in one program.
    """

    def one(c, numbers):
        algorithm = make(**numbers)

        def body(step, state):
            action_key, update_key = jax.random.split(jax.random.fold_in(jax.random.key(1), step))
            action = jax.random.uniform(action_key, (64, 1), minval=-1.0, maxval=1.0)
            zeros = jnp.zeros((64, 1))
            batch = Transition(zeros, action, reward(action[:, 0], c), zeros[:, 0], zeros, zeros)
            return algorithm.update(state, batch, update_key, step)[0]

        return jax.lax.fori_loop(0, steps, body, algorithm.init(jax.random.key(0), jnp.zeros(())))

    c, numbers = jnp.asarray(c, jnp.float32), {name: jnp.asarray(values) for name, values in swept.items()}
    states = jax.jit(jax.vmap(one))(c, numbers)
    for center, params in zip(np.asarray(c), np.asarray(states.critic.params), strict=True):
        np.testing.assert_allclose(params, np.tile([1 - center**2, 2 * center, -1.0], (2, 1)), atol=0.05)  # Q is r
    return states


def acts(algorithm, states):
    """The greedy action of each state."""
    act = jax.vmap(lambda state: algorithm.acting.act(state, jnp.zeros((1, 1)), jax.random.key(0), True))
    return np.asarray(act(states))[:, 0, 0]


def adams(config):
    """Of actor and critics."""
    return optax.adam(config.policy_learning_rate), optax.adam(config.critic_learning_rate)


RATES = {"critic_learning_rate": 0.02, "policy_learning_rate": 0.02, "gamma": 0.0}


def test_bcq_takes_the_best_proposal_and_moves_it_by_phi(monkeypatch):
    """Proposals are tanh(0.3 + 0.5 z_0) with |z_0| <= 0.5; xi is a number, so it saturates where Q has a slope."""
    xi = Network(lambda key: jnp.zeros(()), lambda params, observation, action: jnp.full(action.shape, params))
    networks = (given_model(0.3, 0.5), xi, CRITICS)
    monkeypatch.setattr(bcq, "make_networks", lambda config, spec: bcq.Networks(*networks, *adams(config)))

    def make(**numbers):
        return bcq.BCQ.make(bcq.Config(**RATES, **numbers), SPEC, None)

    found = acts(make(phi=0.05), settle(make, 1000, [1.0, -1.0], phi=[0.05, 0.05]))
    np.testing.assert_allclose(found, [np.tanh(0.55) + 0.05, np.tanh(0.05) - 0.05], atol=0.003)


def test_plas_takes_the_best_action_that_a_latent_within_its_bound_decodes_to(monkeypatch):
    """max_latent = 1.2: more than twice what the model's own samples reach, and no more."""
    latent = Network(lambda key: jnp.zeros((1, 2)), lambda params, observation: jnp.tile(params, (len(observation), 1)))
    networks = (given_model(0.3, 0.5), latent, None, CRITICS)
    monkeypatch.setattr(plas, "make_networks", lambda config, spec, _: plas.Networks(*networks, *adams(config)))

    def make(**numbers):
        return plas.PLAS.make(plas.Config(**RATES, max_latent=1.2), SPEC, networks[0])

    found = acts(make(), settle(make, 1500, [0.4, 1.0, -1.0]))
    np.testing.assert_allclose(found, [0.4, np.tanh(0.3 + 0.5 * 1.2), np.tanh(0.3 - 0.5 * 1.2)], atol=0.01)


def test_spot_stops_where_q_over_its_size_rises_as_fast_as_the_density_falls(monkeypatch):
    """L(a) = (a - 0.2)^2 / (2 s^2), s = 0.3, a Gaussian's: there Q'(a) / |Q(a)| = support_weight (a - 0.2) / s^2."""
    model = given_model(0.0, 0.0, lambda params, observation, action, noise: (action[:, 0] - 0.2) ** 2 / (2 * 0.09))
    actor = DeterministicActor(
        lambda key: jnp.zeros(()), lambda params, observation: jnp.full((len(observation), 1), jnp.tanh(params))
    )
    monkeypatch.setattr(td3, "make_networks", lambda config, spec: td3.Networks(actor, CRITICS, *adams(config)))
    weights = [0.1, 1.0]

    def make(**numbers):
        return spot.SPOT.make(spot.Config(**numbers, policy_dropout=0.0, backbone=td3.Backbone(**RATES)), SPEC, model)

    found = acts(make(), settle(make, 2500, [0.9, 0.9], support_weight=weights))
    grid = np.linspace(0.2, 0.9, 70_001)
    slope = 2 * (0.9 - grid) / np.abs(reward(grid, 0.9))
    expected = [grid[np.argmin(np.abs(slope - weight * (grid - 0.2) / 0.09))] for weight in weights]
    assert 0.25 < expected[1] < expected[0] < 0.85
    np.testing.assert_allclose(found, expected, atol=0.01)


def mean_mmd(mean, std, draws: int = 4_000, bandwidth: float = 1.0):
    """E over 4 points each of N(mean, std^2) and of N(0.2, 0.6^2), kernel by kernel."""
    rng = np.random.default_rng(0)
    x, y = 0.2 + 0.6 * rng.normal(size=(draws, 4)), mean + std * rng.normal(size=(draws, 4))

    def kernel(one, other):
        return np.exp(-((one[:, :, None] - other[:, None]) ** 2) / (2 * bandwidth)).mean(axis=(1, 2))

    return np.sqrt(kernel(x, x) + kernel(y, y) - 2 * kernel(x, y) + 1e-6).mean()


def mean_reward(mean, std, c):
    u = np.linspace(-4, 4, 401)
    weights = np.exp(-(u**2) / 2)
    return (weights * reward(np.tanh(mean + std * u), c)).sum() / weights.sum()


def test_bear_reaches_the_best_policy_within_its_mmd_and_forgets_one_that_does_not_bind(monkeypatch):
    """The best mean and standard deviation under the constraint, found on a grid; and a peak well within it."""

    def moments(params, observation):
        return tuple(jnp.broadcast_to(each, (len(observation), 1)) for each in params[:, None, None])

    model = given_model(0.2, 0.6)
    actor = GaussianActor(lambda key: jnp.array([0.2, np.log(0.6)]), moments, SPEC)
    falling = optax.adam(optax.exponential_decay(0.02, 1500, 0.1))  # so that it settles rather than circles
    networks = mmd_actor_critic.Networks(model, actor, CRITICS, falling, optax.adam(0.02), falling)
    monkeypatch.setattr(mmd_actor_critic, "make_networks", lambda config, spec: networks)

    def make(**numbers):
        backbone = mmd_actor_critic.Backbone(**RATES, bandwidth=1.0, warm_up_steps=0, latent_clip=1e9)
        return bear.BEAR.make(bear.Config(**numbers, backbone=backbone), SPEC, None)

    states = settle(make, 3000, [1.0, 0.3], mmd_limit=[0.5, 0.8])
    (mean, log_std), (free_mean, free_log_std) = np.asarray(states.policy.params, np.float64)
    std, free_std = np.exp(log_std), np.exp(free_log_std)
    binding, free = states.log_multiplier.params
    np.testing.assert_allclose(mean_mmd(mean, std), 0.5, rtol=0.05)
    assert -4 < binding < 4
    grid = [(m, s) for m in np.linspace(0.2, 1.6, 29) for s in np.exp(np.linspace(-3, 0.2, 17))]
    allowed = [mean_reward(m, s, 1.0) for m, s in grid if mean_mmd(m, s, 500) <= 0.5]
    assert max(allowed) > mean_reward(0.2, 0.6, 1.0) + 0.2  # far better than the data
    np.testing.assert_allclose(mean_reward(mean, std, 1.0), max(allowed), atol=0.02)

    np.testing.assert_allclose(np.tanh(free_mean), 0.3, atol=0.03)
    assert mean_mmd(free_mean, free_std) < 0.8
    assert mean_reward(free_mean, free_std, 0.3) > 0.99
    assert free < -4
