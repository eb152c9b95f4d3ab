"""A trained policy as one NPZ file that acts with NumPy alone.

    from itrpo.policy import load_policy
    policy = load_policy("runs/demo/seed0/policy.npz")
    action = policy(observation)

The file holds the network, the observation normaliser, the action scaling and the acting rule, and no code. This module
imports nothing of itrpo, so it can be copied next to a policy and used where itrpo is not installed.

What `itrpo export` writes has guards as well (`Guards`): what is done where sensors fail or leave the data's range, and
how far actions may go. `policy.explain(observation)` says which of them act. One function, `step`, is the policy
with its guards; the exports to ONNX and StableHLO are traces of it.
"""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

FORMAT_VERSION = 1
GUARDED_VERSION = 2  # of files with guards: who does not know them must not act without them
MAX_BYTES = 2**30  # of a file's arrays: more is no policy
DAMAGE = (
    *(OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, MemoryError, RecursionError),
    *(NotImplementedError, zipfile.BadZipFile, zlib.error),
)
MAX_CHOICES = 2**20  # that an action may have
MAX_STEPS = 1_000  # of a flow
ROWS_AT_ONCE = 64  # observations whose candidate actions are held in memory together
FAR = 0.5  # of the range of a column in training: what lies farther beyond it is outside
ALIKE = 1e-3  # of its size: a constant column that differs by no more is as it was
MOVED = 1e-6  # of half of an action's range: a guard that changes it by no more did not act
NO_MEASUREMENT = np.float32(1e15)  # deviations: what is so far away is missing, such as float32's largest as a mark
MISSING = ("error", "hold", "fallback")
# What guards did, as bits: the first three with a column of an observation, the others with one of an action.
BITS = {"constant": 1, "missing": 2, "range": 4, "bounds": 8, "rate": 16, "instead": 32}
ON_OBSERVATION = ("constant", "missing", "range")

Layers = tuple[tuple[np.ndarray, np.ndarray], ...]  # (weight [out, in], bias [out]) float32, first to last


class PolicyFileError(ValueError):
    """The file is not a policy of ours, is damaged, or was written by a newer format."""


class MissingInput(ValueError):
    """A number of an observation is NaN, infinite or beyond `NO_MEASUREMENT`, and the policy's guards say that this is
    an error; or there are none, and its actions are choices.
    """


@dataclass(frozen=True)
class Guards:
    """What stands between a policy and what it controls, in the data's units. Arrays are float32.

    In this order: a column that was constant in training is what it was then. With a number that is not finite in
    another one, the observation is missing. What is beyond low and high counts, and becomes them with `clamp`. The
    action is that of the network; where the observation is missing another one, or it is an error. It is clipped to its
    bounds, and last to what is within `rate` of the action before, if there was one.
    """

    missing: str  # "error"; "hold": the action before, at first `fallback`; "fallback"
    fallback: np.ndarray  # [A]; NaN with "error"
    constant: np.ndarray  # [O]: the only value in training; NaN: there were several
    low: np.ndarray  # [O]; -inf: anything
    high: np.ndarray  # [O]
    clamp: bool
    action_low: np.ndarray  # [A]
    action_high: np.ndarray  # [A]
    rate: np.ndarray  # [A], per step; inf: any

    @property
    def remember(self) -> bool:
        """Whether they need the action before."""
        return self.missing == "hold" or bool(np.isfinite(self.rate).any())


class Step(NamedTuple):
    """What a policy does at one step of R episodes."""

    action: Any  # [R, A]
    state: Any  # [R, S]: what it remembers
    wanted: Any  # [R, A]: the network's action, in the data's units
    on_observation: Any  # [R, O] int32: BITS of the guards; None without guards
    on_action: Any  # [R, A] int32; None without guards
    rows: Any  # [R, N]: what the network saw: observations or histories, normalised


class Finding(NamedTuple):
    """What a guard does with one number."""

    guard: str  # a key of BITS
    column: int  # of the observation, or of the action
    name: str  # of the column in the data
    row: tuple[int, ...]  # where in [...]
    text: str


class Explanation(NamedTuple):
    """What a policy does with observations [..., O], and why."""

    action: np.ndarray  # [..., A]; NaN where the observation is an error
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        rows = [f"row {', '.join(map(str, it.row))}: {it.text}" if it.row else it.text for it in self.findings]
        return "\n".join(rows) or "no guard acts"


