"""The preset `quick`, the same for every algorithm: constants for runs of ten thousand steps, not a million (ours).

Values travel 1 / (1 - gamma) steps back through targets that lag by 1 / polyak_rate updates: at 0.005 that alone takes
20,000 updates, and Q is far too low until then. Networks of a quarter of the weights leave time for more updates, and
so do fewer sampled actions and masks. Observations are normalised, without which the actor ruins what cloning had on
HalfCheetah. Measured in docs/experiments.md and docs/tuning.md.

What an algorithm's equations and sources say otherwise stays, but for two things: constants differ by kind of task
alone, and whatever model of the data is fitted first is fitted for as long as the run. The few constants that an
algorithm has for itself come from one search, the same for all: docs/tuning.md, which says whose have been chosen so
far. In AntMaze, where a goal is some hundred steps away, every step that is not at it costs 1 and gamma is 0.999.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itrpo.config import replace_leaves
from itrpo.types import Preset, RewardRule

WIDTHS = (128, 128)
CONSTANTS: Mapping[str, Any] = {  # of the fields that an algorithm, or its model of the data, has
    "polyak_rate": 0.03,
    "batch_size": 256,
    "policy_learning_rate": 1e-3,  # of an actor that starts anywhere; where it starts at pi_beta: WARM
    "critic_learning_rate": 1e-3,
    "value_learning_rate": 1e-3,  # IQL's V is as quick as its Q
    "cvae_learning_rate": 1e-3,  # of a model that learns beside the rest: the rate of those that are fitted first
    "fit_learning_rate": 1e-3,
    "fit_batch_size": 256,
    "policy_hidden": WIDTHS,
    "critic_hidden": WIDTHS,
    "value_hidden": WIDTHS,
    "cvae_hidden": WIDTHS,
    "dynamics_hidden": WIDTHS,
    "hidden": WIDTHS,  # of BC's policy, and of every model that is fitted first
    "critic_layer_norm": True,
    "conservative_actions": 4,  # CQL, COMBO: 10
    "ood_actions": 4,  # PBRL: 10
    "target_actions": 4,  # BEAR, UWAC, BCQ: 10
    "acting_actions": 10,  # BEAR, UWAC, BCQ: 100; BEAR's older code and BCQ's paper: 10
    "ode_steps": 5,  # of flow matching's log-density: 10
    "masks": 10,  # UWAC: 100; its authors' 10 to 20 for trials
}

WARM = {"policy_learning_rate": 3e-4}  # of an actor that starts as a copy of pi_beta: cloning is behind it


def quick(preset: Preset, own: Mapping[str, Any], tasks: str | None = "quick") -> Preset:
    """The preset `quick` of an algorithm whose `matched`, or another, is `preset`; `own` are fields of its own.

    tasks: the file of its constants in AntMaze; None: it has none, such as where there is no gamma.
    """
    model = preset.behavior_config
    return preset._replace(
        config=replace_leaves(preset.config, {**CONSTANTS, **own}),
        behavior_config=None if model is None else replace_leaves(model, CONSTANTS),
        behavior_steps=preset.steps,
        normalize_observations=True,
        antmaze_normalize_observations=True,
        antmaze_rewards=RewardRule(shift=-1.0),
        tasks=tasks,
        model_constants=CONSTANTS,
    )
