"""The actor-critic regularised by D_KL[pi || pi_beta] that BRAC and iTRPO share.

An algorithm's own file says what its critic target is (that is where they differ); this one holds the rest:

    critic   min over Q_i   sum_i (Q_i(s,a) - y)^2  [+ gradient_penalty * sum_i ||grad_a Q_i(s,a~)||^2]
    actor    max over pi    E_{a~pi}[min_i Q_i(s,a)] - alpha * D_KL[pi(.|s) || pi_beta(.|s)]            (Eq. 3)
    target   Q_i'  <- (1 - polyak_rate) Q_i' + polyak_rate Q_i

with the same alpha in actor and critic, without which Theorem 1 does not hold. The actor's step uses the critics just
updated. The losses reach the policy only through `Networks`, so that a table with a categorical policy can stand in for
the networks: a test iterates them to the exact solution of Eqs. (4) and (5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from itrpo.behavior import gaussian
from itrpo.errors import InputError
from itrpo.nn.ensemble import ensemble
from itrpo.nn.heads import GaussianPolicy, QValue
from itrpo.nn.network import Initializer, Network, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, divergences, td
from itrpo.types import Algorithm, Array, BehaviorModel, Metrics, Params, PRNGKey, SpaceSpec, Transition


@dataclass(frozen=True)
class Backbone:
    """Fields that BRAC and iTRPO have in common. The comments say what each is and where its other values come from."""

    gamma: float = 0.99  # discount per step (D4RL convention)
    polyak_rate: float = 0.005  # target averaging per step
    batch_size: int = 256  # transitions per step
    policy_learning_rate: float = 3e-4  # Adam (author's code)
    critic_learning_rate: float = 3e-4  # Adam (author's code)
    policy_hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    critic_hidden: tuple[int, ...] = (256, 256)  # of the critics
    critics: int = 2  # ensemble size; targets and actor take the minimum (clipped double Q)
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ReBRAC; not in the paper)
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default), rlkit (author's code), glorot (BRAC)
    log_std_low: float = -5.0  # clip of the actor's pre-tanh log standard deviation (author's code)
    log_std_high: float = 2.0  # its upper end
    log_std_squash: bool = False  # map onto the range by a tanh instead of clipping (BRAC)
    kl: Literal["auto", "closed_form", "sampled"] = "auto"  # auto: closed form where pi_beta is one Gaussian
    kl_samples: int = 10  # actions per state where the KL is sampled (author's code 10, BRAC 4)
    action_samples: int = 1  # actions per state in E_pi[Q] (author's code 10)
    action_edge: float = 1e-3  # dataset actions are clipped to +-(1 - edge) in ratios (ours; author's code 1e-6)
    gradient_penalty: float = 0.0  # weight of ||grad_a Q||^2 (author's code 0.1, from Fisher-BRC; not in the paper)
    warm_start: bool = False  # start the actor as a copy of pi_beta (ours)
    kl_only_steps: int = 0  # first steps in which the actor ignores Q (BRAC's scripts 20,000)
    alpha_scale: Literal["absolute", "relative"] = "absolute"  # relative: alpha times a running mean of |Q(s,a)| (ours)


# For runs of ten thousand steps rather than a million (ours; measured in docs/experiments.md). Values travel
# 1 / (1 - gamma) steps back through targets that lag by 1 / polyak_rate updates: at 0.005 that alone takes 20,000
# updates, and Q is far too low until then. Networks of a quarter of the weights leave time for more updates. The
# preset normalises observations, without which the actor ruins what cloning had on HalfCheetah.
QUICK = Backbone(
    polyak_rate=0.03,
    critic_learning_rate=1e-3,
    policy_hidden=(128, 128),
    critic_hidden=(128, 128),
    critic_layer_norm=True,
    warm_start=True,
)
QUICK_BEHAVIOR = gaussian.Config(hidden=(128, 128))


class State(NamedTuple):
    policy: Trainable  # the target is kept only by algorithms that ask for one
    critic: Trainable  # parameters stacked over the ensemble [critics, ...]
    behavior_params: Params  # frozen
    q_scale: Array  # scalar: running mean of |Q(s,a)| over the data; read only where alpha_scale is "relative"


class Actions(NamedTuple):
    """What stands for pi(.|s) in an expectation: n actions with weights, and the divergence at s."""

    action: Array  # [n, A]
    weight: Array  # [n], adding to 1: 1/n for samples, the probabilities where all actions are listed
    kl: Array  # scalar: D_KL[pi(.|s) || pi_beta(.|s)]


class Networks(NamedTuple):
    """All that the losses know of policy, behaviour and critic; observation [O] and action [A] are single examples."""

    policy_actions: Callable[[Params, Params, Array, PRNGKey], Actions]  # (policy, behavior, observation, key)
    log_ratio: Callable[[Params, Params, Array, Array], Array]  # (policy, behavior, observation, action) -> scalar
    q_values: Callable[[Params, Array, Array], Array]  # (critic, observation, action) -> [critics]


# (alpha, policy_params, behavior_params, target_critic_params, transition, key) -> scalar, for one transition
CriticTarget = Callable[[Array, Params, Params, Params, Transition, PRNGKey], Array]


# --- losses, for one example ---------------------------------------------------------------------------------------


def expected_q(networks: Networks, critic_params: Params, observation: Array, actions: Actions) -> Array:
    """min_i E_{a~pi}[Q_i(s,a)]: first the mean over actions, then the minimum over critics (the author's order)."""
    per_action = jax.vmap(networks.q_values, in_axes=(None, None, 0))(critic_params, observation, actions.action)
    return td.ensemble_min(actions.weight @ per_action)


def penalised_next_value(
    networks: Networks,
    alpha: Array,
    policy_params: Params,
    behavior_params: Params,
    target_critic_params: Params,
    next_observation: Array,
    key: PRNGKey,
) -> Array:
    """E_{a'~pi}[min_i Q_i'(s',a')] - alpha * D_KL[pi || pi_beta](s'): what Eqs. (2), (4) and (5) bootstrap from."""
    actions = networks.policy_actions(policy_params, behavior_params, next_observation, key)
    q = expected_q(networks, target_critic_params, next_observation, actions)
    return td.regularised_value(q, alpha, actions.kl)


def critic_loss(
    networks: Networks,
    gradient_penalty: Array | float,
    critic_params: Params,
    transition: Transition,
    target: Array,
    policy_action: Array,
) -> Array:
    """sum_i (Q_i(s,a) - y)^2 + gradient_penalty * sum_i ||grad_a Q_i(s,a~)||^2 with a~ = policy_action ~ pi(.|s)."""
    q = networks.q_values(critic_params, transition.observation, transition.action)
    loss = jnp.sum(jnp.square(q - target))
    if is_zero(gradient_penalty):
        return loss
    penalty = divergences.action_gradient_penalty(
        lambda action: networks.q_values(critic_params, transition.observation, action), policy_action
    )
    return loss + gradient_penalty * penalty


def policy_loss(
    networks: Networks,
    alpha: Array,
    q_weight: Array | float,
    policy_params: Params,
    behavior_params: Params,
    critic_params: Params,
    observation: Array,
    key: PRNGKey,
) -> tuple[Array, Array]:
    """-(q_weight * E_pi[min_i Q_i] - alpha * D_KL[pi || pi_beta]), and the KL alone.

    q_weight is 1 except during `kl_only_steps`.
    """
    actions = networks.policy_actions(policy_params, behavior_params, observation, key)
    q = expected_q(networks, critic_params, observation, actions)
    return -td.regularised_value(q_weight * q, alpha, actions.kl), actions.kl


def is_zero(weight: Array | float) -> bool:
    """True for a plain 0, so that a term switched off costs nothing; a traced weight (a sweep) always computes."""
    return isinstance(weight, (int, float)) and weight == 0


# --- one step ------------------------------------------------------------------------------------------------------


class Optimizers(NamedTuple):
    policy: optax.GradientTransformation
    critic: optax.GradientTransformation


def update(
    config: Backbone,
    alpha: Array | float,
    networks: Networks,
    optimizers: Optimizers,
    critic_target: CriticTarget,
    state: State,
    batch: Transition,
    key: PRNGKey,
    step: Array,
) -> tuple[State, Metrics]:
    """Critic, then actor with the new critics, then targets. batch: [B, ...]; the key is consumed."""
    target_key, policy_key, penalty_key = jax.random.split(key, (3, batch.reward.shape[0]))
    if config.alpha_scale == "relative":
        alpha = alpha * state.q_scale
    behavior = state.behavior_params
    acting = state.policy.params if state.policy.target_params is None else state.policy.target_params

    targets = jax.lax.stop_gradient(
        jax.vmap(critic_target, in_axes=(None, None, None, None, 0, 0))(
            alpha, acting, behavior, state.critic.target_params, batch, target_key
        )
    )
    if is_zero(config.gradient_penalty):
        policy_action = batch.action  # unused
    else:
        actions = jax.vmap(networks.policy_actions, in_axes=(None, None, 0, 0))(
            state.policy.params, behavior, batch.observation, penalty_key
        )
        policy_action = jax.lax.stop_gradient(actions.action[:, 0])

    def mean_critic_loss(params: Params) -> tuple[Array, Metrics]:
        each = jax.vmap(critic_loss, in_axes=(None, None, None, 0, 0, 0))
        loss = jnp.mean(each(networks, config.gradient_penalty, params, batch, targets, policy_action))
        return loss, {"critic_loss": loss}

    critic, critic_metrics = gradient_step(state.critic, optimizers.critic, mean_critic_loss)

    def mean_policy_loss(params: Params) -> tuple[Array, Metrics]:
        each = jax.vmap(policy_loss, in_axes=(None, None, None, None, None, None, 0, 0))
        q_weight = jnp.where(step < config.kl_only_steps, 0.0, 1.0) if config.kl_only_steps else 1.0
        losses, kls = each(networks, alpha, q_weight, params, behavior, critic.params, batch.observation, policy_key)
        return jnp.mean(losses), {"policy_loss": jnp.mean(losses), "kl": jnp.mean(kls)}

    policy, policy_metrics = gradient_step(state.policy, optimizers.policy, mean_policy_loss)

    critic = polyak(critic, config.polyak_rate)
    if policy.target_params is not None:
        policy = polyak(policy, config.polyak_rate)
    q_scale = state.q_scale
    if config.alpha_scale == "relative":
        q_scale += config.polyak_rate * (jnp.maximum(jnp.mean(jnp.abs(targets)), 1.0) - q_scale)
    metrics = (
        critic_metrics | policy_metrics | {"q_target": jnp.mean(targets), "alpha": jnp.asarray(alpha, jnp.float32)}
    )
    return State(policy, critic, behavior, q_scale), metrics


# --- networks, and everything else that an Algorithm has -----------------------------------------------------------


def gaussian_networks(
    config: Backbone, spec: SpaceSpec, policy: Network, critic: Network, behavior: BehaviorModel
) -> Networks:
    """tanh-Gaussian actor, MLP critics. Samples stay pre-tanh until the critic sees them, with no atanh(tanh(u))."""
    moments = behavior.moments if config.kl in ("auto", "closed_form") else None
    density = behavior.pre_tanh_log_prob
    assert density is not None  # the registry entries of BRAC and iTRPO name models with a density only
    draws = config.action_samples if moments else max(config.action_samples, config.kl_samples)

    def policy_actions(policy_params: Params, behavior_params: Params, observation: Array, key: PRNGKey) -> Actions:
        mean, log_std = policy.apply(policy_params, observation)
        noise = jax.random.normal(key, (draws, spec.action_dim))
        pre_tanh = jax.vmap(lambda it: mean + jnp.exp(log_std) * it)(noise)
        if moments is not None:
            kl = divergences.normal_kl(mean, log_std, *moments(behavior_params, observation))
        else:
            log_ratios = jax.vmap(
                lambda u: distributions.normal_log_prob(u, mean, log_std) - density(behavior_params, observation, u)
            )(pre_tanh[: config.kl_samples])
            kl = jnp.mean(log_ratios)
        action = jnp.tanh(pre_tanh[: config.action_samples])
        return Actions(action, jnp.full(config.action_samples, 1.0 / config.action_samples), kl)

    def log_ratio(policy_params: Params, behavior_params: Params, observation: Array, action: Array) -> Array:
        pre_tanh = distributions.to_pre_tanh(action, config.action_edge)
        own = distributions.normal_log_prob(pre_tanh, *policy.apply(policy_params, observation))
        return own - density(behavior_params, observation, pre_tanh)

    return Networks(policy_actions, log_ratio, critic.apply)


def make(
    config: Backbone,
    alpha: Array | float,
    spec: SpaceSpec,
    behavior: BehaviorModel,
    critic_target: Callable[[Networks], CriticTarget],
    shaping: Callable[[Array, Array], tuple[Array, Array]],
    target_policy: bool = False,
) -> Algorithm:
    """Assembles an Algorithm around one critic target.

    critic_target(networks) gives the target; shaping(alpha, log_ratio) gives the shaping reward of a dataset sample and
    whether a clip bound it, for the probes; target_policy keeps a Polyak copy of the actor, which the targets then use.
    """
    policy = network(
        lambda draw: GaussianPolicy(
            draw,
            spec,
            config.policy_hidden,
            (config.log_std_low, config.log_std_high),
            config.initializer,
            config.log_std_squash,
        )
    )
    one_critic = network(
        lambda draw: QValue(draw, spec, config.critic_hidden, config.initializer, config.critic_layer_norm)
    )
    critic = ensemble(one_critic, config.critics)
    networks = gaussian_networks(config, spec, policy, critic, behavior)
    optimizers = Optimizers(optax.adam(config.policy_learning_rate), optax.adam(config.critic_learning_rate))
    target = critic_target(networks)

    def init(key: PRNGKey, behavior_params: Params | None) -> State:
        policy_key, critic_key = jax.random.split(key)
        policy_params = behavior_params if config.warm_start else policy.init(policy_key)
        return State(
            trainable(optimizers.policy, policy_params, target_policy),
            trainable(optimizers.critic, critic.init(critic_key), target=True),
            behavior_params,
            jnp.ones(()),
        )

    def act(state: State, observation: Array, key: PRNGKey, greedy: bool) -> Array:
        mean, log_std = policy.apply(state.policy.params, observation)
        return jnp.tanh(mean if greedy else distributions.sample_normal(key, mean, log_std))

    def log_prob(state: State, observation: Array, action: Array) -> Array:
        pre_tanh = distributions.to_pre_tanh(action, config.action_edge)
        return distributions.tanh_normal_log_prob(pre_tanh, *policy.apply(state.policy.params, observation))

    def probes(state: State, batch: Transition, key: PRNGKey) -> Metrics:
        """What Figure 2 needs, on fixed data: means over the batch."""
        scaled_alpha = alpha * state.q_scale if config.alpha_scale == "relative" else alpha

        def one(transition: Transition, key: PRNGKey) -> Metrics:
            observation, action = transition.observation, transition.action
            actions = networks.policy_actions(state.policy.params, state.behavior_params, observation, key)
            log_ratio = networks.log_ratio(state.policy.params, state.behavior_params, observation, action)
            reward, clipped = shaping(scaled_alpha, log_ratio)
            q_data = td.ensemble_min(networks.q_values(state.critic.params, observation, action))
            q_policy = expected_q(networks, state.critic.params, observation, actions)
            gradient = divergences.action_gradient_penalty(
                lambda a: networks.q_values(state.critic.params, observation, a), actions.action[0]
            )
            _, log_std = policy.apply(state.policy.params, observation)
            return {
                "probe_kl": actions.kl,
                "probe_log_ratio": log_ratio,
                "probe_shaping_reward": reward,
                "probe_clipped_fraction": clipped,
                "probe_q_data": q_data,
                "probe_q_policy": q_policy,
                "probe_action_gradient_norm": jnp.sqrt(gradient / config.critics),
                "probe_policy_std": jnp.mean(jnp.exp(log_std)),
            }

        each = jax.vmap(one)(batch, jax.random.split(key, batch.reward.shape[0]))
        advantage = each["probe_q_data"] - each["probe_q_policy"]
        correlation = jnp.corrcoef(each["probe_log_ratio"], advantage)[0, 1]
        means = {name: jnp.mean(values) for name, values in each.items()}
        return means | {"probe_ratio_advantage_correlation": jnp.where(jnp.isnan(correlation), 0.0, correlation)}

    return Algorithm(
        init=init,
        update=lambda state, batch, key, step: update(
            config, alpha, networks, optimizers, target, state, batch, key, step
        ),
        act=act,
        log_prob=log_prob,
        probes=probes,
        export=lambda state: gaussian.tanh_mlp_export(state.policy.params, spec),
        batch_size=config.batch_size,
    )


def validate(config: Backbone, behavior: str, behavior_config: Any) -> None:
    """Raises InputError for a KL or a warm start that the model of pi_beta does not allow."""
    if behavior != "gaussian" and config.kl == "closed_form":
        raise InputError(f"kl = closed_form needs --behavior gaussian, not {behavior!r}; use --kl sampled")
    if config.warm_start and (behavior != "gaussian" or behavior_config.hidden != config.policy_hidden):
        raise InputError(
            "warm_start copies pi_beta into the actor, so it needs --behavior gaussian and the same hidden layers in "
            f"both (pi_beta: {behavior} {behavior_config.hidden}, actor {config.policy_hidden}); "
            "else pass --warm-start false"
        )
