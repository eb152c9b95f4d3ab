"""The package as a whole: what importing it loads, its public names, its version, its registry."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

import itrpo
from itrpo import registry
from itrpo.types import AlgorithmEntry, BehaviorEntry

HEAVY = (
    "equinox",
    "gymnasium",
    "h5py",
    "jax",
    "matplotlib",
    "mujoco",
    "numpy",
    "optax",
    "polars",
    "rich",
    "scipy",
    "tyro",
)


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    return set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))


def test_importing_itrpo_loads_nothing_heavy():
    assert not loaded_by("import itrpo") & set(HEAVY)


def test_looking_at_the_names_loads_nothing_heavy():
    assert not loaded_by("import itrpo; dir(itrpo); itrpo.InputError; itrpo.__version__") & set(HEAVY)


def test_the_check_of_loaded_packages_sees_them():
    assert {"gymnasium", "numpy"} <= loaded_by("import itrpo, gymnasium")


@pytest.mark.parametrize("name", itrpo.__all__)
def test_public_name(name):
    assert name in dir(itrpo)
    getattr(itrpo, name)  # raises where its home does not have it


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'load_datasets'"):
        _ = itrpo.load_datasets


def test_version_is_the_installed_one():
    assert itrpo.__version__ == version("itrpo")


@pytest.mark.parametrize("dotted", registry.ALGORITHMS.values())
def test_registered_algorithm_resolves(dotted):
    assert isinstance(registry.resolve(dotted), AlgorithmEntry)


@pytest.mark.parametrize("dotted", registry.BEHAVIOR_MODELS.values())
def test_registered_behavior_model_resolves(dotted):
    assert isinstance(registry.resolve(dotted), BehaviorEntry)


@pytest.mark.parametrize("dotted", registry.GENERATED_DATASETS.values())
def test_registered_dataset_resolves(dotted):
    assert callable(registry.resolve(dotted))
