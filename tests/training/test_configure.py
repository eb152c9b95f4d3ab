"""Values that come from Python: what fits is taken, what does not is one sentence."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields, make_dataclass, replace

import gymnasium
import numpy as np
import polars
import pytest

import itrpo
from itrpo import RunOptions, registry
from itrpo.config import config_hash, differences, to_json
from itrpo.data.actions import on_a_bound
from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.errors import InputError
from itrpo.training.configure import (
    check_options,
    complete,
    make_setup,
)
from itrpo.training.outlook import actions_in_words, mazes_in_words, observations_in_words
from itrpo.types import Dataset


def test_numbers_of_numpy_are_numbers():
    options = check_options(RunOptions(steps=np.int64(20), seeds=np.float32(2), action_low=np.array([-2.0, -1.0])), "x")
    assert (options.steps, options.seeds, options.action_low) == (20, 2, (-2.0, -1.0))
    assert [type(options.steps), type(options.seeds)] == [int, int]
    setup = make_setup("itrpo", fields={"alpha": np.float64(0.25), "batch_size": np.int32(64), "warm_start": np.True_})
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
    setup = make_setup("td3_bc")
    options = check_options(RunOptions("smoke", seeds=3, reward_shift=0.0, normalize_observations=False), dataset)
    config = complete(setup, options, dataset)
    assert (config.train.steps, config.train.seeds, config.evaluation.eval_every) == (300, 3, 100)
    assert (config.data.normalize_observations, config.data.reward_shift) == (False, 0.0)
    assert complete(setup, RunOptions(), dataset).data.normalize_observations is True


def plant(**changed):
    """A log in engineering units: temperature, pressure (constant), valve."""
    rng = np.random.default_rng(0)
    observations = np.stack([350 + 20 * rng.normal(size=50), np.full(50, 2.0)], axis=1)
    rewards, flags = rng.normal(size=50), np.zeros(50, bool)
    actions = rng.uniform(-1, 1, (50, 1))
    log = {"observations": observations, "actions": actions, "rewards": rewards, "terminals": flags, "timeouts": flags}
    return itrpo.load_dataset(log | changed)


def test_data_of_ones_own_are_normalised_where_scales_differ():
    setup, unlike = make_setup("iql", preset="source"), plant()
    alike = plant(observations=np.random.default_rng(1).normal(size=(50, 2)))
    for dataset, given, expected in (
        (unlike, {}, (True, True)),
        (alike, {}, (False, None)),
        (unlike, {"normalize_observations": False}, (False, None)),
        (alike, {"normalize_observations": True}, (True, True)),
        (unlike, {"env": "Hopper-v4"}, (False, None)),  # D4RL's protocol is published
    ):
        data = complete(setup, RunOptions(reward_scale=1.0, **given), dataset).data
        assert (data.normalize_observations, data.by_column) == expected, given
    for kind, sha256 in (("d4rl", None), ("generated", None), ("hdf5", next(iter(D4RL_FILES.values())).sha256)):
        known = replace(unlike, source=replace(unlike.source, kind=kind, sha256=sha256))
        data = complete(setup, RunOptions(reward_scale=1.0), known).data
        assert (data.normalize_observations, data.by_column) == (False, None), kind
        assert complete(make_setup("td3_bc"), RunOptions(), known).data.by_column is None


def test_a_run_says_how_it_sees_the_observations():
    dataset, setup = plant(), make_setup("iql", preset="source")
    texts = [
        observations_in_words(complete(setup, RunOptions(reward_scale=1.0, **given), dataset).data, dataset)
        for given in ({}, {"normalize_observations": False}, {"normalize_observations": True, "env": "Hopper-v4"})
    ]
    assert re.search("normalised column by column .*left out, as constant: observation 1;", texts[0])
    assert texts[1].startswith("observations: as they are (standard deviations 1")
    assert "(s - mean) / (std + 1e-3), as published" in texts[2]


def test_densities_of_clipped_actions_are_asked_inside():
    def edges(dataset, **given):
        config = complete(make_setup("itrpo", **({"preset": "quick"} | given)), RunOptions(), dataset)
        fit = config.behavior_config.fit.fit_action_edge
        return (config.algorithm_config.backbone.action_edge, fit), actions_in_words(config, dataset)

    command = np.random.default_rng(0).normal(0, 1, (50, 1))
    clipped, free = plant(actions=command.clip(-1, 1)), plant(actions=np.tanh(command))
    own_range = plant(actions=2 * (command - command.min()) / np.ptp(command) - 1)
    shares = [on_a_bound(it.transitions.action) for it in (clipped, free, own_range)]
    assert shares[0] == ((abs(command) > 1)[: len(clipped)].sum() - 2) / len(clipped)
    assert shares[1:] == [0.0, 0.0]  # its one largest and one smallest are its bounds
    assert edges(clipped)[0] == (0.05, 0.05)
    assert edges(clipped)[1].endswith("--action-edge 0.05, --behavior-fit-action-edge 0.05")
    assert edges(clipped, fields={"action_edge": 1e-3})[0] == (1e-3, 0.05)
    assert edges(clipped, fields={"behavior_fit_action_edge": 1e-6})[0] == (0.05, 1e-6)
    assert edges(clipped, preset="source")[0] == (1e-6, 1e-6)
    assert edges(free) == edges(plant(actions=command.clip(-2, 2) / 2)) == ((1e-3, 1e-6), "")  # 3 of 50 are too few
    assert actions_in_words(complete(make_setup("td3_bc"), RunOptions(), clipped), clipped) == ""  # it asks no density


def test_rewards_and_constants_of_mazes_go_together_or_are_told_apart():
    dataset, env = plant(), "itrpo/AntMaze_Large-v0"

    def seen(options: RunOptions, name: str = "td3_bc") -> tuple[float, str]:
        config = complete(make_setup(name, preset="quick", task=options.task), options, dataset)
        return config.data.reward_shift, mazes_in_words(config)

    told = "the dataset's name says no task: constants are those of other tasks; --task antmaze-large-play"
    assert seen(RunOptions(env=env))[0] == -1.0
    assert told in seen(RunOptions(env=env))[1]
    assert seen(RunOptions(env=env), "bc") == (-1.0, "")  # it has no constants of a task
    assert seen(RunOptions(env=env, task="antmaze-large-play")) == (-1.0, "")
    assert seen(RunOptions(env="none", task="antmaze-large-play")) == (-1.0, "")
    assert seen(RunOptions(env="none")) == (0.0, "")


def test_benchmarks_keep_the_names_of_their_runs(pendulum):
    """The hash of a run whose config has nothing that is new since."""
    dataset: Dataset = itrpo.load_dataset(pendulum, action_low=-2.0, action_high=2.0)
    config = complete(make_setup("bc", preset="source"), RunOptions("smoke"), dataset)
    assert config_hash(config) == config_hash(replace(config, data=replace(config.data, by_column=None)))
    assert config_hash(config) != config_hash(replace(config, data=replace(config.data, by_column=True)))


@pytest.mark.parametrize("name", ["brac_v", "itrpo"])
def test_runs_whose_alpha_is_a_constant_keep_their_names(pendulum, name):
    dataset: Dataset = itrpo.load_dataset(pendulum, action_low=-2.0, action_high=2.0)
    adapting, plain = (
        complete(make_setup(name, fields={"alpha_scale": "absolute"} | given), RunOptions("smoke"), dataset)
        for given in ({"divergence_target": 0.1}, {})
    )
    assert config_hash(adapting) != config_hash(plain)
    kind = plain.algorithm_config
    before = {field.name: getattr(kind, field.name) for field in fields(kind) if field.name != "divergence_target"}
    old = replace(plain, algorithm_config=make_dataclass("Config", before)(**before))  # as it was without the field
    assert config_hash(old) == config_hash(plain)


@pytest.mark.parametrize("name", ["brac_v", "itrpo"])
def test_an_alpha_in_units_of_q_is_none_that_adapts_and_none_of_many_q(name):
    with pytest.raises(InputError, match=r"divergence_target = 2: .*--alpha-scale absolute.*--divergence-target none"):
        make_setup(name, preset="quick", fields={"divergence_target": 2.0})
    with pytest.raises(InputError, match=r"alpha = 6 with alpha_scale = relative.*--alpha-scale absolute"):
        make_setup(name, preset="quick", fields={"alpha": 6.0})
    in_a_maze = make_setup(name, preset="quick", task="antmaze-large-play").algorithm_config
    assert (in_a_maze.backbone.alpha_scale, in_a_maze.divergence_target) == ("absolute", 4.0)
    constant = {"alpha": 0.003, "alpha_scale": "relative", "divergence_target": None}
    assert make_setup(name, preset="quick", task="antmaze-large-play", fields=constant)


def test_other_columns_of_the_same_file_are_another_run(tmp_path):
    rng = np.random.default_rng(0)
    table = polars.DataFrame({name: rng.uniform(-1, 1, 20) for name in ("a", "b", "c", "u", "r")})
    table.with_columns(end=polars.Series([0] * 20)).write_csv(tmp_path / "log.csv")
    setup, configs = make_setup("td3_bc"), []
    for observations in (["a", "b"], ["b", "c"]):
        columns = {"observations": observations, "actions": "u", "rewards": "r", "terminals": "end", "timeouts": "none"}
        configs.append(complete(setup, RunOptions(), itrpo.load_dataset(tmp_path / "log.csv", columns=columns)))
    assert config_hash(configs[0]) != config_hash(configs[1])
    assert differences(to_json(configs[0]), to_json(configs[1])) == [
        "data.columns.observations: ['a', 'b'] -> ['b', 'c']"
    ]
    mapped = {"columns": {"actions": ["u"]}}
    assert differences({"columns": None}, mapped) == ["columns.actions: None -> ['u']"]
    assert differences(mapped, {"columns": None}) == ["columns.actions: ['u'] -> None"]


def test_other_rules_for_the_same_file_are_another_run():
    """And '60s' is '1m'. Without rules a run's name is what it was before there were any."""
    rows = {name: [0.0, 0.5, 1.0, 0.25] for name in ("s", "a", "r")} | {"t": [0.0, 60.0, 120.0, 600.0]}
    columns = {"observations": "s", "actions": "a", "rewards": "r", "terminals": "none", "time": "t"}
    setup, hashes = make_setup("td3_bc"), list[str]()
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
    assert values["data"]["rules"] is None
    values["data"] = {key: it for key, it in values["data"].items() if it is not None or key in ("task", "columns")}
    del values["train"]["steps"], values["train"]["seeds"]
    before = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    assert config_hash(complete(setup, RunOptions(), plain)) == before
    with pytest.raises(InputError, match="fill: give it to load_dataset; here the dataset is read already"):
        check_options(RunOptions(fill="previous"), plain)