@dataclass(frozen=True)
class Policy:
    """The greedy policy of one seed. Calling it maps observations [..., O] to actions [..., A] in the dataset's
    units, and warns of observations far outside of the range that it was trained on: `outside` counts them. Where
    actions are choices they are whole numbers, int64 [...]: one of `num_actions` from `action_low` on.

    A policy of `stack` K > 1 keeps what it has seen and done, one history for each of [...]: call `reset` where an
    episode begins, and then with each observation once. Before the first stand its repetitions and actions in the
    middle of their range. So does one whose guards hold actions or limit their rate; `counts` has how often guards
    acted. A missing observation begins no history; in one that has begun its numbers are those before.
    """

    kind: str  # acting rule, see `save_policy`
    networks: dict[str, Layers] = field(repr=False)  # ReLU networks, by what stands before "weight_0" in the file
    constants: dict[str, np.ndarray] = field(repr=False)  # other arrays of the acting rule, float32
    observation_mean: np.ndarray = field(repr=False)  # [O] float32; with a history [K O + (K - 1) A]
    observation_std: np.ndarray = field(repr=False)  # the same
    action_low: np.ndarray  # [A] float32: the action that the network's -1 stands for; [1]: the first choice
    action_high: np.ndarray  # [A] float32: the action that the network's +1 stands for; [1]: the last choice
    metadata: dict[str, Any]  # environment, dataset, algorithm, version, trained_low and _high in training, ...
    known: np.ndarray  # [2, O] float32: what is outside lies below or above; infinite where the file does not say
    outside: np.ndarray  # [O] int64: how many observations of calls (not of `act`) were, without guards; by column
    stack: int  # K: observations in a row, with the actions between them, that the network sees; then O is of one
    past: dict[str, np.ndarray]  # "state" [..., S], see `step`, once it has acted; "action" [..., A] of a `reset`
    guards: Guards | None  # None: as it was trained
    counts: dict[str, np.ndarray]  # key of BITS -> [O] or [A] int64: how often that guard acted, since it was loaded

    def __call__(self, observation: Any) -> np.ndarray:
        """As `act`, with a RuntimeWarning for each column when it is outside, or a guard acts there, the first time."""
        new = {name: count == 0 for name, count in self.counts.items()}
        raw, done = self._act(observation)
        if self.guards is None:
            within = (self.known[0] <= raw) & (raw <= self.known[1])
            if not within.all():
                self._warn(raw.reshape(-1, raw.shape[-1]), ~within.reshape(-1, raw.shape[-1]))
        elif any((new[name] & (self.counts[name] > 0)).any() for name in new):
            for it in self._findings(raw, done):
                if new[it.guard][it.column]:
                    new[it.guard][it.column] = False
                    warnings.warn(it.text, RuntimeWarning, stacklevel=2)
        return self._as_actions(raw, done)

    def _warn(self, rows: np.ndarray, outside: np.ndarray) -> None:
        low, high = (self.metadata.get(f"trained_{end}") for end in ("low", "high"))
        for column in np.flatnonzero(outside.any(axis=0) & (self.outside == 0)):
            value, name = rows[outside[:, column], column][0], column_name(self.metadata, "observation", column)
            named = f"observation {column}" + (f" ({name})" if name else "")
            seen = ""
            if low is not None and high is not None:
                seen = f", and in training it was from {float(low[column]):.6g} to {float(high[column]):.6g}"
            warnings.warn(
                f"{named} is {value:.6g}{seen}: the policy has not learned how to act there",
                RuntimeWarning,
                stacklevel=3,
            )
        self.outside[:] += outside.sum(axis=0)

    def act(self, observation: Any) -> np.ndarray:
        """Actions [..., A] float32 for raw observations [..., O]; over choices int64 [...], the numbers of choices.

        Raises ValueError for another last dimension, and, where something is remembered, for others than those before;
        MissingInput where guards say so, and then it is counted and nothing else has happened.
        """
        raw, done = self._act(observation)
        return self._as_actions(raw, done)

    def explain(self, observation: Any) -> Explanation:
        """What the next call with this observation will do, and which guards act on which columns. Nothing changes.

        Raises ValueError as `act`, but no MissingInput: the action is NaN there.
        """
        raw, done = self._step(observation)
        return Explanation(done.action.reshape(*raw.shape[:-1], len(self.action_low)), tuple(self._findings(raw, done)))

    def _as_actions(self, raw: np.ndarray, done: Step) -> np.ndarray:
        if self.num_actions is None:
            return done.action.reshape(*raw.shape[:-1], len(self.action_low))
        if not np.isfinite(done.action).all():
            raise MissingInput("an observation is NaN or infinite, and there is no choice that says so")
        return np.rint(done.action).astype(np.int64).reshape(raw.shape[:-1])[()]  # of one observation a number

    def _act(self, observation: Any) -> tuple[np.ndarray, Step]:
        raw, done = self._step(observation)
        if self.guards is not None:
            for name, count in self.counts.items():
                bits = done.on_observation if name in ON_OBSERVATION else done.on_action
                count += ((bits & BITS[name]) > 0).sum(axis=0)
            if self.guards.missing == "error" and (done.on_observation & BITS["missing"]).any():
                missing = [it for it in self._findings(raw, done) if it.guard == "missing"]
                raise MissingInput(str(Explanation(done.action, tuple(missing))))
        if self.memory:
            self.past["state"] = done.state.reshape(*raw.shape[:-1], self.memory)
        return raw, done

    def _step(self, observation: Any) -> tuple[np.ndarray, Step]:
        raw = np.asarray(observation, np.float32)
        if raw.ndim == 0 or raw.shape[-1] != self.frame:
            raise ValueError(f"observations must be [..., {self.frame}], not {list(raw.shape)}")
        state = self.past.get("state")
        if state is None:
            state = np.zeros((*raw.shape[:-1], self.memory), np.float32)
            if "action" in self.past:
                state[..., self.history], state[..., self.history + 1 :] = 1, self.past["action"]
        elif state.shape[:-1] != raw.shape[:-1]:
            raise ValueError(
                f"observations {list(raw.shape)} after {[*state.shape[:-1], self.frame]}: this policy keeps a history;"
                " call reset() before those of other episodes"
            )
        rows = raw.reshape(-1, self.frame)
        return raw, step(self, rows, state.reshape(len(rows), self.memory))

    def _findings(self, raw: np.ndarray, done: Step) -> Iterator[Finding]:
        """What the guards did at a step, or without guards what is outside."""
        rows, guards = raw.reshape(-1, self.frame), self.guards
        on_observation, on_action = done.on_observation, done.on_action
        low, high = self.known
        if guards is None:
            missing = ~np.isfinite(rows)
            outside = ~missing & ((rows < low) | (rows > high))
            on_observation = BITS["missing"] * missing + BITS["range"] * outside
            on_action = np.zeros_like(done.action, int)
        else:
            low, high = guards.low, guards.high
        where = list(np.ndindex(raw.shape[:-1]))
        for row, column in np.argwhere(on_observation):
            name, unit = (column_name(self.metadata, "observation", column, it) for it in ("names", "units"))
            value = f"{name or f'observation {column}'} is {rows[row, column]:.6g}{unit and f' {unit}'}"
            ends = f"{low[column]:.6g} to {high[column]:.6g}"
            for guard in [it for it in ON_OBSERVATION if BITS[it] & on_observation[row, column]]:
                if guards is None:
                    text = f"{value}: no guard acts" if guard == "missing" else f"{value}, far outside of training"
                elif guard == "constant":
                    text = f"{value}, and always was {guards.constant[column]:.6g} in training, which stands in for it"
                elif guard == "missing":
                    text = f"{value}: {'an error' if guards.missing == 'error' else 'no observation to act on'}"
                else:
                    text = f"{value}, beyond {ends} of training: {'clamped' if guards.clamp else 'counted'}"
                yield Finding(guard, int(column), name, where[row], text)
        for row, column in np.argwhere(on_action):
            assert guards is not None
            name, unit = (column_name(self.metadata, "action", column, it) for it in ("names", "units"))
            named, unit = name or f"action {column}", unit and f" {unit}"
            final, wanted = (f"{it[row, column]:.6g}{unit}" for it in (done.action, done.wanted))
            ends = f"{guards.action_low[column]:.6g} to {guards.action_high[column]:.6g}"
            for guard in [it for it in BITS if it not in ON_OBSERVATION and BITS[it] & on_action[row, column]]:
                if guard == "instead":
                    text = f"{named} has no action" if guards.missing == "error" else f"{named} is {final}"
                    text += f": the observation is missing ({guards.missing})"
                elif guard == "bounds":
                    text = f"{named} is {final}: the policy's {wanted} is outside of its bounds, {ends}"
                else:
                    rate = f"{guards.rate[column]:.6g}{unit}"
                    text = f"{named} is {final}: more than its limit of {rate} per step towards {wanted}"
                yield Finding(guard, int(column), name, where[row], text)

    def reset(self, action: Any = None) -> None:
        """Forgets what was seen and done: an episode begins. `action` [A] or [..., A], in the data's units, is the one
        in force now, where guards hold actions or limit their rate; None, or one that is not finite: there is none, and
        the first may be any. Raises ValueError for another last dimension.
        """
        self.past.clear()
        given = np.zeros(0) if action is None else np.asarray(action, np.float32)
        if action is not None and given.shape[-1:] != self.action_low.shape:
            raise ValueError(f"an action has {len(self.action_low)} numbers, not the shape {given.shape}")
        if given.size and np.isfinite(given).all() and self.guards is not None and self.guards.remember:
            self.past["action"] = given

    @property
    def num_actions(self) -> int | None:
        """How many choices there are; None where an action is a vector."""
        return int(self.action_high[0] - self.action_low[0]) + 1 if self.kind in OF_CHOICES else None

    @property
    def frame(self) -> int:
        """O, the size of one observation."""
        actions = len(self.action_low)
        return (len(self.observation_mean) + actions) // self.stack - actions

    @property
    def history(self) -> int:
        """How many numbers of its state are its history; 0 without."""
        return 0 if self.stack == 1 else 1 + len(self.observation_mean)

    @property
    def memory(self) -> int:
        """S, the size of its state."""
        remember = self.guards is not None and self.guards.remember
        return self.history + (1 + len(self.action_low) if remember else 0)


