"""`itrpo report`: from `Results` to a folder with one self-contained page, and its tables and figures as files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from itrpo import files
from itrpo.errors import InputError
from itrpo.report import claims
from itrpo.report.claims import Verdict
from itrpo.report.page import charts, datasets, evidence, exports, figures, html
from itrpo.report.page.charts import Chart
from itrpo.report.page.datasets import Likeness
from itrpo.report.page.document import Part, Words, document
from itrpo.report.page.evidence import Rows, Runs, Table
from itrpo.report.page.html import Column, esc
from itrpo.report.published import TABLES
from itrpo.report.tables import count, format_interval

if TYPE_CHECKING:
    from itrpo.results.frames import Results

TITLE = "iTRPO: the paper’s evidence, run again"
LEAD = (
    '<p class="lead">The tables, figures and claims of “An Implicit Trust Region Approach to Behavior Regularized'
    " Offline Reinforcement Learning” (Zhang and Tan, AAAI 2024), from runs of this library alone.</p>"
)
SWITCHES = """<fieldset class="choice" id="protocol">
<legend>A seed’s score</legend>
<label title="the paper’s protocol"><input type="radio" name="protocol" value="paper" checked>
<span>last 10 evaluations</span></label>
<label title="the last evaluation alone"><input type="radio" name="protocol" value="last">
<span>last checkpoint</span></label>
</fieldset>
"""
TITLES = {"locomotion": "Table 2, locomotion", "antmaze": "Table 3, AntMaze", "other": "Scores", "returns": "Returns"}

MANY = 14  # arms whose curves no reader tells apart


class Report(NamedTuple):
    """All that is written."""

    page: str
    tables: dict[str, str]  # name of a file in tables/ -> its text
    charts: list[Chart]


def write_report(results: Results, out: Path) -> Path:
    """Writes OUT/report.html, OUT/tables and OUT/figures; returns the page. Raises InputError if there is no run."""
    report = make_report(results)
    for chart in report.charts:
        svg, png = charts.drawn(chart)
        files.write(out / "figures" / f"{chart.name}.svg", svg)
        files.write(out / "figures" / f"{chart.name}.png", png)
        files.write(out / "figures" / f"{chart.name}.csv", exports.csv_text(*figures.rows_for_csv(chart)).encode())
    for name, text in report.tables.items():
        files.write(out / "tables" / name, text.encode())
    files.write(out / "report.html", report.page.encode())
    return out / "report.html"


def make_report(results: Results) -> Report:
    """The page and its files, in memory. Raises InputError if there is no run, or no vl-convert to draw with."""
    if results.runs.is_empty():
        raise InputError("no runs to report; give --runs folders of `itrpo train` or `itrpo sweep`, or packed files")
    tables, runs, rows = evidence.tables(results), evidence.runs_of(results), evidence.split(results.rows)
    main = [it for it in tables if it.of_paper and evidence.is_main(it.plan)]
    others = [it for it in tables if it not in main]
    verdicts = claims.verdicts(results)
    parts = [
        *paper_scores(main, runs),
        Part("claims", "The paper’s claims", "Claims", claims_body(verdicts)),
        *figure_2(main, runs, rows),
        *successive_policies([*main, *others], rows),
        *statistics_parts([*main, *(it for it in others if not it.plan and it.metric == "score")], runs, rows),
        trust_region(results),
        *every_task(main, rows),
        *other_scores(others, runs, rows),
        Part("datasets", "How close the made sets come to D4RL’s", "Data", likenesses(runs), kind="generated"),
        Part("cost", "Time and cost", "Cost", cost(runs)),
        Part("provenance", "Provenance", "Provenance", provenance(runs)),
    ]
    parts = [it for it in parts if it.before or it.charts]
    written = {f"{it.name}.csv": exports.scores_csv(it) for it in tables}
    written |= {f"{it.name}.tex": exports.latex(it, latex_caption(it)) for it in tables}
    written["claims.csv"] = claims_csv(verdicts)
    written["seeds.csv"] = exports.seeds_csv(tables)
    return Report(page(runs, tables, parts), written, [chart for it in parts for chart in it.charts])


def _figure(chart: Chart) -> str:
    links = " · ".join(f'<a href="figures/{esc(chart.name)}.{it}">{it.upper()}</a>' for it in ("svg", "png", "csv"))
    return html.figure(chart, f'<p class="files">{links}</p>')


# --- parts of the page, in its order --------------------------------------------------------------------------------


def paper_scores(tables: Sequence[Table], runs: Runs) -> list[Part]:
    parts, named = list[Part](), set[str]()
    for table in tables:
        name = TITLES[table.family].partition(",")[0]
        shown = f"{name}, {evidence.kind_name(table.kind)}" if name in named else name
        named.add(name)
        body = scores_body(table, runs)
        parts.append(Part(f"scores-{table.name}", TITLES[table.family], shown, body, kind=table.kind))
    return parts


def figure_2(tables: Sequence[Table], runs: Runs, rows: Rows) -> list[Part]:
    families = evidence.by_tau(runs)
    caption = f"On 1,024 fixed rows of the dataset. {figures.BAND}"
    by_tau = [
        *figures.tau_curves(
            families,
            rows,
            "probe_kl",
            "kl-by-tau",
            "Figure 2(b, c): distance from the behaviour policy, by τ",
            f"KL[π ‖ πβ] of the fitted models. {caption}",
            "KL[π ‖ πβ], nats",
        ),
        *figures.tau_curves(
            families,
            rows,
            "probe_shaping_reward",
            "shaping-by-tau",
            "Figure 2(e, f): shaping reward on the data, by τ",
            f"Mean of τ α log(π/πβ) at the data’s actions: what Eq. (5) adds to a reward. {caption}",
            "shaping reward",
        ),
    ]
    errors = [
        chart
        for metric, name, title, y in figures.ERRORS
        for chart in figures.tau_curves(
            families, rows, metric, name, title, f"{y}. On 256 fixed rows of the dataset. {figures.BAND}", y
        )
    ]
    return [
        *(
            Part(
                f"curves-{table.name}",
                f"Figure 2(a, d), {table.family}",
                "Figure 2",
                charts=figures.some(figures.mean_curves(table, rows), figures.ablation(table)),
                kind=table.kind,
            )
            for table in tables
        ),
        Part("figure2-tau", "Figure 2(b, c, e, f)", "By τ", charts=by_tau),
        Part("errors", "Errors of the critic", "Errors", charts=errors),
    ]


def successive_policies(tables: Sequence[Table], rows: Rows) -> list[Part]:
    caption = f"On 1,024 fixed rows of the dataset. {figures.BAND}"
    return [
        Part(
            f"steps-{table.name}",
            f"Between successive policies{of_plan(table)}",
            "Successive policies",
            charts=figures.some(
                *(
                    figures.task_curves(table, rows, metric, name, title, f"{y}. {caption}", y)
                    for metric, (name, title, y) in figures.STEPS_OF_POLICY.items()
                )
            ),
            kind=table.kind,
        )
        for table in tables
        if len(table.arms) <= MANY
    ]


def statistics_parts(tables: Sequence[Table], runs: Runs, rows: Rows) -> list[Part]:
    by_name = {it["run"]: it for it in runs}
    return [
        Part(
            f"statistics-{table.name}",
            f"Statistics, {table.family}" if table.of_paper else f"Statistics{of_plan(table)}",
            "Statistics",
            charts=figures.some(
                figures.aggregate_points(table),
                figures.improvement_points(table),
                figures.profile_curves(table),
                figures.picked_curves(table, rows, by_name),
            ),
            kind=table.kind,
        )
        for table in tables
    ]


def trust_region(results: Results) -> Part:
    cells = evidence.trust_region_map(results)
    both = [*figures.maps(cells), *figures.equal_kl(cells)]
    return Part("map", "The trust region, by λ and τ", "(λ, τ)", charts=both)


def every_task(tables: Sequence[Table], rows: Rows) -> list[Part]:
    return [
        Part(
            f"tasks-{table.name}",
            f"Every task, {table.family}",
            "Curves",
            charts=figures.some(curves_by_task(table, rows)),
            kind=table.kind,
        )
        for table in tables
    ]


def curves_by_task(table: Table, rows: Rows) -> Chart | None:
    title, caption = "Learning curves, task by task", f"{figures.BAND} Choose arms in the legend."
    y = "D4RL score" if table.metric == "score" else "return"
    return figures.task_curves(table, rows, table.metric, "curves", title, caption, y)


def other_scores(tables: Sequence[Table], runs: Runs, rows: Rows) -> list[Part]:
    parts = list[Part]()
    for table in tables:
        title = f"Plan {table.plan}, {table.family}" if table.plan else "Other datasets"
        title += ", returns" if table.family == "returns" and not table.plan else ""
        few = len(table.arms) <= MANY
        averaged = figures.mean_curves(table, rows) if few and table.metric == "score" else None
        found = figures.some(figures.ablation(table), averaged, curves_by_task(table, rows) if few else None)
        body = scores_body(table, runs)
        parts.append(Part(f"scores-{table.name}", title, "Other runs", body, found, kind=table.kind))
    return parts


def likenesses(runs: Runs) -> str:
    alike = datasets.likenesses(runs)
    return likeness_body(alike) if alike else ""


# --- what they say -----------------------------------------------------------------------------------------------


def of_plan(table: Table) -> str:
    plan = f", plan {table.plan}" if table.plan else ", other datasets"
    plan += ", returns" if table.family == "returns" else ""
    return f", {table.family}" if evidence.is_main(table.plan) else plan


def scores_body(table: Table, runs: Runs) -> str:
    own = [it for it in runs if (it["plan"], it["kind"], evidence.family(it)) == (table.plan, table.kind, table.family)]
    about = html.ABOUT_KINDS.get(table.kind, html.OTHER_KIND) if table.of_paper else ""
    printed = ""
    if any(arm.printed in TABLES.get(task, {}) for arm in table.arms for task in table.tasks):
        printed = (
            " Below each: the cell that the paper prints (mean ± standard deviation over 4 seeds, 1M steps) "
            "and ours less it."
        )
    ran = sum(it.final for it in table.cells.values())
    if table.family == "returns":
        about = "Returns: no score is known."
    return (
        f"<p>{esc(about)} Ours: mean ± half-width of the 95 % interval over seeds; ● marks the highest of a "
        f"row. {esc(usual(own))}{printed}"
        f" {ran} of {len(table.tasks) * len(table.arms)} cells have finished.</p>"
        + html.scores(table)
        + f'<p class="files"><a href="tables/{esc(table.name)}.csv">CSV</a>'
        f' · <a href="tables/{esc(table.name)}.tex">LaTeX</a> · <a href="tables/seeds.csv">every seed</a></p>'
    )


def usual(runs: Runs) -> str:
    """What most runs have; arms that deviate say so in their column."""
    steps, seeds, every, episodes = Counter(
        (it["steps"], it["seeds"], it["eval_every"], it["eval_episodes"]) for it in runs
    ).most_common(1)[0][0]
    often = f"{episodes} episodes every {evidence.short(every)} steps"
    return f"{evidence.short(steps)} steps, {seeds} seeds, {often}, unless a column says otherwise."


def claims_body(verdicts: Mapping[str, Mapping[str, Verdict]]) -> str:
    """Every empirical sentence of the paper, what was compared, and what the runs say, for each kind of data."""
    kinds = sorted({kind for it in verdicts.values() for kind in it}, key=lambda it: it != "d4rl")
    text = (
        "<p>Every empirical sentence of the paper as a statement that runs can contradict. It holds if the 95 % "
        "interval of the"
        " difference lies on the claim’s side of zero, does not if it lies on the other, and can’t be told in "
        "between; what too few"
        " runs can say nothing of is named as such. All numbers are under the paper’s protocol.</p>"
    )
    for kind in kinds:
        answers = Counter(it[kind].answer for it in verdicts.values())
        counts = "".join(f"<li>{html.verdict(name)} {answers[name]}</li>" for name in html.VERDICTS if answers[name])
        rows = [html.claim_row(claim, verdicts[claim.id][kind]) for claim in claims.CLAIMS]
        badge = f"<h3>{esc(evidence.kind_name(kind))[0].upper()}{esc(evidence.kind_name(kind))[1:]}</h3>"
        text += badge + f'<ul class="counts">{counts}</ul>' + html.claims_table(f"claims-{kind}", rows)
    return text + '<p class="files"><a href="tables/claims.csv">CSV</a></p>'


def claims_csv(verdicts: Mapping[str, Mapping[str, Verdict]]) -> str:
    header = [
        "claim",
        "data",
        "verdict",
        "number",
        "value",
        "low_95",
        "high_95",
        "on",
        "evidence",
        "sentence",
        "where",
        "compared",
    ]
    rows: list[list[object]] = []
    for claim in claims.CLAIMS:
        for kind, it in verdicts[claim.id].items():
            for name, estimate in it.numbers.items() or {"": ("", "", "")}.items():
                rows.append(
                    [
                        claim.id,
                        kind,
                        it.answer,
                        name,
                        *estimate,
                        it.n,
                        it.evidence,
                        claim.sentence,
                        claim.where,
                        claim.compared,
                    ]
                )
    return exports.csv_text(header, rows)


def likeness_body(alike: Sequence[Likeness]) -> str:
    rows, detail = [], []
    for it in alike:
        shift, ratio = it.shift, it.ratio
        returns = [f"{it.returns[0]:,.0f} ± {it.returns[1]:,.0f}" if it.returns else None]
        returns += [f"{it.d4rl_returns[0]:,.0f} ± {it.d4rl_returns[1]:,.0f}" if it.d4rl_returns else None]
        returns += [None if length is None else f"{length:,.0f}" for length in (it.length, it.d4rl_length)]
        far = [None] * 4
        if shift is not None and ratio is not None:
            far = [
                float(abs(shift).mean()),
                f"{abs(shift).max():.2f} (dim {abs(shift).argmax()})",
                float(ratio.min()),
                float(ratio.max()),
            ]
            numbers = zip(it.mean, it.d4rl_mean, it.std, it.d4rl_std, shift, ratio, strict=True)  # pyright: ignore[reportArgumentType]
            detail += [
                [it.dataset, index, *(f"{value:.3f}" for value in values)] for index, values in enumerate(numbers)
            ]
        rows.append(
            [
                it.dataset,
                it.transitions,
                *returns,
                *(f"{value:.2f}" if isinstance(value, float) else value for value in far),
            ]
        )
    names = ("set", "transitions", "return", "D4RL’s", "length", "D4RL’s", "mean shift", "largest shift")
    names += ("least std ratio", "largest")
    text = (
        "<p>Observations of each made set against D4RL’s v2 file of that name, dimension by dimension: the "
        "shift is the difference of"
        " the means in D4RL’s standard deviations, the ratio that of the standard deviations (1: alike). "
        "Returns are mean ± standard"
        " deviation over completed episodes, lengths their mean steps. Of a set without numbers D4RL’s are not "
        "published, or its runs began before they were recorded.</p>"
    )
    text += html.plain_table("datasets", [Column(it, index > 0) for index, it in enumerate(names)], rows)
    if detail:
        names = ("set", "dimension", "mean", "D4RL’s", "std", "D4RL’s std", "shift", "ratio")
        columns = [Column(it, index > 0) for index, it in enumerate(names)]
        text += (
            f"<details><summary>Every dimension</summary>{html.plain_table('dimensions', columns, detail)}</details>"
        )
    return text


def cost(runs: Runs) -> str:
    """Hours of training by arm of each plan."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["plan"], run["label"]), []).append(run)
    rows = []
    for (plan, label), own in groups.items():
        timed = [it for it in own if it["train_seconds"]]
        seconds = sum(it["train_seconds"] for it in timed)
        steps = sum(it["steps"] * it["seeds"] for it in timed if it["state"] == "finished")
        fast = sum(it["train_seconds"] for it in timed if it["state"] == "finished")
        failed = sum(it["state"] == "diverged" for it in own)
        rows.append([plan, label, len(own), failed, seconds / 3600, steps / fast if fast else None])
    total = sum({it["run"]: it["train_seconds"] or 0.0 for it in runs}.values()) / 3600  # a run may be of several plans
    names = ("plan", "arm", "runs", "diverged", "hours of training", "steps of one seed per second")
    columns = [Column(it, index > 1) for index, it in enumerate(names)]
    text = (
        f"<p>{total:,.1f} hours of training in all: updates alone, without compilation, evaluation and the fit "
        "of π<sub>β</sub>.</p>"
    )
    return text + folded(html.plain_table("cost", columns, rows), len(rows), "arms")


