"""What stands in the report's tables and figures, from `Results` alone. Nothing here knows of HTML or of charts.

A seed's score under the paper's protocol is the mean of its last ten evaluations (of a short run: of its later half,
see `aggregate.final_score`); under the other it is its last evaluation. Spread is over seeds, Student-t.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.evaluation.environments import as_reference, reference_score
from itrpo.report.aggregate import FEW, Interval, final_score, mean_interval, over_seeds
from itrpo.report.arms import DONE
from itrpo.report.controls import ALPHA, LAMBDA, flattened, is_control, opened, percent_change, without_shaping
from itrpo.report.published import LOCOMOTION, MAZES, TABLES
from itrpo.report.tables import algorithm_name, count

if TYPE_CHECKING:
    import polars

    from itrpo.results.frames import Results

PROTOCOLS = ("paper", "last")  # mean of the last ten evaluations; the last one
PAPERS = {"locomotion": LOCOMOTION, "antmaze": MAZES}  # family -> its rows
NINE = tuple(task for task in LOCOMOTION if task.endswith(("-medium", "-medium-replay", "-medium-expert")))
# columns: iTRPO and its controls, cloning, then the paper's others in its order
COLUMNS = ("itrpo", "itrpo_insample", "brac_v", "brac_p", "bc", "bear", "uwac", "td3_bc", "plas", "iql", "cql", "pbrl")
KINDS = {"d4rl": "D4RL’s own data", "generated": "data made here"}  # others: the user's own files


class Cell(NamedTuple):
    """One run in a table. `scores` are empty where nothing was evaluated after training began."""

    run: str
    state: str  # "finished", "unfinished", "stopped", "diverged"
    message: str
    step: int  # gradient steps at its last evaluation
    seeds: int
    evaluations: int  # that the paper's protocol is a mean of
    scores: dict[str, list[float]]  # protocol -> of each seed

    @property
    def final(self) -> bool:
        return self.state in DONE and bool(self.scores["last"])


class Arm(NamedTuple):
    """A column: what was trained on every dataset of its table."""

    label: str
    algorithm: str
    title: str
    control: str | None  # ALPHA or LAMBDA, of a control of iTRPO
    printed: str | None  # whose cells of the paper stand below: no variant's
    deviation: str  # from what most arms of the table have: "20k steps, 2 seeds"; or nothing


class Average(NamedTuple):
    """A line below a table: for each arm a value, or None and how many of the tasks it has finished."""

    name: str
    tasks: tuple[str, ...]
    values: dict[str, list[Interval | int]]  # label -> per protocol the interval, or the number of finished tasks
    paper: dict[str, float]  # algorithm -> mean of the printed cells


class Table(NamedTuple):
    """Scores of one plan on one kind of data."""

    plan: str
    kind: str
    family: str  # "locomotion", "antmaze"; of other data "other", and "returns" where they have no score
    tasks: tuple[str, ...]  # rows: the paper's tasks, or datasets
    datasets: dict[str, str]  # row -> dataset
    arms: list[Arm]
    cells: dict[tuple[str, str], Cell]  # (row, label)
    data_scores: dict[str, float]  # row -> score of the logged episodes
    averages: list[Average]
    wins: dict[str, list[float]]  # label -> per protocol the tasks (of those that all arms have) on which it is highest
    compared: tuple[str, ...]  # these tasks

    @property
    def of_paper(self) -> bool:
        return self.family in PAPERS

    @property
    def metric(self) -> str:
        """What its cells are."""
        return "return" if self.family == "returns" else "score"

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.plan.replace("/", "-"), self.family, self.kind)))


Runs = Sequence[dict[str, Any]]  # those of `runs_of`
Rows = Mapping[str, "polars.DataFrame"]  # by the name of the run, `split`


class Curve(NamedTuple):
    """A metric over gradient steps: mean over seeds, and its 95% interval where there are FEW or more."""

    steps: np.ndarray  # [T]
    mean: np.ndarray  # [T]
    low: np.ndarray  # [T]; NaN for fewer
    high: np.ndarray
    seeds: int


def runs_of(results: Results) -> list[dict[str, Any]]:
    """The runs as dicts, with `plan` "" where there is none; of two that fill the same place the longer one.

    Outside of a plan a run has no label but its algorithm: where that names several, their differing fields and lengths
    follow.
    """
    order = {"finished": 2, "stopped": 1, "unfinished": 1}
    best: dict[tuple[str, ...], dict[str, Any]] = {}
    runs = [
        opened(run) | {"plan": run["plan"] or "", "task": run["task"] or ""}
        for run in results.runs.iter_rows(named=True)
    ]
    for run in [run | {"label": label_of(run, runs)} for run in runs]:
        key = (run["plan"], run["kind"], run["label"], run["dataset"])
        rank = (order.get(run["state"], 0), run["steps"], run["seeds"])
        if key not in best or rank > best[key]["rank"]:
            best[key] = run | {"rank": rank}
    return list(best.values())


def label_of(run: dict[str, Any], runs: Sequence[dict[str, Any]]) -> str:
    key = ("plan", "kind", "dataset", "label")
    same = [it for it in runs if all(it[name] == run[name] for name in key)] if not run["plan"] else [run]
    if len(same) == 1:
        return run["label"]
    names = varying(same) | {it for it in ("alpha", "tau") if len({other[it] for other in same}) > 1}
    lengths = {name: run[name] for name in ("steps", "seeds") if len({it[name] for it in same}) > 1}
    own, names = flattened(run) | lengths, names | lengths.keys()
    return "-".join([run["label"], *(f"{it}={own[it]}" for it in sorted(names) if it in own)])


def kind_name(kind: str) -> str:
    return KINDS.get(kind, "other data")


def family(run: dict[str, Any]) -> str:
    own = next((name for name, tasks in PAPERS.items() if run["task"] in tasks), None)
    return own or ("other" if run["dataset_score"] is not None else "returns")


def tables(results: Results) -> list[Table]:
    """One table for each plan, kind of data and family, those of the paper first."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in runs_of(results):
        groups.setdefault((run["plan"], run["kind"], family(run)), []).append(run)
    rows = split(results.rows)
    order = {"locomotion": 0, "antmaze": 1, "other": 2, "returns": 3}
    keys = sorted(groups, key=lambda it: (not it[0].startswith("table"), order[it[2]], it[1] != "d4rl", it[0]))
    lent = {
        key: [*own, *lent_to(own, [it for other in keys if other[1:] == key[1:] for it in groups[other]])]
        for key, own in groups.items()
    }
    return [make_table(*key, lent[key], rows) for key in keys]


