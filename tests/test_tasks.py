"""Constants by task: which dataset is which task, and that every file names fields and sources that exist."""

from __future__ import annotations

import pytest

from itrpo import registry
from itrpo.config import leaves
from itrpo.tasks import read_blocks, task_constants, task_of
from itrpo.training.configure import make_setup

ENTRIES = {name: registry.lookup(name, registry.ALGORITHMS, "algorithm") for name in registry.ALGORITHMS}
WITH_TASKS = [
    (name, preset) for name, entry in ENTRIES.items() for preset, it in entry.presets.items() if it.tasks is not None
]


@pytest.mark.parametrize(
    ("dataset", "task"),
    [
        ("hopper-medium-v2", "hopper-medium"),
        ("antmaze-large-diverse-v2", "antmaze-large-diverse"),
        ("walker2d-medium-replay-itrpo1", "walker2d-medium-replay"),
        ("some/folder/halfcheetah_medium_expert-v2.hdf5", "halfcheetah-medium-expert"),
        ("hopper_medium-like.hdf5", None),
        ("hopper-demo", None),
        ({"observations": 1}, None),
    ],
)
def test_a_dataset_is_a_task_only_by_a_versioned_name(dataset, task):
    assert task_of(dataset) == task


@pytest.mark.parametrize(("name", "preset"), WITH_TASKS)
def test_every_block_sets_fields_of_its_algorithm_and_names_a_source(name, preset):
    chosen = ENTRIES[name].presets[preset]
    fields = {it for it, _, _ in leaves(chosen.config)}
    for block in read_blocks(chosen.tasks):
        assert set(block) == {"tasks", "source", "fields"}
        assert block["tasks"]
        assert len(block["source"]) > 10
        assert set(block["fields"]) <= fields
        for pattern in block["tasks"]:  # each value is in range, and a config of it can be made
            make_setup(name, preset=preset, task=pattern.replace("*", "umaze"))


def test_unknown_tasks_and_presets_without_a_file_change_nothing():
    assert task_constants(None, "hopper-medium").fields == {}
    assert make_setup("itrpo", task="hopper-medium").algorithm_config == ENTRIES["itrpo"].presets["quick"].config


# what AntMaze's 0 and 1 become: IQL, SPOT and EMaQ r - 1, CQL 4 (r - 0.5), ReBRAC 100 r; all others leave them alone;
# in `quick` r - 1 for all
ANTMAZE = {"iql": (-1.0, 0.0), "spot": (-1.0, 0.0), "emaq": (-1.0, 0.0), "cql": (-2.0, 2.0), "rebrac": (0.0, 100.0)}


@pytest.mark.parametrize("name", ENTRIES)
def test_rewards_of_antmaze_are_those_of_the_source(name):
    for label, preset in ENTRIES[name].presets.items():
        rule = preset.antmaze_rewards
        expected = (-1.0, 0.0) if label == "quick" else ANTMAZE.get(name, (0.0, 1.0))
        assert tuple(rule.scale * it + rule.shift for it in (0.0, 1.0)) == expected
        assert not rule.by_return_range
