"""Values that come from Python: what fits is taken, what does not is one sentence."""

from __future__ import annotations

import hashlib
import json

import gymnasium
import numpy as np
import polars
import pytest

import itrpo
from itrpo import RunOptions, registry
from itrpo.config import config_hash, differences, to_json
from itrpo.errors import InputError
from itrpo.training.configure import check_options, complete, make_config
from itrpo.types import Dataset


def test_numbers_of_numpy_are_numbers():
    options = check_options(RunOptions(steps=np.int64(20), seeds=np.float32(2), action_low=np.array([-2.0, -1.0])), "x")
    assert (options.steps, options.seeds, options.action_low) == (20, 2, (-2.0, -1.0))
    assert [type(options.steps), type(options.seeds)] == [int, int]
    setup = make_config("itrpo", fields={"alpha": np.float64(0.25), "batch_size": np.int32(64), "warm_start": np.True_})
    assert type(setup.algorithm_config.alpha) is float
    assert setup.algorithm_config.backbone.warm_start is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RunOptions(steps=20.5), "steps must be a whole number, got 20.5"),
        (RunOptions(steps=0), "steps must be at least 1, got 0"),
        (RunOptions(seed=2**31), "seed must be in"),
        (RunOptions(seeds=True), "seeds must be a whole number, got True"),
        (RunOptions(normalize_observations="yes"), "normalize_observations must be true or false, got 'yes'"),
        (RunOptions(reward_scale=np.nan), "reward_scale must be a number, got nan"),
        (RunOptions(scale="laptp"), "did you mean 'laptop'?"),
        (RunOptions(track="wandb"), "track must be a list"),
        (RunOptions(env=gymnasium.make("Pendulum-v1")), "env must be the id of an environment, such as env.spec.id"),
        ({"steps": 5}, "options must be itrpo.RunOptions"),
        ("laptop", "options must be itrpo.RunOptions"),
        (RunOptions(max_gap="soon"), "max_gap must be a time such as 30s, 5m"),
        (RunOptions(fill="zero"), "fill must be one of previous, interpolate, drop"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")) as error:
        itrpo.train("x.hdf5", "bc", options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dataset", [[], gymnasium.make("Pendulum-v1"), 3, None])
def test_what_is_no_dataset_is_one_sentence(dataset):
    for call in (itrpo.train, itrpo.compare):
        with pytest.raises(InputError, match=f"dataset must be a name.*{type(dataset).__name__}"):
            call(dataset)


def test_names_of_compare_are_a_list():
    with pytest.raises(InputError, match="algorithms must be a list of names"):
        itrpo.compare("x.hdf5", "bc")


def test_what_is_given_is_what_a_run_is_made_of(pendulum):
    """Also values that are false: 0 and False are not 'not given'."""
    dataset: Dataset = itrpo.load_dataset(pendulum, action_low=-2.0, action_high=2.0)
    setup = make_config("td3_bc")
    options = check_options(RunOptions("smoke", seeds=3, reward_shift=0.0, normalize_observations=False), dataset)
    config = complete(setup, options, dataset)
    assert (config.train.steps, config.train.seeds, config.evaluation.eval_every) == (300, 3, 100)
    assert (config.data.normalize_observations, config.data.reward_shift) == (False, 0.0)
    assert complete(setup, RunOptions(), dataset).data.normalize_observations is True


def test_other_columns_of_the_same_file_are_another_run(tmp_path):
    rng = np.random.default_rng(0)
    table = polars.DataFrame({name: rng.uniform(-1, 1, 20) for name in ("a", "b", "c", "u", "r")})
    table.with_columns(end=polars.Series([0] * 20)).write_csv(tmp_path / "log.csv")
    setup, configs = make_config("td3_bc"), []
    for observations in (["a", "b"], ["b", "c"]):
        columns = {"observations": observations, "actions": "u", "rewards": "r", "terminals": "end", "timeouts": "none"}
        configs.append(complete(setup, RunOptions(), itrpo.load_dataset(tmp_path / "log.csv", columns=columns)))
    assert config_hash(configs[0]) != config_hash(configs[1])
    assert differences(to_json(configs[0]), to_json(configs[1])) == [
        "data.columns.observations: ['a', 'b'] -> ['b', 'c']"
    ]


def test_other_rules_for_the_same_file_are_another_run():
    """And '60s' is '1m'. Without rules a run's name is what it was before there were any."""
    rows = {name: [0.0, 0.5, 1.0, 0.25] for name in ("s", "a", "r")} | {"t": [0.0, 60.0, 120.0, 600.0]}
    columns = {"observations": "s", "actions": "a", "rewards": "r", "terminals": "none", "time": "t"}
    setup, hashes = make_config("td3_bc"), list[str]()
    for rules in ({"max_gap": "1m"}, {"max_gap": "60s"}, {"max_gap": "2m"}, {"max_gap": "1m", "fill": "previous"}):
        dataset = itrpo.load_dataset(polars.DataFrame(rows), columns=columns, **rules)  # pyright: ignore[reportArgumentType]
        config = complete(setup, RunOptions(), dataset)
        assert config.data.rules == {"max_gap": 120.0 if rules["max_gap"] == "2m" else 60.0} | (
            {"fill": "previous"} if "fill" in rules else {}
        )
        hashes.append(config_hash(config))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    plain = itrpo.load_dataset(polars.DataFrame(rows), columns=columns | {"timeouts": "none"})
    values = to_json(complete(setup, RunOptions(), plain))
    assert values["data"].pop("rules") is None
    del values["train"]["steps"], values["train"]["seeds"]
    before = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    assert config_hash(complete(setup, RunOptions(), plain)) == before
    with pytest.raises(InputError, match="fill: give it to load_dataset; here the dataset is read already"):
        check_options(RunOptions(fill="previous"), plain)


def test_the_scale_decides_on_the_preset_where_none_is_given(monkeypatch):
    for name in ("itrpo", "td3_bc", "bc"):
        presets = {scale: make_config(name, scale=scale).preset for scale in ("smoke", "laptop", "paper")}
        assert presets == {"smoke": "quick", "laptop": "quick", "paper": "source"}
        assert make_config(name, preset="matched", scale="laptop").preset == "matched"
    entry = registry.algorithm("td3_bc")
    only = entry._replace(presets={"matched": entry.presets["matched"]}, default_preset="matched")
    monkeypatch.setattr(registry, "algorithm", lambda name: only)
    assert make_config("td3_bc", scale="laptop").preset == "matched"
