"""What is published: a wheel and an sdist that are built here and tried in empty environments. Slow: it installs JAX.

Needs the tools of `dev` (build, uv) and, where uv's cache is cold, an index of packages.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TRIAL = """
import numpy as np, itrpo
rng = np.random.default_rng(0)
rows = {"observations": rng.normal(size=(300, 3)), "actions": rng.uniform(-1, 1, (300, 2)),
        "rewards": rng.normal(size=300), "terminals": np.zeros(300), "timeouts": np.arange(300) % 50 == 49}
options = itrpo.RunOptions(env="none", steps=6, seeds=1, out="run", action_low=-1.0, action_high=1.0)
policy = itrpo.train(rows, "td3_bc", options).policy
assert policy(rows["observations"][0]).shape == (2,)
print(itrpo.__file__)
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BIN / "uv").exists() or not importlib.util.find_spec("build"), reason="needs build and uv"),
]


def ran(*words: object, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment["UV_CACHE_DIR"] = str(Path(environment["ITRPO_CACHE"]).parent / "uv")  # not in the home folder
    done = subprocess.run([str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    ran(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY, folder=folder)
    return folder


def test_what_is_in_them(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    tracked = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "itrpo").rglob("*") if path.is_file()}
    tracked = {path for path in tracked if "__pycache__" not in path}
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {path for path in inside if ".dist-info/" not in path} == tracked
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked | {"pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "tests/test_distributions.py"} <= names
    assert not any(name.startswith((".venv", "runs/", "build/", ".git/")) for name in names)


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_works_where_nothing_else_is_installed(kind, built, tmp_path):
    (file,) = built.glob(kind)
    python = tmp_path / "env" / "bin" / "python"
    ran(BIN / "uv", "venv", "--no-config", "--python", sys.executable, tmp_path / "env", folder=tmp_path)
    install = ("pip", "install", "--no-config", "--system-certs", "--python", python)
    ran(BIN / "uv", *install, file, folder=tmp_path)
    assert ran(python.parent / "itrpo", "--version", folder=tmp_path) == ran(
        python, "-m", "itrpo", "--version", folder=tmp_path
    )
    assert "backend cpu" in ran(python, "-m", "itrpo", "about", folder=tmp_path)
    assert len(ran(python.parent / "itrpo", "algorithms", folder=tmp_path).splitlines()) > 15
    assert str(tmp_path / "env") in ran(python, "-c", TRIAL, folder=tmp_path)
    assert (tmp_path / "run" / "seed0" / "policy.npz").exists()
