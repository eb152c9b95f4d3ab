"""How JAX is set up before a run's first computation. What the user has set already stays as it is."""

from __future__ import annotations

import os

import jax

from itrpo import files


def prepare() -> None:
    """To be called before anything is computed: then a result's bits don't depend on which cores the process may use,
    and a program that has been compiled before, with the same versions on the same kind of machine, is read from the
    cache.
    """
    # XLA shares a large product out between its threads, and the order in which it adds the parts depends on their
    # number. Left alone it starts one for each core that this process may use; here it is one for each core there is.
    os.environ.setdefault("PJRT_NPROC", str(os.cpu_count() or 1))
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(files.cache_dir() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
