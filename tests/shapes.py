"""What checks the declared shapes and types of functions on arrays while the tests run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checked at every call; but a Config takes what it is given: tracers too, which sweeps put there."""
    return function if function.__qualname__.endswith("__init__") else beartype(function)
