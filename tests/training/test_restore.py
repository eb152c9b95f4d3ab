"""A run's configuration and states, back from its folder. Nothing is trained."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from itrpo import files, registry
from itrpo.config import DataConfig, EvalConfig, RunConfig, TrainConfig, to_json
from itrpo.errors import InputError, StorageError
from itrpo.results import checkpoint
from itrpo.training import loop
from itrpo.training.configure import make_setup
from itrpo.training.restore import read_config, trained_states
from itrpo.types import SpaceSpec

SPEC = SpaceSpec(3, 2)


def written(folder: Path, algorithm: str, preset: str | None = None, **fields) -> RunConfig:
    data = DataConfig("log", "none", None, False, 1.0, 0.0, (-1.0, -2.0), (1.0, 2.0), holdout=0.2)
    setup = make_setup(algorithm, preset=preset, fields=fields)
    config = RunConfig(data, train=TrainConfig(10, 2, 0, None), evaluation=EvalConfig(1, 1), **setup.constants())
    about = {"config": to_json(config), "version": checkpoint.VERSION, "begun_steps": 10, "behavior_steps": 10}
    files.write_json(folder / "config.json", about)
    return config


def test_every_configuration_is_read_back_as_it_was(tmp_path):
    for name in registry.ALGORITHMS:
        for preset in registry.algorithm(name).presets:
            config = written(tmp_path, name, preset)
            assert read_config(tmp_path) == config, (name, preset)
    config = written(tmp_path, "itrpo", "paper", alpha=0.125, log_ratio_high=3.0, behavior_log_std_low=-4.0)
    assert read_config(tmp_path) == config
    assert config.algorithm_config.log_ratio_low == -np.inf  # JSON has no infinity


def test_states_are_those_of_the_newest_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"is no run: it has no config\.json"):
        read_config(tmp_path)
    config = written(tmp_path, "itrpo", "quick", policy_hidden=(4,), critic_hidden=(4,), behavior_hidden=(4,))
    with pytest.raises(InputError, match="has no whole checkpoint of training"):
        trained_states(tmp_path, SPEC)
    model = registry.BEHAVIOR_MODELS[config.behavior or ""]
    behavior = registry.resolve(model).make(config.behavior_config, SPEC, 10)
    algorithm = registry.algorithm("itrpo").make(config.algorithm_config, SPEC, behavior)
    keys = jax.random.split(jax.random.key(3), 2)
    params = jax.vmap(lambda key: behavior.params(behavior.init(key)))(keys)
    states = jax.vmap(algorithm.init)(keys, params)
    checkpoint.save(tmp_path / "checkpoints", "train", 7, loop.start(states, ["loss"]), {"seeds": 2})
    found, own, step = trained_states(tmp_path, SPEC)
    assert (step, len(own)) == (7, 2)
    assert found.acting.log_prob is not None
    for index, one in enumerate(own):
        expected = jax.tree.map(lambda leaf, index=index: leaf[index], states)
        assert jax.tree.structure(one) == jax.tree.structure(expected)
        for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    written(tmp_path, "itrpo", "quick", policy_hidden=(4,), critic_hidden=(5,), behavior_hidden=(4,))
    with pytest.raises(InputError, match="is of another version of itrpo"):
        trained_states(tmp_path, SPEC)


def test_a_file_imports_no_module_of_its_own_naming(tmp_path):
    written(tmp_path, "bc")
    about = files.read_json(tmp_path / "config.json")
    about["config"]["algorithm"] = "os:path"
    files.write_json(tmp_path / "config.json", about)
    with pytest.raises(InputError, match="whose module is imported only if you name it"):
        read_config(tmp_path)


def test_a_configuration_that_lacks_a_part_is_damaged(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {"algorithm": "td3_bc"}}')
    with pytest.raises(StorageError, match=r"config\.json: not the configuration of a run, or damaged"):
        read_config(tmp_path)
