"""What holds for every test, and for every process that a test starts.

Set here, before anything imports JAX:
- shapes that broadcast by rank are errors, and arrays closed over by a compiled function are warned of from 1 MB on;
- XLA compiles with few of LLVM's optimisations: most of the tests' time would go there, for programs that run
  milliseconds. Not with none: at level 0 jaxlib 0.10.2 miscompiles some gradients on the CPU (NaN for that of
  mean(min_i(p_i + q_i atanh(tanh(b x)))) with respect to b, where levels 1 to 3 agree with the closed form);
- XLA's older code generator for fusions does without the passes that take half of the time of compiling an update;
- XLA uses as many threads as in use (itrpo.xla) and BLAS one: the last bits of a result depend on their number;
- Python looks for cycles of garbage seldom: traced programs are millions of objects that stay;
- programs that a process of this session has compiled, however small, are read from a cache, which all of them share;
- programs of a file are forgotten after it: jaxlib holds what each was compiled from, and is slower at making the next
  one the more there are, after thousands by seconds each;
- the home folder and the caches are temporary ones, and Hypothesis draws the same examples each time;
- shapes and types that functions on arrays declare (jaxtyping) are checked at every call (tests/shapes.py).
A test runs in an empty folder. If it leaves a file there or in the home folder, it fails: itrpo writes where it is told
to, and into its cache.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

import tests.shapes  # noqa: F401 (named below)

SESSION = Path(tempfile.mkdtemp(prefix="itrpo-tests-"))
HOME = SESSION / "home"
HOME.mkdir()

os.environ.update(
    HOME=str(HOME),
    HYPOTHESIS_STORAGE_DIRECTORY=str(SESSION / "hypothesis"),
    ITRPO_CACHE=str(SESSION / "cache"),
    JAX_CAPTURED_CONSTANTS_WARN_BYTES="1000000",
    JAX_NUMPY_RANK_PROMOTION="raise",
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    MESA_SHADER_CACHE_DISABLE="true",
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    PJRT_NPROC="2",
    PYTHONDONTWRITEBYTECODE="1",
    XLA_FLAGS="--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(SESSION / "xla"))  # workers find the first process's here
gc.set_threshold(100_000, 20, 100)
for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
    os.environ.pop(name, None)

jaxtyping.install_import_hook(["itrpo.ops", "itrpo.nn", "itrpo.behavior", "itrpo.algorithms"], "tests.shapes.checked")
hypothesis.settings.register_profile("itrpo", derandomize=True, deadline=None)
hypothesis.settings.load_profile("itrpo")


def pytest_unconfigure() -> None:
    shutil.rmtree(SESSION, ignore_errors=True)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs() -> Iterator[None]:
    yield
    if (jax := sys.modules.get("jax")) is not None:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def no_stray_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    started_in, folder = Path.cwd(), tmp_path_factory.mktemp("working-directory")
    os.chdir(folder)
    yield
    os.chdir(started_in)
    left = files_below(folder) + files_below(HOME)
    shutil.rmtree(folder)
    for entry in HOME.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    assert not left, f"files left in the working directory or the home folder: {left}"
