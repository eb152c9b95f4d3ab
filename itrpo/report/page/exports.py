"""The tables as CSV and as LaTeX (booktabs), and the scores of every seed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from itrpo.report.aggregate import Interval, mean_interval
from itrpo.report.page.evidence import PROTOCOLS, Table
from itrpo.report.published import TABLES

Rows = Iterable[Sequence[object]]


def csv_text(header: Sequence[str], rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if it is None else it for it in row] for row in rows])
    return text.getvalue()


def scores_csv(table: Table) -> str:
    """A line for each cell that ran or that the paper has. A difference stands where both are of D4RL's own data."""
    header = ["plan", "data", "task", "dataset", "arm", "algorithm", "run", "state", "step", "seeds", "evaluations"]
    header += [f"{protocol}_{what}" for protocol in PROTOCOLS for what in ("mean", "half_width_95")]
    header += ["printed_mean", "printed_std", "difference"]
    rows = []
    for task in table.tasks:
        for arm in table.arms:
            cell, printed = table.cells.get((task, arm.label)), TABLES.get(task, {}).get(arm.printed or "")
            row: list[object] = [table.plan, table.kind, task, table.datasets.get(task), arm.title, arm.algorithm]
            if cell is None:
                row += ["", "not run", "", "", "", *[""] * 2 * len(PROTOCOLS)]
            else:
                row += [cell.run, cell.state, cell.step, cell.seeds, cell.evaluations]
                for protocol in PROTOCOLS:
                    interval = mean_interval(cell.scores[protocol]) if cell.scores[protocol] else None
                    row += ["", ""] if interval is None else [interval.mean, interval.half_width]
            mean = mean_interval(cell.scores["paper"]).mean if cell is not None and cell.scores["paper"] else None
            row += ["", ""] if printed is None else list(printed)
            row.append("" if printed is None or mean is None or table.kind != "d4rl" else mean - printed[0])
            rows.append(row)
    return csv_text(header, rows)


def seeds_csv(tables: Sequence[Table]) -> str:
    """The score, or where there is none the return, of every seed of every run that is in a table."""
    header = ["plan", "data", "task", "dataset", "arm", "algorithm", "run", "state", "step", "metric", "seed_index"]
    rows = [
        [
            it.plan,
            it.kind,
            task,
            it.datasets[task],
            arm.title,
            arm.algorithm,
            cell.run,
            cell.state,
            cell.step,
            it.metric,
            seed,
            *scores,
        ]
        for it in tables
        for task in it.tasks
        for arm in it.arms
        if (cell := it.cells.get((task, arm.label))) is not None
        for seed, scores in enumerate(zip(*(cell.scores[protocol] for protocol in PROTOCOLS), strict=True))
    ]
    return csv_text([*header, *PROTOCOLS], rows)


def latex(table: Table, caption: str) -> str:
    """A booktabs table under the paper's protocol: ours with intervals, the paper's printed mean in grey below."""
    lines = [
        "% needs booktabs, xcolor and, for its width, graphicx or a landscape page",
        r"\begin{table}",
        r"\centering\scriptsize",
        rf"\caption{{{tex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.arms)}}}",
        r"\toprule",
        " & ".join(["task", *(tex(arm.title) for arm in table.arms)]) + r" \\",
        r"\midrule",
    ]
    for task in table.tasks:
        means = {
            arm.label: mean_interval(cell.scores["paper"])
            for arm in table.arms
            if (cell := table.cells.get((task, arm.label))) is not None and cell.scores["paper"]
        }
        best = max((it.mean for it in means.values()), default=None)
        cells = []
        for arm in table.arms:
            own, printed = means.get(arm.label), TABLES.get(task, {}).get(arm.printed or "")
            text = "--"
            if own is not None:
                mark = "" if table.cells[task, arm.label].final else r"$^\dagger$"
                text = f"${_number(own, own.mean == best and len(means) > 1)}${mark}"
            cells.append(text + ("" if printed is None else rf" \textcolor{{gray}}{{({printed[0]:.1f})}}"))
        lines.append(" & ".join([tex(task), *cells]) + r" \\")
    lines.append(r"\midrule")
    for average in table.averages:
        cells = []
        for arm in table.arms:
            value, printed = average.values[arm.label][0], average.paper.get(arm.printed or "")
            text = "--" if isinstance(value, int) else f"${_number(value, False)}$"
            cells.append(text + ("" if printed is None else rf" \textcolor{{gray}}{{({printed:.1f})}}"))
        lines.append(" & ".join([tex(average.name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _number(value: Interval, bold: bool) -> str:
    mean = rf"\mathbf{{{value.mean:.1f}}}" if bold else f"{value.mean:.1f}"
    return mean if value.half_width is None else rf"{mean} \pm {value.half_width:.1f}"


TEX = {
    "\\": r"\textbackslash{}",
    "α": r"$\alpha$",
    "τ": r"$\tau$",
    "λ": r"$\lambda$",
    "−": "$-$",
    "’": "'",
    "±": r"$\pm$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
} | {it: f"\\{it}" for it in "&%$#_{}"}


def tex(text: str) -> str:
    return "".join(TEX.get(it, it) for it in text)
