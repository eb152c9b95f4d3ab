"""What the folder of a run remembers of it: its configuration, its data, and lengths from when it began."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from itrpo.config import RunConfig, leaves, to_json
from itrpo.console import say
from itrpo.evaluation.environments import logged_score
from itrpo.results.run_folder import RunFolder
from itrpo.training.scaling import behavior_steps, scaled_config
from itrpo.types import Dataset

if TYPE_CHECKING:
    from rich.console import Console


def begin_or_continue(folder: RunFolder, config: RunConfig, dataset: Dataset, console: Console) -> dict[str, Any]:
    """-> steps of pi_beta's fit, and steps that the run began with: what scales with a run's length is as it was at the
    beginning, however many more steps a run that is continued is given. What that is, is said.

    Raises InputError for the folder of another run, and for less than it has done.
    """
    fit_steps, reached = behavior_steps(config), folder.reached()
    done = {"train.steps": reached["step"]} if reached.get("phase") == "train" else {}
    lengths = folder.begin_or_continue(
        "config",
        to_json(config),
        console,
        reader="itrpo evaluate",
        free=("train.steps", "train.seeds", "data.dataset"),
        least=done | ({"train.seeds": reached["seeds"]} if "seeds" in reached else {}),
        lasting={"behavior_steps": fit_steps, "begun_steps": config.train.steps},
        about={"dataset_sha256": dataset.source.sha256, "dataset": describe(dataset)},
    )
    begun, steps = lengths["begun_steps"], config.train.steps
    fresh = {name: value for name, _, value in leaves(scaled_config(config, steps))}
    kept = {name: value for name, _, value in leaves(scaled_config(config, begun))}
    if config.behavior is not None:
        fresh["steps of pi_beta's fit"], kept["steps of pi_beta's fit"] = fit_steps, lengths["behavior_steps"]
    said = [f"{name} {value:,} (not {fresh[name]:,})" for name, value in kept.items() if value != fresh[name]]
    if said:
        say(
            console,
            f"this run began as one of {begun:,} steps, and keeps what follows from that length: {', '.join(said)}; a "
            f"run of {steps:,} steps from the beginning is another one: give it another --out",
        )
    return lengths


OBSERVATION_DIMENSIONS = 200  # of more, means and deviations are not kept


def describe(dataset: Dataset) -> dict[str, Any]:
    """What a report needs to know of the dataset once its file is gone."""
    returns, own = dataset.episode_returns, dataset.reference
    about: dict[str, Any] = {
        "name": dataset.name,
        "source": dataclasses.asdict(dataset.source),
        "env_id": dataset.env_id,
        "transitions": len(dataset),
        "episodes": len(returns),
    } | ({} if own is None else {"reference": own})
    if len(returns):
        about |= {"return_mean": returns.mean(), "return_std": returns.std(), "return_max": returns.max()}
        about["length_mean"] = dataset.episode_lengths.mean()
        score = logged_score(dataset.env_id, returns.mean(), own) if dataset.env_id else None
        if score is not None:
            about["score_mean"] = float(score)
    size = dataset.frame.observation_dim
    if size <= OBSERVATION_DIMENSIONS:
        for name, values in zip(("mean", "std"), dataset.observation_moments, strict=True):
            about[f"observation_{name}"] = [float(f"{it:.6g}") for it in values[:size]]
    return about
