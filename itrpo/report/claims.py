"""What the paper says of its experiments, sentence by sentence, and what runs say of it.

Each claim has the sentence, what is compared, and a function from the runs on data of one kind to a verdict: D4RL's
data and data made here give a verdict each. A difference holds if its 95% interval lies on the claim's side of zero,
does not if it lies on the other, and can't be told in between. That iTRPO is above all methods of a table is refuted by
any of them, and holds only against all; with tasks missing nothing is said but the numbers. Arms are found by label,
else by algorithm (`arms.arm`), controls by their constants.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from itrpo.report import arms, statistics
from itrpo.report.arms import Scores
from itrpo.report.controls import ALPHA, LAMBDA, is_control, opened, percent_change
from itrpo.report.published import LOCOMOTION, MAZES
from itrpo.report.statistics import Estimate
from itrpo.report.tables import count
from itrpo.results.frames import Results

if TYPE_CHECKING:
    import polars

Answer = Literal["holds", "does not hold", "can't tell", "not enough runs"]

TABLE2 = ("bear", "uwac", "iql", "td3_bc", "cql", "pbrl")  # the other columns
TABLE3 = ("bear", "td3_bc", "plas", "cql", "iql", "spot")
CONSTRAINT, CONSERVATIVE = ("bear", "uwac", "iql", "td3_bc"), ("cql", "pbrl")
KINDS = ("random", "medium", "medium-replay", "medium-expert", "expert")
LARGE_MAZES = ("antmaze-large-play", "antmaze-large-diverse")
SUCCESSIVE_KL = "probe_kl_evaluations"


class Missing(NamedTuple):
    """What a claim is about and is not there, in words."""

    methods: str = ""
    tasks: str = ""

    def __str__(self) -> str:
        return f"missing: {', '.join(filter(None, self))}" if any(self) else ""


COMPLETE = Missing()


class Verdict(NamedTuple):
    answer: Answer
    numbers: Mapping[str, Estimate] = MappingProxyType({})  # what was compared -> the number and its interval
    n: str = ""  # how much it rests on: tasks, seeds
    missing: Missing = COMPLETE
    why: str = ""  # there are no numbers

    @property
    def evidence(self) -> str:
        """All of it in one line."""
        parts = [f"{name}: {it.value:.3g} [{it.low:.3g}, {it.high:.3g}]" for name, it in self.numbers.items()]
        return self.why or "; ".join(filter(None, [*parts, str(self.missing)]))


class Claim(NamedTuple):
    id: str
    sentence: str  # the paper's words
    where: str
    compared: str  # what is compared here
    judge: Callable[[Results], Verdict]


def verdicts(results: Results) -> dict[str, dict[str, Verdict]]:
    """claim id -> kind of data ("d4rl", "generated", ...) -> verdict."""
    kinds = results.runs["kind"].drop_nulls().unique().sort().to_list()
    apart = {kind: arms.of_kind(results, kind) for kind in kinds}
    return {claim.id: {kind: claim.judge(own) for kind, own in apart.items()} for claim in CLAIMS}


# --- arms ----------------------------------------------------------------------------------------------------------


def on_tasks(results: Results, tasks: Sequence[str]) -> Results:
    return arms.chosen(results, results.runs.filter(results.runs["task"].is_in(list(tasks))))


def table(results: Results, tasks: Sequence[str], names: Sequence[str]) -> tuple[dict[str, Scores], Missing]:
    """iTRPO and those of `names` that have scores, on the tasks that all of them have; and what is missing, in words.

    Empty without iTRPO, without any other, or without a task in common.
    """
    own = on_tasks(results, tasks)
    found: dict[str, Scores] = {}
    for name in ("itrpo", *names):
        one = arms.arm(own, name)
        scored = None if one is None else arms.scores(one)
        if scored is not None and len(scored.seeds) > 1:
            found[name] = scored
    if "itrpo" not in found or len(found) == 1:
        return {}, COMPLETE
    found = dict(zip(found, arms.common(*found.values()), strict=True))
    if not found["itrpo"].datasets:
        return {}, COMPLETE
    absent = [name for name in names if name not in found]
    return found, Missing(", ".join(absent), fewer(len(found["itrpo"].datasets), len(tasks)))


def fewer(tasks: int, of: int) -> str:
    return "" if tasks == of else f"{of - tasks} of {of} tasks"


def size(found: dict[str, Scores]) -> str:
    seeds = sorted({len(it.seeds) for it in found.values()})
    return f"{count(len(found['itrpo'].datasets), 'task')}, {' to '.join(map(str, {seeds[0]: 0, seeds[-1]: 0}))} seeds"


NOTHING = Verdict("not enough runs", why="iTRPO and what it is compared with have no task in common with two seeds")


# --- from numbers to answers ---------------------------------------------------------------------------------------


def side(estimate: Estimate) -> Answer:
    """Of a difference that the claim says is above zero."""
    return "holds" if estimate.low > 0 else "does not hold" if estimate.high < 0 else "can't tell"


def together(answers: Sequence[Answer], missing: Missing, refutable: bool = True) -> Answer:
    """Of parts that must all hold. refutable: what is refuted against some methods is refuted against all."""
    if missing.tasks or (missing.methods and not refutable):
        return "not enough runs"
    if "does not hold" in answers:
        return "does not hold"
    if missing.methods:
        return "not enough runs"
    return "holds" if set(answers) == {"holds"} else "can't tell"


def above_all(
    results: Results,
    tasks: Sequence[str],
    names: Sequence[str],
    statistic: Callable[..., np.ndarray],
    sign: float = 1.0,
) -> Verdict:
    """iTRPO's statistic is above that of each other (sign -1: below)."""
    found, missing = table(results, tasks, names)
    if not found:
        return NOTHING
    own = found["itrpo"].values
    numbers = {
        f"iTRPO - {name}": statistics.bootstrap(lambda a, b: statistic(a) - statistic(b), own, it.values)
        for name, it in found.items()
        if name != "itrpo"
    }
    answers: list[Answer] = [side(it if sign > 0 else negative(it)) for it in numbers.values()]
    return Verdict(together(answers, missing), numbers, size(found), missing)


