"""The networks of the algorithms: multi-layer perceptrons with one head each. Inputs are batches, [B, O] and [B, A]."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from itrpo.nn.layer_norm import LayerNorm
from itrpo.nn.network import Draw, Initializer, Linear, add_to_rows
from itrpo.types import DiscreteSpec, SpaceSpec


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

    def __call__(self, inputs: Float[Array, "*rows inputs"]) -> Float[Array, "*rows outputs"]:
        return self.after_first(self.layers[0](inputs))

    def after_first(self, hidden: Float[Array, "*rows width"]) -> Float[Array, "*rows outputs"]:
        """What follows the first layer; hidden: its output, before the ReLU."""
        for i, layer in enumerate(self.layers[1:]):
            hidden = jax.nn.relu(hidden)
            hidden = self.norms[i].before(layer, hidden) if self.norms else layer(hidden)
        return hidden


class GaussianPolicy(eqx.Module):
    """observation -> pre-tanh mean, log_std.

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

    def __call__(self, observation: Float[Array, "*rows O"]) -> tuple[Float[Array, "*rows A"], Float[Array, "*rows A"]]:
        mean, raw = jnp.split(self.mlp(observation), 2, axis=-1)
        if self.squash:
            return mean, self.low + 0.5 * (self.high - self.low) * (jnp.tanh(raw) + 1.0)
        return mean, jnp.clip(raw, self.low, self.high)


class DeterministicPolicy(eqx.Module):
    """observation -> pre-tanh action."""

    mlp: MLP

    def __init__(self, draw: Draw, spec: SpaceSpec, hidden: tuple[int, ...], initializer: Initializer = "fan_in"):
        self.mlp = MLP(draw, (spec.observation_dim, *hidden, spec.action_dim), initializer, head_scale=1e-3)

    def __call__(self, observation: Float[Array, "*rows O"]) -> Float[Array, "*rows A"]:
        return self.mlp(observation)


class BoundedMeanPolicy(eqx.Module):
    """observation -> mean in [-1, 1], log_std of a Gaussian of the action itself, not of its atanh (IQL).

    log_std is a parameter, the same at every observation; it starts at 0 and is clipped to [low, high].
    """

    mlp: MLP
    log_std: Float[Array, "A"]
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

    def __call__(self, observation: Float[Array, "*rows O"]) -> tuple[Float[Array, "*rows A"], Float[Array, "*rows A"]]:
        mean = jnp.tanh(self.mlp(observation))
        return mean, jnp.broadcast_to(jnp.clip(self.log_std, self.low, self.high), mean.shape)


class MixturePolicy(eqx.Module):
    """observation -> pre-tanh mixture: logits, means, log_stds."""

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

    def __call__(
        self, observation: Float[Array, "*rows O"]
    ) -> tuple[Float[Array, "*rows K"], Float[Array, "*rows K A"], Float[Array, "*rows K A"]]:
        outputs = self.mlp(observation)
        logits, others = outputs[..., : self.num_components], outputs[..., self.num_components :]
        means, raw = jnp.split(others.reshape(*others.shape[:-1], 2 * self.num_components, -1), 2, axis=-2)
        return logits, means, jnp.clip(raw, self.low, self.high)


class FactoredMixturePolicy(eqx.Module):
    """observation -> a pre-tanh mixture per action dimension: logits, means, log_stds."""

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

    def __call__(
        self, observation: Float[Array, "*rows O"]
    ) -> tuple[Float[Array, "*rows A K"], Float[Array, "*rows A K"], Float[Array, "*rows A K"]]:
        outputs = self.mlp(observation)
        outputs = outputs.reshape(*outputs.shape[:-1], 3, self.action_dim, -1)
        logits, means, raw = (outputs[..., i, :, :] for i in range(3))
        return logits, means, jnp.clip(raw, self.low, self.high)


class QValue(eqx.Module):
    """(observation, action) -> Q: of one action at each state, or of n."""

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

    def __call__(
        self, observation: Float[Array, "*rows O"], action: Float[Array, "*rows_and_n A"]
    ) -> Float[Array, "*rows_and_n"]:
        if action.ndim == observation.ndim:
            return self.mlp(jnp.concatenate([observation, action], axis=-1))[..., 0]
        # the observation's part of the first layer is the same for all actions, so it is computed once
        first, size = self.mlp.layers[0], observation.shape[-1]
        shared = add_to_rows(observation @ first.weight[:, :size].T, first.bias)
        return self.mlp.after_first(shared[..., None, :] + action @ first.weight[:, size:].T)[..., 0]


def with_observation(observation: Float[Array, "B O"], value: Float[Array, "B *n X"]) -> Float[Array, "B *n O+X"]:
    """Inputs of a network that takes both, for one value at each state or for n."""
    if value.ndim > observation.ndim:
        observation = jnp.broadcast_to(observation[:, None], (*value.shape[:-1], observation.shape[-1]))
    return jnp.concatenate([observation, value], axis=-1)


class Perturbation(eqx.Module):
    """(observation, action) -> pre-tanh direction in which the action is moved (BCQ, PLAS): one at a state, or n."""

    mlp: MLP

    def __init__(self, draw: Draw, spec: SpaceSpec, hidden: tuple[int, ...], initializer: Initializer = "fan_in"):
        sizes = (spec.observation_dim + spec.action_dim, *hidden, spec.action_dim)
        self.mlp = MLP(draw, sizes, initializer, head_scale=1e-3)

    def __call__(self, observation: Float[Array, "B O"], action: Float[Array, "B *n A"]) -> Float[Array, "B *n A"]:
        return self.mlp(with_observation(observation, action))


class StateValue(eqx.Module):
    """observation -> V."""

    mlp: MLP

    def __init__(
        self, draw: Draw, spec: SpaceSpec | DiscreteSpec, hidden: tuple[int, ...], initializer: Initializer = "fan_in"
    ):
        self.mlp = MLP(draw, (spec.observation_dim, *hidden, 1), initializer, head_scale=3e-3)

    def __call__(self, observation: Float[Array, "*rows O"]) -> Float[Array, "*rows"]:
        return self.mlp(observation)[..., 0]


class ActionValues(eqx.Module):
    """observation -> a number for each of n choices: Q, or logits; with `each` > 1 so many numbers, [n, each]."""

    mlp: MLP
    each: int = eqx.field(static=True)

    def __init__(
        self,
        draw: Draw,
        spec: DiscreteSpec,
        hidden: tuple[int, ...],
        initializer: Initializer = "fan_in",
        layer_norm: bool = False,
        each: int = 1,
    ):
        sizes = (spec.observation_dim, *hidden, spec.num_actions * each)
        self.mlp = MLP(draw, sizes, initializer, head_scale=3e-3, layer_norm=layer_norm)
        self.each = each

    def __call__(self, observation: Float[Array, "*rows O"]) -> Float[Array, "*rows_and_n"]:
        outputs = self.mlp(observation)
        return outputs if self.each == 1 else outputs.reshape(*outputs.shape[:-1], -1, self.each)
