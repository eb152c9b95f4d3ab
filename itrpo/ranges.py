"""Ranges of configuration fields, as types that stand beside their fields:

alpha: Positive = 0.9  # weight of the KL
tau: Annotated[float, Interval("[0, 1)")] = 0.5  # a range that no other field has
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

from itrpo.errors import InputError


@dataclass(frozen=True)
class Interval:
    """Where a number, or each number of a tuple, must lie: "[0, 1)"."""

    text: str


Positive = Annotated[float, Interval("(0, inf)")]
PositiveOrInf = Annotated[float, Interval("(0, inf]")]
NonNegative = Annotated[float, Interval("[0, inf)")]
NonNegativeOrInf = Annotated[float, Interval("[0, inf]")]
Share = Annotated[float, Interval("[0, 1]")]
InnerShare = Annotated[float, Interval("(0, 1)")]
Discount = Annotated[float, Interval("[0, 1)")]
Rate = Annotated[float, Interval("(0, 1]")]
Count = Annotated[int, Interval("[1, inf)")]
CountOrZero = Annotated[int, Interval("[0, inf)")]
Widths = Annotated[tuple[int, ...], Interval("[1, inf)")]

COMMON = {
    "acting_actions": "[1, inf)",
    "action_edge": "(0, 1)",
    "action_samples": "[1, inf)",
    "alpha": "(0, inf)",
    "bandwidth": "(0, inf)",
    "batch_size": "[1, inf)",
    "components": "[1, inf)",
    "critics": "[1, inf)",
    "expectile": "(0, 1)",
    "fit_batch_size": "[1, inf)",
    "gamma": "[0, 1)",
    "gradient_penalty": "[0, inf)",
    "initial_entropy_weight": "(0, inf)",
    "kl_only_steps": "[0, inf)",
    "kl_samples": "[1, inf)",
    "kl_weight": "[0, inf)",
    "latent_clip": "[0, inf]",
    "latents_per_action": "[1, inf)",
    "min_weight": "[0, 1]",
    "mmd_limit": "[0, inf)",
    "mmd_samples": "[1, inf)",
    "noise_limit": "[0, inf]",
    "noise_scale": "[0, inf)",
    "phi": "[0, inf)",
    "policy_delay": "[1, inf)",
    "polyak_rate": "(0, 1]",
    "target_actions": "[1, inf)",
    "tau": "[0, 1]",
    "warm_up_steps": "[0, inf)",
    "weight_limit": "(0, inf]",
}
WORDS = {"(-inf, inf": "finite", "(0, inf": "positive", "[0, inf": "at least 0", "[1, inf": "at least 1"}


def check_ranges(config: Any, prefix: str = "", **ranges: str) -> None:
    """Raises InputError unless each field of a dataclass lies in its interval: the one of its type, or one of `ranges`,
    or of `COMMON` by name.

    NAME_low must be at most NAME_high. Fields that are dataclasses are checked in the same way. `prefix` stands before
    names in the message.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        declared = [it.text for it in getattr(hints[name], "__metadata__", ()) if isinstance(it, Interval)]
        interval = next(iter(declared), None) or ranges.get(name) or COMMON.get(name)
        interval = interval or ("(0, inf)" if name.endswith("learning_rate") else None)
        if is_dataclass(value):
            check_ranges(value, prefix, **ranges)
        elif isinstance(value, tuple):
            interval = interval or ("[1, inf)" if name.endswith("hidden") else "[-inf, inf]")
            if not all(is_inside(number, interval) for number in value):
                words = WORDS.get(interval[:-1], f"in {interval}")
                raise InputError(f"{prefix}{name}: every number must be {words}, got {','.join(map(str, value))}")
        elif interval and value is not None and not is_inside(value, interval):
            raise InputError(f"{prefix}{name} must be {WORDS.get(interval[:-1], f'in {interval}')}, got {value}")
        elif (
            name.endswith("_low")
            and value is not None
            and value > getattr(config, f"{name.removesuffix('_low')}_high", math.inf)
        ):
            high = f"{name.removesuffix('_low')}_high"
            raise InputError(f"{prefix}{name} {value} is above {prefix}{high} {getattr(config, high)}")


def is_inside(value: Any, interval: str) -> bool:
    low, high = (float(it) for it in interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    return above and (value <= high if interval[-1] == "]" else value < high)
