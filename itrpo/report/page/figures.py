"""Which figures the results give: each is left out where no run has what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo.report import bandit, statistics
from itrpo.report.controls import ALPHA, LAMBDA
from itrpo.report.page import charts, evidence
from itrpo.report.page.charts import Chart
from itrpo.report.page.evidence import Curve, Family, MapCell, Rows, Table

if TYPE_CHECKING:
    pass

BAND = "Bands are 95 % intervals over seeds (Student-t), very wide ones cut off; hover for their ends."
# probes of the policy's path, with what their panels say
STEPS_OF_POLICY = {
    "probe_kl_evaluations": (
        "between-evaluations",
        "From evaluation to evaluation",
        "KL of a policy from that of the evaluation before, nats",
    ),
    "probe_kl_100": ("over-100-updates", "Over 100 updates", "KL of a policy from that 100 updates before, nats"),
    "probe_kl_1000": ("over-1000-updates", "Over 1,000 updates", "KL of a policy from that 1,000 updates before, nats"),
}

# probes of Theorem 2's errors, which it takes to average out
ERRORS = (
    ("probe_error", "error-by-tau", "Error of the critic, by τ", "root mean square of Q - y"),
    (
        "probe_error_average",
        "average-error-by-tau",
        "What is left of the error on average, by τ",
        "root mean square of Q - y averaged over 11 moments, 100 updates apart",
    ),
)


def curve_rows(curve: Curve | None, arm: str, panel: str = "") -> list[dict[str, Any]]:
    if curve is None:
        return []
    columns = (curve.steps.tolist(), curve.mean.tolist(), curve.low.tolist(), curve.high.tolist())
    more = {"p": panel} if panel else {}
    return [
        {"s": step, "m": number(mean), "lo": number(low), "hi": number(high), "a": arm} | more
        for step, mean, low, high in zip(*columns, strict=True)
        if np.isfinite(mean)
    ]


def number(value: float) -> float | None:
    """Five digits are more than a picture shows."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def arms_of(table: Table) -> list[tuple[str, str]]:
    return [(arm.title, "brac_v" if arm.control else arm.algorithm) for arm in table.arms]


def panels_of(table: Table) -> list[str]:
    return [task for task in table.tasks if any((task, arm.label) in table.cells for arm in table.arms)]


def mean_curves(table: Table, rows: Rows) -> Chart | None:
    """Figure 2(a): the score averaged over the tasks that every arm has begun."""
    tasks = [task for task in table.tasks if all(_evaluated(table, task, arm.label, rows) for arm in table.arms)]
    if not tasks:
        return None
    values = []
    for arm in table.arms:
        frames = [rows[table.cells[task, arm.label].run] for task in tasks]
        values += curve_rows(evidence.average_curve(frames, "score"), arm.title)
    of = "tasks that every arm has been evaluated on" if len(tasks) < len(table.tasks) else "tasks"
    caption = f"Mean score over {len(tasks)} {of}. {BAND}" if len(tasks) > 1 else f"Score on {tasks[0]}. {BAND}"
    caption += " Choose arms in the legend."
    return charts.curves(
        f"mean-{table.name}", "Learning curves, averaged over tasks", caption, values, arms_of(table), "mean D4RL score"
    )


def _evaluated(table: Table, task: str, label: str, rows: Rows) -> bool:
    cell = table.cells.get((task, label))
    return cell is not None and bool(cell.scores["last"]) and cell.run in rows


def task_curves(table: Table, rows: Rows, metric: str, name: str, title: str, caption: str, y: str) -> Chart | None:
    """A metric over steps, a panel a task."""
    values = [
        it
        for task in table.tasks
        for arm in table.arms
        if (cell := table.cells.get((task, arm.label))) is not None
        for it in curve_rows(evidence.curve(rows.get(cell.run), metric), arm.title, task)
    ]
    used = {it["a"] for it in values}
    arms = [it for it in arms_of(table) if it[0] in used]
    panels = [it for it in panels_of(table) if any(row["p"] == it for row in values)]
    return charts.curves(f"{name}-{table.name}", title, caption, values, arms, y, panels) if values else None


