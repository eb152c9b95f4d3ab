"""A trained policy as one NPZ file that acts with NumPy alone.

    from itrpo.policy import load_policy
    policy = load_policy("runs/demo/seed0/policy.npz")
    action = policy(observation)

The file holds the network, the observation normaliser, the action scaling and the acting rule, and no code. This module
imports nothing of itrpo, so it can be copied next to a policy and used where itrpo is not installed.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT_VERSION = 1
DAMAGE = (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error)
ROWS_AT_ONCE = 64  # observations whose candidate actions are held in memory together
FAR = 0.5  # of the range of a column in training: what lies farther beyond it is outside

Layers = tuple[tuple[np.ndarray, np.ndarray], ...]  # (weight [out, in], bias [out]) float32, first to last


class PolicyFileError(ValueError):
    """The file is not a policy of ours, is damaged, or was written by a newer format."""


@dataclass(frozen=True)
class Policy:
    """The greedy policy of one seed. Calling it maps observations [..., O] to actions [..., A] in the dataset's
    units, and warns of observations far outside of the range that it was trained on: `outside` counts them.

    A policy of `stack` K > 1 keeps what it has seen and done, one history for each of [...]: call `reset` where an
    episode begins, and then with each observation once. Before the first stand its repetitions and actions in the
    middle of their range.
    """

    kind: str  # acting rule, see `save_policy`
    networks: dict[str, Layers]  # ReLU networks, by what stands before "weight_0" in the file
    constants: dict[str, np.ndarray]  # other arrays of the acting rule, float32
    observation_mean: np.ndarray  # [O] float32; with a history [K O + (K - 1) A]
    observation_std: np.ndarray  # the same
    action_low: np.ndarray  # [A] float32: the action that the network's -1 stands for
    action_high: np.ndarray  # [A] float32: the action that the network's +1 stands for
    metadata: dict[str, Any]  # environment, dataset, algorithm, version, trained_low and _high in training, ...
    known: np.ndarray  # [2, O] float32: what is outside lies below or above; infinite where the file does not say
    outside: np.ndarray  # [O] int64: how many observations were outside, by column, since the policy was loaded
    stack: int  # K: observations in a row, with the actions between them, that the network sees; then O is of one
    past: dict[str, np.ndarray]  # with K > 1: "observations" [..., K, O] and "actions" [..., K - 1, A], newest first

    def __call__(self, observation: Any) -> np.ndarray:
        """As `act`, with a RuntimeWarning for each column when it is outside for the first time."""
        action = self.act(observation)
        raw = np.asarray(observation, np.float32)
        within = (self.known[0] <= raw) & (raw <= self.known[1])
        if not within.all():
            self._warn(raw.reshape(-1, raw.shape[-1]), ~within.reshape(-1, raw.shape[-1]))
        return action

    def _warn(self, rows: np.ndarray, outside: np.ndarray) -> None:
        low, high = self.metadata["trained_low"], self.metadata["trained_high"]
        names = self.metadata.get("observation_names") or [""] * len(low)
        for column in np.flatnonzero(outside.any(axis=0) & (self.outside == 0)):
            value = rows[outside[:, column], column][0]
            named = f"observation {column}" + (f" ({names[column]})" if names[column] else "")
            warnings.warn(
                f"{named} is {value:.6g}, and in training it was from {low[column]:.6g} to"
                f" {high[column]:.6g}: the policy has not learned how to act there",
                RuntimeWarning,
                stacklevel=3,
            )
        self.outside[:] += outside.sum(axis=0)

    def act(self, observation: Any) -> np.ndarray:
        """Actions [..., A] float32 for raw observations [..., O]. Raises ValueError for another last dimension, and
        with a history for others than those before.
        """
        raw = np.asarray(observation, np.float32)
        if raw.ndim == 0 or raw.shape[-1] != self.frame:
            raise ValueError(f"observations must be [..., {self.frame}], not {list(raw.shape)}")
        seen = raw if self.stack == 1 else self._history(raw)
        rows = ((seen - self.observation_mean) / self.observation_std).reshape(-1, seen.shape[-1])
        action = KINDS[self.kind](self, rows).reshape(*raw.shape[:-1], len(self.action_low))
        if self.stack > 1:
            self.past["actions"] = np.concatenate([action[..., None, :], self.past["actions"][..., :-1, :]], axis=-2)
        center, half_range = (self.action_high + self.action_low) / 2, (self.action_high - self.action_low) / 2
        return center + half_range * action

    def reset(self) -> None:
        """Forgets what was seen and done: an episode begins."""
        self.past.clear()

    @property
    def frame(self) -> int:
        """O, the size of one observation."""
        actions = len(self.action_low)
        return (len(self.observation_mean) + actions) // self.stack - actions

    def _history(self, raw: np.ndarray) -> np.ndarray:
        """[..., K O + (K - 1) A]: remembers `raw`, and gives what is remembered."""
        if not self.past:
            self.past["observations"] = np.repeat(raw[..., None, :], self.stack, axis=-2)
            self.past["actions"] = np.zeros((*raw.shape[:-1], self.stack - 1, len(self.action_low)), np.float32)
        before = self.past["observations"]
        if before.shape[:-2] != raw.shape[:-1]:
            raise ValueError(
                f"observations {list(raw.shape)} after {[*before.shape[:-2], self.frame]}: this policy keeps a history;"
                " call reset() before those of other episodes"
            )
        self.past["observations"] = np.concatenate([raw[..., None, :], before[..., :-1, :]], axis=-2)
        parts = (self.past["observations"], self.past["actions"])
        return np.concatenate([it.reshape(*raw.shape[:-1], -1) for it in parts], axis=-1)


# --- acting rules: normalised observations [R, O] -> actions [R, A] in [-1, 1] ----------------------------------------

Acting = Callable[[Policy, np.ndarray], np.ndarray]


def _tanh_mlp(policy: Policy, rows: np.ndarray) -> np.ndarray:
    return np.tanh(_forward(policy.networks[""], rows))


def _tanh_mixture_mlp(policy: Policy, rows: np.ndarray) -> np.ndarray:
    output, action_dim = _forward(policy.networks[""], rows), len(policy.action_low)
    components = output.shape[1] // (1 + action_dim)
    means = output[:, components:].reshape(-1, components, action_dim)
    return np.tanh(_choose(means, output[:, :components]))


def _tanh_factored_mixture_mlp(policy: Policy, rows: np.ndarray) -> np.ndarray:
    output = _forward(policy.networks[""], rows).reshape(len(rows), 2, len(policy.action_low), -1)
    logits, means = output[:, 0], output[:, 1]  # [R, A, K]
    return np.tanh(np.take_along_axis(means, logits.argmax(axis=2)[..., None], axis=2)[..., 0])


def _latent_decoder(policy: Policy, rows: np.ndarray) -> np.ndarray:
    latent = policy.constants["max_latent"] * np.tanh(_forward(policy.networks[""], rows))
    return _perturbed(policy, rows, np.tanh(_joined(policy.networks["decoder_"], rows, latent[:, None])))[:, 0]


def _best_of(candidates: Acting) -> Acting:
    """The candidate of the largest critic(s, a), for a few rows at a time: candidates of all rows at once would not fit
    into the processor's cache.
    """

    def act(policy: Policy, rows: np.ndarray) -> np.ndarray:
        chosen: list[np.ndarray] = []
        for start in range(0, max(len(rows), 1), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            actions = candidates(policy, some)
            chosen.append(_choose(actions, _joined(policy.networks["critic_"], some, actions)[..., 0]))
        return np.concatenate(chosen)

    return act


def _gaussian_samples(policy: Policy, rows: np.ndarray) -> np.ndarray:
    mean, log_std = np.split(_forward(policy.networks[""], rows)[:, None], 2, axis=-1)
    std = np.exp(np.clip(log_std, *policy.constants["log_std_range"]))
    return np.tanh(mean + std * policy.constants["noise"])


def _decoded(policy: Policy, rows: np.ndarray) -> np.ndarray:
    return _perturbed(policy, rows, np.tanh(_joined(policy.networks[""], rows, policy.constants["latents"])))


KINDS: dict[str, Acting] = {
    "tanh_mlp": _tanh_mlp,
    "tanh_mixture_mlp": _tanh_mixture_mlp,
    "tanh_factored_mixture_mlp": _tanh_factored_mixture_mlp,
    "latent_decoder": _latent_decoder,
    "best_of_gaussian": _best_of(_gaussian_samples),
    "best_of_decoder": _best_of(_decoded),
}


def _forward(layers: Layers, inputs: np.ndarray) -> np.ndarray:
    """A ReLU network: [R, in] -> [R, out]."""
    weight, bias = layers[0]
    output = inputs @ weight.T + bias
    for weight, bias in layers[1:]:
        output = np.maximum(output, 0.0) @ weight.T + bias
    return output


def _joined(layers: Layers, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A ReLU network of [row, other] for rows [R, O] with n others each, [R, n, K] or the same [n, K]: -> [R, n, out].

    What the first layer makes of a row is computed once for its n others.
    """
    (weight, bias), split = layers[0], rows.shape[1]
    first = (rows @ weight[:, :split].T + bias)[:, None] + others @ weight[:, split:].T
    output = first if len(layers) == 1 else _forward(layers[1:], np.maximum(first, 0.0).reshape(-1, len(bias)))
    return output.reshape(*first.shape[:2], len(layers[-1][1]))


