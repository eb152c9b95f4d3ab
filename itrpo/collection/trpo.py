"""TRPO, an explicit trust region (Schulman et al. 2015, arXiv 1502.05477; advantages as in arXiv 1506.02438).

    actor    max over pi   mean of A pi / pi_k   with the mean of D_KL[pi_k || pi] at most `kl_limit`
             by one step along F^-1 g, F the Hessian of that D_KL, g the gradient: as long as the limit allows to second
             order, then halved until the limit holds and the mean has grown, or not made at all

Where iTRPO keeps D_KL between successive policies small by what it adds to rewards, TRPO keeps it below a number.
`kl_limit`, damping and iterations of the conjugate gradients are the paper's (0.01) and its authors' code's (0.1, 10);
all else is shared with PPO, so that the two differ in this step alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg
from jaxtyping import Float, Key

from itrpo.collection import on_policy, rollout
from itrpo.collection.agent import Agent, Updates, check_policy_hidden
from itrpo.collection.on_policy import Data, Networks, Recent, Shared, Sized, State
from itrpo.nn.trainable import Trainable
from itrpo.ops import divergences, trust_region
from itrpo.ranges import Count, NonNegative, Positive, check_ranges
from itrpo.types import Metrics, Params, SpaceSpec

METRICS = ("gain", "value_loss", "kl", "step_share", "pre_tanh_std")


@dataclass(frozen=True)
class Config:
    kl_limit: Positive = 0.01  # nats, the mean over states of D_KL[pi_k || pi] (the paper's)
    damping: NonNegative = 0.1  # added to F (authors' code)
    conjugate_steps: Count = 10  # iterations for F^-1 g (authors' code)
    halvings: Count = 10  # tried step lengths (authors' code)
    shared: Shared = field(default_factory=Shared)


def validate(config: Config) -> None:
    """Raises InputError for a value outside its range."""
    check_ranges(config)
    check_policy_hidden(config.shared.policy_hidden)


def policy_step(config: Config, networks: Networks, params: Params, data: Data) -> tuple[Params, Metrics]:
    """data: of one batch, whose policy has the parameters `params`."""
    start, unravel = ravel_pytree(params)
    advantage = (data.advantage - jnp.mean(data.advantage)) / (jnp.std(data.advantage) + 1e-8)
    old = networks.policy.apply(params, data.observation)

    def gain(flat: Float[Array, "n"]) -> Float[Array, ""]:
        log_prob = on_policy.log_prob(networks, unravel(flat), data.observation, data.pre_tanh)
        return jnp.mean(jnp.exp(log_prob - data.log_prob) * advantage)

    def kl(flat: Float[Array, "n"]) -> Float[Array, ""]:
        return jnp.mean(divergences.normal_kl(*old, *networks.policy.apply(unravel(flat), data.observation)))

    def curved(vector: Float[Array, "n"]) -> Float[Array, "n"]:
        return jax.jvp(jax.grad(kl), (start,), (vector,))[1] + config.damping * vector

    before, gradient = jax.value_and_grad(gain)(start)
    direction, _ = cg(curved, gradient, maxiter=config.conjugate_steps)
    step = trust_region.natural_step(gradient, direction, config.kl_limit)
    shares = 0.5 ** jnp.arange(config.halvings)
    gains, moved = jax.lax.map(lambda share: (gain(start + share * step), kl(start + share * step)), shares)
    allowed = (moved <= config.kl_limit) & (gains > before)  # not where either is NaN
    share = jnp.where(jnp.any(allowed), shares[jnp.argmax(allowed)], 0.0)
    flat = jnp.where(share > 0, start + share * step, start)
    metrics = {"gain": gain(flat) - before, "kl": kl(flat), "step_share": share}
    return unravel(flat), metrics


def learn(
    config: Config, networks: Networks, state: State, recent: Recent, key: Key[Array, ""]
) -> tuple[State, Metrics]:
    """The policy's step on the whole batch, then the value function's on minibatches."""
    state, data = on_policy.prepared(config.shared, networks, jnp.ones(1), 1.0, state, recent)
    params, metrics = policy_step(config, networks, state.policy.params, data)

    def step(carry: tuple[Trainable], data: Data) -> tuple[tuple[Trainable], Metrics]:
        value, found = on_policy.value_step(networks, carry[0], data)
        return (value,), found

    (value,), value_metrics = on_policy.over_minibatches(config.shared, step, (state.value,), data, key)
    metrics |= value_metrics | {"pre_tanh_std": jnp.mean(jnp.exp(params.log_std))}
    return state._replace(policy=state.policy._replace(params=params), value=value), metrics


def make(sized: Sized, spec: SpaceSpec) -> Updates:
    config: Config = sized.config
    networks = on_policy.make_networks(config.shared, spec, optax.identity())
    return on_policy.make(networks, sized, spec, 1, partial(learn, config, networks), METRICS)


TRPO = Agent("TRPO", METRICS, validate, make, on_policy.acting_arrays, rollout.act, lambda config: 1)
