"""The preset `quick`: the same shared constants for every algorithm, and a search that is fair."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import yaml

from itrpo import registry
from itrpo.algorithms.quick import CONSTANTS, WARM, WIDTHS
from itrpo.behavior import flow
from itrpo.config import leaves
from itrpo.training.configure import make_setup
from itrpo.types import RewardRule

PLANS = Path(registry.__file__).parent / "sweep" / "plans"
TUNING = yaml.safe_load((PLANS / "tuning.yaml").read_text())
WITHOUT_COLUMN = (
    "algae_dice",
    "bppo",
    "combo",
    "edac",
    "emaq",
    "fisher_brc",
    "itrpo_insample",
    "sac_n",
)  # in none of its tables
HELD = {"alpha": 1.0, "alpha_scale": "absolute", "divergence_target": 4.0}
IN_MAZES = {  # what an algorithm has of its own in medium and large mazes
    "brac_v": HELD,
    "brac_p": HELD,
    "itrpo": HELD,
    "iql": {"expectile": 0.9, "inverse_temperature": 10.0},
    "pbrl": {"ood_floor": -math.inf},  # returns are below 0
}
BRAC_FORMS = ("brac_p", "brac_mmd", "brac_wasserstein", "brac_dual_kl")  # the paper's column is brac_v
ENTRIES = {name: registry.lookup(name, registry.ALGORITHMS, "algorithm") for name in sorted(registry.ALGORITHMS)}


@pytest.mark.parametrize("name", ENTRIES)
def test_what_algorithms_share_is_the_same_in_all(name):
    setup, preset = make_setup(name, preset="quick", task="halfcheetah-random"), ENTRIES[name].presets["quick"]
    fields = leaves(setup.algorithm_config)
    warm = name == "bppo" or any(field == "warm_start" and value for field, _, value in fields)
    shared = {**CONSTANTS, **(WARM if warm else {})}
    for config in (setup.algorithm_config, setup.behavior_config):
        for field, _, value in leaves(config) if config is not None else ():
            assert value == shared.get(field, value), field
            if field.endswith("hidden"):
                assert value == WIDTHS, field
    assert make_setup(name, preset="quick", task="hopper-expert") == setup  # one setting for the paper's 15
    assert (preset.behavior_steps, preset.steps) == (1_000_000, 1_000_000)
    assert preset.normalize_observations
    assert preset.antmaze_normalize_observations


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.actions == "continuous"])
def test_in_mazes_a_step_costs_and_goals_are_far_for_all(name):
    assert ENTRIES[name].presets["quick"].antmaze_rewards == RewardRule(shift=-1.0)
    plain, maze = (make_setup(name, preset="quick", task=task) for task in ("hopper-medium", "antmaze-medium-diverse"))
    constants = [{field: value for field, _, value in leaves(it.algorithm_config)} for it in (plain, maze)]
    assert maze._replace(algorithm_config=plain.algorithm_config) == plain
    differ = {field: value for field, value in constants[1].items() if value != constants[0][field]}
    assert differ == ({} if name == "bc" else {"gamma": 0.999}) | IN_MAZES.get(name, {})


@pytest.mark.parametrize(("name", "alpha"), [("itrpo", 0.01), ("brac_v", 0.005), ("brac_p", 0.005)])
def test_in_the_small_maze_alpha_is_in_units_of_q(name, alpha):
    config = make_setup(name, preset="quick", task="antmaze-umaze-diverse").algorithm_config
    assert (config.alpha, config.backbone.alpha_scale, config.divergence_target) == (alpha, "relative", None)
    assert config.backbone.gamma == 0.999


def test_every_shared_constant_is_a_field_of_some_algorithm_or_model():
    models = [registry.resolve(dotted).config() for dotted in registry.BEHAVIOR_MODELS.values()]
    configs = [entry.presets["quick"].config for entry in ENTRIES.values()]
    assert set(CONSTANTS) <= {field for config in (*configs, *models) for field, _, _ in leaves(config)}


def test_another_model_of_pi_beta_has_the_shared_constants_too():
    given = {"warm_start": False}
    model = make_setup("itrpo", preset="quick", behavior="flow_matching", fields=given).behavior_config
    assert (model.hidden, model.ode_steps) == (WIDTHS, CONSTANTS["ode_steps"])
    assert make_setup("itrpo", preset="matched", behavior="flow", fields=given).behavior_config == flow.Config()


def configurations() -> dict[str, list[dict]]:
    """Algorithm -> the fields of each of its configurations in the search."""
    found: dict[str, list[dict]] = {}
    for label, arm in TUNING["arms"].items():
        grid = arm.get("grid", {})
        for values in itertools.product(*grid.values()):
            fields = arm.get("fields", {}) | dict(zip(grid, values, strict=True))
            found.setdefault(arm.get("algorithm", label), []).append(fields)
    return found


def test_every_algorithm_is_searched_as_much():
    found = configurations()
    assert {name: len(tried) for name, tried in found.items()} == {name: 1 if name == "bc" else 6 for name in found}
    choices = {name for name, entry in ENTRIES.items() if entry.actions == "discrete"}  # not searched yet
    assert set(found) == set(ENTRIES) - choices - {*BRAC_FORMS, *WITHOUT_COLUMN}
    assert not any("options" in arm for arm in TUNING["arms"].values())
    for name, tried in found.items():
        setups = [make_setup(name, preset="quick", fields=fields) for fields in tried]
        assert all(one != other for one, other in itertools.combinations(setups, 2))


def test_the_search_by_environment_has_the_same_arms():
    other = yaml.safe_load((PLANS / "tuned_by_environment.yaml").read_text())
    assert (other["arms"], other["options"]) == (TUNING["arms"], TUNING["options"])
    assert not set(other["datasets"]) & set(TUNING["datasets"])
