"""Fitted Q evaluation (Le, Voloshin and Yue, 2019): the value of a policy that is known by its actions alone.

    min over Q   mean of w (Q(s,a) - y)^2,    y = r + gamma (1-d) mean_j Q'(s', a'_j),   a'_j ~ pi(.|s')
    value        mean over first states of mean_j Q(s_0, a_j)

Q' follows Q by Polyak averaging; w is how often the row's episode is in a bootstrap's fold. Every policy in every fold
is a critic of its own; folds of one number draw the same start and the same rows for all policies, so that differences
between policies are less noisy than their values.

Critics see observations of mean 0 and deviation 1, and learn (Q - m) / d, whatever the unit of rewards: d is the
deviation of the logged returns-to-go, and m = E[r] / (1 - gamma E[1-d]), the best constant. What a fit learns slowest
is its level: an error falls to a third in 1 / (polyak_rate (1 - gamma)) steps. So at the first 12 of a fit's 20
checks all of Q is moved by E[w (y - Q)] / (1 - gamma E[w (1-d)]), after which its residuals are 0 on average, as they
are where the fit ends (adaptive aggregation with one aggregate: Bertsekas and Castanon, 1989). `Fitted.path` says
whether it has settled.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from itrpo import files
from itrpo.console import LiveLine, silent_console
from itrpo.nn.ensemble import Ensemble, critic_ensemble, ensemble
from itrpo.nn.heads import ActionValues
from itrpo.nn.network import Initializer, network
from itrpo.nn.trainable import Trainable, gradient_step, polyak, trainable
from itrpo.ope.log import Log, returns_to_go
from itrpo.ops import td
from itrpo.ranges import Count, Positive, Rate, Widths
from itrpo.training.seeds import over_seeds
from itrpo.types import DiscreteSpec, Params, SpaceSpec

if TYPE_CHECKING:
    from rich.console import Console

CHECKS = 20  # values are looked at so often on the way
LEVELLED = 12  # after the first of these the level is moved: what its rows are off by counts 1 / (1 - gamma) times
LEVEL_ROWS = 8_192  # drawn for that; all rows, so many at a time, the last time
SETTLED = 4  # the last of these are what a drift is measured over


@dataclass(frozen=True)
class FQE:
    """How critics are fitted."""

    steps: Count | None = None  # gradient steps [100 / (1 - gamma), from 2,000 to 50,000]
    hidden: Widths = (64, 64)  # widths of the hidden layers
    critics: Count = 1  # each fold has so many, whose mean is its Q
    initializer: Initializer = "fan_in"
    layer_norm: bool = True  # after each ReLU: keeps critics from running away
    learning_rate: Positive = 1e-3  # Adam; falls to 0 as half of a cosine
    polyak_rate: Rate = 0.05  # of Q' per step: 1 / (rate (1 - gamma)) steps are the time that a value needs to settle
    batch_size: Count = 256  # rows per step

    def length(self, gamma: float) -> int:
        return self.steps or int(np.clip(round(100 / (1 - gamma)), 2_000, 50_000))


class Fitted(NamedTuple):
    """Critics of P policies in F folds."""

    value: np.ndarray  # [P, F] discounted return, in units of the rewards
    path: np.ndarray  # [P, F, CHECKS] the same as the fit went on
    q_values: Callable[..., np.ndarray]  # (policy, observation [N, O], action [N, n, A], fold = 0) -> mean Q, [N]

    def drift(self) -> np.ndarray:
        """[P]: how far fold 0 has moved over the last checks, in units of the rewards."""
        late = self.path[:, 0, -SETTLED:]
        return np.abs(late[:, -1] - late[:, 0])


class State(NamedTuple):
    """Of one critic, whose Q is what the network gives plus the level."""

    critic: Trainable
    level: Array  # []


class Units(NamedTuple):
    """Of what critics learn: Q = centre + scale * output."""

    centre: float
    scale: float
    mean: np.ndarray  # [O]
    deviation: np.ndarray  # [O]; infinite where a column never varies

    def seen(self, observation: np.ndarray) -> np.ndarray:
        return ((observation - self.mean) / self.deviation).astype(np.float32)


class Rows(NamedTuple):
    """What all fits read, on the device: observations and rewards as critics see them."""

    observation: Any  # [N, O]
    action: Any  # [N, A]
    reward: Any  # [N]
    continues: Any  # [N]
    next_observation: Any  # [N, O]
    episode: Any  # [N]
    next_action: Any  # [P, N, n, A]
    known: Any  # [P, N]: 0 where the policy's next action is not
    first: Any  # [E, O]
    first_action: Any  # [P, E, n, A]
    weight: Any  # [F, E]
    offset: Any  # m / d


def fit(
    log: Log,
    next_action: np.ndarray,
    first_action: np.ndarray,
    gamma: float,
    weights: np.ndarray,
    settings: FQE = FQE(),
    critics: Ensemble | None = None,
    console: Console | None = None,
    normalise: bool = True,
    kept: Path | None = None,
    seed: int = 0,
) -> Fitted:
    """Values of P policies in F folds.

    next_action [P, N, n, A]: n actions that the policy takes at each row's next observation, NaN where that is not
    known (the row is then left out for this policy); where a row does not continue they change nothing, but must not
    be NaN.
    first_action [P, E, n, A]: those at each episode's first observation. weights [F, E]: `bootstrap.fold_weights`.
    `critics` are networks of your own in place of those of the settings: (observation [B, O], action [B, n, A]) ->
    [members, B, n]; `normalise` False gives them observations as they are.
    `kept` is a file that has how far the fit is, after each check: the same fit goes on from there, to the same bits.
    """
    rows, units = prepare(log, next_action, first_action, gamma, weights, normalise)
    spec = SpaceSpec(rows.observation.shape[1], rows.action.shape[1])
    usual = choice_ensemble if log.choices else critic_ensemble
    chosen = critics or usual(spec, settings.hidden, settings.critics, settings.initializer, settings.layer_norm)
    policies, folds, steps = len(next_action), len(weights), settings.length(gamma)
    optimizer = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, steps))
    policy, fold = (it.reshape(-1) for it in np.meshgrid(np.arange(policies), np.arange(folds), indexing="ij"))
    root = jax.random.key(seed)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, fold)
    state = over_seeds(partial(begin, chosen, optimizer), [True])(keys)
    block = over_seeds(
        partial(steps_between, chosen, optimizer, settings, gamma),
        [True, True, True, True, False, False, False, False, False],
        donate=(0,),
    )
    path, place, name = list[np.ndarray](), 0, ""
    if kept is not None:
        name = _name(rows, settings, seed, steps, gamma)
        state, path = read_kept(kept, name, state)
        place = len(path)
    rows = jax.device_put(rows)
    live = LiveLine(
        console or silent_console(), "judging", steps, policies * folds, steps * place // CHECKS, members="critics"
    )
    with live:
        for check in range(place + 1, CHECKS + 1):
            start, stop = steps * (check - 1) // CHECKS, steps * check // CHECKS
            levelled, whole = check <= LEVELLED, check == LEVELLED
            state, value = block(state, keys, policy, fold, rows, start, stop, levelled, whole)
            path.append(units.centre + units.scale * np.asarray(value, np.float64))
            if kept is not None:
                write_kept(kept, name, state, path)
            live.update(stop, {})
    path_of = np.stack(path, axis=-1).reshape(policies, folds, CHECKS)
    fits = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(policies, folds, *leaf.shape[1:]), state)
    program = jax.jit(partial(mean_q, chosen))

    def q_values(index: int, observation: np.ndarray, action: np.ndarray, fold: int = 0) -> np.ndarray:
        own, size = jax.tree.map(lambda leaf: leaf[index, fold], fits), 4096
        parts = [
            program(own.critic.params, units.seen(observation[i : i + size]), action[i : i + size].astype(np.float32))
            for i in range(0, len(observation), size)
        ]
        return units.centre + units.scale * (float(own.level) + np.concatenate(parts).astype(np.float64))

    return Fitted(path_of[..., -1], path_of, q_values)


def _name(rows: Rows, settings: FQE, seed: int, steps: int, gamma: float) -> str:
    """Of all that a fit follows from."""
    schedule = (CHECKS, LEVELLED, LEVEL_ROWS)
    given = settings, seed, schedule, steps, gamma, jax.__version__, jax.default_backend()
    found = hashlib.sha256(repr(given).encode())
    for leaf in rows:
        found.update(f"{np.shape(leaf)}".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def write_kept(path: Path, name: str, state: State, values: Sequence[np.ndarray]) -> None:
    """Raises StorageError."""
    leaves: dict[str, Any] = {f"leaf{place}": np.asarray(it) for place, it in enumerate(jax.tree.leaves(state))}
    buffer = io.BytesIO()
    np.savez(buffer, name=np.array(name), values=np.stack(values), **leaves)
    files.write(path, buffer.getbuffer())


def read_kept(path: Path, name: str, begun: State) -> tuple[State, list[np.ndarray]]:
    """The state that `write_kept` wrote, and values so far; `begun` and none where it is of another fit, or damaged."""
    leaves, structure = jax.tree.flatten(begun)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            if str(found["name"]) != name:
                return begun, []
            own = [found[f"leaf{place}"] for place in range(len(leaves))]
            values = list(found["values"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return begun, []
    same = all((it.shape, it.dtype) == (leaf.shape, leaf.dtype) for it, leaf in zip(own, leaves, strict=True))
    return (jax.tree.unflatten(structure, own), values) if same else (begun, [])


def choice_ensemble(
    spec: SpaceSpec, hidden: tuple[int, ...], size: int, initializer: Initializer, layer_norm: bool
) -> Ensemble:
    """Critics of choices: (observation [B, O], codes or probabilities [B, n, A]) -> <probabilities, Q> [N, B, n]."""
    sizes = DiscreteSpec(*spec)
    values = ensemble(network(lambda draw: ActionValues(draw, sizes, hidden, initializer, layer_norm)), size)

    def apply(params: Params, observation: Array, action: Array) -> Array:
        return jnp.einsum("mba,bna->mbn", values.apply(params, observation), action)

    return Ensemble(values.init, apply, values.apply_one)


def prepare(
    log: Log,
    next_action: np.ndarray,
    first_action: np.ndarray,
    gamma: float,
    weights: np.ndarray,
    normalise: bool = True,
) -> tuple[Rows, Units]:
    """What fits read, of `fit`'s arguments, and their units."""
    raw, to_go = log.rows, returns_to_go(log, gamma)
    centre = float(raw.reward.mean() / (1 - gamma * raw.continues.mean()))
    scale = float(to_go.std()) or max(abs(centre), 1.0)
    mean, deviation = np.zeros(raw.observation.shape[1]), np.ones(raw.observation.shape[1])
    if normalise:
        mean = raw.observation.mean(axis=0, dtype=np.float64)
        deviation = raw.observation.std(axis=0, dtype=np.float64)
        deviation = np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf)
    units = Units(centre, scale, mean, deviation)
    rows = Rows(
        units.seen(raw.observation),
        raw.action,
        np.float32(raw.reward / scale),
        raw.continues,
        units.seen(raw.next_observation),
        log.episode.astype(np.int32),
        np.nan_to_num(next_action).astype(np.float32),
        (~np.isnan(next_action).any(axis=(2, 3))).astype(np.float32),
        units.seen(raw.observation[log.starts]),
        first_action.astype(np.float32),
        weights.astype(np.float32),
        np.float32(centre / scale),
    )
    return rows, units