def negative(it: Estimate) -> Estimate:
    return Estimate(-it.value, -it.high, -it.low)


def spread(scores: np.ndarray) -> np.ndarray:
    """The mean over tasks of the standard deviation over seeds."""
    return scores.std(-2, ddof=1).mean(-1)


def wins(results: Results) -> Verdict:
    """On how many of the tasks iTRPO's mean is the highest; a tie is a win."""
    found, missing = table(results, LOCOMOTION, TABLE2)
    if not found:
        return NOTHING

    def share(own: np.ndarray, *others: np.ndarray) -> np.ndarray:
        best = np.max([it.mean(-2) for it in others], axis=0)
        return (own.mean(-2) >= best).mean(-1)

    estimate = statistics.bootstrap(share, *(it.values for it in found.values()))
    numbers = {"share of tasks won": estimate}
    less = Estimate(*(it - 11 / 15 + 1e-9 for it in estimate))
    return Verdict(together([side(less)], missing), numbers, size(found), missing)


def second_best(results: Results) -> Verdict:
    found, missing = table(results, LOCOMOTION, TABLE2)
    if "pbrl" not in found:
        return NOTHING
    numbers = {
        f"PBRL - {name}": statistics.difference(found["pbrl"].values, it.values)
        for name, it in found.items()
        if name not in ("pbrl", "itrpo")
    }
    return Verdict(together([side(it) for it in numbers.values()], missing), numbers, size(found), missing)


def ten_points(results: Results) -> Verdict:
    """Over the best of the constraint methods; 9.5 and more is "around 10"."""
    found, missing = table(results, LOCOMOTION, CONSTRAINT)
    if not found:
        return NOTHING

    def gain(own: np.ndarray, *others: np.ndarray) -> np.ndarray:
        return statistics.mean(own) - np.max([statistics.mean(it) for it in others], axis=0)

    estimate = statistics.bootstrap(gain, *(it.values for it in found.values()))
    numbers = {"iTRPO - the best constraint method": estimate}
    answer = side(Estimate(*(it - 9.5 for it in estimate)))
    return Verdict(together([answer], missing), numbers, size(found), missing)


def larger_on(results: Results, kinds: Sequence[str], names: Sequence[str]) -> Verdict:
    """The gain over the best of `names` on each task is larger on data of these kinds than on the rest."""
    found, missing = table(results, LOCOMOTION, names)
    return NOTHING if not found else gains_on(found, kinds, missing, results)


