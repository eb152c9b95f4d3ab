"""Which values of fields are refused, and in which words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from itrpo.errors import InputError
from itrpo.ranges import check_ranges, is_inside


@dataclass(frozen=True)
class Inner:
    gamma: float = 0.99
    critic_learning_rate: float = 3e-4
    critic_hidden: tuple[int, ...] = (8, 8)


@dataclass(frozen=True)
class Config:
    alpha: float = 1.0
    weight: float = 0.5
    clip_low: float = -1.0
    clip_high: float = 1.0
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
    assert all(is_inside(it, interval) for it in inside)
    assert not any(is_inside(it, interval) for it in outside)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(alpha=0.0), "alpha must be positive, got 0.0"),
        (Config(weight=-0.1), "weight must be in [0, 1], got -0.1"),
        (Config(clip_low=2.0), "clip_low 2.0 is above clip_high 1.0"),
        (Config(inner=Inner(gamma=1.0)), "gamma must be in [0, 1), got 1.0"),
        (Config(inner=Inner(critic_learning_rate=0.0)), "critic_learning_rate must be positive, got 0.0"),
        (Config(inner=Inner(critic_hidden=(8, 0))), "critic_hidden: every number must be at least 1, got 8,0"),
    ],
)
def test_what_is_out_of_range_is_named(config, words):
    with pytest.raises(InputError) as error:
        check_ranges(config, prefix="behavior_", weight="[0, 1]")
    assert str(error.value) == f"behavior_{words}".replace("above clip", "above behavior_clip")


def test_what_is_in_range_passes():
    check_ranges(Config(), weight="[0, 1]")
    check_ranges(replace(Config(), clip_low=1.0, weight=0.0), weight="[0, 1]")
    check_ranges(Config(weight=7.0))  # no range is known for it