def begin(critics: Ensemble, optimizer: optax.GradientTransformation, key: Array) -> State:
    return State(trainable(optimizer, critics.init(key), target=True), jnp.zeros(()))


def mean_q(critics: Ensemble, params: Params, observation: Array, action: Array) -> Array:
    """[B]: over members and the n actions at each state."""
    return jnp.mean(critics.apply(params, observation, action), axis=(0, 2))


def fitted_targets(critics: Ensemble, params: Params, level: Array, gamma: float, batch: Rows) -> Array:
    """y - level - m/d in the critics' units: r/d + gamma (1-d) (Q' + level + m/d) - level - m/d."""
    constant = level + batch.offset
    after = mean_q(critics, params, batch.next_observation, batch.next_action) + constant
    return td.bellman_target(batch.reward, batch.continues, gamma, after) - constant


def drawn(rows: Rows, policy: Array, place: Array) -> Rows:
    """The rows at some places, with one policy's actions."""
    own = {name: getattr(rows, name)[place] for name in Rows._fields[:6]}
    return rows._replace(**own, next_action=rows.next_action[policy, place], known=rows.known[policy, place])


def steps_between(
    critics: Ensemble,
    optimizer: optax.GradientTransformation,
    settings: FQE,
    gamma: float,
    state: State,
    key: Array,
    policy: Array,
    fold: Array,
    rows: Rows,
    start: Array,
    stop: Array,
    levelled: Array,
    whole: Array,
) -> tuple[State, Array]:
    """One critic from step `start` to `stop`, then levelled if it is to be, and the value that it gives."""
    count = rows.reward.shape[0]
    piece, pieces = min(count, LEVEL_ROWS), -(-count // LEVEL_ROWS)
    whole = whole | (levelled & (pieces == 1))  # a short log has no need to draw

    def step_once(step: Array, critic: Trainable) -> Trainable:
        place = jax.random.randint(jax.random.fold_in(key, step + 1), (settings.batch_size,), 0, count)
        batch = drawn(rows, policy, place)
        weight = jnp.sqrt(rows.weight[fold, batch.episode] * batch.known)
        targets = fitted_targets(critics, critic.target_params, state.level, gamma, batch)

        def loss(params: Params) -> tuple[Array, dict[str, Any]]:
            q = critics.apply(params, batch.observation, batch.action[:, None])[..., 0]
            return td.squared_error(weight[None] * q, (weight * targets)[None]), {}

        critic, _ = gradient_step(critic, optimizer, loss)
        return polyak(critic, settings.polyak_rate)

    critic = jax.lax.fori_loop(start, stop, step_once, state.critic)
    chance = jax.random.randint(jax.random.fold_in(jax.random.fold_in(key, 0), stop), (piece,), 0, count)

    def add(number: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        """What a level moved by delta changes: sum of weight (residual - (1 - gamma (1-d)) delta)."""
        place = number * piece + jnp.arange(piece)
        some = drawn(rows, policy, jnp.where(whole, jnp.minimum(place, count - 1), chance))
        weight = rows.weight[fold, some.episode] * some.known * (~whole | (place < count))
        residual = fitted_targets(critics, critic.params, state.level, gamma, some)
        residual -= mean_q(critics, critic.params, some.observation, some.action[:, None])
        return sums[0] + jnp.sum(weight * residual), sums[1] + jnp.sum(weight * (1.0 - gamma * some.continues))

    over = jnp.where(whole, pieces, jnp.where(levelled, 1, 0))
    residual, change = jax.lax.fori_loop(0, over, add, (jnp.zeros(()), jnp.zeros(())))
    level = state.level + jnp.where(levelled, residual / jnp.where(levelled, change, 1.0), 0.0)
    first, weight = mean_q(critics, critic.params, rows.first, rows.first_action[policy]), rows.weight[fold]
    return State(critic, level), level + jnp.sum(weight * first) / jnp.sum(weight)
