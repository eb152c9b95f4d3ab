"""The networks of the algorithms: multi-layer perceptrons with one head each. Inputs are batches, [B, O] and [B, A]."""

from __future__ import annotations

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from itrpo.nn.layer_norm import LayerNorm
from itrpo.nn.network import Draw, Initializer, Linear, add_to_rows
from itrpo.ops.interpolants import Field
from itrpo.types import DiscreteSpec, SpaceSpec


class MLP(eqx.Module):
    """ReLU layers and a linear output. With `layer_norm`, a LayerNorm follows each ReLU (ReBRAC's order); with `smooth`
    x sigmoid(x) is in place of ReLUs, for a network whose slopes have slopes of their own.
    """

    layers: list[Linear]
    norms: list[LayerNorm]
    smooth: bool = eqx.field(static=True)

    def __init__(
        self,
        draw: Draw,
        sizes: tuple[int, ...],
        initializer: Initializer = "fan_in",
        head_scale: float | None = None,
        layer_norm: bool = False,
        smooth: bool = False,
    ):
        """sizes: (inputs, hidden..., outputs). head_scale: see `itrpo.nn.network.Linear`."""
        last = len(sizes) - 2
        self.layers = [
            Linear(draw, sizes[i], sizes[i + 1], initializer, head_scale if i == last else None)
            for i in range(last + 1)
        ]
        self.norms = [LayerNorm(width) for width in sizes[1:-1]] if layer_norm else []
        self.smooth = smooth

    def __call__(self, inputs: Float[Array, "*rows inputs"]) -> Float[Array, "*rows outputs"]:
        return self.after_first(self.layers[0](inputs))

    def after_first(self, hidden: Float[Array, "*rows width"]) -> Float[Array, "*rows outputs"]:
        """What follows the first layer; hidden: its output, before the ReLU."""
        for i, layer in enumerate(self.layers[1:]):
            hidden = jax.nn.silu(hidden) if self.smooth else jax.nn.relu(hidden)
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


class ConstantStdPolicy(eqx.Module):
    """observation -> pre-tanh mean, log_std: a parameter, the same at every observation, clipped to [low, high].

    With `bounded` the mean is one in [-1, 1], of a Gaussian of the action itself and not of its atanh (IQL).
    """

    mlp: MLP
    log_std: Float[Array, "A"]
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    bounded: bool = eqx.field(static=True)

    def __init__(
        self,
        draw: Draw,
        spec: SpaceSpec,
        hidden: tuple[int, ...],
        log_std: float,
        log_std_range: tuple[float, float],
        initializer: Initializer = "fan_in",
        bounded: bool = False,
    ):
        self.mlp = MLP(draw, (spec.observation_dim, *hidden, spec.action_dim), initializer, head_scale=1e-3)
        self.log_std = jnp.full(spec.action_dim, log_std)
        self.low, self.high = log_std_range
        self.bounded = bounded

    def __call__(self, observation: Float[Array, "*rows O"]) -> tuple[Float[Array, "*rows A"], Float[Array, "*rows A"]]:
        mean = self.mlp(observation)
        mean = jnp.tanh(mean) if self.bounded else mean
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


