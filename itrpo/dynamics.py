"""A model of the environment, fitted to the data: an ensemble of Gaussians over what follows a state and an action.

Chua et al. 2018 (PETS, arXiv 1805.12114), in the form of MOPO (Yu et al. 2020, arXiv 2005.13239):

    x = (s' - s, r)   standardised by the data's moments, as (s, a) are
    member i   max    E_i[log N(x; mean_i(s,a), std_i(s,a)^2) + log Bernoulli(d; p_i(s,a))] - weight_decay ||W_i||^2 / 2
    elites     members with the largest likelihood of rows that none of them learns from
    sample     for each row an elite, drawn evenly; s', r and d drawn from it

E_i weighs the data's rows by Exp(1), once for each member and row: the Bayesian bootstrap. What is held out, and what
weighs how much, follows from a hash of the row's own numbers, so that batches are all that a fit has to see, and equal
rows are on one side.

Source: OfflineRL-Kit (yihaosun1124/OfflineRL-Kit), which has MOPO's network in PyTorch. Departures: the end of an
episode is learned (there the rule of each environment is written down); rows are weighed (there each member draws its
own with replacement); a fit has a length (there it ends where no member's held-out error has fallen for five epochs,
and the best weights are kept); elites by likelihood (there by squared error); x is standardised, and its log standard
deviation is held in the range that theirs starts from, whose ends are learned there; one weight decay for all layers
(there 2.5e-5 to 1e-4); the likelihood is summed over x (there its mean).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key, UInt32

from itrpo.errors import InputError
from itrpo.nn.ensemble import ensemble
from itrpo.nn.network import Draw, Linear, network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops import distributions
from itrpo.ranges import Count, InnerShare, NonNegative, Positive, Widths
from itrpo.types import Metrics, Params, SpaceSpec, Transition

LOG_STD_RANGE = (-5.0, 0.25)  # of standardised x: the source's first bounds, of the log variance -10 and 0.5
MOMENT_STEPS = 1_000  # batches that the data's moments are taken from, the first ones
HELD_OUT_RATE = 0.01  # of the moving average of the held-out loss, per step
LEAST_STD = 1e-6  # of a column that is always the same


@dataclass(frozen=True)
class DynamicsFit:
    members: Count = 7  # models that are fitted (source)
    elites: Count = 5  # of them, those that samples are drawn from (source)
    dynamics_hidden: Widths = (200, 200, 200, 200)  # widths of the hidden layers, SiLU (source)
    dynamics_learning_rate: Positive = 1e-3  # Adam (source)
    weight_decay: NonNegative = 5e-5  # of all weights, without biases (source: 2.5e-5 at the first to 1e-4 at the last)
    held_out_share: InnerShare = 0.05  # of rows, which choose the elites (source: 1,000 rows)


class Moments(NamedTuple):
    mean: Float[Array, "n"]
    std: Float[Array, "n"]

    def standardised(self, value: Float[Array, "B n"]) -> Float[Array, "B n"]:
        return (value - self.mean[None]) / jnp.maximum(self.std, LEAST_STD)[None]

    def restored(self, value: Float[Array, "B n"]) -> Float[Array, "B n"]:
        return self.mean[None] + jnp.maximum(self.std, LEAST_STD)[None] * value


class FitState(NamedTuple):
    members: Trainable  # [members, ...]
    inputs: Moments  # of (s, a)
    outcomes: Moments  # of (s' - s, r)
    held_out_loss: Float[Array, "members"]  # moving average of -log likelihood per row, from 0
    salt: UInt32[Array, "columns members+1"]  # of the hashes
    steps: Int[Array, ""]


class Fitted(NamedTuple):
    """What samples are drawn with."""

    members: Params  # [members, ...]
    inputs: Moments
    outcomes: Moments
    elites: Int[Array, "elites"]


class DynamicsModel(NamedTuple):
    """A model of s', r and d, as pure functions over the state of its fit."""

    init: Callable[[Key[Array, ""]], FitState]
    fit_step: Callable[[FitState, Transition], tuple[FitState, Metrics]]  # one minibatch of maximum likelihood
    fitted: Callable[[FitState], Fitted]
    # (.., observation, action, key) -> rows; their next_action is 0
    sample: Callable[[Fitted, Float[Array, "B O"], Float[Array, "B A"], Key[Array, ""]], Transition]


