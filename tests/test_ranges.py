"""Which values of fields are refused, and in which words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import pytest

from itrpo.errors import InputError
from itrpo.ranges import Count, Discount, Interval, Positive, Share, Widths, check_ranges


@dataclass(frozen=True)
class Inner:
    gamma: Discount = 0.99
    learning_rate: Positive = 3e-4
    hidden: Widths = (8, 8)
    threshold: Positive | None = None
    more_low: float = 0.0
    more_high: float = 0.0


@dataclass(frozen=True)
class Config:
    weight: Share = 0.5
    samples: Annotated[int, Interval("[2, inf)")] = 2
    limit: Annotated[float, Interval("(0, inf]")] = 1.0
    clip_low: float = -1.0
    clip_high: float = 1.0
    last_low: Count = 1
    name: str = "anything"
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1)", (0.0, 0.5, 0.999), (-1e-9, 1.0, float("nan"))),
        ("(0, 1]", (1e-9, 1.0), (0.0, 1.001)),
        ("(0, inf)", (1e-30, 1e30), (0.0, float("inf"))),
        ("[1, inf]", (1, float("inf")), (0.999,)),
    ],
)
def test_intervals(interval, inside, outside):
    assert all(value in Interval(interval) for value in inside)
    assert not any(value in Interval(interval) for value in outside)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(weight=-0.1), "weight must be in [0, 1], got -0.1"),
        (Config(samples=1), "samples must be at least 2, got 1"),
        (Config(limit=0.0), "limit must be positive, got 0.0"),
        (Config(last_low=0), "last_low must be at least 1, got 0"),
        (Config(clip_low=2.0), "clip_low 2.0 is above behavior_clip_high 1.0"),
        (Config(inner=Inner(gamma=1.0)), "gamma must be in [0, 1), got 1.0"),
        (Config(inner=Inner(learning_rate=0.0)), "learning_rate must be positive, got 0.0"),
        (Config(inner=Inner(threshold=0.0)), "threshold must be positive, got 0.0"),
        (Config(inner=Inner(hidden=(8, 0))), "hidden: every number must be at least 1, got 8,0"),
        (Config(inner=Inner(more_low=0.1)), "more_low 0.1 is above behavior_more_high 0.0"),
    ],
)
def test_what_is_out_of_range_is_named(config, words):
    with pytest.raises(InputError) as error:
        check_ranges(config, prefix="behavior_")
    assert str(error.value) == f"behavior_{words}"


def test_what_is_in_range_passes():
    check_ranges(Config())
    check_ranges(replace(Config(), clip_low=1.0, weight=0.0, limit=float("inf"), inner=Inner(threshold=2.0)))