def gains_on(found: dict[str, Scores], kinds: Sequence[str], missing: Missing, results: Results) -> Verdict:
    tasks = dict(results.runs.select("dataset", "task").iter_rows())
    inside = np.array([kind_of(tasks[name]) in kinds for name in found["itrpo"].datasets])
    if inside.all() or not inside.any():
        return NOTHING

    def more(own: np.ndarray, *others: np.ndarray) -> np.ndarray:
        gain = own.mean(-2) - np.max([it.mean(-2) for it in others], axis=0)
        return gain[..., inside].mean(-1) - gain[..., ~inside].mean(-1)

    estimate = statistics.bootstrap(more, *(it.values for it in found.values()))
    numbers = {f"gain on {', '.join(kinds)} - gain on the rest": estimate}
    return Verdict(together([side(estimate)], missing, refutable=False), numbers, size(found), missing)


def kind_of(task: str) -> str:
    return task.partition("-")[2]


def families(results: Results) -> Verdict:
    """CQL and PBRL against BEAR, UWAC, IQL and TD3+BC: each mean of averages."""
    found, missing = table(results, LOCOMOTION, (*CONSTRAINT, *CONSERVATIVE))
    first, second = ([it.values for name, it in found.items() if name in names] for names in (CONSERVATIVE, CONSTRAINT))
    if not first or not second:
        return NOTHING

    def more(*scores: np.ndarray) -> np.ndarray:
        means = [statistics.mean(it) for it in scores]
        return np.mean(means[: len(first)], axis=0) - np.mean(means[len(first) :], axis=0)

    estimate = statistics.bootstrap(more, *first, *second)
    numbers = {"conservative - constraint": estimate}
    return Verdict(together([side(estimate)], missing, refutable=False), numbers, size(found), missing)


# --- over time -----------------------------------------------------------------------------------------------------


class During(NamedTuple):
    difference: Estimate
    tasks: int
    n: str


def during(results: Results, other: str, first: int, last: float) -> During | None:
    """iTRPO's mean score at evaluations at steps first to last, minus another's, on the datasets of both."""
    own = on_tasks(results, LOCOMOTION)
    pair = [arms.arm(own, name) for name in ("itrpo", other)]
    measured = [None if it is None else arms.curves(it) for it in pair]
    if measured[0] is None or measured[1] is None:
        return None
    shared = [name for name in measured[0].datasets if name in measured[1].datasets]
    steps = [step for step in np.intersect1d(measured[0].steps, measured[1].steps) if first <= step <= last]
    if not shared or not steps:
        return None
    areas = [
        it.values[:, [it.datasets.index(name) for name in shared]][..., np.isin(it.steps, steps)].mean(-1)
        for it in measured
        if it is not None
    ]
    if min(map(len, areas)) < 2:
        return None
    seeds = " and ".join(str(len(it)) for it in areas)
    n = f"{count(len(shared), 'task')}, {seeds} seeds, {count(len(steps), 'evaluation')}"
    return During(statistics.difference(areas[0], areas[1]), len(shared), n)


def efficiency(results: Results) -> Verdict:
    found = {name: during(results, name, 1, np.inf) for name in ("iql", "cql")}
    return over_time({f"area under the curves, iTRPO - {name}": it for name, it in found.items()})


def early_and_late(results: Results) -> Verdict:
    early = during(results, "td3_bc", 1, 99_999)
    turned = None if early is None else early._replace(difference=negative(early.difference))
    late = during(results, "td3_bc", 100_000, np.inf)
    return over_time({"TD3+BC - iTRPO before 10^5 steps": turned, "iTRPO - TD3+BC from then on": late})


def over_time(found: dict[str, During | None]) -> Verdict:
    """All of these differences are above zero."""
    there = {name: it for name, it in found.items() if it is not None}
    if not there:
        return NOTHING
    numbers = {name: it.difference for name, it in there.items()}
    absent = ", ".join(name for name in found if name not in there)
    missing = Missing(absent, fewer(min(it.tasks for it in there.values()), len(LOCOMOTION)))
    n = "; ".join(f"{name}: {it.n}" for name, it in there.items())
    return Verdict(together([side(it) for it in numbers.values()], missing), numbers, n, missing)


# --- tau -----------------------------------------------------------------------------------------------------------


def shaped(results: Results) -> polars.DataFrame:
    """The finished runs of iTRPO with a shaping reward."""
    runs = results.runs.filter(results.runs["state"].is_in(arms.DONE), results.runs["algorithm"] == "itrpo")
    return runs.filter(runs["tau"] > 0)


def once(runs: polars.DataFrame) -> polars.DataFrame:
    """A run of several plans has a row in each."""
    return runs.unique("run", keep="first", maintain_order=True)


