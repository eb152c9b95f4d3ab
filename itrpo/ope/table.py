"""A judgement as a person reads it: what speaks against it first, then the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.ope.judgement import ESTIMATORS, Judgement
from itrpo.ope.reasons import Reason
from itrpo.report.tables import algorithm_name, count

if TYPE_CHECKING:
    from rich.console import Console


def print_judgement(judged: Judgement, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    for it in warnings(judged):
        console.print(Text(f"- {it}", style="yellow"))
    table = Table(title=title(judged), title_justify="left")
    for name in ("policy", "estimate by", "discounted return", "reward per step", "against the log", "doubts"):
        table.add_column(name, justify="left" if name in ("policy", "estimate by") else "right")
    for policy in judged.policies:
        for place, it in enumerate(policy.estimates):
            doubts = len({*it.reasons, *policy.reasons})
            name = policy.name if place == 0 else ""
            against = "" if it.against_log is None else with_interval(*it.against_log, sign=True)
            cells = (name, ESTIMATORS[it.estimator], with_interval(it.value, it.low, it.high), number(it.per_step))
            table.add_row(*map(Text, (*cells, against, str(doubts) if doubts else "")))
        table.add_section()
    console.print(table)
    for sentence in [*missing(judged), *footnotes(judged)]:
        console.print(Text(sentence))


def title(judged: Judgement) -> str:
    name = algorithm_name(judged.algorithm) if judged.algorithm else "policies"
    return (
        f"{name} on {judged.dataset}, after {judged.step:,} gradient steps: {judged.episodes:,} episodes that it has"
        f" not seen ({judged.unseen})"
    )


class Doubt(NamedTuple):
    """A reason, with whose estimates it is about."""

    reason: Reason
    whose: str  # "": of all policies
    which: str  # estimators; "": all

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.whose, self.which, self.reason.text)))


def warnings(judged: Judgement) -> list[Doubt]:
    """Each reason once; first what concerns all."""
    found: dict[Reason, tuple[list[str], list[str]]] = {it: ([], []) for it in judged.reasons}
    for policy in judged.policies:
        for reason in policy.reasons:
            found.setdefault(reason, ([], []))[0].append(policy.name)
        for it in policy.estimates:
            for reason in it.reasons:
                whose, which = found.setdefault(reason, ([], []))
                whose.append(policy.name)
                which.append(ESTIMATORS[it.estimator])
    everybody = {it.name for it in judged.policies if it.name != "log"}
    return [
        Doubt(
            reason,
            "" if not whose or everybody <= set(whose) else ", ".join(dict.fromkeys(whose)),
            ", ".join(dict.fromkeys(which)),
        )
        for reason, (whose, which) in found.items()
    ]


def missing(judged: Judgement) -> list[str]:
    """Which estimates there are not, and why."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for policy in judged.policies:
        for estimator, why in policy.missing.items():
            whose, which = found.setdefault(why, ([], []))
            whose.append(policy.name)
            which.append(ESTIMATORS[estimator])
    return [
        f"Not available for {', '.join(dict.fromkeys(whose))}: {', '.join(dict.fromkeys(which))}: {why}."
        for why, (whose, which) in found.items()
    ]


def footnotes(judged: Judgement) -> list[str]:
    folds = judged.settings.get("folds", 0)
    stochastic = any(it.sample_size is not None for it in judged.policies)
    lines = [
        f"In brackets: 95% intervals over resampled episodes ({folds} folds of fits); against the log: by the same"
        f" estimator in the same folds. gamma {judged.gamma:g}; the undiscounted return of these"
        f" {count(judged.episodes, 'episode')} is {number(judged.log_return)} on average.",
    ]
    if stochastic:
        lines.append(
            "Fitted Q judges the policy as it ships, without noise; importance sampling and doubly robust judge it as"
            " it samples. What each means, and when not to believe it: docs/judging.md."
        )
    return lines


def with_interval(value: float, low: float, high: float, sign: bool = False) -> str:
    plus = "+" if sign else ""
    if not np.isfinite(low):
        return f"{number(value, plus)} (no interval)"
    return f"{number(value, plus)} ({number(low, plus)} to {number(high, plus)})"


def number(value: float, plus: str = "") -> str:
    """Three or four digits."""
    if abs(value) >= 1e7:
        return f"{value:{plus}.2e}"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    return f"{value:{plus},.{digits}f}"