def ablation(table: Table) -> Chart | None:
    """Figure 2(d)."""
    changes = evidence.ablation(table)
    if not changes:
        return None
    names = {ALPHA: f"BRAC at {ALPHA}", LAMBDA: f"BRAC at {LAMBDA}"}
    rows = [
        {
            "t": it.task,
            "c": names[it.control],
            "m": number(it.percent),
            "lo": number(it.low),
            "hi": number(it.high),
            "points": number(it.points),
        }
        for it in changes
    ]
    caption = (
        "Score of BRAC, which is iTRPO without the shaped reward, less that of iTRPO, in percent of iTRPO’s; "
        "below zero: removing"
        f" it hurts. Both controls: the same {ALPHA}, as the paper’s, and the same weight {LAMBDA} that iTRPO’s "
        f"KL has by Theorem 1; where {ALPHA} adapts, as in the larger mazes, both hold the same D_KL."
        " Lines are 95 % bootstrap intervals over seeds. What lies beyond ±100 % (of scores near 0) is cut off; "
        "hover for its value and"
        " for points. A score of iTRPO below 1 counts as 1."
    )
    present = [names[it] for it in (ALPHA, LAMBDA) if any(row["c"] == names[it] for row in rows)]
    order = [task for task in table.tasks if any(row["t"] == task for row in rows)]
    return charts.bars(
        f"ablation-{table.name}", "Without the shaped reward", caption, rows, order, present, "change of the score, %"
    )


def tau_curves(
    families: Sequence[Family], rows: Rows, metric: str, name: str, title: str, caption: str, y: str
) -> list[Chart]:
    """Figures 2(b, c) and 2(e, f): one metric for several tau; a chart for each plan and kind of data."""
    made = []
    for plan, kind in sorted({(it.plan, it.kind) for it in families}):
        own = [it for it in families if (it.plan, it.kind) == (plan, kind)]
        values, panels = [], []
        for it in own:
            panel = f"{it.dataset}, α = {it.alpha:g}" + (f", {it.variant}" if it.variant else "")
            new = [
                row
                for tau, run in it.runs.items()
                for row in curve_rows(evidence.curve(rows.get(run["run"]), metric), f"{tau:g}", panel)
            ]
            values += new
            panels += [panel] if new else []
        if values:
            taus = sorted({row["a"] for row in values}, key=float)
            chart = charts.curves(
                f"{name}-{'-'.join(filter(None, (plan, kind)))}",
                f"{title}, {evidence.kind_name(kind)}",
                caption,
                values,
                [(it, "") for it in taus],
                y,
                panels,
                "τ",
            )
            made.append(charts.ordered(chart, taus))
    return made


def maps(cells: Sequence[MapCell]) -> list[Chart]:
    """The (lambda, tau) maps, one chart for each plan."""
    made = []
    for plan, kind in sorted({(it.plan, it.kind) for it in cells}):
        own = [it for it in cells if (it.plan, it.kind) == (plan, kind)]
        ranges: dict[tuple[str, str], list[float]] = {}
        for it in own:
            ranges.setdefault((it.dataset, it.variant), []).append(it.score.mean)
        rows = [
            {
                "p": it.dataset + (f", {it.variant}" if it.variant else ""),
                "t": f"{it.tau:g}",
                "tn": it.tau,
                "l": f"{it.lambda_:g}",
                "ln": it.lambda_,
                "m": number(it.score.mean),
                "half": number(it.score.half_width) if it.score.half_width is not None else None,
                "worst": number(it.worst),
                "kl": None if it.kl is None else number(it.kl),
                "d": "yes" if it.diverged else "no",
                "q": number(place(it.score.mean, ranges[it.dataset, it.variant])),
            }
            for it in own
        ]
        caption = (
            "Final score (mean of the last evaluations, over seeds) by the weight λ = α(1 − τ) that the KL to "
            "the behaviour policy has"
            " and by τ; the column τ = 0 is BRAC. If τ acted through λ alone, rows would be of one colour; "
            "colours go from a panel’s least score to its largest."
        )
        panels = sorted({str(row["p"]) for row in rows})
        made.append(
            charts.heatmap(
                "-".join(filter(None, ("map", plan, kind))),
                f"The (λ, τ) map, {evidence.kind_name(kind)}",
                caption,
                rows,
                panels,
                "score",
            )
        )
    return made


