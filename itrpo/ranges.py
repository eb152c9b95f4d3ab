"""Ranges of configuration fields. A name has one range wherever it stands."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

from itrpo.errors import InputError

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
WORDS = {"(0, inf": "positive", "[0, inf": "at least 0", "[1, inf": "at least 1"}


def check_ranges(config: Any, prefix: str = "", **ranges: str) -> None:
    """Raises InputError unless each field of a dataclass lies in its interval: `COMMON` by name, and `ranges` on top.

    An interval is "[0, 1)" and the like. Learning rates are positive, widths of hidden layers at least 1, and NAME_low
    is at most NAME_high. Fields that are dataclasses are checked in the same way. `prefix` stands before names in the
    message.
    """
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        interval = ranges.get(name) or COMMON.get(name) or ("(0, inf)" if name.endswith("learning_rate") else None)
        if is_dataclass(value):
            check_ranges(value, prefix, **ranges)
        elif interval and not is_inside(value, interval):
            raise InputError(f"{prefix}{name} must be {WORDS.get(interval[:-1], f'in {interval}')}, got {value}")
        elif name.endswith("hidden") and any(width < 1 for width in value):
            raise InputError(f"{prefix}{name}: every width must be at least 1, got {','.join(map(str, value))}")
        elif name.endswith("_low") and value > getattr(config, f"{name.removesuffix('_low')}_high", math.inf):
            high = f"{name.removesuffix('_low')}_high"
            raise InputError(f"{prefix}{name} {value} is above {prefix}{high} {getattr(config, high)}")


def is_inside(value: float, interval: str) -> bool:
    low, high = (float(it) for it in interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    return above and (value <= high if interval[-1] == "]" else value < high)
