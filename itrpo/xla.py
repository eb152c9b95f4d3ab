"""How JAX is set up before a run's first computation. What the user has set already stays as it is."""

from __future__ import annotations

import os

import jax

from itrpo import files

# XLA shares a large product out between this many threads, and adds up its parts in an order that depends on their
# number. One number for all machines keeps results, to the bit, apart from how many cores there happen to be.
THREADS = "2"


def prepare() -> None:
    """To be called before anything is computed: then a result's bits don't depend on the number of cores, and a program
    that has been compiled before, with the same versions and on the same kind of machine, is read from the cache.
    """
    os.environ.setdefault("PJRT_NPROC", THREADS)
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(files.cache_dir() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
