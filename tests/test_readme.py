"""The README's Python runs as printed, at a smaller size. (Its commands: test_docs.py.)"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from itrpo import files, options
from itrpo.collection import demo, making

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """hopper-demo with few steps, in a cache of its own."""
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    shares = (demo.Share("hopper_sac_040k", 1), demo.Share("hopper_sac_100k", 2))
    making.make(demo.plan(shares, steps_per_slot=400), files.generated_path("hopper-demo"), workers=1)


def test_python_of_the_readme_runs(small_demo, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tiny = options.SCALES["smoke"]._replace(steps=20, seeds=1, eval_every=20, eval_episodes=1)
    monkeypatch.setitem(options.SCALES, "laptop", tiny)
    names: dict = {}
    first, second = PYTHON
    exec(first, names)  # our own README
    assert names["action"].shape == (3,)
    assert (np.abs(names["action"]) <= 1).all()
    folder = next((tmp_path / "runs").iterdir())
    exec(second.replace("runs/demo", str(folder)), names)
    observation = names["dataset"].transitions.observation[0]
    np.testing.assert_array_equal(names["policy"](observation), names["action"])


def test_the_front_page_of_the_site_shows_the_same_lines_and_numbers():
    page = (Path(__file__).parents[1] / "docs" / "index.md").read_text("utf-8").replace("\u00a0", " ")
    assert f"```python\n{PYTHON[0]}```" in page
    table = "".join(line for line in README.splitlines() if line.startswith("│"))
    numbers = re.findall(r"[\d,.]+ ± [\d,.]+", table)
    assert len(numbers) == 4
    assert [number for number in numbers if number not in page] == []


def test_the_readme_names_every_algorithm():
    from itrpo import registry

    for name in registry.ALGORITHMS:
        assert f"`{name}`" in README
