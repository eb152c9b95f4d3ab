"""Policies judged on a log: every estimator, and with each the reasons not to believe it. The policies are arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.data.wording import column_word
from itrpo.errors import InputError
from itrpo.ope import bootstrap, fqe, importance, support
from itrpo.ope.fqe import FQE, Fitted
from itrpo.ope.judgement import Against, Estimate, Judged, Support
from itrpo.ope.log import Log, discounted_returns
from itrpo.ope.reasons import Reason
from itrpo.ranges import Count, Seed, Several

if TYPE_CHECKING:
    from rich.console import Console

    from itrpo.ope.behavior import Behavior

LOG = "log"
CHEAP_FOLDS = 200  # of what needs no fit
# where a reason begins; each is a share, a number of episodes, or a factor
FEW_EPISODES = 20
UNSEEN = 0.1  # of the actions
SMALL_SAMPLE, SMALL_SHARE = 10.0, 0.1  # episodes that weights are worth, and share of all
WEIGHT_RANGE = 0.5, 2.0  # of their mean, whose expectation is 1
DRIFT, STILL = 1.0, 0.02  # of the folds' deviation, and of the value
BIAS = 0.1  # of the log's own value
BEHIND, MOSTLY = 0.1, 0.5  # of the discount's weight
REGION_OUTSIDE, REGION_WEIGHT = 0.3, 0.05


class Candidate(NamedTuple):
    """A policy, as what it does at the N rows of a log of E episodes. Actions are in [-1, 1], as the log's are."""

    name: str
    action: np.ndarray  # [N, A] at each observation
    last_action: np.ndarray  # [E, A] at the next observation of each episode's last row
    log_prob: np.ndarray | None = None  # [N] log density of the log's own actions, as it samples; None: deterministic
    samples: np.ndarray | None = None  # [N, n, A] actions that it samples at each observation; None: as `action`
    last_samples: np.ndarray | None = None  # [E, n, A]
    seed: int | None = None
    why: str = "the policy is deterministic: it has no density"  # where there is no log_prob


def candidate(name: str, act: Callable[[np.ndarray], np.ndarray], log: Log, seed: int | None = None) -> Candidate:
    """A deterministic policy: `act` maps observations [N, O], in the user's units, to actions [N, A] in [-1, 1].

    Raises InputError for actions of another shape, or outside of [-1, 1].
    """

    def acted(observation: np.ndarray) -> np.ndarray:
        actions, wanted = np.asarray(act(observation)), (len(observation), log.rows.action.shape[1])
        if actions.shape != wanted:
            raise InputError(f"{name}: its actions for {len(observation):,} rows are {actions.shape}, not {wanted}")
        if not (np.abs(actions) <= 1 + 1e-5).all():
            raise InputError(
                f"{name}: its actions reach from {actions.min():g} to {actions.max():g}; here an action is in [-1, 1],"
                " of the dataset's action_low and action_high"
            )
        return actions

    return Candidate(name, acted(log.rows.observation), acted(log.rows.next_observation[log.ends]), seed=seed)


@dataclass(frozen=True)
class JudgeOptions:
    """Options of `itrpo.judge` and of the judging that `itrpo.select` does."""

    folds: Several = 11  # of the fits: the first is all episodes, the others are bootstraps
    seed: Seed = 0
    behavior_steps: Count = 3_000  # gradient steps of the fit of pi_beta
    fqe: FQE = field(default_factory=FQE)