def place(value: float, among: list[float]) -> float:
    """0 the least, 1 the largest."""
    return (value - min(among)) / ((max(among) - min(among)) or 1.0)


def equal_kl(cells: Sequence[MapCell]) -> list[Chart]:
    """Scores against the distance from pi_beta that the policy ended at: arms of one KL side by side."""
    cells, made = [it for it in cells if it.kl is not None], []
    for plan, kind in sorted({(it.plan, it.kind) for it in cells}):
        own = [it for it in cells if (it.plan, it.kind) == (plan, kind)]
        rows = [
            {
                "p": it.dataset + (f", {it.variant}" if it.variant else ""),
                "a": f"{it.tau:g}",
                "x": number(it.kl or 0.0),
                "l": it.lambda_,
                "m": number(it.score.mean),
                "lo": number(it.score.mean - (it.score.half_width or 0.0)),
                "hi": number(it.score.mean + (it.score.half_width or 0.0)),
            }
            for it in own
        ]
        caption = (
            "Final score against KL[π ‖ πβ] at the end, by τ: at one place on the horizontal axis policies are "
            "as far from the"
            " behaviour policy, whatever λ and τ took them there. τ = 0 is BRAC. Lines are 95 % intervals"
            " over seeds (Student-t)."
        )
        panels = sorted({str(row["p"]) for row in rows})
        taus = sorted({str(row["a"]) for row in rows}, key=float)
        made.append(
            charts.scatter(
                "-".join(filter(None, ("equal-kl", plan, kind))),
                f"At equal distance, {evidence.kind_name(kind)}",
                caption,
                rows,
                taus,
                panels,
            )
        )
    return made


# --- statistics over tasks and seeds -------------------------------------------------------------------------------


def score_arrays(table: Table) -> dict[str, np.ndarray]:
    """label -> scores [R, T] on the tasks that every arm has, with as many seeds as all of them have."""
    found: dict[str, np.ndarray] = {}
    for arm in table.arms:
        own = [table.cells[task, arm.label].scores["paper"] for task in table.compared]
        found[arm.label] = np.array([it[: min(map(len, own))] for it in own]).T if own else np.zeros((0, 0))
    return found if all(len(it) > 1 for it in found.values()) else {}


def aggregate_points(table: Table) -> Chart | None:
    """rliable's four numbers."""
    scores = score_arrays(table)
    if not scores:
        return None
    names = {
        "mean": "mean",
        "median": "median",
        "IQM": "IQM (higher is better)",
        "optimality gap": "optimality gap (lower is better)",
    }
    rows = []
    for arm in table.arms:
        for name, it in statistics.aggregates(scores[arm.label], repetitions=2_000).items():
            rows.append(
                {"t": arm.title, "p": names[name], "m": number(it.value), "lo": number(it.low), "hi": number(it.high)}
            )
    caption = (
        f"rliable’s aggregates over {tasks_in_words(table)}; lines are 95 % stratified-bootstrap intervals over "
        "seeds (2,000 resamples)."
    )
    caption += " The optimality gap is to 100."
    order = [arm.title for arm in table.arms]
    return charts.points(f"aggregates-{table.name}", "Aggregates", caption, rows, order, "", panel=list(names.values()))


