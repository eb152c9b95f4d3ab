"""The package as a whole: what importing it loads, its public names, its version, its registry."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

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


def test_the_conda_recipe_asks_for_what_pip_does():
    folder = Path(__file__).parents[1]
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {
        re.sub(r"\[\w+\]", "", line).replace("matplotlib>", "matplotlib-base>") for line in project["dependencies"]
    }
    recipe = (folder / "conda" / "recipe.yaml").read_text("utf-8")
    asked = {line.replace(" ", "") for line in re.findall(r"^    - ([\w-]+ >=[\d.]+)", recipe, re.MULTILINE)}
    assert wanted <= asked
    assert f'version: "{itrpo.__version__}"' in recipe
    assert f"version: {itrpo.__version__}\n" in (folder / "CITATION.cff").read_text("utf-8")
