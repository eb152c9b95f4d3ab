from __future__ import annotations

from dataclasses import replace

from itrpo.config import DataConfig, EvalConfig, RunConfig, TrainConfig, replace_leaves
from itrpo.training.configure import make_setup
from itrpo.training.scaling import behavior_steps, scaled_config


def brac() -> RunConfig:
    data = DataConfig("arrays", "none", None, False, 1.0, 0.0, (-1.0,), (1.0,))
    setup = make_setup("brac_v", preset="source")
    return RunConfig(data, train=TrainConfig(500_000, 1, 0, None), evaluation=EvalConfig(1, 1), **setup.constants())


def test_the_fit_is_as_long_as_the_source_says_scaled():
    base = brac()
    half = replace(base, train=replace(base.train, steps=250_000))
    assert behavior_steps(half) == 150_000
    assert behavior_steps(replace(base, train=replace(base.train, steps=10))) == 100
    assert behavior_steps(replace(base, train=replace(base.train, behavior_steps=7))) == 7


def test_counts_of_steps_take_the_share_of_a_run_that_they_have_in_the_source():
    base = brac()  # 20,000 of 500,000 steps without Q
    marked = replace(base, scaled_fields=("kl_only_steps",))
    assert scaled_config(marked, 500_000) == base.algorithm_config
    assert scaled_config(marked, 50_000).backbone.kl_only_steps == 2_000
    assert scaled_config(marked, 10).backbone.kl_only_steps == 1
    assert scaled_config(base, 10) == base.algorithm_config  # only what is marked
    none = replace(marked, algorithm_config=replace_leaves(base.algorithm_config, {"kl_only_steps": 0}))
    assert scaled_config(none, 10).backbone.kl_only_steps == 0