def column_name(metadata: Mapping[str, Any], of: str, column: Any, kind: str = "names") -> str:
    """What the data call a column of the "observation" or "action", or its unit; empty if they don't say."""
    texts = metadata.get(f"{of}_{kind}")
    return str(texts[column]) if isinstance(texts, list) and column < len(texts) else ""


def step(policy: Policy, raw: Any, state: Any, xp: Any = np) -> Step:
    """The policy with its guards, for raw observations [R, O] of R episodes and what it remembers of them [R, S].

    A state of zeros is that after `reset`. It consists of: with a history 1, its K observations, its K - 1 actions in
    [-1, 1]; where guards need it 1, the action before. Each 1 is 0 where there is no history or no action yet. Of an
    observation that is an error the state stays as it is, and the action is NaN. `xp` is NumPy or what stands in for
    it: jax.numpy, or what writes ONNX.
    """
    guards, stack = policy.guards, policy.stack
    center, half_range = (policy.action_high + policy.action_low) / 2, (policy.action_high - policy.action_low) / 2
    frame, absent, on_observation = (raw, None, None) if guards is None else _checked(policy, guards, raw, state, xp)
    seen = frame
    if stack > 1:  # newest first
        size, frames = policy.frame, stack * policy.frame
        repeated = xp.concatenate([frame] * (stack - 1), axis=1)
        before = xp.where(state[:, :1] > 0, state[:, 1 : 1 + frames - size], repeated)
        seen = xp.concatenate([frame, before, state[:, 1 + frames : policy.history]], axis=1)
    rows = (seen - policy.observation_mean) / policy.observation_std
    action = greedy(policy, rows, xp)
    final = wanted = center + half_range * action
    if policy.kind in OF_CHOICES:
        final = wanted = action
        action = (action - center) / half_range
    on_action = None
    if guards is not None:
        final, on_action = _limited(policy, guards, wanted, absent, state, xp)
        action = (final - center) / half_range
    parts: list[Any] = []
    if stack > 1:
        newest = seen[:, : stack * policy.frame]
        older = seen[:, stack * policy.frame : len(policy.observation_mean) - len(policy.action_low)]
        parts = [state[:, :1] * 0 + 1, newest, action, *([older] if stack > 2 else [])]
        if absent is not None:
            parts = [xp.where(absent & ~(state[:, :1] > 0), state[:, : policy.history], xp.concatenate(parts, axis=1))]
    if guards is not None and guards.remember:
        parts += [state[:, :1] * 0 + 1, final]
    following = xp.concatenate(parts, axis=1) if parts else state
    if parts and guards is not None and guards.missing == "error":
        following = xp.where(absent, state, following)
    return Step(final, following, wanted, on_observation, on_action, rows)


