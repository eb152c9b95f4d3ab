"""pi_beta as a conditional variational autoencoder (behaviour model "cvae"), as BCQ, BEAR, UWAC, PLAS and SPOT use it.

    q(z|s,a) = N(m, diag(d)^2),  (m, log d) = encoder(s, a)           a^ = tanh(decoder(s, z)),  z ~ q,  z in R^(2A)
    loss     = mean_i (a^_i - a_i)^2  +  kl_weight * mean_j KL_j,     KL_j = (d_j^2 + m_j^2 - 1) / 2 - log d_j

Means, not sums, over the A action dimensions and over the 2A latents: with kl_weight = beta this is -ELBO times
beta / (2A), up to a constant, for a decoder N(a^, beta/4). Summing one and averaging the other is another model.

So z pays only along directions in which actions vary, given the state, by more than beta/4: a variance of 0.125 with
the sources' beta. On data of one narrow policy the optimum ignores z (`behavior_latent_kl` goes to 0) and decodes the
mean action, whatever z is: then BCQ proposes one action and its perturbations, PLAS can do little but clone, and BEAR's
samples of the model lie on a point.

Actions are drawn by decoding z ~ N(0, I) clipped to +-latent_clip (BCQ). There is no density in closed form; SPOT
bounds it by the loss above. `mode` decodes z = 0.

Sources: Fujimoto et al. 2019 (BCQ, arXiv 1812.02900) and its code, continuous_BCQ/BCQ.py; the others copied it. They
have two linear layers for m and log d where here one gives both: the same function, drawn from the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Key

from itrpo.nn.export import layer_arrays
from itrpo.nn.heads import MLP, with_observation
from itrpo.nn.network import Draw, network
from itrpo.nn.trainable import Trainable, gradient_step, trainable
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, NonNegative, NonNegativeOrInf, Positive, Widths
from itrpo.types import BehaviorEntry, LatentModel, Metrics, Params, SpaceSpec, Transition

LOG_STD_RANGE = (-4.0, 15.0)  # clip of the encoder's log d (all sources, "for numerical stability")


@dataclass(frozen=True)
class Config:
    kl_weight: NonNegative = 0.5  # of the mean KL to the prior (all sources; SPOT calls it beta)
    latents_per_action: Count = 2  # latent numbers per action dimension (all sources)
    latent_clip: NonNegativeOrInf = 0.5  # samples of the prior are clipped to +- this (BCQ, BEAR, UWAC)
    fit_learning_rate: Positive = 1e-3  # Adam (BCQ, SPOT; PLAS 1e-4, BEAR 3e-4)
    fit_batch_size: Count = 256  # (SPOT; PLAS and BCQ 100)
    hidden: Widths = (750, 750)  # widths of the hidden layers of encoder and decoder (all sources)


class CVAE(eqx.Module):
    encoder: MLP  # [O + A] -> [2L]
    decoder: MLP  # [O + L] -> [A]

    def __init__(self, draw: Draw, spec: SpaceSpec, hidden: tuple[int, ...], latent_dim: int):
        inputs, actions = spec
        self.encoder = MLP(draw, (inputs + actions, *hidden, 2 * latent_dim))
        self.decoder = MLP(draw, (inputs + latent_dim, *hidden, actions))

    def encode(
        self, observation: Float[Array, "B O"], action: Float[Array, "B A"]
    ) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """-> posterior mean, log standard deviation."""
        mean, log_std = jnp.split(self.encoder(with_observation(observation, action)), 2, axis=-1)
        return mean, jnp.clip(log_std, *LOG_STD_RANGE)

    def decode(self, observation: Float[Array, "B O"], latent: Float[Array, "B *n L"]) -> Float[Array, "B *n A"]:
        """-> pre-tanh action, for one latent at each state, or for n."""
        return self.decoder(with_observation(observation, latent))


class FitState(NamedTuple):
    cvae: Trainable


def make(config: Config, spec: SpaceSpec, fit_steps: int) -> LatentModel:
    """fit_steps changes nothing, as the learning rate is constant."""
    latent_dim = config.latents_per_action * spec.action_dim
    init_params = network(lambda draw: CVAE(draw, spec, config.hidden, latent_dim)).init
    optimizer = optax.adam(config.fit_learning_rate)

    def terms(
        params: CVAE, observation: Float[Array, "B O"], action: Float[Array, "B A"], noise: Float[Array, "B L"]
    ) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
        """(reconstruction error, KL), each a mean over dimensions, with z = m + d * noise."""
        mean, log_std = params.encode(observation, action)
        reconstruction = jnp.tanh(params.decode(observation, mean + jnp.exp(log_std) * noise))
        return jnp.mean(jnp.square(reconstruction - action), axis=-1), jnp.mean(latent_kl(mean, log_std), axis=-1)

    def negative_elbo(
        params: CVAE, observation: Float[Array, "B O"], action: Float[Array, "B A"], noise: Float[Array, "B L"]
    ) -> Float[Array, "B"]:
        error, kl = terms(params, observation, action, noise)
        return error + config.kl_weight * kl

    def fit_step(state: FitState, batch: Transition, key: Key[Array, ""]) -> tuple[FitState, Metrics]:
        noise = jax.random.normal(key, (len(batch.reward), latent_dim))

        def loss(params: Params) -> tuple[Float[Array, ""], Metrics]:
            error, kl = (jnp.mean(each) for each in terms(params, batch.observation, batch.action, noise))
            value = error + config.kl_weight * kl
            return value, {"behavior_loss": value, "behavior_reconstruction": error, "behavior_latent_kl": kl}

        cvae, metrics = gradient_step(state.cvae, optimizer, loss)
        return FitState(cvae), metrics

    def sample(params: CVAE, observation: Float[Array, "B O"], key: Key[Array, ""]) -> Float[Array, "B A"]:
        noise = jax.random.normal(key, (len(observation), latent_dim))
        return params.decode(observation, prior_latents(noise, config.latent_clip))

    def export(params: CVAE) -> dict[str, Any]:
        """The decoder at z = 0: its first layer without the columns that z would multiply."""
        arrays = layer_arrays(params.decoder)
        return {"kind": "tanh_mlp", **arrays, "weight_0": arrays["weight_0"][:, : spec.observation_dim]}

    return LatentModel(
        init=lambda key: FitState(trainable(optimizer, init_params(key))),
        fit_step=fit_step,
        params=lambda state: state.cvae.params,
        sample=sample,
        mode=lambda params, observation: params.decode(observation, jnp.zeros((len(observation), latent_dim))),
        export=export,
        batch_size=config.fit_batch_size,
        latent_dim=latent_dim,
        decode=lambda params, observation, latent: params.decode(observation, latent),
        negative_elbo=negative_elbo,
    )


def stepped(
    spec: SpaceSpec, hidden: tuple[int, ...], learning_rate: Any, kl_weight: Any, latent_clip: Any
) -> LatentModel:
    """The model of those that call `fit_step` once in each step of their own, on its batch (BCQ, BEAR, UWAC).

    The three numbers are floats, or traced where a sweep compiles over them.
    """
    config = Config(kl_weight, latent_clip=latent_clip, fit_learning_rate=learning_rate, hidden=hidden)
    return make(config, spec, fit_steps=0)


def latent_kl(mean: Float[Array, "*rows L"], log_std: Float[Array, "*rows L"]) -> Float[Array, "*rows L"]:
    """D_KL[N(mean, exp(log_std)^2) || N(0, 1)] of each latent."""
    return 0.5 * (jnp.exp(2.0 * log_std) + jnp.square(mean) - 1.0) - log_std


def prior_latents(noise: Float[Array, "*rows L"], limit: Scalar) -> Float[Array, "*rows L"]:
    """z out of noise ~ N(0, I), as the sources draw it for actions: clipped to +-limit."""
    return jnp.clip(noise, -limit, limit)


CVAE_MODEL = BehaviorEntry(Config, make)