def judge_candidates(
    log: Log,
    candidates: Sequence[Candidate],
    gamma: float,
    behavior: Behavior | None = None,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    options: JudgeOptions | None = None,
    names: Sequence[str] = (),
    console: Console | None = None,
    kept: Path | None = None,
) -> tuple[tuple[Judged, ...], tuple[Reason, ...]]:
    """-> the candidates and then the log, judged; and reasons not to believe any of it.

    `behavior` is a model of pi_beta, fitted on other episodes: without it there is no importance sampling and no
    likelihood of actions. `known` are observations [M, O] and actions [M, A] of other episodes, to which distances are
    measured. `names` are those of the columns of observations. `kept`: as of `fqe.fit`.
    Raises InputError for fewer than two episodes, or if no row says what was done after it.
    """
    episodes, options = len(log.starts), JudgeOptions() if options is None else options
    if episodes < 2:
        raise InputError(f"judging takes at least 2 episodes, and tens to say much; this log has {episodes}")
    if np.isnan(logged_next_action(log)).any(axis=1).all():
        raise InputError(
            f"each of the {episodes} episodes is one row that the clock cut: none says what was done next, so that the"
            " log itself has no value to hold policies against; put the rows of an episode one after another"
        )
    weights = bootstrap.fold_weights(episodes, options.folds, options.seed)
    many = bootstrap.fold_weights(episodes, max(CHEAP_FOLDS, options.folds), options.seed)
    fitted = fit(log, candidates, gamma, weights, options, console, kept)
    own = len(candidates)  # the log's place among the fitted
    end = log.rows.next_observation[log.ends]
    log_tail = _log_tail(fitted, own, log, gamma)
    earned = bootstrap.over_folds(discounted_returns(log, gamma, log_tail), many)
    behind = behind_cuts(log, gamma)
    # where most of what was earned is the log's own fitted Q, that can't be held against itself
    bias = () if behind > MOSTLY else bias_reasons(fitted.value[own], earned[: options.folds], episodes)
    judged: list[Judged] = []
    for place, candidate in enumerate(candidates):
        reasons = _of_fit(fitted, place, log, gamma)
        found = [make_estimate("fqe", fitted.value[place], fitted.value[own], episodes, gamma, (*reasons, *bias))]
        missing, overlap = dict[str, str](), None
        given = _support(log, candidate, behavior, known)
        if candidate.log_prob is None or behavior is None:
            why = candidate.why if behavior else "no model of pi_beta was fitted"
            missing |= dict.fromkeys(("wdr", "dr", "wpdis", "pdis"), why)
        else:
            ratio = candidate.log_prob - behavior.log_prob(log.rows.observation, log.rows.action)
            overlap = importance.overlap(log, ratio, gamma)
            samples = candidate.action[:, None] if candidate.samples is None else candidate.samples
            last = candidate.last_action[:, None] if candidate.last_samples is None else candidate.last_samples
            q = fitted.q_values(place, log.rows.observation, log.rows.action[:, None])
            v, tail = fitted.q_values(place, log.rows.observation, samples), fitted.q_values(place, end, last)
            told, few = overlap_reasons(overlap, episodes), overlap.sample_size < SMALL_SAMPLE
            low, high = possible(log, gamma)
            for name, folds in {
                "wdr": importance.weighted_doubly_robust(log, ratio, gamma, q, v, many, tail),
                "dr": bootstrap.over_folds(importance.doubly_robust(log, ratio, gamma, q, v, tail), many),
                "wpdis": importance.self_normalised(log, ratio, gamma, many, tail),
                "pdis": bootstrap.over_folds(importance.per_decision(log, ratio, gamma, tail), many),
            }.items():
                if low <= folds[0] <= high and np.isfinite(folds).all():
                    found.append(make_estimate(name, folds, earned, episodes, gamma, told, known=not few))
                else:
                    missing[name] = (
                        f"the importance weights are worth {overlap.sample_size:.1f} of {episodes} episodes, and give"
                        f" what rewards from {low * (1 - gamma):,.3g} to {high * (1 - gamma):,.3g} can't add up to"
                    )
        judged.append(
            Judged(
                candidate.name,
                candidate.seed,
                tuple(found),
                missing,
                given,
                None if overlap is None else overlap.sample_size,
                None if overlap is None else overlap.mean_weight,
                _of_support(given, names),
            )
        )
    of_log = make_estimate("fqe", fitted.value[own], None, episodes, gamma, (*_of_fit(fitted, own, log, gamma), *bias))
    own_folds = _with_every_tail(fitted, own, log, gamma, many) if log.cut.any() else earned
    itself = make_estimate("log", own_folds, None, episodes, gamma)
    judged.append(Judged(LOG, None, (of_log, itself), {}, None, None, None, ()))
    return tuple(judged), _of_log(log, gamma)


