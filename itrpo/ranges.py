"""Ranges of configuration fields, as types that stand beside their fields:

alpha: Positive = 0.9  # weight of the KL
tau: Annotated[float, Interval("[0, 1)")] = 0.5  # a range that no other field has
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

from itrpo.errors import InputError


@dataclass(frozen=True)
class Interval:
    """Where a number, or each number of a tuple, must lie: "[0, 1)". Without its end, `text` is a key of `WORDS`."""

    text: str

    def __contains__(self, value: float) -> bool:
        low, high = (float(end) for end in self.text[1:-1].split(","))
        above = low <= value if self.text[0] == "[" else low < value
        return above and (value <= high if self.text[-1] == "]" else value < high)

    def __str__(self) -> str:
        return WORDS.get(self.text[:-1], f"in {self.text}")


WORDS = {
    "(-inf, inf": "finite",
    "(0, inf": "positive",
    "[0, inf": "at least 0",
    "[1, inf": "at least 1",
    "[2, inf": "at least 2",
}

Finite = Annotated[float, Interval("(-inf, inf)")]
Seed = Annotated[int, Interval("[0, 2147483647]")]
Positive = Annotated[float, Interval("(0, inf)")]
PositiveOrInf = Annotated[float, Interval("(0, inf]")]
NonNegative = Annotated[float, Interval("[0, inf)")]
NonNegativeOrInf = Annotated[float, Interval("[0, inf]")]
Share = Annotated[float, Interval("[0, 1]")]
ShareBelowOne = Annotated[float, Interval("[0, 1)")]
InnerShare = Annotated[float, Interval("(0, 1)")]
Discount = Annotated[float, Interval("[0, 1)")]
Rate = Annotated[float, Interval("(0, 1]")]
Count = Annotated[int, Interval("[1, inf)")]
Several = Annotated[int, Interval("[2, inf)")]
Seeds = Annotated[int, Interval("[1, 10000]")]  # each keeps networks of its own
CountOrZero = Annotated[int, Interval("[0, inf)")]
Widths = Annotated[tuple[int, ...], Interval("[1, inf)")]


def intervals(config: Any) -> Iterator[tuple[str, Any, Interval]]:
    """(name, value, range) of each field of a dataclass that has a range, groups opened."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from intervals(value)
        hint = hints[field.name]
        for one in (hint, *get_args(hint)):  # of `Positive | None` too
            for declared in getattr(one, "__metadata__", ()):
                if isinstance(declared, Interval):
                    yield field.name, value, declared


def check_ranges(config: Any, prefix: str = "") -> None:
    """Raises InputError unless each field of a dataclass lies in its range, and NAME_low is at most NAME_high.

    None, where a field may be that, has no range. `prefix` stands before names in the message.
    """
    for name, value, interval in intervals(config):
        if isinstance(value, tuple):
            if not all(number in interval for number in value):
                listed = ",".join(map(str, value))
                raise InputError(f"{prefix}{name}: every number must be {interval}, got {listed}")
        elif value is not None and value not in interval:
            raise InputError(f"{prefix}{name} must be {interval}, got {value}")
    check_ends(config, prefix)


def check_ends(config: Any, prefix: str) -> None:
    """The part of `check_ranges` about NAME_low and NAME_high."""
    for field in fields(config):
        low, high_name = getattr(config, field.name), f"{field.name.removesuffix('_low')}_high"
        if is_dataclass(low):
            check_ends(low, prefix)
        elif field.name.endswith("_low"):
            high = getattr(config, high_name, None)
            if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
                raise InputError(f"{prefix}{field.name} {low} is above {prefix}{high_name} {high}")