def without(config: str, *fields: str) -> str:
    """A configuration as text, without some of the algorithm's fields: what is alike in two runs."""
    values = json.loads(config)
    for name in fields:
        values["algorithm_config"].pop(name, None)
    return json.dumps(values, sort_keys=True)


def by_tau(results: Results, metric: str) -> tuple[np.ndarray, str] | None:
    """[R, G] differences of a final metric between the largest and the smallest tau, of G pairs of runs that differ in
    nothing else.
    """
    runs = once(results.runs.filter(results.runs["state"].is_in(arms.DONE), results.runs["algorithm"] == "itrpo"))
    groups: dict[str, list[tuple[float, str]]] = {}
    for run, config, tau in runs.drop_nulls("tau").sort("run").select("run", "config", "tau").iter_rows():
        groups.setdefault(without(config, "tau"), []).append((tau, run))
    columns: list[np.ndarray] = []
    taus: list[str] = []
    for group in groups.values():
        (low, first), (high, last) = min(group), max(group)
        ends = [arms.scores(arms.chosen(results, runs.filter(runs["run"] == run)), metric) for run in (first, last)]
        if high > low and ends[0] is not None and ends[1] is not None:
            shared = min(len(it.seeds) for it in ends if it is not None)
            columns.append(ends[1].values[:shared, 0] - ends[0].values[:shared, 0])
            taus.append(f"{low:g} to {high:g}")
    if not columns or min(map(len, columns)) < 2:
        return None
    seeds = min(map(len, columns))
    return np.stack([it[:seeds] for it in columns], axis=1), (
        f"{len(columns)} pairs of runs, {seeds} seeds, tau {', '.join(dict.fromkeys(taus))}"
    )


def tau_moves(results: Results, metric: str, sign: float) -> Verdict:
    found = by_tau(results, metric)
    if found is None:
        return Verdict("not enough runs", why="no two runs that differ in tau alone")
    estimate = statistics.bootstrap(statistics.mean, found[0])
    numbers = {f"{metric} at the largest tau - at the smallest": estimate}
    return Verdict(side(estimate if sign > 0 else negative(estimate)), numbers, found[1])


def shaping(results: Results, rising: bool) -> Verdict:
    """The shaping reward on the data, averaged over time, is negative; or its end is above its beginning."""
    found: list[np.ndarray] = []
    runs = once(shaped(results))
    for run in runs["run"].sort():
        curve = arms.curves(arms.chosen(results, runs.filter(runs["run"] == run)), "probe_shaping_reward")
        if curve is not None and len(curve.steps) > 1 and len(curve.values) > 1:
            values = curve.values[:, 0]
            found.append(values[:, -1] - values[:, 0] if rising else -values.mean(-1))
    if not found:
        return Verdict("not enough runs", why="no run of iTRPO with tau > 0, two seeds and two evaluations")
    seeds = min(map(len, found))
    estimate = statistics.bootstrap(statistics.mean, np.stack([it[:seeds] for it in found], axis=1))
    number = estimate if rising else negative(estimate)
    numbers = {"shaping reward, last evaluation - first" if rising else "shaping reward, mean over evaluations": number}
    return Verdict(side(estimate), numbers, f"{len(found)} runs, {seeds} seeds")


# --- controls ------------------------------------------------------------------------------------------------------


def control(results: Results, equal_lambda: bool) -> tuple[dict[str, Scores], Missing]:
    """iTRPO and BRAC, at iTRPO's alpha or at its lambda = alpha (1 - tau), on the datasets that have both."""
    runs = controlled(results, equal_lambda)
    if runs is None:
        return {}, COMPLETE
    pair = [arms.scores(it) for it in runs]
    if pair[0] is None or pair[1] is None or min(len(it.seeds) for it in pair if it is not None) < 2:
        return {}, COMPLETE
    own, brac = arms.common(pair[0], pair[1])
    found = {"itrpo": own, "brac": brac}
    if not found["itrpo"].datasets:
        return {}, COMPLETE
    return found, Missing(tasks=fewer(len(own.datasets), len(LOCOMOTION)))


