"""`itrpo datasets check SOURCE`: what is wrong or unusual in a dataset, said before training.

Every check takes the rows as they are and gives findings: what was found, in which rows, and what to do about it. An
error makes training fail or go wrong; a warning is probably a fault of the log; a note is worth knowing. Nothing is
quadratic in the number of rows: a million rows take a few seconds. The thresholds are constants beside the checks; each
was set so that data rolled out in MuJoCo's Hopper, HalfCheetah and Walker2d by good and bad policies stay below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from itrpo.data.actions import choices_in, said_quantities
from itrpo.data.column_map import ColumnMap, without
from itrpo.data.fit import misfit, users_env
from itrpo.data.health import actions, alignment, duplicates, ends, rewards, stuck, values
from itrpo.data.health.facts import facts
from itrpo.data.health.rows import Finding, Rows, finding, prepare
from itrpo.data.load import ONE_SIDED, as_choices, bounds_from, one_sided, read_episodes, rescale
from itrpo.data.series import rules_of
from itrpo.data.sources import Source
from itrpo.errors import InputError
from itrpo.evaluation.environments import time_limit
from itrpo.types import BoundsFrom, DiscreteSpec, SpaceSpec

if TYPE_CHECKING:
    from rich.console import Console

# rows -> what is found in them. Findings of equal severity are listed in this order.
CHECKS = (
    values.not_finite,
    values.narrowed,
    values.columns,
    actions.actions,
    rewards.rewards,
    ends.ends,
    ends.going_on,
    alignment.misaligned,
    alignment.repeated_successors,
    duplicates.repetitions,
    stuck.stuck,
    values.placeholders,
    values.scales,
    values.dependent_columns,
    actions.little_noise,
)


@dataclass(frozen=True)
class Health:
    """The result of all checks, and what a picture of the dataset needs."""

    name: str
    facts: Mapping[str, str]
    findings: tuple[Finding, ...]  # errors first
    returns: np.ndarray = field(repr=False)  # [E] of completed episodes
    lengths: np.ndarray = field(repr=False)  # [E]
    by_terminal: np.ndarray = field(repr=False)  # [E] bool: ended by the environment, not by the clock
    actions: np.ndarray = field(repr=False)  # [N, A], in the data's units
    action_names: tuple[str, ...]  # [A]
    action_bounds: tuple[np.ndarray, np.ndarray] = field(repr=False)  # [A] each: what -1 and +1 stand for

    def number(self, severity: str) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)


def check_dataset(
    source: Source,
    *,
    columns: ColumnMap | None = None,
    exclude: str | Sequence[str] = (),
    env: str | None = None,
    max_gap: str | float | None = None,
    fill: str | None = None,
    period: str | float | None = None,
    period_rewards: str | None = None,
    action_low: float | Sequence[float] | np.ndarray | None = None,
    action_high: float | Sequence[float] | np.ndarray | None = None,
    continuous_actions: bool = False,
    num_actions: int | None = None,
    horizon: int | None = None,
    console: Console | None = None,
) -> Health:
    """Checks a dataset, which `load_dataset` would take with the same arguments.

    `horizon`: steps after which the clock ends an episode; None takes the environment's, if it is known and has one.
    Raises InputError if the source can't be read at all.
    """
    named = users_env(env)
    quantities = said_quantities(continuous_actions, num_actions, action_low, action_high)
    rules = rules_of(max_gap, fill, period, period_rewards, quantities)
    episodes = read_episodes(source, console, without(columns, exclude), rules)
    env_id = episodes.env_id if env is None else named
    if horizon is None and env_id is not None:
        horizon = time_limit(env_id)
    bounds = bounds_from(episodes, action_low, action_high)
    raw_actions, where, wrong = episodes.actions, episodes.source.where, ""
    found = None
    if np.isfinite(raw_actions).all():
        try:
            found = choices_in(
                raw_actions,
                episodes.attributes,
                env_id,
                action_low,
                action_high,
                num_actions,
                continuous_actions,
                where,
            )
        except InputError as error:
            wrong = str(error)
    if found is not None:
        episodes, low, high = as_choices(episodes, found, 1, where)
        scaled = 2 * episodes.actions[:, None].astype(np.float32) / (found.number - 1) - 1  # for what looks at motion
        episodes, scaled, bounds = replace(episodes, actions=scaled), False, found.said_by
    else:
        episodes, low, high, scaled = rescale(episodes, action_low, action_high)
    with np.errstate(all="ignore"):  # what isn't finite is a finding of its own
        rows = prepare(episodes, raw_actions, scaled, horizon, continuous_actions, found)
        findings = [finding for check in CHECKS for finding in check(rows)]
        if wrong:
            findings.append(finding("error", "choices", wrong.removeprefix(f"{where}: "), "training refuses them"))
        if found is not None and found.note:
            findings.append(finding("note", "choices", found.note, "say so, and nobody has to guess"))
        if env_id is not None:
            findings += fitting(rows, env_id, low, high, bounds, env is not None)
        elif bounds == "assumed" and not rows.discrete and (sides := one_sided(episodes, *rows.logged)):
            findings.append(finding("warning", "one-sided-actions", sides, ONE_SIDED))
        known = facts(rows, env_id)
    if scaled:
        known["actions rescaled from"] = f"{low.tolist()} to {high.tolist()}"
    if changes := episodes.source.recipe.get("changes"):
        known["arranged"] = "\n".join(changes)
    order = ("error", "warning", "note")
    return Health(
        name=episodes.source.name,
        facts=known,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        returns=rows.returns,
        lengths=rows.lengths,
        by_terminal=episodes.terminals[rows.ends],
        actions=low + (high - low) * (episodes.actions + 1) / 2 if scaled or found else episodes.actions,
        action_names=tuple(rows.name("actions", index) for index in range(episodes.actions.shape[1])),
        action_bounds=(low, high),
    )


def fitting(
    rows: Rows, env_id: str, low: np.ndarray, high: np.ndarray, bounds: BoundsFrom, named: bool
) -> list[Finding]:
    """Whether the environment takes what was logged. Raises InputError if it can't be built where the user named it."""
    episodes = rows.episodes
    sizes = SpaceSpec(episodes.observations.shape[1], episodes.actions.shape[1])
    if rows.counts is not None:
        sizes = DiscreteSpec(episodes.observations.shape[1], len(rows.counts))
    sound = episodes.actions[rows.sound] if rows.sound.any() else episodes.actions
    try:
        found = misfit(env_id, episodes.source.where, sizes, low, high, bounds, sound)
    except InputError as error:
        if named:
            raise
        return [finding("warning", "environment", str(error), "training needs --env none here, or another --env")]
    return [] if found is None else [finding(found.severity, "environment", found.what, found.advice)]
