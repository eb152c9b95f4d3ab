"""`itrpo train --continue-from RUN`: a new run on new data that begins with the networks of a finished one.

What is carried over, seed by seed: parameters and targets of all networks that the algorithm trains. What begins anew:
optimisers with their schedules, and pi_beta, which is fitted on the new data. What stays as it was, so that the old
policy means the same: normaliser, action bounds, scale of rewards, and constants that are not given.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from itrpo import files
from itrpo.config import RunConfig, leaves
from itrpo.errors import InputError
from itrpo.options import RunOptions
from itrpo.policy import Policy
from itrpo.results import checkpoint
from itrpo.results.store import read_provenance, read_status
from itrpo.training.configure import BEHAVIOR, AlgorithmSetup, make_setup
from itrpo.training.evaluate import load_policies
from itrpo.training.restore import read_config, recorded
from itrpo.training.scaling import algorithm_of, behavior_of
from itrpo.types import Dataset

# parts of a state that begin anew: models of the data, and an alpha that adapts, from the new run's `alpha` on;
# constants that a state keeps, which are the new run's; and PBRL's penalty, whose fall counts the new run's steps
ANEW = ("behavior_params", "cvae", "dynamics", "weight", "alpha", "threshold", "ood_weight", "records")
OPTIMIZER = "opt_state"


def read_parent(folder: Path, algorithm: str) -> RunConfig:
    """The configuration of a finished run. Raises InputError for one that can't be continued by this algorithm."""
    about = recorded(folder)
    if about.get("version", 1) != checkpoint.VERSION:
        raise InputError(f"{folder}: its checkpoints are of another version of itrpo; train it anew with this one")
    if about["config"]["algorithm"] != algorithm:
        own = about["config"]["algorithm"]
        raise InputError(f"{folder} is a run of {own}, and only {own} can continue it: give --algorithm {own}")
    status = read_status(folder)
    if status.state != "finished" or newest(folder) is None:
        raise InputError(
            f"{folder} is {status.state} (step {status.step:,} of {status.steps:,}): finish it first, by the command "
            f"that began it (`itrpo runs show {folder}`)"
        )
    return read_config(folder)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint of training."""
    found = checkpoint.sorted_checkpoints(folder / "checkpoints")[:1]
    return found[0] if found and found[0].name.startswith("train_") else None


def options_for(parent: RunConfig, options: RunOptions, folder: Path, read_already: bool) -> RunOptions:
    """Checked options, with what the old run says where nothing is given. Raises InputError for what can't change.

    Lengths and evaluations are the old run's too, unless a --scale is given.
    """
    for name, own in (("preset", parent.preset), ("behavior", parent.behavior)):
        if getattr(options, name) not in (None, own):
            raise InputError(f"--{name}: it stays {own}, as in {folder}; constants can be changed one by one")
    if options.normalize_observations not in (None, parent.data.normalize_observations):
        raise InputError(
            f"--normalize-observations: {folder} has it {str(parent.data.normalize_observations).lower()}; with "
            "another normaliser its policy would be another one"
        )
    given: dict[str, Any] = {
        "preset": parent.preset,
        "behavior": parent.behavior,
        "task": parent.data.task,
        "reward_scale": parent.data.reward_scale,
        "reward_shift": parent.data.reward_shift,
    }
    if not read_already:
        given |= {"stack": parent.data.stack, "action_low": parent.data.action_low}
        given |= {"action_high": parent.data.action_high, "num_actions": parent.data.num_actions}
    if options.scale is None:
        given |= {it: getattr(parent.train, it) for it in ("steps", "seeds", "behavior_steps")}
        given |= dataclasses.asdict(parent.evaluation)
    return dataclasses.replace(options, **{it: own for it, own in given.items() if getattr(options, it) is None})


def setup_for(parent: RunConfig, fields: Mapping[str, Any]) -> AlgorithmSetup:
    """The old run's constants, and the fields that are given. Raises InputError as `make_setup`."""
    own = {name: value for name, _, value in leaves(parent.algorithm_config)}
    if parent.behavior_config is not None:
        own |= {BEHAVIOR + name: value for name, _, value in leaves(parent.behavior_config)}
    setup = make_setup(
        parent.algorithm, preset=parent.preset, behavior=parent.behavior, fields=own | dict(fields), task=None
    )
    return setup._replace(scaled_fields=tuple(name for name in parent.scaled_fields if name not in fields))


