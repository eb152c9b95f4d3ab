"""BRAC with a value penalty over n choices, every expectation exact (Wu, Tucker and Nachum 2019, arXiv 1911.11361).

    y  = r + gamma (1-d) ( <pi, Q'>(s') - alpha D_KL[pi || pi_beta](s') )                                    (Eq. 2)
    pi = pi_beta exp(Q' / alpha) / Z                                                                         (Eq. 4)

which is r + gamma (1-d) alpha log Z(s'). It is `itrpo_discrete` at tau = 0, to the bit. No source has constants for
choices: `source` takes those of the original run scripts for vectors (alpha 0.1), with discrete BCQ's networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.algorithms import action_values, exact_kl
from itrpo.algorithms.action_values import Backbone, Networks
from itrpo.algorithms.exact_kl import Penalty, Prior, State
from itrpo.algorithms.quick import quick
from itrpo.behavior import categorical
from itrpo.ops import td
from itrpo.types import Algorithm, AlgorithmEntry, CategoricalModel, DiscreteSpec, Metrics, Preset, Transition


@dataclass(frozen=True)
class Config:
    penalty: Penalty = Penalty()
    backbone: Backbone = Backbone()


def critic_targets(
    config: Config, networks: Networks, prior: Prior, state: State, batch: Transition
) -> Float[Array, "B"]:
    """Eq. (2)."""
    target_params = state.critic.target_params
    after = exact_kl.improved(
        networks, prior, state.alpha, target_params, state.behavior_params, batch.next_observation
    )
    return td.bellman_target(batch.reward, batch.continues, config.backbone.gamma, after.value)


def update(
    config: Config,
    networks: Networks,
    prior: Prior,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
    step: Int[Array, ""],
) -> tuple[State, Metrics]:
    """Critics, then targets. Nothing is random."""
    targets = critic_targets(config, networks, prior, state, batch)
    critic, metrics = action_values.critic_step(config.backbone, networks, state.critic, batch, targets)
    return exact_kl.after(config.penalty, config.backbone, state, critic, targets), metrics


def make(config: Config, spec: DiscreteSpec, behavior: CategoricalModel) -> Algorithm:
    networks, prior = action_values.make_networks(config.backbone, spec), exact_kl.prior_of(behavior)
    targets = partial(critic_targets, config, networks, prior)
    return Algorithm(
        init=partial(exact_kl.start, config.penalty, networks),
        update=partial(update, config, networks, prior),
        acting=exact_kl.acting(networks, prior, behavior),
        probes=partial(exact_kl.probes, networks, prior),
        batch_size=config.backbone.batch_size,
        watch=partial(exact_kl.watch, networks, prior, targets, None),
        q_values=action_values.q_values(networks.critics),
    )


MATCHED = Preset(Config(backbone=Backbone(critics=2)), "categorical", categorical.Config())
PRESETS = {
    "source": MATCHED._replace(config=Config(penalty=Penalty(0.1), backbone=Backbone(batch_size=64, critics=2))),
    "paper": MATCHED,  # Eqs. 2 and 3 alone, with the constants of iTRPO's preset of that name
    "matched": MATCHED,
    "quick": quick(MATCHED, {"alpha": 0.03, "alpha_scale": "relative"}, tasks=None),
}
BRAC_DISCRETE = AlgorithmEntry(Config, PRESETS, "quick", ("categorical",), make, exact_kl.validate, actions="discrete")