def provenance(runs: Runs) -> str:
    """Every run: what was trained on what, by which code."""
    rows = []
    for run in runs:
        about = json.loads(run["provenance"] or "{}")
        source = about.get("dataset", {}).get("source", {})
        commit = (about.get("git") or {}).get("commit") or ""
        dirty = " (changed)" if (about.get("git") or {}).get("dirty") else ""
        row = [run[it] for it in ("dataset", "label", "plan", "algorithm", "preset", "state", "steps", "seeds", "run")]
        sha256, devices = (source.get("sha256") or "")[:12], ", ".join(about.get("devices") or [])
        rows.append([*row, sha256, commit[:10] + dirty, devices])
    names = (
        "dataset",
        "arm",
        "plan",
        "algorithm",
        "preset",
        "state",
        "steps",
        "seeds",
        "run",
        "data’s SHA-256",
        "commit",
        "device",
    )
    columns = [Column(it, it in ("steps", "seeds")) for it in names]
    text = f"<p>{len(runs)} runs. A run’s name is the hash of its configuration.</p>"
    return text + folded(html.plain_table("provenance", columns, rows), len(rows), "runs")


def folded(table: str, rows: int, what: str) -> str:
    """A table that is longer than a screen is opened by who wants it."""
    return table if rows <= 40 else f"<details><summary>All {rows} {what}</summary>{table}</details>"