def _perturbed(policy: Policy, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """actions [R, n, A] moved by at most phi, where the policy has a network for it."""
    if "perturbation_" not in policy.networks:
        return actions
    moved = policy.constants["phi"] * np.tanh(_joined(policy.networks["perturbation_"], rows, actions))
    return np.clip(actions + moved, -1.0, 1.0)


def _choose(options: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of options [R, n, A] the one of the largest value [R, n]: [R, A]."""
    return np.take_along_axis(options, values.argmax(axis=1)[:, None, None], axis=1)[:, 0]


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
    - "tanh_mlp": the network gives the mean [A] of the pre-tanh Gaussian; the action is its tanh;
    - "tanh_mixture_mlp": it gives K logits, then K means [A]; the action is the tanh of the mean of the heaviest;
    - "tanh_factored_mixture_mlp": logits [A, K], then means [A, K]: the same in each dimension by itself;
    - "latent_decoder" (PLAS): it gives [L], z is max_latent times its tanh; the action is tanh(decoder(s, z));
    - "best_of_gaussian" (BEAR, UWAC): it gives mean and log_std, clipped to log_std_range [2]. Of the candidates
      tanh(mean + std * noise_j), noise [n, A], the action is the one with the largest critic(s, a);
    - "best_of_decoder" (BCQ): the same for the candidates tanh(network(s, z_j)), latents z [n, L].
    "latent_decoder" and "best_of_decoder" may have a network "perturbation_" and a number phi: then an action a becomes
    clip(a + phi * tanh(perturbation(s, a)), -1, 1) before anything else is done with it.
    The network sees (observation - observation_mean) / observation_std, both [O]; its actions -1 and +1 become
    `action_low` and `action_high`, both [A]. `metadata` must be JSON; if its "stack" is K > 1, O above is of a history:
    the newest K observations, then the K - 1 actions between them in [-1, 1], newest first. Raises PolicyFileError if
    the parts do not fit each other.
    """
    arrays = {name: np.asarray(value, np.float32) for name, value in export.items() if name != "kind"}
    arrays |= {
        "observation_mean": np.asarray(observation_mean, np.float32),
        "observation_std": np.asarray(observation_std, np.float32),
        "action_low": np.asarray(action_low, np.float32),
        "action_high": np.asarray(action_high, np.float32),
    }
    texts = {"kind": export["kind"], "metadata": json.dumps(dict(metadata), allow_nan=False)}
    content = arrays | {name: np.array(text) for name, text in texts.items()} | {"version": np.array(FORMAT_VERSION)}
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
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as entries:
            content = {name: entries[name] for name in entries.files}
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise PolicyFileError(f"{path}: not a policy file, or damaged ({error})") from error
    return _parse(Path(path), content)


def _parse(path: Path, content: Mapping[str, np.ndarray]) -> Policy:
    """The one check of a file's content, before it is written and after it is read."""

    def problem(text: str) -> PolicyFileError:
        return PolicyFileError(f"{path}: {text}")

    if "version" not in content or "kind" not in content:
        raise problem("not a policy file (it lacks 'version' or 'kind')")
    if str(content["version"]) != str(FORMAT_VERSION):
        raise problem(f"policy format {content['version']}; this version of itrpo reads format {FORMAT_VERSION}")
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
    if not ((std > 0).all() and (low < high).all()):
        raise problem("observation_std must be positive and action_low below action_high")

    networks: dict[str, Layers] = {}
    for prefix, depth in depths.items():
        layers = tuple((arrays[f"{prefix}weight_{i}"], arrays[f"{prefix}bias_{i}"]) for i in range(depth))
        size = None if prefix or "latents" in arrays else len(mean)  # None: whatever the first weight takes
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
    expected = _expected_sizes(kind, len(mean), len(low), found)
    if found != expected:
        odd = sorted(it for it in found.keys() | expected.keys() if found.get(it) != expected.get(it))
        listed = "; ".join(f"{it or 'its network'}: {found.get(it)} instead of {expected.get(it)}" for it in odd)
        raise problem(f"a {kind} that does not fit actions of {len(low)} numbers ({listed})")
    try:
        metadata = json.loads(str(content["metadata"]))
    except json.JSONDecodeError as error:
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
    count = np.zeros(size, np.int64)
    return Policy(kind, networks, constants, mean, std, low, high, metadata, known[:, :size], count, stack, {})


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


def _expected_sizes(kind: str, observations: int, actions: int, found: Mapping[str, Any]) -> dict[str, Any]:
    """(inputs, outputs) of each network and shapes of the other arrays. What a kind leaves free is as in `found`."""
    on_actions = observations + actions
    sizes: dict[str, Any] = {}
    if kind == "tanh_mlp":
        sizes[""] = (observations, actions)
    elif kind == "tanh_mixture_mlp":
        sizes[""] = (observations, max(found[""][1] // (1 + actions), 1) * (1 + actions))
    elif kind == "tanh_factored_mixture_mlp":
        sizes[""] = (observations, max(found[""][1] // (2 * actions), 1) * 2 * actions)
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