def fit(
    log: Log,
    candidates: Sequence[Candidate],
    gamma: float,
    weights: np.ndarray,
    options: JudgeOptions,
    console: Console | None,
    kept: Path | None,
) -> Fitted:
    """Fitted Q evaluation of the candidates and, last, of the log's own actions."""
    after = np.stack([*(next_action(log, it) for it in candidates), logged_next_action(log)])
    first = np.stack([*(it.action[log.starts] for it in candidates), log.rows.action[log.starts]])
    actions = after[:, :, None], first[:, :, None]
    return fqe.fit(log, *actions, gamma, weights, options.fqe, console=console, kept=kept, seed=options.seed)


def next_action(log: Log, it: Candidate) -> np.ndarray:
    """[N, A]: what the policy does where each row leads to, which is where the next row of its episode is."""
    after = np.concatenate([it.action[1:], it.action[:1]])
    after[log.ends] = it.last_action
    return after


def logged_next_action(log: Log) -> np.ndarray:
    """[N, A]: what was done there, NaN where an episode was cut before the log could say."""
    after = np.array(log.rows.next_action, np.float32)
    after[log.ends[log.cut & (after[log.ends] == 0).all(axis=1)]] = np.nan
    return after


def make_estimate(
    estimator: str,
    folds: np.ndarray,
    log_folds: np.ndarray | None,
    episodes: int,
    gamma: float,
    reasons: Sequence[Reason] = (),
    known: bool = True,
) -> Estimate:
    """From values in folds [F], and those of the log by the same estimator in the same folds. Not `known`: folds agree
    with one another for another reason than that they are right, and there is no interval.
    """

    def interval(values: np.ndarray) -> tuple[float, float, float]:
        found = bootstrap.interval(values, episodes)
        return found if known else (found.value, -np.inf, np.inf)

    value, low, high = interval(folds)
    against = None if log_folds is None else Against(*interval(folds - log_folds))
    return Estimate(estimator, value, low, high, (1 - gamma) * value, against, tuple(folds.tolist()), tuple(reasons))


def possible(log: Log, gamma: float) -> tuple[float, float]:
    """What rewards such as the log's can add up to, at the least and at the most."""
    rewards = log.rows.reward
    return float(min(rewards.min(), 0)) / (1 - gamma), float(max(rewards.max(), 0)) / (1 - gamma)


def _with_every_tail(fitted: Fitted, own: int, log: Log, gamma: float, weights: np.ndarray) -> np.ndarray:
    """[F]: the log's mean return in each fold; what lies behind cuts differs as the fits of the log's Q do."""
    fits = fitted.value.shape[1]
    returns = [discounted_returns(log, gamma, _log_tail(fitted, own, log, gamma, fold)) for fold in range(fits)]
    of_fold = [0, *(1 + place % (fits - 1) for place in range(len(weights) - 1))]  # there are more bootstraps than fits
    return bootstrap.over_folds(np.stack(returns)[of_fold], weights)


def _log_tail(fitted: Fitted, own: int, log: Log, gamma: float, fold: int = 0) -> np.ndarray:
    """[E]: what the log's own Q gives where episodes were cut. Where it is not known what was done next, it is what
    Q of the last row leaves after that row's reward.
    """
    rows, ends = log.rows, log.ends
    after = logged_next_action(log)[ends]
    unknown = np.isnan(after).any(axis=1)
    tail = fitted.q_values(own, rows.next_observation[ends], np.nan_to_num(after)[:, None], fold)
    last = fitted.q_values(own, rows.observation[ends], rows.action[ends][:, None], fold)
    return np.where(unknown, (last - rows.reward[ends]) / max(gamma, 1e-6), tail)  # with gamma 0 none of it counts


# --- support -------------------------------------------------------------------------------------------------------


def _support(
    log: Log, candidate: Candidate, behavior: Behavior | None, known: tuple[np.ndarray, np.ndarray] | None
) -> Support:
    observation, action = log.rows.observation, log.rows.action
    unlikely = far = None
    if behavior is not None:
        ours, theirs = (behavior.log_prob(observation, it) for it in (candidate.action, action))
        unlikely = support.unlikely_share(ours, theirs)
    if known is not None:
        far = support.far_share(observation, candidate.action, action, *known)
    regions = tuple(support.regions(observation, candidate.action, action))
    by_column: dict[int, float] = {}
    for it in regions:
        by_column[it.column] = by_column.get(it.column, 0.0) + it.weight * it.outside
    return Support(unlikely, far, max(by_column.values(), default=0.0), regions)


