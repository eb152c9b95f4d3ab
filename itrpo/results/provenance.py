"""Where a result came from: versions, machine, git and command line."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import itrpo
from itrpo.files import available_cores

PACKAGES = ("jax", "jaxlib", "equinox", "optax", "gymnasium", "mujoco", "numpy")


def provenance() -> dict[str, Any]:
    """Versions, machine, devices, git state of an itrpo checkout, and the command line. Starts JAX."""
    import jax  # here: where JAX is broken, `itrpo about` still reads versions

    checkout = Path(__file__).resolve().parents[2]
    return {
        "versions": {"itrpo": itrpo.__version__} | {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "git": git_state(checkout) if (checkout / ".git").exists() else None,
        "argv": sys.argv,
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """What a run's bits depend on besides its inputs; recorded, and compared when it resumes."""
    import jax

    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "threads": os.environ.get("PJRT_NPROC") or str(available_cores()),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name: version(name) for name in ("jax", "jaxlib", "equinox", "optax")},
    }


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state(checkout: Path) -> dict[str, Any] | None:
    """{"commit", "dirty"}, or None where git is missing or refuses."""

    def answer(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return {"commit": answer("rev-parse", "HEAD"), "dirty": bool(answer("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
