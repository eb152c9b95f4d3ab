"""`itrpo about`: what a report of a fault needs, and nothing private."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from itrpo import cli
from itrpo.cli import about


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert cli.main(["about"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {name: text.strip() for name, _, text in (line.partition(" ") for line in lines)}


def test_versions_devices_and_cache(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ITRPO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / ".cache" / "itrpo" / "generated").mkdir(parents=True)
    (tmp_path / ".cache" / "itrpo" / "generated" / "x.hdf5").write_bytes(b"0" * 3_000_000)
    told = printed(capsys)
    assert told["itrpo"].startswith(version("itrpo"))
    for name in ("jax", "jaxlib", "equinox", "numpy", "mujoco", "gymnasium"):
        assert f"{name} {version(name)}" in told["packages"].split(", ")
    assert f"pytest {version('pytest')}" in told["extras"].split(", ")
    assert "backend cpu" in told["devices"]
    assert told["cache"] == "~/.cache/itrpo, 1 files, 3 MB"


def test_nothing_private(monkeypatch, tmp_path, capsys):
    home = tmp_path / "home" / "sybil"
    (tmp_path / "scratch" / "sybil's own").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOGNAME", "sybil")
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "scratch" / "sybil's own"))
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false --xla_dump_to=/data/secret project/dump")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/data/secret project")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("WANDB_API_KEY", "sesame")
    monkeypatch.setattr(sys, "argv", ["/home/sybil/bin/itrpo", "about"])
    told = printed(capsys)
    page = str(told)
    for word in ("sybil", "secret", "project", "sesame", "/home", str(tmp_path)):
        assert word not in page
    assert "JAX_PLATFORMS=cpu" in told["environment"]
    assert "--xla_dump_to=..." in told["environment"]
    assert told["cache"] == "..., empty"


def test_the_text_of_an_error_is_cleaned(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "sybil")
    text = f"no {tmp_path}/lib/x.so, /opt/sybil/y.so: ask sybil"
    assert about.without_private(text) == "no ~/lib/x.so, ...: ask USER"


def test_a_jax_that_does_not_start_is_one_line():
    code = """
import sys
sys.modules["jax"] = None
from itrpo.cli import main
sys.exit(main(["about"]))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "JAX does not start: ModuleNotFoundError" in done.stdout


def test_python_m_itrpo_is_the_command():
    done = subprocess.run([sys.executable, "-m", "itrpo", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"itrpo {version('itrpo')}\n")
    refused = subprocess.run([sys.executable, "-m", "itrpo", "trian"], capture_output=True, text=True)
    assert refused.returncode == 2