def _bit(name: str, where: Any, xp: Any) -> Any:
    return xp.where(where, np.int32(BITS[name]), np.int32(0))


def _checked(policy: Policy, guards: Guards, raw: Any, state: Any, xp: Any) -> tuple[Any, Any, Any]:
    """-> observations [R, O] for the network, whether one is missing [R, 1], and what guards did [R, O]."""
    fixed = np.isfinite(guards.constant)
    value = np.where(fixed, guards.constant, np.float32(0))
    differs = ~(xp.abs(raw - value) <= ALIKE * np.abs(value)) & fixed
    seen = xp.where(fixed, value, raw)
    missing = ~(xp.abs(seen - policy.observation_mean[: policy.frame]) < measurable(policy))
    beyond = ((seen < guards.low) | (seen > guards.high)) & ~missing
    if guards.clamp:
        seen = xp.clip(seen, guards.low, guards.high)
    before = np.zeros_like(value) if policy.stack == 1 else state[:, 1 : 1 + policy.frame]
    bits = _bit("constant", differs, xp) + _bit("missing", missing, xp) + _bit("range", beyond, xp)
    return xp.where(missing, before, seen), xp.any(missing, axis=1, keepdims=True), bits


def measurable(policy: Policy) -> np.ndarray:
    """[O]: how far from its mean a number may be that is one. Where a column never varied its deviation is none."""
    return NO_MEASUREMENT * np.minimum(policy.observation_std[: policy.frame], np.float32(1e15))  # below float32's end


def _limited(policy: Policy, guards: Guards, wanted: Any, absent: Any, state: Any, xp: Any) -> tuple[Any, Any]:
    """-> actions [R, A] in place of those that the network wants, and what guards did [R, A]."""
    done = state[:, policy.history :]
    acted, last = (done[:, :1] > 0, done[:, 1:]) if guards.remember else (None, None)
    instead = xp.where(acted, last, guards.fallback) if guards.missing == "hold" else guards.fallback
    safe = xp.where(absent, instead, wanted)
    final = bounded = xp.clip(safe, guards.action_low, guards.action_high)
    if np.isfinite(guards.rate).any():
        final = xp.where(acted, xp.clip(bounded, last - guards.rate, last + guards.rate), bounded)
    little = MOVED * (policy.action_high - policy.action_low) / 2
    bits = _bit("bounds", xp.abs(safe - bounded) > little, xp) + _bit("rate", xp.abs(bounded - final) > little, xp)
    return final, bits + _bit("instead", absent, xp)


# --- acting rules: normalised observations [R, O] -> options [R, n, A] in [-1, 1] and their values [R, n]; the action
# is the option of the largest value. Values are None where there is one option. `xp` as in `step`. -------------------

Acting = Callable[["Policy", Any, Any], tuple[Any, Any]]


