"""What checks the declared shapes and types of functions on arrays while the tests run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from beartype import beartype

CHECKERS: dict[tuple[str, str, str], Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checked at every call; but a Config takes what it is given: tracers too, which sweeps put there.

    jaxtyping gives functions that have nothing but a signature, and anew each time that a factory runs its `def`: one
    checker serves all of the same place and signature.
    """
    if function.__qualname__.endswith("__init__"):
        return function
    declared = function.__module__, function.__qualname__, str(inspect.signature(function))
    if declared not in CHECKERS:
        CHECKERS[declared] = beartype(function)
    return CHECKERS[declared]