# --- reasons -------------------------------------------------------------------------------------------------------


def behind_cuts(log: Log, gamma: float) -> float:
    """The share of the discounted future that lies behind the cuts of episodes."""
    return float(np.where(log.cut, gamma**log.lengths, 0.0).mean())


def _of_log(log: Log, gamma: float) -> tuple[Reason, ...]:
    reasons = list[Reason]()
    if len(log.starts) < FEW_EPISODES:
        text = f"there are only {len(log.starts)} episodes: an interval over so few says little"
        reasons.append(Reason("few", text))
    behind = behind_cuts(log, gamma)
    if behind > BEHIND:
        alone = discounted_returns(log, gamma).mean()
        text = (
            f"{log.cut.mean():.0%} of the episodes were cut, and {behind:.0%} of the discounted future lies behind the"
            " cuts: there every estimate is what the fitted Q guesses, that of the episodes themselves too, whose rows"
            f" alone earned {alone:,.4g}"
        )
        reasons.append(Reason("cut", text))
    return tuple(reasons)


def _of_fit(fitted: Fitted, place: int, log: Log, gamma: float) -> tuple[Reason, ...]:
    value, reasons, (low, high) = fitted.value[place], list[Reason](), possible(log, gamma)
    if not np.isfinite(value).all():
        return (Reason("runaway", "the fit has run away to infinity"),)
    if not low <= value[0] <= high:
        text = f"{value[0]:,.3g} is none of the {low:,.4g} to {high:,.4g} that such rewards can add up to"
        reasons.append(Reason("runaway", text))
    drift = float(fitted.drift()[place])
    if drift > max(DRIFT * value[1:].std(), STILL * abs(value[0])):
        text = f"the fit has not settled: late in it the value moved by {drift:,.3g}; give it more --steps"
        reasons.append(Reason("unsettled", text))
    return tuple(reasons)


def bias_reasons(fitted_log: np.ndarray, earned: np.ndarray, episodes: int) -> tuple[Reason, ...]:
    gap = bootstrap.interval(fitted_log - earned, episodes)
    noise = np.isfinite(gap.low) and gap.low <= 0 <= gap.high
    if noise or abs(gap.value) <= BIAS * abs(earned[0]):
        return ()
    text = (
        f"fitted Q puts the log itself at {fitted_log[0]:,.3g}, and its episodes earned {earned[0]:,.3g}: expect it to"
        " be as wrong about policies"
    )
    return (Reason("bias", text),)


def overlap_reasons(overlap: importance.Overlap, episodes: int) -> tuple[Reason, ...]:
    reasons, (size, mean) = list[Reason](), overlap
    if size < max(SMALL_SAMPLE, SMALL_SHARE * episodes):
        no = ", so there is no interval" if size < SMALL_SAMPLE else ""
        reasons.append(Reason("weights", f"the importance weights are worth {size:.1f} of {episodes} episodes{no}"))
    if not WEIGHT_RANGE[0] <= mean <= WEIGHT_RANGE[1]:
        why = "the log hardly does what it does" if mean < 1 else "the model of pi_beta is wrong in its tails"
        text = f"the importance weights are {mean:.2g} on average, and not 1: {why}"
        reasons.append(Reason("overlap", text))
    return tuple(reasons)


def _of_support(given: Support, names: Sequence[str]) -> tuple[Reason, ...]:
    reasons = list[Reason]()
    if given.unlikely is not None and given.unlikely > UNSEEN:
        text = f"{given.unlikely:.0%} of its actions are less likely under pi_beta than 99% of the log's own"
        reasons.append(Reason("unlikely", text))
    if given.far is not None and given.far > UNSEEN:
        text = f"{given.far:.0%} of its actions are farther from all known rows than 99% of the log's own"
        reasons.append(Reason("far", text))
    worst = [it for it in given.regions if it.outside > REGION_OUTSIDE and it.weight > REGION_WEIGHT]
    if worst:
        it = max(worst, key=lambda region: region.weight * region.outside)
        named = column_word("observation", it.column, names)
        text = (
            f"where {named} is {it.low:.4g} to {it.high:.4g}, {it.weight:.0%} of the rows, {it.outside:.0%} of its"
            " actions leave the range of the log's"
        )
        reasons.append(Reason("region", text))
    return tuple(reasons)
