"""Guards from the data that a policy was trained on, and what the user says."""

from __future__ import annotations

from typing import Any

import numpy as np

from itrpo.data.preprocess import ROUNDING
from itrpo.errors import InputError
from itrpo.options import GuardOptions
from itrpo.policy import Guards, Policy
from itrpo.types import Dataset


def make_guards(policy: Policy, options: GuardOptions, dataset: Dataset | None) -> Guards | None:
    """`policy.Guards`; without a dataset from the range of training that the policy's file knows. None: no guards.

    Bounds of actions are the data's unless others are asked for. Raises InputError for numbers that don't fit.
    """
    if not options.guards:
        return None
    size = len(policy.action_low)
    low, high = _bounds(policy, options, dataset)
    fallback, rate = _each(options.fallback, size, "fallback"), _each(options.rate, size, "rate")
    if (options.missing == "error") != (fallback is None):
        raise InputError(
            "--fallback is of use with --missing hold or fallback alone"
            if fallback is not None
            else f"--missing {options.missing} needs --fallback: the action in the data's units, one number or {size}"
            + (", for where no action was taken yet" if options.missing == "hold" else "")
        )
    if fallback is not None and not ((low <= fallback) & (fallback <= high)).all():
        raise InputError(
            f"--fallback {fallback.tolist()} is outside of the actions' bounds, {low.tolist()} to {high.tolist()};"
            " widen them with --action-low and --action-high, or choose another one"
        )
    if rate is not None and not (rate > 0).all():
        raise InputError(f"--rate must be positive, got {rate.tolist()}")
    constant, least, most = _columns(policy, options, dataset)
    return Guards(
        missing=options.missing,
        fallback=np.full(size, np.nan, np.float32) if fallback is None else fallback,
        constant=constant,
        low=least,
        high=most,
        clamp=options.clamp,
        action_low=low,
        action_high=high,
        rate=np.full(size, np.inf, np.float32) if rate is None else rate,
    )


def _bounds(policy: Policy, options: GuardOptions, dataset: Dataset | None) -> tuple[Any, Any]:
    """Of actions [A], in the data's units."""
    size = len(policy.action_low)
    if policy.num_actions is not None:
        odd = next((it for it in ("action_low", "action_high", "rate") if getattr(options, it) is not None), None)
        if odd is not None:
            raise InputError(f"--{odd.replace('_', '-')}: actions are choices, and another choice is not a smaller one")
        if options.fallback is not None and np.any(np.rint(options.fallback) != options.fallback):
            raise InputError(f"--fallback must be one of the choices, a whole number, not {options.fallback}")
        return policy.action_low, policy.action_high
    low: Any = _each(options.action_low, size, "action-low")
    high: Any = _each(options.action_high, size, "action-high")
    if dataset is None and (low is None or high is None):
        raise InputError(
            "the range of the logged actions isn't known without the data, and a policy should not go beyond it: give"
            " --data FILE, or both --action-low and --action-high"
        )
    if dataset is not None:
        center, half = (policy.action_high + policy.action_low) / 2, (policy.action_high - policy.action_low) / 2
        logged = dataset.transitions.action
        ends = (
            np.clip(center + half * it, policy.action_low, policy.action_high) for it in (logged.min(0), logged.max(0))
        )
        least, most = (np.asarray(it, np.float32) for it in ends)
        low, high = least if low is None else low, most if high is None else high
    if not np.less_equal(low, high).all():
        raise InputError(
            f"the least action {low.tolist()} is above the largest {high.tolist()}; see --action-low, -high"
        )
    return low, high


def _columns(policy: Policy, options: GuardOptions, dataset: Dataset | None) -> tuple[Any, Any, Any]:
    """What constant columns were [O], NaN for others; and what is counted as beyond training: below, above [O]."""
    size = policy.frame
    if dataset is not None:
        rows = dataset.transitions.observation[:, :size]
        least, most = rows.min(axis=0), rows.max(axis=0)
        ends = np.quantile(rows, [options.quantile, 1 - options.quantile], axis=0).astype(np.float32)
    elif "trained_low" in policy.metadata:
        least, most = (np.asarray(policy.metadata[f"trained_{end}"], np.float32)[:size] for end in ("low", "high"))
        ends = (least, most)
    else:
        ends = least, most = np.full(size, -np.inf, np.float32), np.full(size, np.inf, np.float32)
    with np.errstate(invalid="ignore"):
        fixed = (most - least <= ROUNDING * np.maximum(np.abs(least), np.abs(most))) & options.constants
        fixed &= np.isfinite(least)
    low, high = (np.where(fixed, least, it) for it in ends)  # a constant but for rounding is within its own range
    return np.where(fixed, least, np.float32(np.nan)), low, high


def _each(given: Any, size: int, flag: str) -> np.ndarray | None:
    """[A] of one number, or one each."""
    if given is None:
        return None
    numbers = np.asarray(given, np.float32)
    if numbers.shape not in ((), (1,), (size,)) or not np.isfinite(numbers).all():
        raise InputError(f"--{flag} must be one finite number, or {size}, one for each action, got {given!r}")
    return np.broadcast_to(numbers, (size,)).copy()