def continued(parent: RunConfig, folder: Path, config: RunConfig, dataset: Dataset) -> RunConfig:
    """The new run's configuration, which says what it continues: all that its bits follow from besides its own data.

    Raises InputError if the old policies can't act on this data, or would not be what they were.
    """
    policies = load_policies(folder)
    first = policies[0]
    sizes = dataset.frame.observation_dim, len(dataset.action_low), dataset.num_actions, dataset.stack
    olds = first.frame, len(first.action_low), first.num_actions, first.stack
    for what, new, old in zip(
        ("numbers in an observation", "numbers in an action", "choices of an action", "--stack"),
        sizes,
        olds,
        strict=True,
    ):
        if new != old:
            raise InputError(f"{dataset.name} can't continue {folder}: {what}: {new} here, {old} there")
    for end, new, old in (
        ("low", dataset.action_low, first.action_low),
        ("high", dataset.action_high, first.action_high),
    ):
        if not np.array_equal(new, old):
            raise InputError(
                f"{dataset.name}: action_{end} is {new.tolist()}, and {old.tolist()} in {folder}; the policies of both "
                f"must act on one scale: read the data with --action-{end} {','.join(f'{it:g}' for it in old)}"
            )
    if config.train.seeds > len(policies):
        raise InputError(f"{folder} has {len(policies)} seeds: ask for --seeds {len(policies)} or fewer")
    found, status = newest(folder), read_status(folder)
    assert found is not None  # `read_parent` has seen it
    about = {
        "run": status.run,
        "dataset": parent.data.dataset,
        "dataset_sha256": read_provenance(folder).get("dataset_sha256"),
        "step": status.step,
        "seeds": len(policies),
        "checkpoint_sha256": files.read_json(found / "meta.json")["sha256"],
        "observation_mean": first.observation_mean.tolist(),
        "observation_std": first.observation_std.tolist(),
        "observation_low": first.metadata["trained_low"],
        "observation_high": first.metadata["trained_high"],
    }
    data = dataclasses.replace(
        config.data,
        normalize_observations=parent.data.normalize_observations,
        by_column=parent.data.by_column,
        parent=about,
    )
    config = dataclasses.replace(config, data=data)
    check_same_policy(folder, config, dataset, first)
    return config


def check_same_policy(folder: Path, config: RunConfig, dataset: Dataset, old: Policy) -> None:
    """Raises InputError unless the state that training begins with acts as the old policy does, to the bit."""
    behavior, key = behavior_of(config, dataset.spec, 1), jax.random.key(0)
    algorithm = algorithm_of(config, dataset.spec, behavior, config.train.steps)

    def begin() -> Any:
        return algorithm.init(key, None if behavior is None else behavior.params(behavior.init(key)))

    fresh = jax.tree.map(lambda leaf: np.asarray(leaf)[None], jax.jit(begin)())
    arrays = arrays_of(folder, config)
    state = carried(fresh, arrays, range(1), str(folder), relative=is_relative(config))
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), state)
    exported = algorithm.acting.export(state)
    for prefix, layers in old.networks.items():
        for place, layer in enumerate(layers):
            for name, value in zip(("weight", "bias"), layer, strict=True):
                if not np.array_equal(np.asarray(exported[f"{prefix}{name}_{place}"], np.float32), value):
                    raise InputError(
                        f"{config.algorithm} can't be continued on new data: its policy acts through the model of "
                        "pi_beta, which is fitted anew, so it would begin as another one; train it from the beginning"
                    )


def arrays_of(folder: Path, config: RunConfig) -> dict[str, np.ndarray]:
    """The old run's checkpoint. Raises InputError if it is not the one that the new run's configuration names."""
    return arrays_at(folder, (config.data.parent or {})["checkpoint_sha256"])


def arrays_at(folder: Path, sha256: str) -> dict[str, np.ndarray]:
    """The newest checkpoint of a run. Raises InputError if it has another SHA-256."""
    from safetensors.numpy import load

    place = newest(folder)
    content = b"" if place is None else (place / "arrays.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{folder}: its newest checkpoint is damaged, or has changed since its policy was read")
    return load(content)


def is_relative(config: RunConfig) -> bool:
    """Whether alpha is in units of |Q|."""
    return ("alpha_scale", "relative") in ((name, value) for name, _, value in leaves(config.algorithm_config))


def carried(
    state: Any,
    arrays: Mapping[str, np.ndarray],
    seeds: range,
    where: str,
    anew: tuple[str, ...] = ANEW,
    relative: bool = False,
) -> Any:
    """A fresh state [S, ...] with what is carried over, of the seeds with these indices: all but optimisers and `anew`.

    `relative`: an alpha in it is in units of the running mean of |y|, which is carried over.
    Raises InputError where networks differ in size.
    """
    own = checkpoint.flatten(state)
    for name, value in own.items():
        parts = name.split("/")
        if parts[0] in anew or OPTIMIZER in parts:
            continue
        old = arrays.get(f"state/{name}")
        if old is None or old.shape[1:] != value.shape[1:] or old.dtype != value.dtype:
            shape = "none" if old is None else list(old.shape[1:])
            raise InputError(
                f"{where}: {name} is {shape} there and {list(value.shape[1:])} here; networks keep their sizes"
            )
        own[name] = old[seeds.start : seeds.stop]
    if relative and "alpha" in own and "alpha" in anew:
        own["alpha"] = own["alpha"] * own["q_scale"]
    return checkpoint.unflatten(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state), own)


def changes(old: Path, new: Path, dataset: Dataset, rows: int = 1024) -> np.ndarray:
    """[S]: mean |new action - old action| over rows of the new data, as a share of the range of actions."""
    olds, news = load_policies(old), load_policies(new)
    stride = max(1, len(dataset) // rows)
    observation = dataset.transitions.observation[::stride][:rows]
    frame = observation[:, : olds[0].frame]
    found: list[float] = []
    for before, after in zip(olds[: len(news)], news, strict=True):
        for policy in (before, after):
            policy.reset()
        moved = np.abs(after.act(frame) - before.act(frame)) / (after.action_high - after.action_low)
        found.append(float(moved.mean()))
    return np.array(found)
