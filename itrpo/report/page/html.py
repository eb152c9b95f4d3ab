"""Pieces of the page. Whatever comes from files passes through `esc`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from itrpo.report.aggregate import Interval, mean_interval
from itrpo.report.claims import Claim, Verdict
from itrpo.report.page.charts import Chart
from itrpo.report.page.evidence import PROTOCOLS, Average, Cell, Table, kind_name, short
from itrpo.report.published import TABLES

ABOUT_KINDS = {
    "d4rl": "Trained on D4RL’s own files, as the paper’s columns were.",
    "generated": "Trained on sets made here by D4RL’s recipes, not on D4RL’s files: the paper’s cells and the"
    " differences from them say where the two stand, not that one beats the other.",
}
OTHER_KIND = "Trained on files of the user’s own; the paper has no cells for them."


def esc(text: object) -> str:
    return escape(str(text), quote=True)


def section(anchor: str, title: str, body: str, kind: str | None) -> str:
    badge = (
        ""
        if kind is None
        else f'<span class="badge {"d4rl" if kind == "d4rl" else "made"}">{esc(kind_name(kind))}</span>'
    )
    return f'<section id="{esc(anchor)}"><h2>{esc(title)}{badge}</h2>\n{body}\n</section>'


def facts(values: Mapping[str, str]) -> str:
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{esc(k)}</dt><dd>{esc(v)}</dd></div>" for k, v in values.items())
        + "</dl>"
    )


def figure(chart: Chart, below: str = "") -> str:
    return (
        "<figure "
        f'id="figure-{esc(chart.name)}"><h3>{esc(chart.title)}</h3><figcaption>{esc(chart.caption)}</figcaption>'
        f'<div class="chart" data-chart="{esc(chart.name)}" role="img" aria-label="{esc(chart.title)}"></div>'
        f"{below}</figure>"
    )


class Column(NamedTuple):
    name: str
    number: bool = False


class Shown(NamedTuple):
    """A cell: what is shown is HTML, what it is sorted by is the number; None: last."""

    html: str
    sort: float | None


def plain_table(name: str, columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> str:
    """A sortable table of texts and numbers; a number is shown with thousands separated, a missing one as nothing."""
    head = "".join(
        f'<th scope="col"{_n(it.number)}><button type="button">{esc(it.name)}</button></th>' for it in columns
    )
    body = []
    for row in rows:
        cells = "".join(
            f"<td{_n(it.number)}{_sort(value)}>{_shown(value)}</td>" for it, value in zip(columns, row, strict=True)
        )
        body.append(f"<tr>{cells}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(name)}"><table class="sortable text" '
        f'id="table-{esc(name)}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _n(number: bool) -> str:
    return ' class="n"' if number else ""


def _sort(value: object) -> str:
    value = value.sort if isinstance(value, Shown) else value
    return (
        f' data-sort="{float(value)!r}"' if isinstance(value, int | float) else ' data-sort=""' if value is None else ""
    )


def _shown(value: object) -> str:
    if isinstance(value, Shown):
        return value.html
    if isinstance(value, float):
        return f"{value:,.1f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else esc(value)


# --- claims --------------------------------------------------------------------------------------------------------

VERDICTS = {"holds": "holds", "does not hold": "fails", "can't tell": "open", "not enough runs": "open"}


def verdict(answer: str, look: str = "") -> str:
    words = answer.replace("'", "’")
    return f'<span class="verdict {look or VERDICTS.get(answer, "open")}">{esc(words)}</span>'


def claim_row(claim: Claim, found: Verdict) -> str:
    numbers = "".join(
        f"<div>{esc(name)}: <b>{it.value:.3g}</b> <i>[{it.low:.3g}, {it.high:.3g}]</i></div>"
        for name, it in found.numbers.items()
    )
    more = " · ".join(filter(None, (found.n, found.why or str(found.missing))))
    return (
        "<tr "
        f'id="claim-{esc(claim.id)}"><td>“{esc(claim.sentence)}”<small>{esc(claim.where)}</small></td><td>{esc(claim.compared)}</td>'
        f"<td>{verdict(found.answer)}</td><td>{numbers}<small>{esc(more)}</small></td></tr>"
    )


def claims_table(name: str, rows: Sequence[str]) -> str:
    names = ("the paper says", "what is compared here", "verdict", "evidence: estimate [95 % interval]")
    head = "".join(f'<th scope="col"><button type="button">{it}</button></th>' for it in names)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(name)}"><table class="sortable text '
        f'claims" id="table-{esc(name)}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


# --- tables of scores ----------------------------------------------------------------------------------------------


def scores(table: Table) -> str:
    """Rows: tasks; columns: arms, each with its interval, the paper's cell, the difference."""
    best = {protocol: _best(table, protocol) for protocol in PROTOCOLS}
    titles = "".join(
        f'<th scope="col"><button type="button">{esc(arm.title)}</button>'
        + (f"<small>{esc(arm.deviation)}</small>" if arm.deviation else "")
        + "</th>"
        for arm in table.arms
    )
    key = (
        ""
        if not any(arm.printed in TABLES.get(task, {}) for arm in table.arms for task in table.tasks)
        else "<small>below: the paper’s, difference</small>"
    )
    first, last = (f'<th scope="col"><button type="button">{it}</button>' for it in ("task", "logged data"))
    head = f"<tr>{first}{key}</th>{titles}{last}</th></tr>"
    body = []
    for index, task in enumerate(table.tasks):
        cells = []
        for arm in table.arms:
            paper = TABLES.get(task, {}).get(arm.printed or "")
            classes = " ".join(
                [
                    *(f"best-{it}" for it in PROTOCOLS if (task, arm.label) in best[it]),
                    *(["ours"] if arm.label == "itrpo" else []),
                ]
            )
            cells.append(score_cell(table.cells.get((task, arm.label)), paper, classes))
        data = table.data_scores.get(task)
        last = '<td data-sort=""></td>' if data is None else f'<td data-sort="{data!r}"><i>{data:.1f}</i></td>'
        body.append(f'<tr><th scope="row" data-sort="{index}">{esc(task)}</th>{"".join(cells)}{last}</tr>')
    foot = [average_row(it, table) for it in table.averages]
    if len(table.compared) > 1 and len(table.arms) > 1:
        won = "".join(
            "<td>"
            + "".join(
                f'<span class="{p}">{won:g}</span>' for p, won in zip(PROTOCOLS, table.wins[arm.label], strict=True)
            )
            + "</td>"
            for arm in table.arms
        )
        foot.append(f'<tr><th scope="row">highest of {len(table.compared)}</th>{won}<td></td></tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(table.name)}"><table class="sortable '
        f'stick" id="table-{esc(table.name)}">'
        f"<thead>{head}</thead><tbody>{''.join(body)}</tbody><tfoot>{''.join(foot)}</tfoot></table></div>"
    )


