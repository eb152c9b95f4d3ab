"""What BRAC, iTRPO and Munchausen DQN share where an action is one of n choices: the policy in closed form.

    pi(.|s) = argmax <pi, Q> - alpha D_KL[pi || prior](s)  is  prior(a|s) exp(Q(s,a) / alpha) / Z(s)          (Eq. 3)
    V(s)    = <pi, Q> - alpha D_KL[pi || prior](s)         =   alpha log Z(s)

So there is no actor, nothing is sampled, and the log-ratio of Eq. (5) is exact. Q is the least of the target critics
wherever a target is computed, as in Munchausen DQN (arXiv 2007.14430): the policy of a target is then the improvement
of the very Q that it bootstraps from, Q_k of Eqs. (4) and (5), and moves slowly. Acting is by the newest Q.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from itrpo.algorithms import action_values
from itrpo.algorithms.action_values import Backbone, Networks, least_q
from itrpo.algorithms.kl_actor_critic import check_relative
from itrpo.nn.export import value_arrays
from itrpo.nn.trainable import Trainable, polyak
from itrpo.ops import choices, td
from itrpo.ops.td import Scalar
from itrpo.ranges import Positive
from itrpo.types import Acting, CategoricalModel, DiscreteSnapshot, Metrics, Params, Transition


@dataclass(frozen=True)
class Penalty:
    alpha: Positive = 0.9  # weight of the KL to pi_beta in the greedy step (iTRPO's author: 0.9)
    alpha_scale: Literal["absolute", "relative"] = "absolute"  # relative: alpha times a running mean of |y| (ours)


class State(NamedTuple):
    critic: Trainable
    behavior_params: Params  # frozen; None where the prior is uniform
    q_scale: Float[Array, ""]  # running mean of |y|, the targets of Q(s,a); read only where alpha_scale is "relative"
    alpha: Float[Array, ""]  # in force now, in units of reward: the policy is nothing without it


class Improved(NamedTuple):
    """At a batch of states: Q, the prior, and the policy that is greedy against both."""

    q: Float[Array, "B n"]
    log_prior: Float[Array, "B n"]
    log_policy: Float[Array, "B n"]
    value: Float[Array, "B"]

    @property
    def log_ratio(self) -> Float[Array, "B n"]:
        return self.log_policy - self.log_prior


Prior = Callable[[Params, Float[Array, "B O"]], Float[Array, "B n"]]  # (params, observation) -> log prior(.|s)


def prior_of(behavior: CategoricalModel) -> Prior:
    return lambda params, observation: jax.nn.log_softmax(behavior.logits(params, observation))


def improved(
    networks: Networks,
    prior: Prior,
    alpha: Scalar,
    critic_params: Params,
    behavior_params: Params,
    observation: Float[Array, "B O"],
) -> Improved:
    q, log_prior = least_q(networks, critic_params, observation), prior(behavior_params, observation)
    log_policy, value = choices.improved(q, log_prior, alpha), choices.soft_value(q, log_prior, alpha)
    return Improved(q, log_prior, log_policy, value)


def after(penalty: Penalty, config: Backbone, state: State, critic: Trainable, targets: Float[Array, "B"]) -> State:
    """The state after a step: targets of the critics move, and q_scale as that of the continuous algorithms."""
    critic = polyak(critic, config.polyak_rate)
    if penalty.alpha_scale == "absolute":
        return state._replace(critic=critic)
    q_scale = td.moved_scale(state.q_scale, config.polyak_rate, targets)
    return State(critic, state.behavior_params, q_scale, penalty.alpha * q_scale)


def start(penalty: Penalty, networks: Networks, key: Key[Array, ""], behavior_params: Params) -> State:
    alpha = jnp.asarray(penalty.alpha, jnp.float32)
    return State(action_values.start_critic(networks, key), behavior_params, jnp.ones(()), alpha)


def acting(networks: Networks, prior: Prior, behavior: CategoricalModel | None) -> Acting:
    def log_policy(state: State, observation: Float[Array, "B O"]) -> Float[Array, "B n"]:
        return improved(
            networks, prior, state.alpha, state.critic.params, state.behavior_params, observation
        ).log_policy

    def export(state: State) -> dict[str, Any]:
        """argmax of min_i Q_i + alpha log pi_beta."""
        arrays = value_arrays(state.critic.params)
        if behavior is None:
            return arrays
        found = behavior.export(state.behavior_params).items()
        arrays |= {f"behavior_{name}": it for name, it in found if name != "kind"}
        return arrays | {"behavior_weight": state.alpha}

    return action_values.soft_acting(log_policy, export)


def probes(networks: Networks, prior: Prior, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """Means over fixed rows, by the newest Q."""
    found = improved(networks, prior, state.alpha, state.critic.params, state.behavior_params, batch.observation)
    return action_values.probes(found.q, found.log_policy, batch) | {
        "probe_kl": jnp.mean(choices.kl(found.log_policy, found.log_prior)),
        "probe_log_ratio": jnp.mean(choices.chosen(found.log_ratio, batch.action)),
        "probe_log_prob": jnp.mean(choices.chosen(found.log_policy, batch.action)),
    }


def watch(
    networks: Networks,
    prior: Prior,
    targets: Callable[[State, Transition], Float[Array, "B"]],
    shaping: Callable[[State, Transition], Float[Array, "B"]] | None,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
) -> DiscreteSnapshot:
    """targets(state, batch) is y, shaping(state, batch) what Eq. (5) adds to the rewards; None: nothing."""
    found = improved(networks, prior, state.alpha, state.critic.params, state.behavior_params, batch.observation)
    q, target = choices.chosen(found.q, batch.action), targets(state, batch)
    implicit_q = q if shaping is None else q - shaping(state, batch)
    return DiscreteSnapshot(found.log_policy, target, implicit_q, q - target)


def validate(config: Any, behavior: str | None, behavior_config: Any) -> None:
    """Raises InputError for an alpha in units of reward where it is in those of |Q|."""
    check_relative(config.penalty.alpha, config.penalty.alpha_scale)