def latex_caption(table: Table) -> str:
    kind = "D4RL's own data" if table.kind == "d4rl" else evidence.kind_name(table.kind)
    what = "returns" if table.family == "returns" else "D4RL scores"
    text = f"{TITLES[table.family]}: {what} on {kind}, mean and half-width of the 95 % interval over seeds"
    return text + ("; in brackets the paper's printed mean." if table.of_paper else ".")


# --- the page ------------------------------------------------------------------------------------------------------


def page(runs: Runs, tables: Sequence[Table], parts: Sequence[Part]) -> str:
    words = Words(
        TITLE,
        "itrpo report",
        LEAD + "".join(f"<p>{esc(it)}</p>" for it in lead(tables)),
        "From the rows of finished and unfinished runs, without a manual step. Beside this file: <code>tables/</code>"
        " (CSV, LaTeX) and <code>figures/</code> (SVG, PNG).",
        "The tables are complete without JavaScript; the charts are in <code>figures/</code> as SVG and PNG.",
        SWITCHES,
        ' data-protocol="paper"',
    )
    return document(words, header_facts(runs), parts, _figure)


def lead(tables: Sequence[Table]) -> list[str]:
    """For each of the paper's tables what iTRPO has, and what its controls have, on the tasks that all columns have."""
    said = []
    for table in tables:
        if not (table.of_paper and evidence.is_main(table.plan)):
            continue
        ran, of = sum(it.final for it in table.cells.values()), len(table.tasks) * len(table.arms)
        text = f"{TITLES[table.family]}, on {evidence.kind_name(table.kind)}: {ran} of {of} cells have finished."
        own = {arm.label: [table.cells[task, arm.label] for task in table.compared] for arm in table.arms}
        if table.compared and "itrpo" in own:
            of_tasks = (
                f"the {count(len(table.compared), 'task')} that every column has"
                if len(table.compared) < len(table.tasks)
                else f"all {len(table.compared)} tasks"
            )
            means = {arm.title: evidence.mean_over_tasks(own[arm.label], "paper") for arm in table.arms}
            parts = [
                f"{name} {format_interval(it, 1)}" for name, it in sorted(means.items(), key=lambda it: -it[1].mean)
            ]
            text += f" On {of_tasks}: {', '.join(parts)}."
        said.append(text)
    return said or ["No run is on a task of the paper’s tables."]