def _best(table: Table, protocol: str) -> set[tuple[str, str]]:
    """The highest finished cells of each row that has two or more."""
    found = set()
    for task in table.tasks:
        means = {
            arm.label: np.mean(cell.scores[protocol])
            for arm in table.arms
            if (cell := table.cells.get((task, arm.label))) is not None and cell.final
        }
        found |= {(task, label) for label, it in means.items() if len(means) > 1 and it == max(means.values())}
    return found


def score_cell(cell: Cell | None, paper: tuple[float, float | None] | None, classes: str) -> str:
    printed = "" if paper is None else f"{paper[0]:.1f}" + ("" if paper[1] is None else f" ± {paper[1]:.1f}")
    if cell is None or not cell.scores["last"]:
        word, why = ("not run", "") if cell is None else state_words(cell)
        small = f"<small>{printed}</small>" if printed else ""
        mark = "failed" if cell is not None and cell.state == "diverged" else "none"
        said = f'<span class="{mark}" title="{esc(why)}">{esc(word)}</span>'
        return f'<td class="{classes}" data-paper="" data-last="">{said}{small}</td>'
    shown, sort = [], []
    for protocol in PROTOCOLS:
        values = cell.scores[protocol]
        interval = mean_interval(values)
        difference = "" if paper is None else signed(interval.mean - paper[0])
        small = f"<small>{printed}{difference}</small>" if printed else ""
        shown.append(
            f'<span class="{protocol}" title="{esc(hover(cell, protocol))}">{interval_html(interval)}{small}</span>'
        )
        sort.append(f' data-{protocol}="{interval.mean:.6g}"')
    note = (
        ""
        if cell.final
        else f'<small class="{"failed" if cell.state == "diverged" else "none"}">{esc(state_words(cell)[0])}</small>'
    )
    return f'<td class="{classes}"{"".join(sort)}>{"".join(shown)}{note}</td>'


def state_words(cell: Cell) -> tuple[str, str]:
    """(what stands in the cell of a run that has not finished, what a pointer over it says)"""
    if cell.state == "diverged":
        return "diverged", cell.message
    at = f" at {short(cell.step)}" if cell.step else ""
    return f"{'finished without a score' if cell.state == 'finished' else cell.state}{at}", cell.message


def hover(cell: Cell, protocol: str) -> str:
    seeds = ", ".join(f"{it:.1f}" for it in cell.scores[protocol])
    what = (
        "last evaluation"
        if protocol == "last" or cell.evaluations == 1
        else f"mean of the last {cell.evaluations} evaluations"
    )
    return f"seeds: {seeds}; {what}, at step {cell.step:,}; run {cell.run}"


def interval_html(interval: Interval) -> str:
    spread = "" if interval.half_width is None else f" <i>± {interval.half_width:.1f}</i>"
    if interval.each:
        spread = f" <i>({' / '.join(f'{it:.1f}' for it in interval.each)})</i>"
    return f"<b>{interval.mean:.1f}</b>{spread}"


def signed(value: float) -> str:
    return f'<em class="{"up" if value >= 0 else "down"}">{"+" if value >= 0 else "−"}{abs(value):.1f}</em>'


def average_row(average: Average, table: Table) -> str:
    cells = []
    for arm in table.arms:
        values, printed = average.values[arm.label], average.paper.get(arm.printed or "")
        spans = []
        for protocol, value in zip(PROTOCOLS, values, strict=True):
            paper = "" if printed is None else f"{printed:.1f}"
            if isinstance(value, int):
                shown = f'<span class="none">{value} of {len(average.tasks)} run</span>'
            else:
                shown = interval_html(value)
                paper += "" if printed is None else signed(value.mean - printed)
            spans.append(f'<span class="{protocol}">{shown}{f"<small>{paper}</small>" if paper else ""}</span>')
        ours = ' class="ours"' if arm.label == "itrpo" else ""
        cells.append(f"<td{ours}>{''.join(spans)}</td>")
    return f'<tr><th scope="row">{esc(average.name)}</th>{"".join(cells)}<td></td></tr>'