class Autoregressive(eqx.Module):
    """(observation, action) -> `outputs` numbers for each dimension of the action, of which dimension i's depend on the
    observation and on the dimensions before i alone: weights between others are masked (MADE, arXiv 1502.03509).

    A hidden unit of degree d sees the first d dimensions, and only the dimensions from there on see it. Half of the
    units have degree 0: what they make of the observation serves all dimensions.
    """

    mlp: MLP
    sizes: tuple[int, ...] = eqx.field(static=True)  # O, A, hidden..., outputs

    def __init__(self, draw: Draw, spec: SpaceSpec, hidden: tuple[int, ...], outputs: int):
        observations, actions = spec
        self.mlp = MLP(draw, (observations + actions, *hidden, actions * outputs), head_scale=1e-3)
        self.sizes = (observations, actions, *hidden, outputs)

    def masked(self) -> MLP:
        observations, actions, *hidden, outputs = self.sizes
        units, rest = [np.arange(width) for width in hidden], max(actions - 1, 1)
        degrees = [
            np.minimum(it % 2 * (1 + it // 2 % rest), actions - 1) for it in units
        ]  # 0, 1, 0, 2, .., 0, A - 1, ..
        degrees += [np.repeat(np.arange(actions), outputs)]
        sees = [degrees[0][:, None] > np.r_[np.full(observations, -1), np.arange(actions)]]
        sees += [after[:, None] >= before for before, after in pairwise(degrees)]
        weights = [layer.weight * mask for layer, mask in zip(self.mlp.layers, sees, strict=True)]
        return eqx.tree_at(lambda mlp: [layer.weight for layer in mlp.layers], self.mlp, weights)

    def __call__(
        self, observation: Float[Array, "B O"], action: Float[Array, "B *n A"]
    ) -> Float[Array, "B *n A outputs"]:
        mlp = self.masked()
        if action.ndim > observation.ndim:
            numbers = mlp.after_first(shared_first(mlp, observation, action))
        else:
            numbers = mlp(jnp.concatenate([observation, action], axis=-1))
        return numbers.reshape(*action.shape, -1)


class VelocityField(eqx.Module):
    """observation -> the field v(x, t) of `itrpo.ops.interpolants` there: x is one of each state [B, A] or n, t one for
    all or one of each state [B, 1].
    """

    mlp: MLP

    def __init__(self, draw: Draw, spec: SpaceSpec, hidden: tuple[int, ...]):
        sizes = (spec.observation_dim + spec.action_dim + 2, *hidden, spec.action_dim)
        self.mlp = MLP(draw, sizes, head_scale=1e-3, smooth=True)

    def __call__(self, observation: Float[Array, "B O"]) -> Field:
        first, size = self.mlp.layers[0], observation.shape[-1]
        shared = add_to_rows(observation @ first.weight[:, :size].T, first.bias)  # the same at every step of a path
        of_action, of_time = first.weight[:, size:-2], first.weight[:, -2:]

        def velocity(x: Float[Array, "B *n A"], t: Float[Array, "..."]) -> Float[Array, "B *n A"]:
            angle = jnp.broadcast_to(t, (len(observation), 1))
            hidden = shared + jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1) @ of_time.T
            hidden = hidden[:, None] if x.ndim > hidden.ndim else hidden
            return self.mlp.after_first(hidden + x @ of_action.T)

        return velocity


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
        return self.mlp.after_first(shared_first(self.mlp, observation, action))[..., 0]


def shared_first(mlp: MLP, observation: Array, others: Array) -> Array:
    """The first layer of [observation, other]: n others [.., n, X] at each observation [.., O] -> [.., n, width]."""
    first, size = mlp.layers[0], observation.shape[-1]
    shared = add_to_rows(observation @ first.weight[:, :size].T, first.bias)
    return shared[..., None, :] + others @ first.weight[:, size:].T


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


class ImplicitQuantiles(eqx.Module):
    """(observation, levels in [0, 1]) -> quantiles of those levels, for each of n choices (arXiv 1806.06923, Eq. 4).

    Cosines of a level, through a layer of their own, scale what the last hidden layer but one, or the only one, makes
    of the observation.
    """

    body: MLP
    of_level: Linear
    tail: MLP
    cosines: int = eqx.field(static=True)

    def __init__(
        self,
        draw: Draw,
        spec: DiscreteSpec,
        hidden: tuple[int, ...],
        cosines: int,
        initializer: Initializer = "fan_in",
    ):
        size = max(1, len(hidden) - 1)
        before, after = hidden[:size], hidden[size:]
        self.body = MLP(draw, (spec.observation_dim, *before), initializer)
        self.of_level = Linear(draw, cosines, before[-1], initializer)
        self.tail = MLP(draw, (before[-1], *after, spec.num_actions), initializer, head_scale=3e-3)
        self.cosines = cosines

    def scales(self, levels: Float[Array, "*rows K"]) -> Float[Array, "*rows K width"]:
        times = jnp.broadcast_to(jnp.arange(self.cosines), (*levels.shape, self.cosines))
        return jax.nn.relu(self.of_level(jnp.cos(jnp.pi * times * levels[..., None])))

    def __call__(
        self, observation: Float[Array, "*rows O"], levels: Float[Array, "*rows K"]
    ) -> Float[Array, "*rows K n"]:
        return self.tail(jax.nn.relu(self.body(observation))[..., None, :] * self.scales(levels))