class Member(eqx.Module):
    """(s, a), standardised -> mean and log_std of x [.., O+1], and the logit of d."""

    layers: list[Linear]

    def __init__(self, draw: Draw, spec: SpaceSpec, hidden: tuple[int, ...]):
        sizes = (sum(spec), *hidden, 2 * (spec.observation_dim + 1) + 1)
        self.layers = [Linear(draw, *pair, "fan_in") for pair in pairwise(sizes)]

    def __call__(self, inputs: Float[Array, "*rows n"]) -> tuple[Array, Array, Float[Array, "*rows"]]:
        for layer in self.layers[:-1]:
            inputs = jax.nn.silu(layer(inputs))
        outputs = self.layers[-1](inputs)
        mean, raw = jnp.split(outputs[..., :-1], 2, axis=-1)
        low, high = LOG_STD_RANGE
        log_std = high - jax.nn.softplus(high - raw)
        return mean, low + jax.nn.softplus(log_std - low), outputs[..., -1]


# --- what a row is -------------------------------------------------------------------------------------------------


def inputs_of(observation: Float[Array, "B O"], action: Float[Array, "B A"]) -> Float[Array, "B n"]:
    return jnp.concatenate([observation, action], axis=-1)


def outcomes_of(batch: Transition) -> Float[Array, "B n"]:
    """x, in its own units."""
    return jnp.concatenate([batch.next_observation - batch.observation, batch.reward[:, None]], axis=-1)


def hashes(batch: Transition, salt: UInt32[Array, "columns k"]) -> Float[Array, "k B"]:
    """k numbers in (0, 1) for each row, which follow from the bits of s, a, r, s' and d."""
    columns = [batch.observation, batch.action, batch.reward[:, None], batch.continues[:, None], batch.next_observation]
    bits = jax.lax.bitcast_convert_type(jnp.concatenate(columns, axis=-1), jnp.uint32)
    mixed = jnp.sum(bits[:, :, None] * salt[None], axis=1, dtype=jnp.uint32)
    for multiplier, shift in ((0x85EBCA6B, 13), (0xC2B2AE35, 16)):  # MurmurHash3's last steps
        mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(multiplier)
        mixed = mixed ^ (mixed >> shift)
    return ((mixed >> 8).T + 0.5) / 2.0**24


def followed(moments: Moments, values: Float[Array, "B n"], steps: Int[Array, ""]) -> Moments:
    """Those of all batches so far: exact, but for rounding; fixed after MOMENT_STEPS of them."""
    share = jnp.where(steps < MOMENT_STEPS, 1.0 / (steps + 1.0), 0.0)
    away = jnp.mean(values, axis=0) - moments.mean
    own = (1.0 - share) * jnp.square(moments.std) + share * jnp.var(values, axis=0)
    return Moments(moments.mean + share * away, jnp.sqrt(own + share * (1.0 - share) * jnp.square(away)))


# --- the model -----------------------------------------------------------------------------------------------------


def validate(config: DynamicsFit) -> None:
    """Raises InputError for more elites than members."""
    if config.elites > config.members:
        raise InputError(f"elites {config.elites} is above members {config.members}: they are chosen from them")


