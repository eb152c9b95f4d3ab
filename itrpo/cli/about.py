"""The command that says what a report of a fault needs: versions, devices, cache."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from itrpo import __version__, files
from itrpo.console import say

if TYPE_CHECKING:
    from rich.console import Console

PREFIXES = ("JAX_", "XLA_", "ITRPO_", "MUJOCO_GL", "PJRT_", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class About:
    """Print versions, devices and the cache, to be pasted into a report of a fault. The home folder is printed as ~, a
    path elsewhere and the user's name not at all.
    """


def about(command: About, console: Console) -> None:
    for name, text in facts():
        say(console, f"{name:<12} {text}")


def facts() -> list[tuple[str, str]]:
    """(name, text) in the order of the page. Starts JAX; what is broken says so in its line."""
    core, extra = packages()
    return [
        ("itrpo", __version__ + checkout()),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("system", f"{platform.platform()}, {files.available_cores()} of {os.cpu_count()} cores"),
        ("devices", without_private(devices())),
        ("packages", core),
        ("extras", extra or "none"),
        ("cache", cache()),
        ("environment", without_private(environment(os.environ))),
    ]


def checkout() -> str:
    """Of a git checkout its commit, else nothing."""
    from itrpo.results.provenance import git_state

    folder = Path(__file__).resolve().parents[2]
    state = git_state(folder) if (folder / ".git").exists() else None
    return f", commit {state['commit'][:12]}{' with changes' * state['dirty']}" if state else ""


def devices() -> str:
    try:
        import jax

        return f"{', '.join(device.device_kind for device in jax.devices())} (backend {jax.default_backend()})"
    except Exception as error:  # whatever is wrong with an installation of JAX is what the reader wants to know
        return f"JAX does not start: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def packages() -> tuple[str, str]:
    """(what itrpo needs, what its extras do and is installed), as `name version, ...`."""
    needed: dict[str, bool] = {"jaxlib": True, "mujoco": True}
    try:
        for line in importlib.metadata.requires("itrpo") or ():
            name = re.split(r"[^\w.-]", line)[0]
            needed[name] = needed.get(name, False) or "extra ==" not in line
    except importlib.metadata.PackageNotFoundError:
        return "itrpo is not installed: run from its folder", ""
    from itrpo.results.provenance import version

    found = {name: version(name) for name in sorted(needed, key=str.lower)}
    core = [f"{name} {found[name] or 'missing'}" for name in found if needed[name]]
    return ", ".join(core), ", ".join(f"{name} {found[name]}" for name in found if not needed[name] and found[name])


def cache() -> str:
    folder = files.cache_dir()
    held = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    where = without_private(f"~/{folder.relative_to(Path.home())}") if folder.is_relative_to(Path.home()) else "..."
    return f"{where}, {len(held):,} files, {sum(held) / 1e6:,.0f} MB" if held else f"{where}, empty"


def environment(variables: Mapping[str, str]) -> str:
    """Those that change what JAX, MuJoCo and itrpo do. A value that holds a path is printed as `...`."""
    shown = list[str]()
    for name in sorted(name for name in variables if name.startswith(PREFIXES)):
        value = variables[name]
        if "/" in value and name == "XLA_FLAGS":  # its names stay: they may explain a fault
            value = " ".join(flag.partition("=")[0] + "=..." for flag in value.split() if flag.startswith("--"))
        shown.append(f"{name}={'...' if '/' in value else value}")
    return ", ".join(shown) or "nothing set"


def without_private(text: str) -> str:
    """`text` with ~ for the home folder, `...` for other absolute paths, USER for the user's name."""
    text = re.sub(rf"{re.escape(str(Path.home()))}(?=/|\W|$)", "~", text) if Path.home() != Path("/") else text
    text = re.sub(r"(?<![\w~.])/[^\s,;:)]+", "...", text)
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return text
    return re.sub(rf"\b{re.escape(user)}\b", "USER", text)
