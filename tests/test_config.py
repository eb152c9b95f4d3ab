"""Fields by name, text to values, JSON there and back, identity."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from itrpo import config, registry
from itrpo.algorithms.itrpo import Config
from itrpo.errors import InputError
from itrpo.training.configure import make_setup


def test_override_reaches_nested_fields_by_their_own_name():
    changed = config.override(
        Config(), {"alpha": np.float32(0.25), "critic_hidden": [64, 32], "warm_start": np.True_, "kl": "sampled"}, "x"
    )
    assert (changed.alpha, changed.backbone.critic_hidden, changed.backbone.warm_start) == (0.25, (64, 32), True)
    assert changed.backbone.kl == "sampled"
    assert replace(changed, backbone=Config().backbone, alpha=0.9) == Config()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("alfa", 1, "did you mean 'alpha'"),
        ("alpha", "x", "alpha must be a number, got 'x'"),
        ("alpha", math.nan, "must be a number"),
        ("batch_size", 1.5, "batch_size must be a whole number, got 1.5"),
        ("warm_start", "yes", "warm_start must be true or false, got 'yes'"),
        ("kl", "exact", "closed_form"),
    ],
)
def test_a_bad_value_names_field_and_type(field, value, words):
    with pytest.raises(InputError, match=words):
        config.override(Config(), {field: value}, "algorithm itrpo")


def test_infinity_is_a_value():
    assert config.override(Config(), {"log_ratio_low": -math.inf}, "x").log_ratio_low == -math.inf


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_every_field_of_every_preset_is_in_its_json(name):
    """So that two runs with different constants never share a hash."""
    entry = registry.lookup(name, registry.ALGORITHMS, "algorithm")
    for preset in entry.presets.values():
        text = json.dumps(config.to_json(preset.config), allow_nan=False)
        for field, kind, value in config.leaves(preset.config):
            changed = "other" if isinstance(value, str) else (1, 2, 3, 4) if isinstance(value, tuple) else value is None
            if isinstance(value, bool | int | float):
                changed = not value if isinstance(value, bool) else -value or 1
            other = config.to_json(config.replace_leaves(preset.config, {field: changed}))
            assert json.dumps(other, allow_nan=False) != text, (field, kind)


def test_a_long_value_is_not_repeated_in_an_error():
    assert config.got([1, 2]) == "[1, 2]"
    assert config.got(list(range(100_000))) == "an object of type list"


def test_field_names_are_unique_within_a_config():
    for name in registry.ALGORITHMS:
        names = [it for it, _, _ in config.leaves(registry.lookup(name, registry.ALGORITHMS, "algorithm").config())]
        assert len(names) == len(set(names))
        assert not any(it.startswith("behavior_") for it in names)  # that prefix is the behaviour model's


def run_config(algorithm: str, **choices: Any) -> config.RunConfig:
    data = config.DataConfig("x", "none", None, False, 1.0, 0.0, (-1.0,), (1.0,))
    train, evaluation = config.TrainConfig(1_000_000, 4, 0, None), config.EvalConfig(5_000, 10)
    return config.RunConfig(data, train=train, evaluation=evaluation, **make_setup(algorithm, **choices).constants())


def test_identity_covers_everything_but_the_length():
    base = run_config("itrpo")
    longer = replace(base, train=replace(base.train, steps=5))
    assert config.config_hash(longer) == config.config_hash(base)
    for other in (
        run_config("itrpo", fields={"tau": 0.4}),
        run_config("itrpo", fields={"behavior_hidden": (256, 256, 256), "warm_start": False}),
        replace(base, train=replace(base.train, seed=1)),
        replace(base, evaluation=replace(base.evaluation, eval_every=7)),
    ):
        assert config.config_hash(other) != config.config_hash(base)


@dataclass(frozen=True)
class Plain:
    alpha: float = 1.0  # its weight
    beta: float = 2.0


@dataclass(frozen=True)
class Derived(Plain):
    gamma: float = 0.9  # per step

    def twice(self) -> float:
        local: float = 2.0  # no field
        return local * self.gamma


def test_fields_that_a_class_inherits_keep_their_descriptions():
    assert config.descriptions(Derived) == {"alpha": "its weight", "beta": "", "gamma": "per step"}


def test_a_class_from_a_prompt_has_fields_without_descriptions():
    names: dict[str, Any] = {}
    exec("from dataclasses import dataclass\n@dataclass\nclass Typed:\n    alpha: float", names)
    assert config.descriptions(names["Typed"]) == {"alpha": ""}