def test_an_algorithm_takes_actions_of_its_own_kind():
    """The others are named; of whole numbers that may be either, somebody has to say what they are."""
    setup, rows = make_setup("td3_bc"), 40
    numbers = np.arange(rows)[:, None] % 3
    log = {"observations": np.random.default_rng(0).normal(size=(rows, 2)), "actions": numbers}
    log |= {"rewards": np.ones(rows), "terminals": np.zeros(rows), "timeouts": np.arange(rows) % 10 == 9}
    choices = itrpo.load_dataset(log)
    with pytest.raises(
        InputError, match=r"one of 3 choices, and td3_bc is for continuous ones; .* dqn, .*--continuous-"
    ):
        complete(setup, RunOptions(), choices)
    config = complete(make_setup("dqn"), RunOptions(), choices)
    assert (config.data.num_actions, config.data.action_low, config.data.action_high) == (3, (0.0,), (2.0,))
    unknown = itrpo.load_dataset(log | {"actions": numbers - 1})
    with pytest.raises(InputError, match=r"the arrays: 'actions' are .*: discrete actions, it seems.*--contin"):
        complete(setup, RunOptions(), unknown)
    for said in ({"continuous_actions": True}, {"action_low": -1, "action_high": 1}, {"env": "Pendulum-v1"}):
        quantities = itrpo.load_dataset(log | {"actions": numbers - 1}, **said)
        complete(setup, RunOptions(), quantities)
        with pytest.raises(InputError, match=r"are vectors, and dqn is for discrete ones; .* td3_bc, .*--num-actions"):
            complete(make_setup("dqn"), RunOptions(), quantities)


def test_the_scale_decides_on_the_preset_where_none_is_given(monkeypatch):
    for name in ("itrpo", "td3_bc", "bc"):
        presets = {scale: make_setup(name, scale=scale).preset for scale in ("smoke", "laptop", "paper")}
        assert presets == {"smoke": "quick", "laptop": "quick", "paper": "source"}
        assert make_setup(name, preset="matched", scale="laptop").preset == "matched"
    entry = registry.algorithm("td3_bc")
    only = entry._replace(presets={"matched": entry.presets["matched"]}, default_preset="matched")
    monkeypatch.setattr(registry, "algorithm", lambda name: only)
    assert make_setup("td3_bc", scale="laptop").preset == "matched"