def make(config: DynamicsFit, spec: SpaceSpec) -> DynamicsModel:
    members = ensemble(network(lambda draw: Member(draw, spec, config.dynamics_hidden)), config.members)
    optimizer = optax.adam(config.dynamics_learning_rate)
    sizes = sum(spec), spec.observation_dim + 1

    def init(key: Key[Array, ""]) -> FitState:
        member_key, salt_key = jax.random.split(key)
        salt = jax.random.bits(salt_key, (2 * spec.observation_dim + spec.action_dim + 2, config.members + 1))
        inputs, outcomes = (Moments(jnp.zeros(size), jnp.ones(size)) for size in sizes)
        return FitState(
            trainable(optimizer, members.init(member_key)),
            inputs,
            outcomes,
            jnp.zeros(config.members),
            salt | 1,  # odd: no bit of a number is lost
            jnp.zeros((), jnp.int32),
        )

    def losses(params: Params, state: FitState, batch: Transition) -> Float[Array, "members B"]:
        """-log likelihood of each row, of standardised x."""
        inputs = state.inputs.standardised(inputs_of(batch.observation, batch.action))
        mean, log_std, logit = members.apply(params, inputs)
        x = state.outcomes.standardised(outcomes_of(batch))
        ends = (1.0 - batch.continues)[None]
        return jax.nn.softplus(logit) - ends * logit - distributions.normal_log_prob(x[None], mean, log_std)

    def fit_step(state: FitState, batch: Transition) -> tuple[FitState, Metrics]:
        state = state._replace(
            inputs=followed(state.inputs, inputs_of(batch.observation, batch.action), state.steps),
            outcomes=followed(state.outcomes, outcomes_of(batch), state.steps),
        )
        own = hashes(batch, state.salt)
        held_out = own[0] < config.held_out_share
        weights = jnp.where(held_out[None], 0.0, -jnp.log(own[1:]))

        def loss(params: Params) -> tuple[Float[Array, ""], Metrics]:
            rows = losses(params, state, batch)
            learned = jnp.mean(weights * rows, axis=1) / (1.0 - config.held_out_share)
            decay = sum(jnp.sum(jnp.square(layer.weight)) for layer in params.layers)
            held = jnp.sum(jnp.where(held_out[None], rows, 0.0), axis=1)
            metrics = {"dynamics_nll": jnp.mean(learned), "held": held}
            return jnp.sum(learned) + 0.5 * config.weight_decay * decay, metrics

        trained, metrics = gradient_step(state.members, optimizer, loss)
        count, held = jnp.sum(held_out), metrics.pop("held")
        rate = jnp.where(count > 0, HELD_OUT_RATE, 0.0)
        average = state.held_out_loss + rate * (held / jnp.maximum(count, 1) - state.held_out_loss)
        state = state._replace(members=trained, held_out_loss=average, steps=state.steps + 1)
        return state, metrics | {"dynamics_held_out": jnp.mean(average[elites_of(state)])}

    def elites_of(state: FitState) -> Int[Array, "elites"]:
        return jnp.argsort(state.held_out_loss)[: config.elites]

    def fitted(state: FitState) -> Fitted:
        return Fitted(state.members.params, state.inputs, state.outcomes, elites_of(state))

    def sample(
        model: Fitted, observation: Float[Array, "B O"], action: Float[Array, "B A"], key: Key[Array, ""]
    ) -> Transition:
        elite_key, noise_key, end_key = jax.random.split(key, 3)
        rows = len(observation)
        of_all = members.apply(model.members, model.inputs.standardised(inputs_of(observation, action)))
        chosen = model.elites[jax.random.randint(elite_key, (rows,), 0, config.elites)]
        mean, log_std, logit = (each[chosen, jnp.arange(rows)] for each in of_all)
        x = distributions.normal_sample(jax.random.normal(noise_key, mean.shape), mean, log_std)
        x = model.outcomes.restored(x)
        ends = jax.random.bernoulli(end_key, jax.nn.sigmoid(logit))
        continues = 1.0 - ends.astype(x.dtype)
        return Transition(observation, action, x[:, -1], continues, observation + x[:, :-1], jnp.zeros_like(action))

    return DynamicsModel(init, fit_step, fitted, sample)