def header_facts(runs: Runs) -> dict[str, str]:
    """What a reader must know before any number."""
    about = [json.loads(it["provenance"] or "{}") for it in runs]
    kinds = Counter(it["kind"] for it in {(it["kind"], it["dataset"]): it for it in runs}.values())
    counted = Counter(it["state"] for it in runs)
    versions: dict[str, set[str]] = {}
    for it in about:
        for name, version in (it.get("versions") or {}).items():
            if version is not None:  # a package that was not there, or that had no metadata
                versions.setdefault(name, set()).add(version)
    shown = [
        f"{name} {' / '.join(sorted(versions[name]))}"
        for name in ("itrpo", "jax", "mujoco", "gymnasium")
        if name in versions
    ]
    machines = Counter(
        f"{' + '.join(it.get('devices') or ['?'])}, {it.get('cpu_count')} cores, {it.get('platform', '')}"
        for it in about
    )
    return {
        "Data": "; ".join(
            f"{count(number, 'set')}: {evidence.kind_name(kind)}" for kind, number in kinds.most_common()
        ),
        "Runs": "; ".join(f"{number} {state}" for state, number in counted.most_common()),
        "Gradient steps": spread(it["steps"] for it in runs),
        "Seeds": spread(it["seeds"] for it in runs),
        "Evaluations": f"{spread(it['eval_episodes'] for it in runs)} episodes per seed, every "
        f"{spread(it['eval_every'] for it in runs)} steps",
        "Score of a seed": "mean of its last 10 evaluations (of a short run: of its later half), as the "
        "paper’s; or its last one",
        "Intervals": "95 %, over seeds",
        "Versions": ", ".join(shown) or "not recorded",
        "Machine": "; ".join(f"{name} ({count(number, 'run')})" for name, number in machines.most_common(3)),
        "Commits": ", ".join(sorted({(it.get("git") or {}).get("commit", "")[:10] for it in about if it.get("git")}))
        or "not recorded",
    }


def spread(values: Any) -> str:
    """'50k', or '50k (120 runs), 20k (30)'"""
    counts = Counter(values).most_common()
    if len(counts) == 1:
        return evidence.short(counts[0][0])
    return ", ".join(f"{evidence.short(value)} ({count(number, 'run')})" for value, number in counts[:4])
