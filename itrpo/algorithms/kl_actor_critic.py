"""The pieces of an actor-critic regularised by D_KL[pi || pi_beta] that BRAC and iTRPO share.

    critic   min over Q_i   sum_i (Q_i(s,a) - y)^2  [+ gradient_penalty * sum_i ||grad_a Q_i(s,a~)||^2]
    actor    max over pi    E_{a~pi}[min_i Q_i(s,a)] - alpha * D_KL[pi(.|s) || pi_beta(.|s)]            (Eq. 3)
    target   Q_i'  <- (1 - polyak_rate) Q_i' + polyak_rate Q_i

with the same alpha in actor and critic, without which Theorem 1 does not hold. What y is, an algorithm's own file says,
and the order of its steps. Losses reach the policy only through `Networks`, so that a table with a categorical policy
can stand in for the networks: a test iterates them to the exact solution of Eqs. (4) and (5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.errors import InputError
from itrpo.nn.actors import GaussianActor, gaussian_actor
from itrpo.nn.critics import least_q, penalised_critic_loss
from itrpo.nn.ensemble import Ensemble, critic_ensemble
from itrpo.nn.network import Initializer
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ops import distributions, divergences, lagrange, td
from itrpo.ops.td import Scalar
from itrpo.ranges import Count, CountOrZero, Discount, InnerShare, NonNegative, Positive, Rate, Widths
from itrpo.types import DensityModel, Metrics, Params, Snapshot, SpaceSpec, Transition


@dataclass(frozen=True)
class Backbone:
    """Fields that BRAC and iTRPO have in common. The comments say what each is and where its other values come from."""

    gamma: Discount = 0.99  # discount per step (D4RL convention)
    polyak_rate: Rate = 0.005  # target averaging per step
    batch_size: Count = 256  # transitions per step
    policy_learning_rate: Positive = 3e-4  # Adam (author's code)
    critic_learning_rate: Positive = 3e-4  # Adam (author's code)
    policy_hidden: Widths = (256, 256)  # widths of the hidden layers
    critic_hidden: Widths = (256, 256)  # of the critics
    critics: Count = 2  # ensemble size; targets and actor take the minimum (clipped double Q)
    critic_layer_norm: bool = False  # LayerNorm after each ReLU of the critics (ReBRAC; not in the paper)
    initializer: Initializer = "fan_in"  # fan_in (PyTorch's default), rlkit (author's code), glorot (BRAC)
    log_std_low: float = -5.0  # clip of the actor's pre-tanh log standard deviation (author's code)
    log_std_high: float = 2.0  # its upper end
    log_std_squash: bool = False  # map onto the range by a tanh instead of clipping (BRAC)
    kl: Literal["auto", "closed_form", "sampled"] = "auto"  # auto: closed form where pi_beta is one Gaussian
    kl_samples: Count = 10  # actions per state where the KL is sampled (author's code 10, BRAC 4)
    action_samples: Count = 1  # actions per state in E_pi[Q] (author's code 10)
    action_edge: InnerShare = 1e-3  # dataset actions are clipped to +-(1 - edge) in ratios (ours; author's code 1e-6)
    gradient_penalty: NonNegative = 0.0  # weight of ||grad_a Q||^2 (author's code 0.1, as Fisher-BRC; not in the paper)
    warm_start: bool = False  # start the actor as a copy of pi_beta (ours)
    kl_only_steps: CountOrZero = 0  # first steps in which the actor ignores Q (BRAC's scripts 20,000)
    alpha_scale: Literal["absolute", "relative"] = "absolute"  # relative: alpha times a running mean of |y| (ours)


class State(NamedTuple):
    policy: Trainable  # the target is kept only by algorithms that ask for one
    critic: Trainable  # parameters stacked over the ensemble [N, ...]
    behavior_params: Params  # frozen
    q_scale: Float[Array, ""]  # running mean of |y|, the targets of Q(s,a); read only where alpha_scale is "relative"
    weight: Trainable | None = None  # params: alpha, where it adapts; None: it is a constant


class Actions(NamedTuple):
    """What stands for pi(.|s) in an expectation: n actions with weights, and the divergence at s."""

    action: Float[Array, "B n A"]
    weight: Float[Array, "B n"]  # adding to 1: 1/n for samples, the probabilities where all actions are listed
    kl: Float[Array, "B"]  # D_KL[pi(.|s) || pi_beta(.|s)]


class Networks(NamedTuple):
    """All that the losses know of policy, behaviour and critic, and what moves the parameters of policy and critic."""

    policy_actions: Callable[[Params, Params, Array, Array], Actions]  # (policy, behavior, observation, noise)
    log_ratio: Callable[[Params, Params, Array, Array], Array]  # (policy, behavior, observation, action [B, A]) -> [B]
    critics: Ensemble  # (observation, action [B, A] or [B, n, A]) -> Q [N, B(, n)]
    draws: int  # of noise ~ N(0, I) that `policy_actions` takes at each state: [B, draws, A]
    policy_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation


# --- values and losses ---------------------------------------------------------------------------------------------


def expected_q(
    networks: Networks, critic_params: Params, observation: Float[Array, "B O"], actions: Actions
) -> Float[Array, "B"]:
    """min_i E_{a~pi}[Q_i(s,a)]: first the mean over actions, then the minimum over critics (the author's order)."""
    q = networks.critics.apply(critic_params, observation, actions.action)
    return td.ensemble_min(jnp.einsum("Nbn,bn->Nb", q, actions.weight))


def penalised_value(
    networks: Networks,
    alpha: Scalar,
    policy_params: Params,
    state: State,
    observation: Float[Array, "B O"],
    noise: Float[Array, "B draws A"],
) -> Float[Array, "B"]:
    """E_{a~pi}[min_i Q_i'(s,a)] - alpha * D_KL[pi || pi_beta](s): at s', what Eqs. (2), (4) and (5) bootstrap from."""
    actions = networks.policy_actions(policy_params, state.behavior_params, observation, noise)
    q = expected_q(networks, state.critic.target_params, observation, actions)
    return td.regularised_value(q, alpha, actions.kl)


def policy_loss(
    networks: Networks,
    alpha: Scalar,
    q_weight: Scalar,
    policy_params: Params,
    behavior_params: Params,
    critic_params: Params,
    observation: Float[Array, "B O"],
    noise: Float[Array, "B draws A"],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of -(q_weight * E_pi[min_i Q_i] - alpha * D_KL[pi || pi_beta]); q_weight is 1 except in `kl_only_steps`."""
    actions = networks.policy_actions(policy_params, behavior_params, observation, noise)
    q = expected_q(networks, critic_params, observation, actions)
    loss = -jnp.mean(td.regularised_value(q_weight * q, alpha, actions.kl))
    return loss, {"policy_loss": loss, "kl": jnp.mean(actions.kl)}


# --- steps ---------------------------------------------------------------------------------------------------------


def draw_noise(networks: Networks, batch: Transition, key: Key[Array, ""]) -> list[Float[Array, "B draws A"]]:
    """For the target, the actor and the gradient penalty."""
    rows, action_dim = batch.action.shape
    return [jax.random.normal(each, (rows, networks.draws, action_dim)) for each in jax.random.split(key, 3)]


def alpha_now(
    alpha: Scalar, weight: Trainable | None, scale: Literal["absolute", "relative"], q_scale: Float[Array, ""]
) -> Scalar:
    """alpha in units of reward: the constant or, where it adapts, `weight`; times q_scale where it is relative."""
    alpha = alpha if weight is None else weight.params
    return alpha * q_scale if scale == "relative" else alpha


WEIGHT_OPTIMIZER = optax.adam(1e-3)  # of an alpha that adapts (BRAC's scripts)


def start_weight(alpha: Scalar, divergence_target: float | None) -> Trainable | None:
    """alpha as what is trained, from there on; None without a target."""
    return None if divergence_target is None else trainable(WEIGHT_OPTIMIZER, jnp.asarray(alpha, jnp.float32))


def weight_step(
    weight: Trainable | None, divergence: Float[Array, ""], divergence_target: float | None
) -> Trainable | None:
    """alpha after one step up alpha * (D - divergence_target), and its clip; where it does not adapt, nothing."""
    if weight is None or divergence_target is None:
        return weight
    excess = divergence - divergence_target
    stepped, _ = gradient_step(weight, WEIGHT_OPTIMIZER, lambda alpha: (lagrange.weight_loss(alpha, excess), {}))
    return stepped._replace(params=jnp.clip(stepped.params, 0.0, lagrange.LARGEST_WEIGHT))


def critic_step(
    config: Backbone,
    networks: Networks,
    state: State,
    batch: Transition,
    targets: Float[Array, "B"],
    noise: Float[Array, "B draws A"],
) -> tuple[Trainable, Metrics]:
    """The critics after one step towards the targets, which are held constant."""
    targets, policy_action = jax.lax.stop_gradient(targets), None
    if not is_zero(config.gradient_penalty):
        actions = networks.policy_actions(state.policy.params, state.behavior_params, batch.observation, noise)
        policy_action = jax.lax.stop_gradient(actions.action[:, 0])
    return gradient_step(
        state.critic,
        networks.critic_optimizer,
        lambda params: penalised_critic_loss(
            networks.critics, config.gradient_penalty, params, batch, targets, policy_action
        ),
    )


def policy_step(
    config: Backbone,
    networks: Networks,
    alpha: Scalar,
    state: State,
    critic_params: Params,
    batch: Transition,
    noise: Float[Array, "B draws A"],
    step: Int[Array, ""],
) -> tuple[Trainable, Metrics]:
    """The actor after one step against `critic_params`."""
    q_weight = td.switched_on(step, config.kl_only_steps)
    fixed = (state.behavior_params, critic_params, batch.observation, noise)
    policy, metrics = gradient_step(
        state.policy, networks.policy_optimizer, lambda params: policy_loss(networks, alpha, q_weight, params, *fixed)
    )
    return policy, metrics | {"alpha": jnp.asarray(alpha, jnp.float32)}


def averaged(config: Backbone, state: State, policy: Trainable, critic: Trainable, targets: Float[Array, "B"]) -> State:
    """The state after a step: targets of the critics, and of the actor if it has one, move; so does q_scale."""
    if policy.target_params is not None:
        policy = polyak(policy, config.polyak_rate)
    q_scale = state.q_scale
    if config.alpha_scale == "relative":
        q_scale = td.moved_scale(q_scale, config.polyak_rate, targets)
    return State(policy, polyak(critic, config.polyak_rate), state.behavior_params, q_scale, state.weight)


def is_zero(weight: Scalar) -> bool:
    """True for a plain 0, so that a term switched off costs nothing; a traced weight (a sweep) always computes."""
    return isinstance(weight, int | float) and weight == 0


# --- networks, their start, and what is measured -------------------------------------------------------------------


class Parts(NamedTuple):
    actor: GaussianActor
    networks: Networks


def make_parts(config: Backbone, spec: SpaceSpec, behavior: DensityModel) -> Parts:
    log_std_range = (config.log_std_low, config.log_std_high)
    actor = gaussian_actor(spec, config.policy_hidden, log_std_range, config.initializer, config.log_std_squash)
    critics = critic_ensemble(spec, config.critic_hidden, config.critics, config.initializer, config.critic_layer_norm)
    return Parts(actor, gaussian_networks(config, actor, critics, behavior))


def gaussian_networks(config: Backbone, actor: GaussianActor, critics: Ensemble, behavior: DensityModel) -> Networks:
    """tanh-Gaussian actor, MLP critics. Samples stay pre-tanh until the critic sees them, with no atanh(tanh(u))."""
    behavior_moments = behavior.moments if config.kl in ("auto", "closed_form") else None
    draws = config.action_samples if behavior_moments else max(config.action_samples, config.kl_samples)

    def policy_actions(
        policy_params: Params,
        behavior_params: Params,
        observation: Float[Array, "B O"],
        noise: Float[Array, "B draws A"],
    ) -> Actions:
        moments = actor.moments(policy_params, observation)
        moments_per_action = distributions.for_actions(moments, noise)
        pre_tanh = distributions.normal_sample(noise, *moments_per_action)
        if behavior_moments is not None:
            kl = divergences.normal_kl(*moments, *behavior_moments(behavior_params, observation))
        else:
            u = pre_tanh[:, : config.kl_samples]
            own = distributions.normal_log_prob(u, *moments_per_action)
            kl = jnp.mean(own - behavior.pre_tanh_log_prob(behavior_params, observation, u), axis=1)
        action = jnp.tanh(pre_tanh[:, : config.action_samples])
        return Actions(action, jnp.full(action.shape[:2], 1.0 / config.action_samples), kl)

    def log_ratio(
        policy_params: Params, behavior_params: Params, observation: Float[Array, "B O"], action: Float[Array, "B A"]
    ) -> Float[Array, "B"]:
        pre_tanh = distributions.to_pre_tanh(action, config.action_edge)
        own = distributions.normal_log_prob(pre_tanh, *actor.moments(policy_params, observation))
        return own - behavior.pre_tanh_log_prob(behavior_params, observation, pre_tanh)

    def q_values(
        critic_params: Params, observation: Float[Array, "B O"], action: Float[Array, "B *n A"]
    ) -> Float[Array, "N B *n"]:
        if action.ndim == 3 and action.shape[1] == 1:  # nothing to share between actions
            return critics.apply(critic_params, observation, action[:, 0])[..., None]
        return critics.apply(critic_params, observation, action)

    return Networks(
        policy_actions,
        log_ratio,
        critics._replace(apply=q_values),
        draws,
        optax.adam(config.policy_learning_rate),
        optax.adam(config.critic_learning_rate),
    )


def start(
    config: Backbone,
    parts: Parts,
    key: Key[Array, ""],
    behavior_params: Params,
    target_policy: bool = False,
    weight: Trainable | None = None,
) -> State:
    """The state before the first step. `target_policy`: with a Polyak copy of the actor; `weight`: `start_weight`'s."""
    policy_key, critic_key = jax.random.split(key)
    policy_params = behavior_params if config.warm_start else parts.actor.init(policy_key)
    return State(
        trainable(parts.networks.policy_optimizer, policy_params, target_policy),
        trainable(parts.networks.critic_optimizer, parts.networks.critics.init(critic_key), target=True),
        behavior_params,
        jnp.ones(()),
        weight,
    )


def probes(config: Backbone, parts: Parts, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
    """What Figure 2 needs of both algorithms, on fixed data: means over the batch."""
    actor, networks, observation = parts.actor, parts.networks, batch.observation
    policy_params, critic_params = state.policy.params, state.critic.params
    noise = jax.random.normal(key, (len(observation), networks.draws, batch.action.shape[1]))
    actions = networks.policy_actions(policy_params, state.behavior_params, observation, noise)
    log_ratio = networks.log_ratio(policy_params, state.behavior_params, observation, batch.action)
    q_data = least_q(networks.critics, critic_params, observation, batch.action)
    q_policy = expected_q(networks, critic_params, observation, actions)
    slopes = divergences.action_gradient_penalty(
        lambda action: networks.critics.apply(critic_params, observation, action), actions.action[:, 0]
    )
    correlation = jnp.corrcoef(log_ratio, q_data - q_policy)[0, 1]
    _, log_std = actor.moments(policy_params, observation)
    return {
        "probe_kl": jnp.mean(actions.kl),
        "probe_log_ratio": jnp.mean(log_ratio),
        "probe_q_data": jnp.mean(q_data),
        "probe_q_policy": jnp.mean(q_policy),
        "probe_action_gradient_norm": jnp.mean(jnp.sqrt(slopes / config.critics)),
        "probe_policy_std": jnp.mean(jnp.exp(log_std)),
        "probe_ratio_advantage_correlation": jnp.where(jnp.isnan(correlation), 0.0, correlation),
    }


WATCHED_DRAWS = 8  # times that `watch` draws a' for each row: what is left of that noise is the same at all moments


def watch(
    parts: Parts,
    targets: Callable[[State, Transition, Array], Float[Array, "B"]],
    shaping: Callable[[State, Transition], Float[Array, "B"]] | None,
    state: State,
    batch: Transition,
    key: Key[Array, ""],
) -> Snapshot:
    """targets(state, batch, noise) is y, shaping(state, batch) what Eq. (5) adds to the rewards; None: nothing."""
    networks = parts.networks
    repeated = jax.tree.map(lambda it: jnp.repeat(it, WATCHED_DRAWS, axis=0), batch)
    noise = jax.random.normal(key, (len(repeated.reward), networks.draws, batch.action.shape[1]))
    target = jnp.mean(targets(state, repeated, noise).reshape(-1, WATCHED_DRAWS), axis=1)
    q = least_q(networks.critics, state.critic.params, batch.observation, batch.action)
    implicit_q = q if shaping is None else q - shaping(state, batch)
    return Snapshot(*parts.actor.moments(state.policy.params, batch.observation), target, implicit_q, q - target)


def validate(config: Any, behavior: str, behavior_config: Any) -> None:
    """Raises InputError for a KL or a warm start in `config.backbone` that the model of pi_beta does not allow, and for
    an alpha in units of reward, or one that adapts, where it is in those of |Q|.
    """
    backbone: Backbone = config.backbone
    check_relative(config.alpha, backbone.alpha_scale)
    check_adapting(backbone.alpha_scale, config.divergence_target)
    if behavior != "gaussian" and backbone.kl == "closed_form":
        raise InputError(f"kl = closed_form needs --behavior gaussian, not {behavior!r}; use --kl sampled")
    check_warm_start(backbone.warm_start, backbone, behavior, behavior_config)


def check_relative(alpha: float, alpha_scale: str) -> None:
    """Raises InputError for an alpha in units of reward where it is in those of |Q|: there nobody means more than 1."""
    if alpha_scale == "relative" and alpha > 1.0:
        raise InputError(
            f"alpha = {alpha:g} with alpha_scale = relative weighs a nat of D_KL like {alpha:g} times |Q|; for an "
            "alpha in units of reward pass --alpha-scale absolute as well"
        )


def check_adapting(alpha_scale: str, divergence_target: float | None) -> None:
    """Raises InputError for an alpha that adapts in units of |Q|, of which a step of its optimiser is many times too
    large.
    """
    if alpha_scale == "relative" and divergence_target is not None:
        raise InputError(
            f"divergence_target = {divergence_target:g}: an alpha that adapts is in units of reward; pass "
            "--alpha-scale absolute as well, and in --alpha what it starts from, such as 1; or --divergence-target "
            "none for a constant share of |Q|"
        )


def check_warm_start(warm_start: bool, actor: Any, behavior: str, behavior_config: Any) -> None:
    """Raises InputError for an actor, of a config's `policy_hidden` and log_std_*, that can't be a copy of pi_beta."""
    if not warm_start:
        return
    if behavior != "gaussian" or behavior_config.hidden != actor.policy_hidden:
        raise InputError(
            "warm_start copies pi_beta into the actor, so it needs --behavior gaussian and the same hidden layers in "
            f"both (pi_beta: {behavior} {behavior_config.hidden}, actor {actor.policy_hidden}); else pass --warm-start "
            "false"
        )
    for name in ("log_std_low", "log_std_high", "log_std_squash"):
        own, its = getattr(actor, name), getattr(behavior_config, name)
        if own != its:
            raise InputError(
                f"warm_start copies pi_beta into the actor, so {name} = {own} has to be pi_beta's too, which is {its}: "
                f"pass --behavior-{name.replace('_', '-')} as well, or --warm-start false"
            )