def tasks_in_words(table: Table) -> str:
    count = len(table.compared)
    return f"all {count} tasks" if count == len(table.tasks) else f"the {count} tasks that every arm has finished"


def profile_curves(table: Table) -> Chart | None:
    scores = score_arrays(table)
    if not scores:
        return None
    largest = max(float(it.max()) for it in scores.values())
    at, rows = np.linspace(min(0.0, *(float(it.min()) for it in scores.values())), largest, 61), []
    for arm in table.arms:
        found = statistics.profile(scores[arm.label], at, repetitions=500)
        rows += curve_rows(Curve(at, found.value, found.low, found.high, 0), arm.title)
    caption = (
        f"The share of runs (a seed on a task) above each score, over {tasks_in_words(table)}; 95 % "
        "stratified-bootstrap bands."
    )
    return charts.profiles(f"profile-{table.name}", "Performance profiles", caption, rows, arms_of(table))


def improvement_points(table: Table) -> Chart | None:
    scores = score_arrays(table)
    if "itrpo" not in scores or len(scores) < 2:
        return None
    others = [arm for arm in table.arms if arm.label != "itrpo"]
    rows = []
    for arm in others:
        it = statistics.improvement(scores["itrpo"], scores[arm.label])
        rows.append({"t": arm.title, "m": number(it.value), "lo": number(it.low), "hi": number(it.high)})
    caption = (
        "The probability that a run of iTRPO scores higher than one of each other arm on a task drawn at random, of"
        f" {tasks_in_words(table)}; 95 % stratified-bootstrap intervals. At one half neither is better."
    )
    order = [arm.title for arm in others]
    return charts.points(
        f"improvement-{table.name}",
        "Probability of improvement of iTRPO",
        caption,
        rows,
        order,
        "P(iTRPO > arm)",
        0.5,
        domain=(0, 1),
    )


BUDGET = 100  # online episodes


def picked_curves(table: Table, rows: Rows, runs: dict[str, dict[str, Any]]) -> Chart | None:
    """What an arm is worth to whoever may try its seeds online, a few episodes in all."""
    values: list[dict[str, Any]] = []
    for arm in table.arms:
        curves = []
        for task in table.compared:
            cell = table.cells[task, arm.label]
            deviations = evidence.score_deviations(rows[cell.run], runs[cell.run])
            if deviations is None or len(deviations) < len(cell.scores["last"]):
                return None
            curves.append(bandit.picked_score(np.array(cell.scores["last"]), deviations, BUDGET, repetitions=300))
        if curves:
            mean = np.mean(curves, axis=0)
            values += curve_rows(Curve(np.arange(1, BUDGET + 1), mean, mean, mean, 0), arm.title)
    if not values:
        return None
    caption = (
        "The mean score of the seed that UCB would pick after so many online episodes (after unifloral), the "
        "last checkpoints of"
        f" all seeds of an arm being its pool; mean over {tasks_in_words(table)}. Left: a seed at random; "
        "right: nearly the best."
    )
    chart = charts.curves(
        f"online-{table.name}",
        "Score against online evaluations",
        caption,
        values,
        arms_of(table),
        "D4RL score of the pick",
    )
    return charts.with_x(chart, "online episodes", "episode")


def some(*found: Chart | None) -> list[Chart]:
    return [it for it in found if it is not None]


def rows_for_csv(chart: Chart) -> tuple[list[str], Iterable[list[Any]]]:
    """What a figure shows, with names that can be read."""
    names = {
        "s": "x",
        "m": "mean",
        "lo": "low_95",
        "hi": "high_95",
        "a": "arm",
        "p": "panel",
        "t": "row",
        "c": "control",
        "l": "lambda",
    }
    header = [
        it for it in dict.fromkeys(key for row in chart.data for key in row) if it not in ("bl", "bh", "q", "tn", "ln")
    ]
    return [names.get(it, it) for it in header], ([row.get(it) for it in header] for row in chart.data)