def _tanh_mlp(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    return xp.tanh(_forward(policy.networks[""], rows, xp))[:, None], None


def _tanh_mixture_mlp(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    output, action_dim = _forward(policy.networks[""], rows, xp), len(policy.action_low)
    components = output.shape[1] // (1 + action_dim)
    return xp.tanh(output[:, components:].reshape(-1, components, action_dim)), output[:, :components]


def _tanh_factored_mixture_mlp(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    """One row for each dimension of an action."""
    output, actions = _forward(policy.networks[""], rows, xp), len(policy.action_low)
    components = output.shape[1] // (2 * actions)
    both = output.reshape(-1, 2, actions * components)
    logits, means = (both[:, i].reshape(-1, components) for i in range(2))
    return xp.tanh(means)[:, :, None], logits


def _autoregressive_spline(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    return _in_order(policy, rows, 1, lambda i, raw: _densest(raw, xp), xp), None


def _spline_samples(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    noise = policy.constants["noise"]

    def draw(i: int, raw: Any) -> Any:
        return _spline_inverse(raw, xp.tile(noise[:, i : i + 1], (len(rows), 1)), xp)

    return _with_critic(policy, rows, _in_order(policy, rows, len(noise), draw, xp), xp)


def _in_order(policy: Policy, rows: Any, count: int, choose: Callable[[int, Any], Any], xp: Any) -> Any:
    """n actions at each row [R, n, A], one dimension after the other, as the network sees those before it.

    choose(dimension, numbers of the splines [R n, 3K - 1]) -> z [R n, 1].
    """
    actions = len(policy.action_low)
    columns = [xp.zeros((len(rows), count), np.float32) for _ in range(actions)]
    for i in range(actions):
        numbers = _joined(policy.networks[""], rows, xp.stack(columns, axis=2), xp)
        mean, log_std, raw = xp.split(numbers.reshape(len(rows) * count, actions, -1)[:, i], (1, 2), axis=1)
        std = xp.exp(xp.clip(log_std, *policy.constants["log_std_range"]))
        columns[i] = xp.tanh(mean + std * choose(i, raw)).reshape(len(rows), count)
    return xp.stack(columns, axis=2)


def _flow(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    """`itrpo.ops.interpolants.transported` of z = 0."""
    times, actions = policy.constants["times"], len(policy.action_low)
    mean, log_std = xp.split(_forward(policy.networks[""], rows, xp), (actions,), axis=1)
    x = mean * np.float32(0)

    def velocity(x: Any, t: Any) -> Any:
        at = xp.tile(np.array([[np.cos(t), np.sin(t)]], np.float32), (len(rows), 1))
        return _forward(policy.networks["velocity_"], xp.concatenate([rows, x, at], axis=1), xp, smooth=True)

    for start, stop in pairwise(times):
        half = (stop - start) / 2
        x = x + 2 * half * velocity(x + half * velocity(x, start), start + half)
    std = xp.exp(xp.clip(log_std, *policy.constants["log_std_range"]))
    return xp.tanh(mean + std * x)[:, None], None


def _latent_decoder(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    latent = policy.constants["max_latent"] * xp.tanh(_forward(policy.networks[""], rows, xp))
    decoded = xp.tanh(_joined(policy.networks["decoder_"], rows, latent[:, None], xp))
    return _perturbed(policy, rows, decoded, xp), None


def _gaussian_samples(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    output, actions = _forward(policy.networks[""], rows, xp)[:, None], len(policy.action_low)
    std = xp.exp(xp.clip(output[:, :, actions:], *policy.constants["log_std_range"]))
    return _with_critic(policy, rows, xp.tanh(output[:, :, :actions] + std * policy.constants["noise"]), xp)


def _decoded(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    decoded = xp.tanh(_joined(policy.networks[""], rows, policy.constants["latents"], xp))
    return _with_critic(policy, rows, _perturbed(policy, rows, decoded, xp), xp)


def _argmax(policy: Policy, rows: Any, xp: Any) -> tuple[Any, Any]:
    """The choices themselves, and what they are worth."""
    constants, epsilon = policy.constants, policy.constants.get("epsilon")
    value = _forward(policy.networks[""], rows, xp, epsilon)
    for prefix in (it for it in policy.networks if it.startswith("q")):
        value = xp.minimum(value, _forward(policy.networks[prefix], rows, xp, epsilon))
    if "behavior_" in policy.networks:
        logits = _forward(policy.networks["behavior_"], rows, xp)
        if "behavior_weight" in constants:
            value = value + logits * constants["behavior_weight"]
        if "log_threshold" in constants:
            least = xp.max(value * np.float32(-1), axis=1, keepdims=True) * np.float32(-1)
            likely = logits - xp.max(logits, axis=1, keepdims=True) > constants["log_threshold"]
            value = xp.where(likely, value, least - (np.float32(1) + xp.abs(least)))
    choices = policy.action_low + np.arange(policy.num_actions or 0, dtype=np.float32)
    return value[:, :, None] * np.float32(0) + choices[:, None], value


OF_CHOICES = ("argmax",)
KINDS: dict[str, Acting] = {
    "argmax": _argmax,
    "tanh_mlp": _tanh_mlp,
    "tanh_mixture_mlp": _tanh_mixture_mlp,
    "tanh_factored_mixture_mlp": _tanh_factored_mixture_mlp,
    "autoregressive_spline": _autoregressive_spline,
    "flow": _flow,
    "latent_decoder": _latent_decoder,
    "best_of_gaussian": _gaussian_samples,
    "best_of_spline": _spline_samples,
    "best_of_decoder": _decoded,
}


SPLINES = ("autoregressive_spline", "best_of_spline")  # kinds whose first network sees the action as well
FLOWS = (*SPLINES, "flow")  # kinds that this file alone has code for


def greedy(policy: Policy, rows: Any, xp: Any) -> Any:
    """Normalised observations [R, O] -> actions [R, A] in [-1, 1], or choices [R, 1] in the data's numbers.

    With a critic a few rows at a time: candidates of all rows at once would not fit into the processor's cache.
    """
    if xp is np and "critic_" in policy.networks and len(rows) > ROWS_AT_ONCE:
        parts = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
        return np.concatenate([greedy(policy, part, xp) for part in parts])
    options, values = KINDS[policy.kind](policy, rows, xp)
    if values is not None:
        options = xp.take_along_axis(options, values.argmax(axis=1)[:, None, None], axis=1)
    return options.reshape(-1, len(policy.action_low))


def _forward(layers: Layers, inputs: Any, xp: Any, epsilon: Any = None, smooth: bool = False) -> Any:
    """A ReLU network: [R, in] -> [R, out]. With `epsilon` what comes out of a ReLU is standardised; with `smooth`
    x sigmoid(x) is in place of ReLUs.
    """
    weight, bias = layers[0]
    output = inputs @ weight.T + bias
    for weight, bias in layers[1:]:
        if smooth:  # the sigmoid by a tanh, which has no exponential to overflow
            output = np.float32(0.5) * output * (np.float32(1) + xp.tanh(np.float32(0.5) * output))
        else:
            output = xp.maximum(output, np.float32(0))
        if epsilon is not None:
            averaging = np.full((weight.shape[1], 1), 1 / weight.shape[1], weight.dtype)
            output = output - output @ averaging
            output = output / xp.sqrt((output * output) @ averaging + epsilon)
        output = output @ weight.T + bias
    return output


def _joined(layers: Layers, rows: Any, others: Any, xp: Any) -> Any:
    """A ReLU network of [row, other] for rows [R, O] with n others each, [R, n, K] or the same [n, K]: -> [R, n, out].

    What the first layer makes of a row is computed once for its n others.
    """
    (weight, bias), split = layers[0], rows.shape[1]
    first = (rows @ weight[:, :split].T + bias)[:, None] + others @ weight[:, split:].T
    if len(layers) == 1:
        return first
    output = _forward(layers[1:], xp.maximum(first, np.float32(0)).reshape(-1, len(bias)), xp)
    return output.reshape(-1, first.shape[1], len(layers[-1][1]))


def _perturbed(policy: Policy, rows: Any, actions: Any, xp: Any) -> Any:
    """actions [R, n, A] moved by at most phi, where the policy has a network for it."""
    if "perturbation_" not in policy.networks:
        return actions
    moved = policy.constants["phi"] * xp.tanh(_joined(policy.networks["perturbation_"], rows, actions, xp))
    return xp.clip(actions + moved, np.float32(-1), np.float32(1))


LEVELS = np.array([[NormalDist().inv_cdf((j + 0.5) / 33) for j in range(33)]], np.float32)


def _densest(raw: Any, xp: Any) -> Any:
    """`itrpo.ops.splines.densest` of the splines of `raw` [R, 3K - 1]: -> [R, 1]."""
    quantiles = _spline_inverse(raw, LEVELS, xp)
    start = (quantiles[:, 16:] - quantiles[:, :17]).argmin(axis=1)
    return xp.take_along_axis(quantiles, start[:, None] + 8, axis=1)


def _spline_inverse(raw: Any, value: Any, xp: Any) -> Any:
    """`itrpo.ops.splines.inverse` of the splines of `raw` [R, 3K - 1] at n values each, [R, n] or the same [1, n]."""
    bins, one, bound, least = (raw.shape[1] + 1) // 3, np.float32(1), np.float32(3), np.float32(1e-3)
    end = xp.ones_like(raw[:, :1])

    def knots(numbers: Any) -> Any:
        shares = xp.exp(numbers - numbers.max(axis=1, keepdims=True))
        shares = least + (one - least * bins) * shares / shares.sum(axis=1, keepdims=True)
        return bound * xp.concatenate([-end, 2 * xp.cumsum(shares, axis=1)[:, :-1] - one, end], axis=1)

    x, y = knots(raw[:, :bins]), knots(raw[:, bins : 2 * bins])
    inner = least + xp.logaddexp(raw[:, 2 * bins :] + np.float32(np.log(np.expm1(0.999))), np.float32(0))
    slope = xp.concatenate([end, inner, end], axis=1)
    within = xp.clip(value, -bound, bound)
    index = (within[:, :, None] >= y[:, None, 1:-1]).sum(axis=2)
    (x0, x1), (y0, y1), (left, right) = (
        [xp.take_along_axis(it, index + j, axis=1) for j in (0, 1)] for it in (x, y, slope)
    )
    width, height, rise = x1 - x0, y1 - y0, within - y0
    mean = height / width
    bend = rise * (left + right - 2 * mean)
    a, b, c = height * (mean - left) + bend, height * left - bend, -mean * rise
    part = 2 * c / (-b - xp.sqrt(xp.maximum(b * b - 4 * a * c, np.float32(0))))
    return xp.where(xp.abs(value) < bound, x0 + width * xp.clip(part, np.float32(0), one), value)


def _with_critic(policy: Policy, rows: Any, actions: Any, xp: Any) -> tuple[Any, Any]:
    return actions, _joined(policy.networks["critic_"], rows, actions, xp)[:, :, 0]


# --- files -----------------------------------------------------------------------------------------------------------


def save_policy(
    path: str | Path,
    export: Mapping[str, Any],
    observation_mean: Any,
    observation_std: Any,
    action_low: Any,
    action_high: Any,
    metadata: Mapping[str, Any],
) -> None:
    """Write a policy for `load_policy`, atomically.

    `export` is {"kind": name, "weight_0": [out, in], "bias_0": [out], "weight_1": ...}: ReLU networks. The first
    sees the observation s; the others, whose arrays' names begin with theirs, see s and something more. By kind:
    - "argmax": actions are the n whole numbers from action_low to action_high, both [1]. Networks "", "q1_", "q2_", ...
      give a value for each [n], of which the least counts; the action is the choice of the largest value. With a number
      epsilon what comes out of their ReLUs is standardised, (x - mean) / sqrt(variance + epsilon). A network
      "behavior_" of s gives logits [n]: with a number behavior_weight, so many times them are added to the values; with
      log_threshold, choices whose logit is not that close to the largest are left out;
    - "tanh_mlp": the network gives the mean [A] of the pre-tanh Gaussian; the action is its tanh;
    - "tanh_mixture_mlp": it gives K logits, then K means [A]; the action is the tanh of the mean of the heaviest;
    - "tanh_factored_mixture_mlp": logits [A, K], then means [A, K]: the same in each dimension by itself;
    - "autoregressive_spline": it sees the action as well, and gives for each dimension mean, log_std, clipped to
      log_std_range [2], and 3 K - 1 numbers of a monotone spline T, which depend on the dimensions before it alone.
      With T(z) standard normal, the action is tanh(mean + std * z) at the densest z, one dimension after the other;
    - "flow": it gives mean and log_std, clipped to log_std_range [2]. A network "velocity_" of s, x, cos t and sin t,
      with x sigmoid(x) in place of ReLUs, moves x from 0 along times [K + 1], by the midpoint rule; the action is
      tanh(mean + std * x);
    - "latent_decoder" (PLAS): it gives [L], z is max_latent times its tanh; the action is tanh(decoder(s, z));
    - "best_of_gaussian" (BEAR, UWAC): it gives mean and log_std, clipped to log_std_range [2]. Of the candidates
      tanh(mean + std * noise_j), noise [n, A], the action is the one with the largest critic(s, a);
    - "best_of_spline" (EMaQ): the same for the candidates tanh(mean + std * z) of an "autoregressive_spline", each with
      T(z) = its noise;
    - "best_of_decoder" (BCQ): the same for the candidates tanh(network(s, z_j)), latents z [n, L].
    "latent_decoder" and "best_of_decoder" may have a network "perturbation_" and a number phi: then an action a becomes
    clip(a + phi * tanh(perturbation(s, a)), -1, 1) before anything else is done with it.
    The network sees (observation - observation_mean) / observation_std, both [O]; its actions -1 and +1 become
    `action_low` and `action_high`, both [A]. `metadata` must be JSON; if its "stack" is K > 1, O above is of a history:
    the newest K observations, then the K - 1 actions between them in [-1, 1], newest first. Its "guards" are the fields
    of `Guards`, null for NaN and infinity (`guards_json`). Raises PolicyFileError if the parts do not fit each other.
    """
    arrays = {name: np.asarray(value, np.float32) for name, value in export.items() if name != "kind"}
    arrays |= {
        "observation_mean": np.asarray(observation_mean, np.float32),
        "observation_std": np.asarray(observation_std, np.float32),
        "action_low": np.asarray(action_low, np.float32),
        "action_high": np.asarray(action_high, np.float32),
    }
    texts = {"kind": export["kind"], "metadata": json.dumps(dict(metadata), allow_nan=False)}
    version = GUARDED_VERSION if "guards" in metadata else FORMAT_VERSION
    content = arrays | {name: np.array(text) for name, text in texts.items()} | {"version": np.array(version)}
    target = Path(path)
    _parse(target, content)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def load_policy(path: str | Path) -> Policy:
    """The policy in an NPZ file written by `save_policy`. Nothing in the file is executed or unpickled.

    Raises PolicyFileError (a ValueError) with the path and what is wrong, FileNotFoundError if there is no file.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as entries:
            size = sum(it.file_size for it in entries.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"its arrays have {size:,} bytes, and policies at most {MAX_BYTES:,}")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as entries:
            content = {name: entries[name] for name in entries.files}
    except FileNotFoundError:
        raise
    except IsADirectoryError as error:
        raise PolicyFileError(f"{path}: a folder; name a policy's file, such as seed0/policy.npz in it") from error
    except DAMAGE as error:
        raise PolicyFileError(f"{path}: not a policy file, or damaged ({error})") from error
    return _parse(Path(path), content)


def _parse(path: Path, content: Mapping[str, np.ndarray]) -> Policy:
    """The one check of a file's content, before it is written and after it is read."""

    def problem(text: str) -> PolicyFileError:
        return PolicyFileError(f"{path}: {text}")

    if "version" not in content or "kind" not in content:
        raise problem("not a policy file (it lacks 'version' or 'kind')")
    if str(content["version"]) not in (str(FORMAT_VERSION), str(GUARDED_VERSION)):
        raise problem(
            f"policy format {content['version']}; this version of itrpo reads formats up to {GUARDED_VERSION}"
        )
    kind = str(content["kind"])
    if kind not in KINDS:
        raise problem(f"unknown kind of policy {kind!r}; known: {', '.join(KINDS)}")
    prefixes = {name.partition("weight_")[0] for name in content if "weight_" in name} | {""}
    depths = {it: max(sum(name.startswith(f"{it}weight_") for name in content), 1) for it in sorted(prefixes)}
    needed = [f"{it}{part}_{i}" for it, depth in depths.items() for i in range(depth) for part in ("weight", "bias")]
    needed += ["observation_mean", "observation_std", "action_low", "action_high"]
    missing = [name for name in needed if name not in content]
    if missing or "metadata" not in content:
        raise problem(f"damaged: it lacks {', '.join(missing) or 'metadata'}")
    arrays = {name: value for name, value in content.items() if name not in ("version", "kind", "metadata")}
    for name, value in arrays.items():
        if value.dtype != np.float32 or not np.isfinite(value).all():
            raise problem(f"damaged: {name} is not an array of finite float32 numbers")
    mean, std, low, high = (arrays[name] for name in needed[-4:])
    if mean.ndim != 1 or mean.shape != std.shape or low.ndim != 1 or low.shape != high.shape:
        raise problem("observation_mean and observation_std must be [O], action_low and action_high [A]")
    if not (len(low) and len(mean) and (std > 0).all() and (low < high).all()):
        raise problem("there must be observations and actions, observation_std positive, action_low below action_high")

    networks: dict[str, Layers] = {}
    for prefix, depth in depths.items():
        layers = tuple((arrays[f"{prefix}weight_{i}"], arrays[f"{prefix}bias_{i}"]) for i in range(depth))
        free = prefix or "latents" in arrays or kind in SPLINES
        size = None if free else len(mean)  # None: whatever the first weight takes
        for i, (weight, bias) in enumerate(layers):
            if weight.ndim != 2 or weight.shape[1] != (size or weight.shape[1]) or bias.shape != weight.shape[:1]:
                raise problem(
                    f"{prefix}layer {i}: weight {list(weight.shape)} and bias {list(bias.shape)} do not fit"
                    f" {size or 'any'} inputs"
                )
            size = len(bias)
        networks[prefix] = layers
    constants = {name: value for name, value in arrays.items() if name not in needed}
    found = {it: (layers[0][0].shape[1], len(layers[-1][1])) for it, layers in networks.items()}
    found |= {name: value.shape for name, value in constants.items()}
    choices = 0
    if kind in OF_CHOICES:
        whole = low.shape == (1,) and (low == np.rint(low)).all() and (high == np.rint(high)).all()
        if not whole or high[0] - low[0] >= MAX_CHOICES:
            raise problem("action_low and action_high must be the first and the last choice, one whole number each")
        choices = int(high[0] - low[0]) + 1
    expected = _expected_sizes(kind, len(mean), len(low), choices, found)
    if found != expected:
        odd = sorted(it for it in found.keys() | expected.keys() if found.get(it) != expected.get(it))
        listed = "; ".join(f"{it or 'its network'}: {found.get(it)} instead of {expected.get(it)}" for it in odd)
        raise problem(f"a {kind} that does not fit actions of {len(low)} numbers ({listed})")
    try:
        metadata = json.loads(str(content["metadata"]))
    except (json.JSONDecodeError, RecursionError) as error:
        raise problem(f"damaged: its metadata is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise problem("damaged: its metadata is not a JSON object")
    known = _known(metadata, len(mean))
    if known is None:
        raise problem(f"damaged: trained_low and trained_high of its metadata are not {len(mean)} numbers each")
    stack = metadata.get("stack", 1)
    if not isinstance(stack, int) or stack < 1:
        raise problem(f"damaged: its stack is {stack!r}, not a number of observations")
    size, rest = divmod(len(mean) + len(low), stack)
    size -= len(low)
    if rest or size < 1:
        raise problem(f"damaged: {len(mean)} numbers are no history of {stack} observations")
    guards, count = None, np.zeros(size, np.int64)
    if ("guards" in metadata) != (str(content["version"]) == str(GUARDED_VERSION)):
        raise problem("damaged: files have guards if, and only if, they are of format 2")
    if "guards" in metadata:
        try:
            guards = _guards(metadata["guards"], size, len(low))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise problem(f"damaged: its guards are none ({error!r})") from error
    sizes = {} if guards is None else {name: size if name in ON_OBSERVATION else len(low) for name in BITS}
    counts = {name: np.zeros(it, np.int64) for name, it in sizes.items()}
    known = known[:, :size]
    return Policy(kind, networks, constants, mean, std, low, high, metadata, known, count, stack, {}, guards, counts)


def guards_json(guards: Guards) -> dict[str, Any]:
    """For `metadata["guards"]` of `save_policy`."""
    given = {name: getattr(guards, name) for name in Guards.__dataclass_fields__}
    return {
        name: [float(it) if np.isfinite(it) else None for it in value] if isinstance(value, np.ndarray) else value
        for name, value in given.items()
    }


def _guards(given: Mapping[str, Any], observations: int, actions: int) -> Guards:
    """What `guards_json` wrote. Raises whatever a mapping that is none leads to."""
    nothing: dict[str, Any] = {"fallback": np.nan, "constant": np.nan, "low": -np.inf, "high": np.inf, "rate": np.inf}

    def numbers(name: str) -> np.ndarray:
        return np.array([float(nothing[name] if it is None else it) for it in given[name]], np.float32)

    arrays = {name: numbers(name) for name in (*nothing, "action_low", "action_high")}
    missing, clamp = given["missing"], given["clamp"]
    sizes = {name: observations if name in ("constant", "low", "high") else actions for name in arrays}
    odd = [name for name, array in arrays.items() if array.shape != (sizes[name],)]
    if missing not in MISSING or not isinstance(clamp, bool) or odd:
        raise ValueError(", ".join(odd) or "missing or clamp")
    it = Guards(missing=missing, clamp=clamp, **arrays)
    ordered = (it.low <= it.high).all() and (it.action_low <= it.action_high).all() and (it.rate > 0).all()
    within = missing == "error" or ((it.action_low <= it.fallback) & (it.fallback <= it.action_high)).all()
    if not ordered or not within or not np.isfinite([it.action_low, it.action_high]).all():
        raise ValueError("bounds, rate or fallback")
    return it


def _known(metadata: Mapping[str, Any], size: int) -> np.ndarray | None:
    """`Policy.known`; None for ranges that are none. A range reaches FAR of its width farther, and by the rounding of a
    column that never varied.
    """
    if "trained_low" not in metadata and "trained_high" not in metadata:
        return np.array([[-np.inf], [np.inf]], np.float32).repeat(size, axis=1)
    try:
        low, high = (np.asarray(metadata.get(f"trained_{end}"), np.float64) for end in ("low", "high"))
    except (TypeError, ValueError):
        return None
    if low.shape != (size,) or high.shape != (size,) or not (low <= high).all():
        return None
    reach = np.maximum(FAR * (high - low), 1e-3 * np.maximum(np.abs(low), np.abs(high)))
    return np.stack([low - reach, high + reach]).astype(np.float32)


def _expected_sizes(
    kind: str, observations: int, actions: int, choices: int, found: Mapping[str, Any]
) -> dict[str, Any]:
    """(inputs, outputs) of each network and shapes of the other arrays. What a kind leaves free is as in `found`."""
    on_actions = observations + actions
    sizes: dict[str, Any] = {}
    if kind == "argmax":
        sizes |= {it: (observations, choices) for it in found if re.fullmatch(r"(q[1-9]\d*_|behavior_)?", it)}
        sizes |= dict.fromkeys({"epsilon", "behavior_weight", "log_threshold"} & found.keys(), ())
    elif kind == "tanh_mlp":
        sizes[""] = (observations, actions)
    elif kind == "tanh_mixture_mlp":
        sizes[""] = (observations, max(found[""][1] // (1 + actions), 1) * (1 + actions))
    elif kind == "tanh_factored_mixture_mlp":
        sizes[""] = (observations, max(found[""][1] // (2 * actions), 1) * 2 * actions)
    elif kind in SPLINES:
        bins = max((found[""][1] // actions - 1) // 3, 1)
        sizes |= {"": (on_actions, actions * (3 * bins + 1)), "log_std_range": (2,)}
        if kind == "best_of_spline":
            candidates = max((*found.get("noise", ()), 1)[0], 1)
            sizes |= {"noise": (candidates, actions), "critic_": (on_actions, 1)}
    elif kind == "flow":
        sizes |= {"": (observations, 2 * actions), "velocity_": (on_actions + 2, actions), "log_std_range": (2,)}
        sizes |= {"times": (min(max((*found.get("times", ()), 2)[0], 2), MAX_STEPS + 1),)}
    elif kind == "latent_decoder":
        latents = max(found[""][1], 1)
        sizes |= {"": (observations, latents), "decoder_": (observations + latents, actions), "max_latent": ()}
    elif kind == "best_of_gaussian":
        candidates = max((*found.get("noise", ()), 1)[0], 1)
        sizes |= {"": (observations, 2 * actions), "noise": (candidates, actions), "log_std_range": (2,)}
        sizes |= {"critic_": (on_actions, 1)}
    else:
        candidates, latents = (max(it, 1) for it in (*found.get("latents", ()), 1, 1)[:2])
        sizes |= {"": (observations + latents, actions), "latents": (candidates, latents), "critic_": (on_actions, 1)}
    if kind in ("latent_decoder", "best_of_decoder") and "perturbation_" in found:
        sizes |= {"perturbation_": (on_actions, actions), "phi": ()}
    return sizes