def controlled(results: Results, equal_lambda: bool) -> tuple[Results, Results] | None:
    """iTRPO's runs, and for each dataset its control of the same preset and length: the longest, `controls`' rule."""
    own = on_tasks(results, LOCOMOTION)
    itrpo = arms.arm(own, "itrpo")
    if itrpo is None:
        return None
    name = LAMBDA if equal_lambda else ALPHA
    done = once(own.runs.filter(own.runs["state"].is_in(arms.DONE))).sort("step", "run", descending=True)
    others = [opened(it) for it in done.iter_rows(named=True)]
    alike = ("dataset", "preset", "steps", "eval_every")
    picked: list[str] = []
    kept: list[str] = []
    for run in map(opened, itrpo.runs.iter_rows(named=True)):
        same = [it for it in others if all(it[field] == run[field] for field in alike)]
        control = next((it for it in same if is_control(it, run, name)), None)
        if control is not None:
            picked.append(control["run"])
            kept.append(run["run"])
    if not picked:
        return None
    return (
        arms.chosen(own, once(own.runs.filter(own.runs["run"].is_in(kept)))),
        arms.chosen(own, once(own.runs.filter(own.runs["run"].is_in(picked)))),
    )


def ablation(results: Results, equal_lambda: bool) -> Verdict:
    """Also as the paper's Figure 2(d) has it: the change without shaping in percent, averaged over tasks."""
    found, missing = control(results, equal_lambda)
    if not found:
        return Verdict("not enough runs", why="no dataset has iTRPO and BRAC with this alpha, with two seeds")
    own, brac = found["itrpo"].values, found["brac"].values
    estimate = statistics.difference(own, brac)

    def percent(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return percent_change(a.mean(-2), b.mean(-2)).mean(-1)

    numbers = {
        "iTRPO - BRAC": estimate,
        "change without shaping, %": statistics.bootstrap(percent, own, brac),
        "P(iTRPO > BRAC)": statistics.improvement(own, brac),
    }
    return Verdict(together([side(estimate)], missing), numbers, size(found), missing)


def ablation_on(results: Results, kinds: Sequence[str]) -> Verdict:
    found, missing = control(results, equal_lambda=False)
    return NOTHING if not found else gains_on(found, kinds, missing, results)


def trust_region(results: Results, equal_lambda: bool) -> Verdict:
    """log10 of D_KL between the policies of successive evaluations, averaged over the run: BRAC's minus iTRPO's."""
    runs = controlled(results, equal_lambda)
    found = [arms.curves(it, SUCCESSIVE_KL) for it in runs or ()]
    measured = [it for it in found if it is not None and len(it.values) > 1]
    if len(measured) < 2:
        return Verdict("not enough runs", why=f"no dataset has iTRPO and BRAC with {SUCCESSIVE_KL}, with two seeds")
    shared = [name for name in measured[0].datasets if name in measured[1].datasets]
    own, brac = (
        np.log10(np.maximum(it.values[:, [it.datasets.index(name) for name in shared]], 1e-12)).mean(-1)
        for it in measured
    )
    estimate = statistics.difference(brac, own)
    numbers = {"log10 D_KL between evaluations, BRAC - iTRPO": estimate}
    return Verdict(side(estimate), numbers, f"{count(len(shared), 'task')}, {len(own)} and {len(brac)} seeds")


# --- the claims ----------------------------------------------------------------------------------------------------

PERFORMANCE, PROPERTIES = "Performance Comparison", "Property Analysis"
CLAIMS = (
    Claim(
        "best-average",
        "yields a total average score of 79.3 on all these tasks, which exceeds the second-best result",
        PERFORMANCE,
        "mean over 15 tasks, against each other method of the paper's Table 2, which has no BRAC",
        partial(above_all, tasks=LOCOMOTION, names=TABLE2, statistic=statistics.mean),
    ),
    Claim(
        "wins",
        "iTRPO achieves the highest performing scores on 11 out of 15 tasks",
        PERFORMANCE,
        "the share of tasks on which its mean is the highest, against 11 of 15",
        wins,
    ),
    Claim(
        "second-best",
        "the second-best result of 74.4 achieved by the PBRL algorithm",
        PERFORMANCE,
        "PBRL's mean over 15 tasks against each other column but iTRPO",
        second_best,
    ),
    Claim(
        "conservative-above-constraint",
        "the conservative-based methods (CQL, PBRL) generally perform better than the policy constraint-based ones "
        "(BEAR, UWAC, IQL, TD3-BC)",
        PERFORMANCE,
        "the mean of the averages of the two against that of the four",
        families,
    ),
    Claim(
        "ten-points",
        "Compared with the including policy constraint-based methods, our iTRPO method achieves around ~10.0 "
        "improvements in averaged scores",
        PERFORMANCE,
        "the gain in the average over the best of the four, against 9.5",
        ten_points,
    ),
    Claim(
        "gains-by-kind",
        "Especially for the non-optimal datasets, such as 'random', 'medium-replay', and 'medium-expert', iTRPO can "
        "achieve a more obvious performance improvement",
        PERFORMANCE,
        "the gain over the best constraint method of each task, on these kinds against medium and expert",
        partial(larger_on, kinds=("random", "medium-replay", "medium-expert"), names=CONSTRAINT),
    ),
    Claim(
        "mazes",
        "our iTRPO method can still achieve a significant improvement compared with the SOTA algorithm, i.e., IQL and "
        "SPOT",
        PERFORMANCE,
        "mean over the six mazes against IQL's and SPOT's",
        partial(above_all, tasks=MAZES, names=("iql", "spot"), statistic=statistics.mean),
    ),
    Claim(
        "large-mazes",
        "Especially for the difficult tasks, e.g. 'large-medium' and 'large-diverse', our iTRPO method obtains the "
        "best results",
        PERFORMANCE,
        "mean over large-play and large-diverse, against each other column of Table 3",
        partial(above_all, tasks=LARGE_MAZES, names=TABLE3, statistic=statistics.mean),
    ),
    Claim(
        "variance",
        "our method owns a more stable convergence performance with a reduced variance (±0.9) among different tasks",
        PERFORMANCE,
        "the mean over tasks of the standard deviation over seeds, against each other column of Table 2",
        partial(above_all, tasks=LOCOMOTION, names=TABLE2, statistic=spread, sign=-1.0),
    ),
    Claim(
        "efficiency",
        "Compared with IQL and CQL algorithms, our iTRPO method has better performance and higher sample efficiency",
        PERFORMANCE,
        "the mean score over all evaluations that both have, against IQL's and CQL's",
        efficiency,
    ),
    Claim(
        "td3-bc-early",
        "TD3-BC has a more rapid performance improvement at the early stage of learning (< 10^5 gradient steps), but "
        "its premature convergence also leads to inferior performance than ours",
        PERFORMANCE,
        "mean score at evaluations before 10^5 steps, and after",
        early_and_late,
    ),
    Claim(
        "tau-kl",
        "the KL divergence between pi and pi_beta would increase as the coefficient tau increases",
        PROPERTIES,
        "final D_KL[pi, pi_beta] at the largest and the smallest tau, all else equal",
        partial(tau_moves, metric="probe_kl", sign=1.0),
    ),
    Claim(
        "shaping-negative",
        "the mean of shaping rewards is usually negative",
        PROPERTIES,
        "the shaping reward on rows of the data, averaged over the run",
        partial(shaping, rising=False),
    ),
    Claim(
        "shaping-rises",
        "the shaping rewards will increase as the learning progress",
        PROPERTIES,
        "the same at the last evaluation and at the first",
        partial(shaping, rising=True),
    ),
    Claim(
        "tau-shaping",
        "a larger tau would lead to smaller shaping rewards",
        PROPERTIES,
        "final shaping reward at the largest and the smallest tau, all else equal",
        partial(tau_moves, metric="probe_shaping_reward", sign=-1.0),
    ),
    Claim(
        "ablation",
        "without the reshaping term, the original BRAC-style method can lead to performance degeneration compared with "
        "our iTRPO method in most tasks",
        PROPERTIES,
        "iTRPO against BRAC with the same alpha",
        partial(ablation, equal_lambda=False),
    ),
    Claim(
        "ablation-lambda",
        "without the reshaping term, the original BRAC-style method can lead to performance degeneration compared with "
        "our iTRPO method in most tasks",
        PROPERTIES,
        "iTRPO against BRAC with alpha (1 - tau), whose fixed point is the same",
        partial(ablation, equal_lambda=True),
    ),
    Claim(
        "ablation-by-kind",
        "Especially for the low-quality datasets, i.e., 'random', 'medium', the implicit trust region optimization "
        "provided by our iTRPO method plays an important role",
        PROPERTIES,
        "the gain over BRAC with the same alpha, on these kinds against the rest",
        partial(ablation_on, kinds=("random", "medium")),
    ),
    Claim(
        "trust-region",
        "our iTRPO additively constrains the distance between successive policies within a range",
        "Implicit Trust Region Approach",
        "D_KL between the policies of successive evaluations, against BRAC with alpha (1 - tau)",
        partial(trust_region, equal_lambda=True),
    ),
)
