"""A model of pi_beta to judge by: one for all policies on a dataset, fitted on episodes that are not judged on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from itrpo.behavior import categorical, mixture
from itrpo.behavior.likelihood import LikelihoodFit
from itrpo.console import LiveLine, silent_console
from itrpo.data.actions import CLIPPED, INSIDE, on_a_bound
from itrpo.data.preprocess import apply, fit_preprocess
from itrpo.errors import DivergenceError
from itrpo.ops.distributions import tanh_log_det, to_pre_tanh
from itrpo.training import loop
from itrpo.training.rows import in_pieces
from itrpo.training.seeds import members, over_seeds
from itrpo.types import CategoricalModel, DensityModel, DiscreteSpec, Metrics, Params, SpaceSpec, Transition

if TYPE_CHECKING:
    from rich.console import Console

EDGE = 1e-3  # actions are clipped to +-(1 - edge) where a density is asked, of pi_beta and of policies alike
PIECE = 250  # steps between two looks at the clock


class Behavior(NamedTuple):
    """Both take observations [N, O] in the user's units; actions are [N, A] in [-1, 1], choices codes [N, n]."""

    log_prob: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (observation, action) -> log density of actions [N]
    mode: Callable[[np.ndarray], np.ndarray]  # observation -> what behaviour cloning does, [N, A]
    edge: float = EDGE  # wider where many actions were clipped, as in training


def fit_behavior(
    rows: Transition,
    steps: int = 3_000,
    seed: int = 0,
    console: Console | None = None,
    num_actions: int | None = None,
) -> Behavior:
    """By maximum likelihood a mixture of tanh-Gaussians (`behavior.mixture`); of choices, whose number is given, their
    probabilities (`behavior.categorical`).
    """
    preprocess = fit_preprocess(rows, True, by_column=True)
    model: DensityModel | CategoricalModel
    clipped = on_a_bound(rows.action) >= CLIPPED
    edge = INSIDE if clipped else EDGE
    if num_actions is None:
        spec = SpaceSpec(rows.observation.shape[1], rows.action.shape[1])
        fit = LikelihoodFit(fit_action_edge=INSIDE) if clipped else LikelihoodFit()
        model = mixture.make(mixture.Config(hidden=(128, 128), fit=fit), spec, steps)
    else:
        of_choices = DiscreteSpec(rows.observation.shape[1], num_actions)
        model = categorical.make(categorical.Config(hidden=(128, 128)), of_choices, steps)
    data = jax.device_put(apply(preprocess, rows))
    key = jax.random.key(seed)[None]

    def update(state: object, batch: Transition, key: Array, step: Array) -> tuple[object, Metrics]:
        return model.fit_step(state, batch, key)

    state = over_seeds(model.init, [True])(key)
    names = loop.metric_names(update, jax.eval_shape(lambda: state), data, model.batch_size)
    block, carry = loop.make_block(update, model.batch_size), loop.start(state, names)
    limits = dict.fromkeys(names, np.inf)
    with LiveLine(console or silent_console(), "fitting pi_beta", steps, 1) as live:
        for step in range(0, steps, PIECE):
            carry = block(carry, data, key, limits, step, min(step + PIECE, steps))
            live.update(min(step + PIECE, steps), {})
    params: Params = members(jax.vmap(model.params)(carry.state))[0]
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(params))):
        raise DivergenceError(
            "the fit of pi_beta, which estimates rest on, has diverged; `itrpo datasets check` says what is odd in it"
        )

    def seen(observation: np.ndarray) -> np.ndarray:
        return ((observation - preprocess.observation_mean) / preprocess.observation_std).astype(np.float32)

    @jax.jit
    def log_prob(params: Params, observation: Array, action: Array) -> Array:
        if isinstance(model, CategoricalModel):
            return jnp.sum(action * jax.nn.log_softmax(model.logits(params, observation)), axis=-1)
        u = to_pre_tanh(action, edge)
        return model.pre_tanh_log_prob(params, observation, u) - tanh_log_det(u)

    @jax.jit
    def mode(params: Params, observation: Array) -> Array:
        if isinstance(model, CategoricalModel):
            logits = model.logits(params, observation)
            return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
        return jnp.tanh(model.mode(params, observation))

    return Behavior(
        lambda observation, action: in_pieces(log_prob, params, seen(observation), np.asarray(action, np.float32)),
        lambda observation: in_pieces(mode, params, seen(observation)),
        edge,
    )