def lent_to(own: Sequence[dict[str, Any]], everyone: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a plan's table takes from other plans, whose runs stand for its own: iTRPO, and its controls at its alpha
    and at alpha (1 - tau), each of the same dataset, preset, steps and seeds, where the plan has one but not the other.
    """
    found = list[dict[str, Any]]()
    for dataset in sorted({it["dataset"] for it in own}):
        mine = [it for it in own if it["dataset"] == dataset and of_family(it)]
        if not mine:
            continue
        like = (mine[0]["preset"], budget(mine[0]))
        others = [
            it
            for it in everyone
            if it["dataset"] == dataset
            and it["plan"] != mine[0]["plan"]
            and of_family(it)
            and it["state"] == "finished"
            and (it["preset"], budget(it)) == like
        ]
        ours = next((it for it in [*mine, *others] if it["label"] == "itrpo"), None)
        if ours is None or not any(map(without_shaping, [*mine, *others])):
            continue
        found += [] if ours in mine else [ours]
        for name in (ALPHA, LAMBDA):
            if not any(is_control(it, ours, name) for it in mine):
                found += [it for it in others if is_control(it, ours, name)][:1]
    return found


def of_family(run: dict[str, Any]) -> bool:
    """Whether it is iTRPO or BRAC, with the numbers that say which."""
    return run["algorithm"] in ("itrpo", "brac_v") and run["alpha"] is not None


def is_main(plan: str) -> bool:
    """Whether a plan's table stands among the paper's."""
    return plan.startswith("table") or not plan


def make_table(plan: str, kind: str, which: str, runs: Runs, rows: Rows) -> Table:
    begun = {it["task"] for it in runs}
    tasks = PAPERS.get(which) or tuple(sorted({it["dataset"] for it in runs}))
    if not plan.startswith("table"):  # in the paper's own what did not run is a row, too
        tasks = tuple(it for it in tasks if which not in PAPERS or it in begun)
    row_of = {it["run"]: it["task"] if which in PAPERS else it["dataset"] for it in runs}
    arms, metric = make_arms(runs), "return" if which == "returns" else "score"
    logged = f"dataset_{metric}"
    cells = {(row_of[it["run"]], it["label"]): make_cell(it, rows.get(it["run"]), metric) for it in runs}
    finished = {
        arm.label: {row for row, label in cells if label == arm.label and cells[row, label].final} for arm in arms
    }
    compared = tuple(task for task in tasks if all(task in finished[arm.label] for arm in arms))
    several = len(tasks) > 1 and which != "returns"  # each in units of its own
    averages: list[tuple[str, tuple[str, ...]]] = [(f"mean of {len(tasks)} tasks", tasks)] if several else []
    if set(NINE) < set(tasks):
        averages.append((f"mean of {len(NINE)} tasks (medium, -replay, -expert)", NINE))
    if several and 1 < len(compared) < len(tasks) and compared != NINE:
        averages.append((f"mean of the {count(len(compared), 'task')} that every column has", compared))
    return Table(
        plan,
        kind,
        which,
        tasks,
        {row_of[it["run"]]: it["dataset"] for it in runs},
        arms,
        cells,
        {row_of[it["run"]]: it[logged] for it in runs if it[logged] is not None},
        [average(name, of, arms, cells) for name, of in averages],
        wins(compared, arms, cells),
        compared,
    )


def make_arms(runs: Sequence[dict[str, Any]]) -> list[Arm]:
    labels = {it["label"]: it["algorithm"] for it in runs}
    usual = Counter(budget(it) for it in runs).most_common(1)[0][0]
    arms = []
    for label, algorithm in labels.items():
        own = [it for it in runs if it["label"] == label]
        alone = sum(it == algorithm for it in labels.values()) == 1 or label == algorithm
        kind = control(own, runs)
        name = algorithm_name(algorithm)
        title = f"BRAC, {kind}" if kind else name if alone else f"{name}, {label.removeprefix(f'{algorithm}-')}"
        printed = algorithm if alone and not kind else None
        arms.append(Arm(label, algorithm, title, kind, printed, deviation(own, usual)))
    rank = {name: index for index, name in enumerate(COLUMNS)}
    kinds = {None: 0, ALPHA: 1, LAMBDA: 2}
    return sorted(
        arms,
        key=lambda it: (
            rank["brac_v"] if it.control else rank.get(it.algorithm, len(rank)),
            kinds[it.control],
            natural(it.label),
        ),
    )


def natural(text: str) -> list[tuple[bool, float, str]]:
    """A key that sorts the numbers in texts as numbers."""
    parts = re.split(r"(\d+\.?\d*(?:e-?\d+)?)", text)
    return [(index % 2 == 1, float(it) if index % 2 else 0.0, it) for index, it in enumerate(parts)]


def budget(run: dict[str, Any]) -> tuple[int, int]:
    return run["steps"], run["seeds"]


def deviation(runs: Sequence[dict[str, Any]], usual: tuple[int, int]) -> str:
    """What an arm's runs have that most runs of the table have not."""
    unusual = {budget(it) for it in runs} - {usual}
    return "; ".join(f"{short(steps)} steps, {seeds} seed{'s' * (seeds != 1)}" for steps, seeds in sorted(unusual))


def short(number: float) -> str:
    """50000 -> '50k'"""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= size and number % (size / 10) == 0:
            return f"{number / size:g}{letter}"
    return f"{number:,.0f}"


def control(arm: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> str | None:
    """Whether an arm without shaping is a control of the arm `itrpo` on every dataset: at iTRPO's alpha, or at its
    alpha (1 - tau). Both are BRAC's equations, by whichever of the two programs.
    """
    ours = {it["dataset"]: it for it in runs if it["label"] == "itrpo"}
    if any(it["dataset"] not in ours for it in arm):
        return None
    names = [name for name in (ALPHA, LAMBDA) if all(is_control(it, ours[it["dataset"]], name) for it in arm)]
    return names[0] if names and arm else None


def split(rows: polars.DataFrame) -> Rows:
    """The rows of each run."""
    return {str(key[0]): frame for key, frame in rows.partition_by("run", as_dict=True).items()}


def make_cell(run: dict[str, Any], rows: polars.DataFrame | None, metric: str) -> Cell:
    finals = [None if rows is None else final_score(rows, metric, last) for last in (None, 1)]
    if rows is None or finals[0] is None or finals[1] is None:
        nothing = {it: list[float]() for it in PROTOCOLS}
        return Cell(run["run"], run["state"], run["message"] or "", run["step"] or 0, run["seeds"], 0, nothing)
    scores = {name: final.per_seed.tolist() for name, final in zip(PROTOCOLS, finals, strict=True) if final}
    steps = over_seeds(rows, metric)[0]
    return Cell(
        run["run"],
        run["state"],
        run["message"] or "",
        int(steps[-1]),
        len(finals[0].seeds),
        finals[0].evaluations,
        scores,
    )


def average(name: str, tasks: tuple[str, ...], arms: Sequence[Arm], cells: dict[tuple[str, str], Cell]) -> Average:
    values: dict[str, list[Interval | int]] = {}
    for arm in arms:
        own = [cells[task, arm.label] for task in tasks if (task, arm.label) in cells and cells[task, arm.label].final]
        values[arm.label] = [mean_over_tasks(own, it) if len(own) == len(tasks) else len(own) for it in PROTOCOLS]
    printed = {it for task in tasks for it in TABLES.get(task, {})}
    whole = [it for it in printed if all(it in TABLES.get(task, {}) for task in tasks)]
    return Average(name, tasks, values, {it: float(np.mean([TABLES[task][it][0] for task in tasks])) for it in whole})


def mean_over_tasks(cells: Sequence[Cell], protocol: str) -> Interval:
    """Mean over tasks, its interval over seeds: each seed's mean over tasks, for as many seeds as every task has."""
    seeds = min(len(it.scores[protocol]) for it in cells)
    means = np.mean([it.scores[protocol][:seeds] for it in cells], axis=0)
    center = float(np.mean([np.mean(it.scores[protocol]) for it in cells]))
    return mean_interval(means)._replace(mean=center)


def wins(tasks: Sequence[str], arms: Sequence[Arm], cells: dict[tuple[str, str], Cell]) -> dict[str, list[float]]:
    """How often each arm has the highest mean; those that share it share the win."""
    won = {arm.label: [0.0] * len(PROTOCOLS) for arm in arms}
    for index, protocol in enumerate(PROTOCOLS):
        for task in tasks:
            means = {arm.label: float(np.mean(cells[task, arm.label].scores[protocol])) for arm in arms}
            best = [label for label, it in means.items() if it == max(means.values())]
            for label in best:
                won[label][index] += 1 / len(best)
    return won


def score_deviations(rows: polars.DataFrame, run: Mapping[str, Any]) -> np.ndarray | None:
    """[S]: the standard deviation over episodes of each seed's last evaluation, in points of the score."""
    env_id, dataset = run["env_id"], json.loads(run["provenance"])["dataset"]
    reference = reference_score(env_id, as_reference(dataset.get("reference"))) if env_id else None
    final = final_score(rows, "return_std", 1)
    return None if reference is None or final is None else 100 * final.per_seed / (reference[1] - reference[0])


# --- over gradient steps -------------------------------------------------------------------------------------------


def curve(rows: polars.DataFrame | None, metric: str) -> Curve | None:
    if rows is None:
        return None
    steps, values, seeds = over_seeds(rows, metric)
    return curve_of(steps, values) if len(seeds) and len(steps) else None


def curve_of(steps: np.ndarray, values: np.ndarray) -> Curve:
    """values: [S, T]"""
    intervals = [mean_interval(column) for column in values.T]
    mean = np.array([it.mean for it in intervals])
    half = np.array([np.nan if it.half_width is None or len(values) < FEW else it.half_width for it in intervals])
    return Curve(steps, mean, mean - half, mean + half, len(values))


def average_curve(frames: Sequence[polars.DataFrame], metric: str) -> Curve | None:
    """The mean over runs of a metric, at the steps and for the seeds that all of them have."""
    tables = [over_seeds(frame, metric) for frame in frames]
    seeds = min((len(it[2]) for it in tables), default=0)
    steps = sorted(set.intersection(*(set(it[0].tolist()) for it in tables))) if tables else []
    if not seeds or not steps:
        return None
    chosen = [values[:seeds, np.searchsorted(at, steps)] for at, values, _ in tables]
    return curve_of(np.array(steps), np.mean(chosen, axis=0))


class Change(NamedTuple):
    """A control less iTRPO on one dataset: in percent of iTRPO's score, and in points."""

    dataset: str
    task: str
    control: str  # ALPHA or LAMBDA
    percent: float  # NaN where iTRPO's score is 0
    low: float
    high: float  # 95% bootstrap interval over seeds of both; NaN where a resample of iTRPO's has 0
    points: float


def ablation(table: Table) -> list[Change]:
    """Figure 2(d): what is lost without the shaped reward, against both controls."""
    generator, found = np.random.default_rng(0), []
    for arm in table.arms:
        for task in table.tasks if arm.control else ():
            ours, theirs = table.cells.get((task, "itrpo")), table.cells.get((task, arm.label))
            if ours is None or theirs is None or not (ours.final and theirs.final):
                continue
            a, b = (np.array(it.scores["paper"]) for it in (ours, theirs))
            resampled = [it[generator.integers(len(it), size=(2_000, len(it)))].mean(axis=1) for it in (a, b)]
            percent = percent_change(a.mean(), b.mean()).item()
            low, high = np.percentile(percent_change(*resampled), [2.5, 97.5])
            points = b.mean() - a.mean()
            found.append(Change(table.datasets[task], task, arm.control or "", percent, low, high, points))
    return found


class Family(NamedTuple):
    """Runs on one dataset that differ in tau alone."""

    plan: str
    kind: str
    dataset: str
    alpha: float
    variant: str
    runs: dict[float, dict[str, Any]]  # tau -> run


def by_tau(runs: Iterable[dict[str, Any]]) -> list[Family]:
    """Figures 2(b, c, e, f): families with two values of tau or more, in one plan; then also those of other plans that
    differ from them in tau alone.
    """
    groups: dict[tuple[str, str, str, float, str], dict[float, dict[str, Any]]] = {}
    runs = list(runs)
    ours = [it for it in runs if it["algorithm"] == "itrpo"]
    vary = {plan: varying([it for it in ours if it["plan"] == plan]) for plan in {it["plan"] for it in ours}}
    for run in runs:
        if run["algorithm"] == "itrpo" and run["alpha"] is not None and run["tau"] is not None:
            key = (run["plan"], run["kind"], run["dataset"], round(run["alpha"], 9), variant(run, vary[run["plan"]]))
            groups.setdefault(key, {}).setdefault(run["tau"], run)
    families = {key: dict(it) for key, it in groups.items() if len(it) > 1}
    for (plan, kind, dataset, *_), family in families.items():
        first = next(iter(family.values()))
        for run in ours:
            if run["plan"] != plan and (run["kind"], run["dataset"], but_tau(run)) == (kind, dataset, but_tau(first)):
                family.setdefault(run["tau"], run)
    return [Family(*key, dict(sorted(it.items()))) for key, it in sorted(families.items())]


def but_tau(run: dict[str, Any]) -> tuple[Any, ...]:
    """All that a run's numbers follow from, but for the data and tau."""
    return run["preset"], *budget(run), {name: it for name, it in flattened(run).items() if name != "tau"}


class MapCell(NamedTuple):
    """One square of the (lambda, tau) map."""

    plan: str
    kind: str
    dataset: str
    variant: str
    lambda_: float
    tau: float
    score: Interval
    worst: float  # the least score of any evaluation after the first quarter of training, mean over seeds
    kl: float | None
    diverged: bool


def trust_region_map(results: Results) -> list[MapCell]:
    """iTRPO and BRAC (tau 0) of the plans that vary both lambda and tau.

    Without shaping its clip does nothing: such a run stands in the map of every clip.
    """
    runs = [it for it in runs_of(results) if it["algorithm"] in ("itrpo", "brac_v") and it["alpha"] is not None]
    vary = {plan: varying([it for it in runs if it["plan"] == plan]) for plan in {it["plan"] for it in runs}}
    rows, found = split(results.rows), list[MapCell]()
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["plan"], run["kind"], run["dataset"]), []).append(run)
    for (plan, kind, dataset), own in groups.items():
        shaped = {variant(it, vary[plan]): fields_of(it, vary[plan]) for it in own if not without_shaping(it)}
        for run in own:
            frame = rows.get(run["run"])
            cell = make_cell(run, frame, "score")
            if frame is None or not cell.scores["paper"]:
                continue
            tau = run["tau"] or 0.0
            steps, values, _ = over_seeds(frame, "score")
            worst = float(values[:, steps >= steps[-1] / 4].min(axis=1).mean())
            kl = curve(frame, "probe_kl")
            last = None if kl is None else float(kl.mean[-1])
            score, weight = mean_interval(cell.scores["paper"]), round(run["alpha"] * (1 - tau), 6)
            mine = {it: value for it, value in fields_of(run, vary[plan]).items() if not it.startswith("log_ratio")}
            alike = [name for name, theirs in shaped.items() if all(theirs.get(it) == mine[it] for it in mine)]
            names = (alike or [variant(run, vary[plan])]) if without_shaping(run) else [variant(run, vary[plan])]
            diverged = run["state"] == "diverged"
            found += [MapCell(plan, kind, dataset, it, weight, tau, score, worst, last, diverged) for it in names]
    # a map has two values of tau or more, each at two of lambda or more: the arms of a table are none
    weights: dict[tuple[str, ...], dict[float, set[float]]] = {}
    for it in found:
        weights.setdefault((it.plan, it.kind, it.dataset, it.variant), {}).setdefault(it.tau, set()).add(it.lambda_)
    wide = {key for key, by in weights.items() if sum(len(it) > 1 for it in by.values()) > 1}
    return [it for it in found if (it.plan, it.kind, it.dataset, it.variant) in wide]


def varying(runs: Sequence[dict[str, Any]]) -> set[str]:
    """Fields of the algorithms' configs that differ between runs, besides alpha and tau."""
    flat = [flattened(it) for it in runs]
    names = {name for it in flat for name in it} - {"alpha", "tau"}
    return {name for name in names if len({json.dumps(it.get(name)) for it in flat if name in it}) > 1}


def fields_of(run: dict[str, Any], names: set[str]) -> dict[str, Any]:
    own = flattened(run)
    return {name: own[name] for name in sorted(names) if name in own}


def variant(run: dict[str, Any], vary: set[str]) -> str:
    """ "critics 1, log ratio low -1.0"; a clip at infinity is none"""
    own = {name: value for name, value in fields_of(run, vary).items() if "inf" not in str(value).lower()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in own.items())
