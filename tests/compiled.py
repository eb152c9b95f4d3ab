"""Functions of an algorithm, a model or a network as one program each.

What is not compiled runs operation by operation, each of which is compiled by itself: dozens of programs, of which the
smallest costs about as much as one of all of them.
"""

from __future__ import annotations

from typing import TypeVar

import jax

Parts = TypeVar("Parts", bound=tuple)
NUMPY = ("export",)  # what runs on the host


def compiled(parts: Parts) -> Parts:
    """`parts`, a NamedTuple of functions on arrays, with each of them compiled; those of its part `acting`, too."""
    static = {"act": 3}  # (state, observation, key, greedy)
    made = {
        name: compiled(it) if name == "acting" else jax.jit(it, static_argnums=static.get(name))
        for name, it in parts._asdict().items()  # type: ignore[attr-defined]
        if (callable(it) or name == "acting") and name not in NUMPY
    }
    return parts._replace(**made)  # type: ignore[attr-defined]
