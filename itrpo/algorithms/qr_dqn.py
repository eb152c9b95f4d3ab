"""QR-DQN, distributional RL with quantile regression (Dabney et al., AAAI 2018, arXiv 1710.10044), offline.

    critic   min over theta   mean over the batch of sum_i mean_j rho_i(y_j - theta_i(s,a)) / kappa          (Eq. 10)
    y_j      = r + gamma (1-d) theta'_j(s', argmax_a' mean_i theta'_i(s',a'))
    rho_i    Huber's loss at kappa, weighed by |tau_i - 1{u < 0}|, tau_i = (i + 1/2) / K

theta_i(s,a), K of them for each choice, are quantiles of the return, Q their mean. It is the strong plain baseline of
offline Atari (Agarwal, Schuurmans and Norouzi 2020, arXiv 1907.04543). `source`: K = 200 and kappa = 1 of the paper,
networks and rates of discrete BCQ's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values
from itrpo.algorithms.action_values import Backbone, Networks, State
from itrpo.algorithms.quick import quick
from itrpo.nn.export import value_arrays
from itrpo.nn.trainable import gradient_step, polyak
from itrpo.ops import choices, td
from itrpo.ranges import Positive, Several
from itrpo.types import Algorithm, AlgorithmEntry, DiscreteSpec, Metrics, Params, Preset, Transition


@dataclass(frozen=True)
class Config:
    quantiles: Several = 200  # K (the paper: 200)
    kappa: Positive = 1.0  # where Huber's loss becomes linear (the paper: 1)
    backbone: Backbone = Backbone()  # its critics take the least of each quantile


def quantiles_of(networks: Networks, params: Params, observation: Float[Array, "B O"]) -> Float[Array, "B n K"]:
    return td.ensemble_min(networks.critics.apply(params, observation))


def of_choice(quantiles: Float[Array, "*rows n K"], choice: Int[Array, "*rows"]) -> Float[Array, "*rows K"]:
    return choices.chosen(
        jnp.swapaxes(quantiles, -1, -2), jnp.broadcast_to(choice[..., None], quantiles[..., 0, :].shape)
    )


def targets(config: Config, networks: Networks, state: State, batch: Transition) -> Float[Array, "B K"]:
    """y_j."""
    after = quantiles_of(networks, state.critic.target_params, batch.next_observation)
    best = of_choice(after, jnp.argmax(jnp.mean(after, axis=-1), axis=-1))
    reward, continues = batch.reward[:, None], batch.continues[:, None]
    return td.bellman_target(reward, continues, config.backbone.gamma, best)


def critic_loss(
    config: Config, networks: Networks, critic_params: Params, batch: Transition, target: Float[Array, "B K"]
) -> tuple[Float[Array, ""], Metrics]:
    own = networks.critics.apply(critic_params, batch.observation)
    own = jax.vmap(lambda one: of_choice(one, batch.action))(own)
    losses = choices.quantile_loss(own, jnp.broadcast_to(target[None], own.shape), config.kappa)
    loss = jnp.sum(jnp.mean(losses, axis=1))
    return loss, {"critic_loss": loss, "q_target": jnp.mean(target)}


def update(
    config: Config, networks: Networks, state: State, batch: Transition, key: Key[Array, ""], step: Int[Array, ""]
) -> tuple[State, Metrics]:
    """Critics, then targets. Nothing is random."""
    target = jax.lax.stop_gradient(targets(config, networks, state, batch))
    critic, metrics = gradient_step(
        state.critic, networks.critic_optimizer, lambda params: critic_loss(config, networks, params, batch, target)
    )
    return State(polyak(critic, config.backbone.polyak_rate)), metrics


def make(config: Config, spec: DiscreteSpec, behavior: None) -> Algorithm:
    networks = action_values.make_networks(config.backbone, spec, config.quantiles)

    def means(params: Params, observation: Float[Array, "B O"]) -> Float[Array, "N B n"]:
        return jnp.mean(networks.critics.apply(params, observation), axis=-1)

    def q(state: State, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
        """The least of the critics' means."""
        return td.ensemble_min(means(state.critic.params, observation))

    def export(state: State) -> dict[str, Any]:
        n = spec.num_actions
        return value_arrays(
            state.critic.params, jnp.kron(jnp.eye(n), jnp.full((1, config.quantiles), 1 / config.quantiles))
        )

    return Algorithm(
        init=partial(action_values.start, networks),
        update=partial(update, config, networks),
        acting=action_values.greedy_acting(q, export),
        probes=partial(action_values.greedy_probes, q),
        batch_size=config.backbone.batch_size,
        q_values=action_values.q_values(networks.critics._replace(apply=means)),
    )


SOURCE = Preset(Config(backbone=Backbone(batch_size=64)))
PRESETS = {
    "source": SOURCE,
    "matched": Preset(Config()),
    "quick": quick(Preset(Config()), {"quantiles": 32}, tasks=None),
}
QR_DQN = AlgorithmEntry(Config, PRESETS, "source", (), make, actions="discrete")
