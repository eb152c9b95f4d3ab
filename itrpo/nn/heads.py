"""The networks of the algorithms: multi-layer perceptrons with one head each, for one example (vmap gives batches)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from itrpo.nn.layer_norm import LayerNorm
from itrpo.nn.network import Draw, Initializer, Linear
from itrpo.types import Array, SpaceSpec


class MLP(eqx.Module):
    """ReLU layers and a linear output. With `layer_norm`, a LayerNorm follows each ReLU (ReBRAC's order)."""

    layers: list[Linear]
    norms: list[LayerNorm]

    def __init__(
        self,
        draw: Draw,
        sizes: tuple[int, ...],
        initializer: Initializer = "fan_in",
        head_scale: float | None = None,
        layer_norm: bool = False,
    ):
        """sizes: (inputs, hidden..., outputs). head_scale: see `itrpo.nn.network.Linear`."""
        last = len(sizes) - 2
        self.layers = [
            Linear(draw, sizes[i], sizes[i + 1], initializer, head_scale if i == last else None)
            for i in range(last + 1)
        ]
        self.norms = [LayerNorm(width) for width in sizes[1:-1]] if layer_norm else []

    def __call__(self, inputs: Array) -> Array:
        return self.after_first(self.layers[0](inputs))

    def after_first(self, hidden: Array) -> Array:
        """What follows the first layer; hidden: its output, before the ReLU."""
        for i, layer in enumerate(self.layers[1:]):
            hidden = jax.nn.relu(hidden)
            hidden = self.norms[i].before(layer, hidden) if self.norms else layer(hidden)
        return hidden


class GaussianPolicy(eqx.Module):
    """observation [O] -> pre-tanh (mean [A], log_std [A]).

    log_std is clipped to [low, high], or, with `squash`, mapped onto it by a tanh (BRAC).
    """

    mlp: MLP
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    squash: bool = eqx.field(static=True)

    def __init__(
        self,
        draw: Draw,
        spec: SpaceSpec,
        hidden: tuple[int, ...],
        log_std_range: tuple[float, float],
        initializer: Initializer = "fan_in",
        squash: bool = False,
    ):
        self.mlp = MLP(draw, (spec.observation_dim, *hidden, 2 * spec.action_dim), initializer, head_scale=1e-3)
        self.low, self.high = log_std_range
        self.squash = squash

    def __call__(self, observation: Array) -> tuple[Array, Array]:
        mean, raw = jnp.split(self.mlp(observation), 2)
        if self.squash:
            return mean, self.low + 0.5 * (self.high - self.low) * (jnp.tanh(raw) + 1.0)
        return mean, jnp.clip(raw, self.low, self.high)


class DeterministicPolicy(eqx.Module):
    """observation [O] -> pre-tanh action [A]."""

    mlp: MLP

    def __init__(self, draw: Draw, spec: SpaceSpec, hidden: tuple[int, ...], initializer: Initializer = "fan_in"):
        self.mlp = MLP(draw, (spec.observation_dim, *hidden, spec.action_dim), initializer, head_scale=1e-3)

    def __call__(self, observation: Array) -> Array:
        return self.mlp(observation)


class BoundedMeanPolicy(eqx.Module):
    """observation [O] -> (mean [A] in [-1, 1], log_std [A]) of a Gaussian of the action itself, not of its atanh (IQL).

    log_std is a parameter, the same at every observation; it starts at 0 and is clipped to [low, high].
    """

    mlp: MLP
    log_std: Array  # [A]
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(
        self,
        draw: Draw,
        spec: SpaceSpec,
        hidden: tuple[int, ...],
        log_std_range: tuple[float, float],
        initializer: Initializer = "fan_in",
    ):
        self.mlp = MLP(draw, (spec.observation_dim, *hidden, spec.action_dim), initializer, head_scale=1e-3)
        self.log_std = jnp.zeros(spec.action_dim)
        self.low, self.high = log_std_range

    def __call__(self, observation: Array) -> tuple[Array, Array]:
        return jnp.tanh(self.mlp(observation)), jnp.clip(self.log_std, self.low, self.high)


class MixturePolicy(eqx.Module):
    """observation [O] -> pre-tanh mixture (logits [K], means [K, A], log_stds [K, A])."""

    mlp: MLP
    num_components: int = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(
        self,
        draw: Draw,
        spec: SpaceSpec,
        hidden: tuple[int, ...],
        num_components: int,
        log_std_range: tuple[float, float],
    ):
        outputs = num_components * (1 + 2 * spec.action_dim)
        self.mlp = MLP(draw, (spec.observation_dim, *hidden, outputs))
        self.num_components = num_components
        self.low, self.high = log_std_range

    def __call__(self, observation: Array) -> tuple[Array, Array, Array]:
        outputs = self.mlp(observation)
        logits = outputs[: self.num_components]
        means, raw = jnp.split(outputs[self.num_components :].reshape(2 * self.num_components, -1), 2)
        return logits, means, jnp.clip(raw, self.low, self.high)


class FactoredMixturePolicy(eqx.Module):
    """observation [O] -> a pre-tanh mixture per action dimension (logits [A, K], means [A, K], log_stds [A, K])."""

    mlp: MLP
    action_dim: int = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(
        self,
        draw: Draw,
        spec: SpaceSpec,
        hidden: tuple[int, ...],
        num_components: int,
        log_std_range: tuple[float, float],
    ):
        self.mlp = MLP(draw, (spec.observation_dim, *hidden, 3 * spec.action_dim * num_components))
        self.action_dim = spec.action_dim
        self.low, self.high = log_std_range

    def __call__(self, observation: Array) -> tuple[Array, Array, Array]:
        logits, means, raw = self.mlp(observation).reshape(3, self.action_dim, -1)
        return logits, means, jnp.clip(raw, self.low, self.high)


class QValue(eqx.Module):
    """(observation [O], action [A]) -> scalar; (observation [O], actions [n, A]) -> [n]."""

    mlp: MLP

    def __init__(
        self,
        draw: Draw,
        spec: SpaceSpec,
        hidden: tuple[int, ...],
        initializer: Initializer = "fan_in",
        layer_norm: bool = False,
    ):
        sizes = (spec.observation_dim + spec.action_dim, *hidden, 1)
        self.mlp = MLP(draw, sizes, initializer, head_scale=3e-3, layer_norm=layer_norm)

    def __call__(self, observation: Array, action: Array) -> Array:
        if action.ndim == 1:
            return self.mlp(jnp.concatenate([observation, action]))[0]
        # the observation's part of the first layer is the same for all actions, so it is computed once
        first, size = self.mlp.layers[0], observation.shape[0]
        shared = observation @ first.weight[:, :size].T + first.bias
        hidden = shared[None] + action @ first.weight[:, size:].T
        return jax.vmap(self.mlp.after_first)(hidden)[:, 0]


class Perturbation(eqx.Module):
    """(observation [O], action [A]) -> pre-tanh direction [A] in which the action is moved (BCQ, PLAS)."""

    mlp: MLP

    def __init__(self, draw: Draw, spec: SpaceSpec, hidden: tuple[int, ...], initializer: Initializer = "fan_in"):
        sizes = (spec.observation_dim + spec.action_dim, *hidden, spec.action_dim)
        self.mlp = MLP(draw, sizes, initializer, head_scale=1e-3)

    def __call__(self, observation: Array, action: Array) -> Array:
        return self.mlp(jnp.concatenate([observation, action]))


class StateValue(eqx.Module):
    """observation [O] -> scalar."""

    mlp: MLP

    def __init__(self, draw: Draw, spec: SpaceSpec, hidden: tuple[int, ...], initializer: Initializer = "fan_in"):
        self.mlp = MLP(draw, (spec.observation_dim, *hidden, 1), initializer, head_scale=3e-3)

    def __call__(self, observation: Array) -> Array:
        return self.mlp(observation)[0]
