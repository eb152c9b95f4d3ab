"""Reasons not to believe an estimate: what is wrong, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal[
    "few", "cut", "behavior", "runaway", "unsettled", "bias", "weights", "overlap", "unlikely", "far", "region"
]


@dataclass(frozen=True)
class Reason:
    kind: Kind
    text: str  # a sentence with this case's numbers

    def __str__(self) -> str:
        return self.text


class About(NamedTuple):
    """What is the same for all reasons of one kind."""

    plain: str  # for who does not know the words of the trade
    advice: str


ABOUT: dict[Kind, About] = {  # the gravest first
    "runaway": About(
        "The value could not be computed.",
        "Don't use it. Look for outliers in the rewards (itrpo datasets check); judge again with another --seed.",
    ),
    "unsettled": About(
        "The computation was stopped before it was done.",
        "Judge again with twice the --steps.",
    ),
    "bias": About(
        "The method is wrong about what is known: the log itself.",
        "Expect it to be as wrong about policies. Compare policies with one another, judge again with twice the"
        " --steps, or log more.",
    ),
    "behavior": About(
        "What is held against the policy was learned from the judged episodes.",
        "Bring the run's own data back to where it was, and judge again with --again.",
    ),
    "few": About(
        "There are few episodes to judge by.",
        "Log longer, or hold more back (--holdout 0.3); until then take every interval for too narrow.",
    ),
    "cut": About(
        "Most episodes stop before what was done in them has had its effect.",
        "Log longer episodes, or judge with a smaller --gamma, which looks less far ahead.",
    ),
    "unlikely": About(
        "It often does what the operator hardly ever did in such a state.",
        "Train it closer to the log, or try such actions with care and log what comes; bound and slow it down when it"
        " ships (itrpo export: --action-low, --action-high, --rate).",
    ),
    "far": About(
        "It often does what nothing in the log comes near.",
        "Train it closer to the log, or try such actions with care and log what comes; bound and slow it down when it"
        " ships (itrpo export: --action-low, --action-high, --rate).",
    ),
    "region": About(
        "There is a range where it leaves what was tried.",
        "Be at hand when the plant is in that range, or leave it to the operator there at first; a log of other"
        " settings in that range would help most.",
    ),
    "weights": About(
        "Only a handful of episodes looks like what this policy would do.",
        "Leave the estimates by importance sampling and doubly robust out, and go by fitted Q.",
    ),
    "overlap": About(
        "What this policy does can't be weighed by this log.",
        "Leave the estimates by importance sampling and doubly robust out, and go by fitted Q.",
    ),
}
