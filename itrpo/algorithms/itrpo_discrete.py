"""iTRPO over n choices, with every expectation exact (Zhang and Tan, AAAI 2024, paper 29637, Eq. 5).

    pi_{k+1} = pi_beta exp(Q_k / alpha) / Z                  the greedy step of Eq. (5), in closed form
    y        = r + tau alpha clip(log(pi_{k+1}/pi_beta)(a|s)) + gamma (1-d) alpha log Z(s')

No actor and no samples: the deep critic is the only approximation. What `itrpo` approximates is exact here: without the
clip y is Eq. (5) itself, since <pi, Q - alpha log(pi/pi_beta)> = alpha log Z, and the shaping is tau (Q - alpha log Z).
The greedy step weighs D_KL[pi || pi_beta] by alpha; what it converges to, by lambda = alpha (1 - tau) (Lemma 1): with
Q' = Q - tau alpha log(pi/pi_beta) the fixed point is pi_beta exp(Q' / lambda) / Z'. tau = 0 is `brac_discrete`, and a
uniform pi_beta Munchausen DQN (arXiv 2007.14430). A test iterates this update on a table, to the iterates of
`itrpo.theory.schemes.itrpo_vi`.

No source has constants for choices: `source` takes the author's for vectors (see `itrpo`), with the networks of
discrete BCQ's code. Departure: pi is the improvement of the target critics, not of the newest (as in Munchausen DQN).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values, exact_kl
from itrpo.algorithms.action_values import Backbone, Networks
from itrpo.algorithms.exact_kl import Penalty, Prior, State
from itrpo.algorithms.quick import quick
from itrpo.behavior import categorical
from itrpo.ops import choices, td
from itrpo.ranges import Share
from itrpo.types import Algorithm, AlgorithmEntry, CategoricalModel, DiscreteSpec, Metrics, Params, Preset, Transition


@dataclass(frozen=True)
class Config:
    tau: Share = 0.5  # shaping factor in [0, 1]; 0 is BRAC (author's code: 0.03)
    log_ratio_low: float = -math.inf  # lower clip of the log-ratio, before tau * alpha (author's code -1; neutral -inf)
    log_ratio_high: float = math.inf  # upper clip (ours; neutral inf)
    penalty: Penalty = Penalty()
    backbone: Backbone = Backbone()


def log_ratios(
    networks: Networks, prior: Prior, critic_params: Params, state: State, batch: Transition
) -> Float[Array, "B"]:
    """log pi(a|s) - log pi_beta(a|s) at the dataset's own choices, pi greedy against critic_params."""
    at = exact_kl.improved(networks, prior, state.alpha, critic_params, state.behavior_params, batch.observation)
    return choices.chosen(at.log_ratio, batch.action)


def shaping(config: Config, state: State, log_ratio: Float[Array, "B"]) -> Float[Array, "B"]:
    """tau alpha clip(log ratio)."""
    return td.shaping_reward(log_ratio, state.alpha, config.tau, config.log_ratio_low, config.log_ratio_high)


def critic_targets(
    config: Config, networks: Networks, prior: Prior, state: State, batch: Transition
) -> Float[Array, "B"]:
    """Eq. (5)."""
    params = state.critic.target_params
    reward = batch.reward + shaping(config, state, log_ratios(networks, prior, params, state, batch))
    after = exact_kl.improved(networks, prior, state.alpha, params, state.behavior_params, batch.next_observation)
    return td.bellman_target(reward, batch.continues, config.backbone.gamma, after.value)


def update(
    config: Config,
    networks: Networks,
    prior: Prior,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> tuple[State, Metrics]:
    """Critics towards Eq. (5), then targets. Nothing is random."""
    targets = critic_targets(config, networks, prior, state, batch)
    critic, metrics = action_values.critic_step(config.backbone, networks, state.critic, batch, targets)
    return exact_kl.after(config.penalty, config.backbone, state, critic, targets), metrics


def probes(
    config: Config, networks: Networks, prior: Prior, state: State, batch: Transition, key: Key[Array, ""]
) -> Metrics:
    """Those of the family, and the shaping reward: means over fixed rows, by the newest Q."""
    low, high = config.log_ratio_low, config.log_ratio_high
    log_ratio = log_ratios(networks, prior, state.critic.params, state, batch)
    return exact_kl.probes(networks, prior, state, batch, key) | {
        "probe_shaping_reward": jnp.mean(shaping(config, state, log_ratio)),
        "probe_clipped_fraction": jnp.mean((log_ratio < low) | (log_ratio > high)),
    }


def make(config: Config, spec: DiscreteSpec, behavior: CategoricalModel) -> Algorithm:
    networks, prior = action_values.make_networks(config.backbone, spec), exact_kl.prior_of(behavior)

    def shaped(state: State, batch: Transition) -> Float[Array, "B"]:
        return shaping(config, state, log_ratios(networks, prior, state.critic.params, state, batch))

    targets = partial(critic_targets, config, networks, prior)
    return Algorithm(
        init=partial(exact_kl.start, config.penalty, networks),
        update=partial(update, config, networks, prior),
        acting=exact_kl.acting(networks, prior, behavior),
        probes=partial(probes, config, networks, prior),
        batch_size=config.backbone.batch_size,
        watch=partial(exact_kl.watch, networks, prior, targets, shaped),
        q_values=action_values.q_values(networks.critics),
    )


AUTHOR = Config(tau=0.03, log_ratio_low=-1.0, backbone=Backbone(batch_size=64, critics=2))
MATCHED = Preset(Config(backbone=Backbone(critics=2)), "categorical", categorical.Config())
PRESETS = {
    "source": MATCHED._replace(config=AUTHOR),
    "paper": MATCHED,  # Eqs. 2-5 alone; alpha, tau, widths, rates are ours
    "matched": MATCHED,
    "quick": quick(MATCHED, {"alpha": 0.03, "alpha_scale": "relative"}, tasks=None),
}
ITRPO_DISCRETE = AlgorithmEntry(Config, PRESETS, "quick", ("categorical",), make, exact_kl.validate, actions="discrete")
