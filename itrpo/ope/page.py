"""A judgement as one self-contained page for who runs the plant: warnings first, then what the policies would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.ope import bootstrap
from itrpo.ope.contrast import NEAR, Contrast, at_limits, beyond, contrasts, telling, typical_episode
from itrpo.ope.fqe import FQE
from itrpo.ope.judgement import ESTIMATORS, Against, Judged, Judgement
from itrpo.ope.log import Log
from itrpo.ope.reasons import ABOUT, Kind
from itrpo.ope.table import footnotes, missing, number, warnings, with_interval
from itrpo.report.page import charts, html
from itrpo.report.page.charts import Chart
from itrpo.report.page.document import Part, Words, document
from itrpo.report.page.html import Column, Shown, esc
from itrpo.report.tables import algorithm_name, count
from itrpo.types import Dataset

FILE = "judgement.html"  # in the run's folder
REFERENCE = "BC"
COLORS = ("--c0", "--c1", "--c4", "--c6", "--c5", "--c7")  # of policies; so many are drawn, tables have all
LOG_COLOR = "var(--c3)"
PANELS, ACTIONS, SENSORS = 6, 3, 4  # columns and actions that are drawn by region; columns over an episode
FINE = 10  # bins of a drawn line
WINDOW = 2_000  # rows of an episode that are drawn
TOP = 10  # rows of a table that a reader sees without asking for more
FATAL = ("runaway", "unsettled", "bias", "behavior")  # doubts beside which an estimate decides nothing
CLOCK = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


class Material(NamedTuple):
    """What the page shows beside the judgement."""

    log: Log  # the judged episodes
    actions: Mapping[str, np.ndarray]  # name of a seed's policy -> [N, A] in [-1, 1]: what it does at the log's rows
    dataset: Dataset  # whose rows they are: names, units, bounds
    known: Dataset | None  # what the run was trained on; None: it can't be read
    config: Mapping[str, Any]  # of the run, as JSON
    about: Mapping[str, Any]  # its provenance


def write_page(folder: Path, judged: Judgement, material: Material) -> Path:
    """FOLDER/judgement.html, whole or not at all. Raises InputError without vl-convert, StorageError."""
    files.write(folder / FILE, make_page(judged, material).encode())
    return folder / FILE


def make_page(judged: Judgement, material: Material) -> str:
    view = view_of(material)
    parts = [
        Part("warnings", "Warnings", "Warnings", warnings_body(judged)),
        Part("verdict", "Verdict", "Verdict", verdict_body(judged)),
        Part("estimates", "What it would earn", "Estimates", *estimates(judged)),
        Part("regions", "What it does, sensor by sensor", "By sensor", *by_region(view)),
        Part("episode", "One episode", "Episode", *episode(view)),
        *([] if material.log.choices else [Part("limits", "At the limits", "Limits", limits(view))]),
        Part("changes", "What changes most", "Changes", changes(view)),
        Part("unseen", "What it has never seen", "Unseen", unseen(judged, view)),
        Part("provenance", "Where this comes from", "Provenance", provenance(judged, material)),
    ]
    words = Words(
        f"{algorithm_name(judged.algorithm)} on {judged.dataset}, judged from the log",
        "itrpo judge",
        f'<p class="lead">{esc(lead(judged))}</p>',
        "Nothing here was tried in a plant or a simulator. What each number means, and what such judgements were worth"
        " where the truth is known: docs/judging.md. All numbers: <code>judgement.json</code> beside this file.",
        "The tables are complete without JavaScript; the charts need it.",
    )
    return document(words, header(judged), parts)


# --- names, units, numbers -----------------------------------------------------------------------------------------


class Names(NamedTuple):
    """Of columns, and their units; empty where nobody said."""

    observations: tuple[str, ...]
    observation_units: tuple[str, ...]
    actions: tuple[str, ...]
    action_units: tuple[str, ...]

    def observation(self, column: int) -> str:
        return self.observations[column] if self.observations else f"observation {column}"

    def action(self, dimension: int) -> str:
        return self.actions[dimension] if self.actions else f"action {dimension}"

    def of_observation(self, column: int) -> str:
        """Its unit after a number, with the space between."""
        return f" {self.observation_units[column]}" if self.observation_units else ""

    def of_action(self, dimension: int) -> str:
        return f" {self.action_units[dimension]}" if self.action_units else ""


def names_of(dataset: Dataset) -> Names:
    """As the file or the user's columns say."""
    said, columns = dataset.attributes, dataset.source.recipe.get("columns") or {}

    def chosen(size: int, *given: Sequence[str] | None) -> tuple[str, ...]:
        return next((tuple(it) for it in given if it is not None and len(it) == size), ())

    size, action_size = dataset.frame
    observations = chosen(size, said.observation_names, columns.get("observations"))
    if dataset.num_actions is not None:  # an action is then the share of each choice
        first, number = int(dataset.action_low[0]), dataset.num_actions
        actions = tuple(f"choice {first + k}" for k in range(number))
        return Names(observations, chosen(size, said.observation_units), actions, ("share",) * number)
    return Names(
        observations,
        chosen(size, said.observation_units),
        chosen(action_size, said.action_names, columns.get("actions")),
        chosen(action_size, said.action_units),
    )


class View(NamedTuple):
    """The log's rows and what each policy does there, by region. Actions are in [-1, 1], or choices as one-hot codes;
    `raw` has the user's units.
    """

    material: Material
    names: Names
    policies: list[str]
    observation: np.ndarray  # [N, O], of a history the newest
    actions: np.ndarray  # [P, N, A]
    regions: list[Contrast]
    columns: list[int]  # the telling ones first; without those that never vary
    dimensions: list[int]  # of actions, the most changed first

    @property
    def logged(self) -> np.ndarray:
        return self.material.log.rows.action

    def raw(self, action: np.ndarray) -> np.ndarray:
        if self.material.log.choices:
            return action
        low, high = (
            np.asarray(it, float) for it in (self.material.dataset.action_low, self.material.dataset.action_high)
        )
        return (high + low) / 2 + action * (high - low) / 2

    def wide(self, difference: np.ndarray) -> np.ndarray:
        """Differences of actions in the user's units."""
        if self.material.log.choices:
            return difference
        return (
            difference * (np.asarray(self.material.dataset.action_high, float) - self.material.dataset.action_low) / 2
        )

    def colors(self) -> dict[str, str]:
        """Of what is drawn."""
        return {it: f"var({color})" for it, color in zip(self.policies, COLORS, strict=False)}

    def place(self, column: int) -> str:
        return f"{self.names.observation(column)}{bracketed(self.names.of_observation(column))}"

    def lever(self, dimension: int) -> str:
        return f"{self.names.action(dimension)}{bracketed(self.names.of_action(dimension))}"


def view_of(material: Material) -> View:
    observation = material.log.rows.observation[:, : material.dataset.frame.observation_dim]
    actions, logged = np.stack(list(material.actions.values())), material.log.rows.action
    regions = contrasts(observation, logged, actions)
    apart = np.abs(actions - logged).mean(axis=(0, 1))
    dimensions = [int(it) for it in np.argsort(-apart, kind="stable")]
    names = names_of(material.dataset)
    return View(material, names, list(material.actions), observation, actions, regions, telling(regions), dimensions)


def bracketed(unit: str) -> str:
    return f" ({unit.strip()})" if unit else ""


def where(names: Names, column: int, low: float, high: float) -> str:
    return f"{names.observation(column)} {low:.4g} to {high:.4g}{names.of_observation(column)}".replace("-", "−")


def share(value: float) -> Shown:
    """Of a whole."""
    text = "0" if value == 0 else "under 1 %" if value < 0.01 else f"{100 * value:.0f} %"
    return Shown(text, value)


def quantity(value: float, plus: bool = False) -> Shown:
    return Shown(number(value, "+" if plus else "").replace("-", "−"), value)


def brief(value: float) -> float:
    """As precise as a picture."""
    return float(f"{value:.5g}")


def plain(value: float) -> Shown:
    """As a sensor shows it."""
    return Shown(f"{value:.4g}".replace("-", "−"), value)


def interval_cell(it: Against | None) -> Shown | None:
    if it is None:
        return None
    value, _, rest = with_interval(*it, sign=True).partition(" ")
    return Shown(f"{esc(value)} <i>{esc(rest)}</i>".replace("-", "−"), it.value)


def columns_of(texts: Sequence[str], numbers: Sequence[str]) -> list[Column]:
    return [*map(Column, texts), *(Column(it, True) for it in numbers)]


def table_with_rest(name: str, columns: Sequence[Column], rows: Sequence[Sequence[object]], all_of: str) -> str:
    """The first rows, and all behind a line to click on."""
    text = html.plain_table(name, columns, rows[:TOP])
    if len(rows) > TOP:
        rest = html.plain_table(f"{name}-all", columns, rows)
        text += f"<details><summary>{esc(all_of)}: {len(rows)}</summary>{rest}</details>"
    return text


def listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


# --- warnings and verdict ------------------------------------------------------------------------------------------


def warnings_body(judged: Judgement) -> str:
    """By kind, the gravest first: what is wrong in plain words, with the numbers, and what to do."""
    found: dict[Kind, list[str]] = {}
    for it in warnings(judged):
        text = it.reason.text if not it.whose else f"{it.whose}: {it.reason.text}"
        found.setdefault(it.reason.kind, []).append(text[0].upper() + text[1:])
    if not found:
        return (
            "<p>No check raised a doubt. That is no proof: it means that nothing of what can go wrong unseen in a log"
            " was seen in this one.</p>"
        )
    items = [
        f"<li><h3>{esc(about.plain)}</h3>{''.join(f'<p>{esc(it)}.</p>' for it in found[kind])}"
        f'<p class="todo"><b>What to do:</b> {esc(about.advice)}</p></li>'
        for kind, about in ABOUT.items()
        if kind in found
    ]
    return f'<ol class="warnings">{"".join(items)}</ol>'


class Verdict(NamedTuple):
    answer: str
    look: str  # of its badge
    sentence: str


def verdict_body(judged: Judgement) -> str:
    it = verdict(judged)
    return f'<p class="lead">{html.verdict(it.answer, it.look)} {esc(it.sentence)}</p>'


def verdict(judged: Judgement) -> Verdict:
    """By fitted Q against the log, in one sentence."""
    own = [(it, it.by("fqe")) for it in seeds_of(judged)]
    against = {it.name: by.against_log for it, by in own if by is not None and by.against_log is not None}
    kinds = {it.reason.kind for it in warnings(judged)}
    better = [name for name, it in against.items() if it.low > 0]
    worse = [name for name, it in against.items() if it.high < 0]
    of_log = judged.policy("log").by("fqe")
    base = "" if of_log is None else f" (the log itself is put at {number(of_log.per_step)})".replace("-", "−")
    gain = f"{differences([against[it] for it in better or worse or list(against)], 1 - judged.gamma)} per step{base}"
    noise = f"the noise of {count(judged.episodes, 'episode')}"
    fatal = [about for kind, about in ABOUT.items() if kind in kinds and kind in FATAL]
    if fatal:
        broken = listed([it.plain[0].lower() + it.plain[1:].rstrip(".") for it in fatal])
        return Verdict("can’t tell", "open", f"The estimates ({gain}) decide nothing yet, for {broken}.")
    doubts = (
        f"{number_word(len(kinds), 'warning')} above make{'s' * (len(kinds) == 1)} that a reason for a careful trial at"
        " most, not for switching it on"
        if kinds
        else "no check raised a doubt, so it is a reason for a careful trial"
    )
    if better and len(better) == len(against):
        look, answer = ("open", "better, with doubts") if kinds else ("holds", "better")
        text = f"{who(better, against)} estimated to earn more than the log, by {gain}, more than {noise} explains"
        return Verdict(answer, look, sentence(f"{text}; {doubts}"))
    if worse and len(worse) == len(against):
        text = f"{who(worse, against)} estimated to earn less than the log, by {gain}, more than {noise} explains"
        return Verdict("worse", "fails", sentence(f"{text}: stay with what the log does"))
    if not better and not worse:
        text = (
            f"Whether this earns more or less than what was logged the log can’t tell: {gain}, which {noise} explains"
        )
        return Verdict("can’t tell", "open", sentence(text))
    parts = [f"{who(better, against)} estimated to earn more than the log, by {gain}"] if better else []
    parts += [f"{who(worse, against)} estimated to earn less"] if worse else []
    left = [it for it in against if it not in (*better, *worse)]
    parts += [f"of {listed(left)} the log can’t tell"] if left else []
    if better and worse:
        text = "chance in training decides, so train longer, or on more data, before trusting any"
        return Verdict("it depends on the seed", "open", sentence(f"{'; '.join(parts)}: {text}"))
    parts += [doubts] if better else []
    return Verdict("some better" if better else "some worse", "open" if better else "fails", sentence("; ".join(parts)))


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def seeds_of(judged: Judgement) -> list[Judged]:
    return [it for it in judged.policies if it.seed is not None]


def who(some: Sequence[str], of: Mapping[str, Any]) -> str:
    if len(of) == 1:
        return "The policy is"
    if len(some) == len(of):
        return "Both policies are" if len(of) == 2 else f"All {len(of)} policies are"
    return f"{listed(some)} {'is' if len(some) == 1 else 'are'}"


def number_word(value: int, noun: str) -> str:
    return f"the {noun}" if value == 1 else f"the {value} {noun}s"


def differences(against: Sequence[Against], scale: float) -> str:
    """Each with its interval where there are few, else from which to which."""
    if len(against) > 2:
        values = [scale * it.value for it in against]
        text = f"{number(min(values), '+')} to {number(max(values), '+')}"
    else:
        text = listed([with_interval(*(scale * end for end in it), sign=True) for it in against])
    return text.replace("-", "−")


def lead(judged: Judgement) -> str:
    own = seeds_of(judged)
    seeds = f"the policies of {count(len(own), 'seed')}" if len(own) > 1 else "the policy"
    return (
        f"What {count(judged.episodes, 'episode')} that it has not seen ({judged.unseen}) say about {seeds} after"
        f" {judged.step:,} gradient steps. No simulator was asked, and nothing was tried."
    )


def header(judged: Judgement) -> dict[str, str]:
    folds = judged.settings.get("folds")
    return {
        "Judged on": f"{count(judged.episodes, 'episode')}, {judged.rows:,} rows: {judged.unseen}",
        "The log earned": f"{number(judged.log_return)} per episode, undiscounted".replace("-", "−"),
        "Looks ahead": f"about {1 / (1 - judged.gamma):,.0f} steps (gamma {judged.gamma:g})"
        if judged.gamma < 1
        else "",
        "Intervals": f"95 %, over resampled episodes: {folds} folds",
    }


# --- estimates -----------------------------------------------------------------------------------------------------


def against_reference(judged: Judgement, it: Judged) -> Against | None:
    """The difference of fitted Q to that of behaviour cloning in the same folds."""
    own, other = it.by("fqe"), next((one for one in judged.policies if one.name == REFERENCE), None)
    reference = None if other is None or it.name == REFERENCE else other.by("fqe")
    if own is None or reference is None or len(own.folds) != len(reference.folds) or it.name == "log":
        return None
    return Against(*bootstrap.interval(np.subtract(own.folds, reference.folds), judged.episodes))


def estimates(judged: Judgement) -> tuple[str, list[Chart], str]:
    drawn, panels = list[dict[str, Any]](), ("against the log", f"against {REFERENCE}")
    for it in judged.policies:
        own = it.by("fqe")
        for panel, found in zip(panels, (own and own.against_log, against_reference(judged, it)), strict=True):
            if found is not None and np.isfinite(found.value):
                low, high = ((end if np.isfinite(end) else None) for end in found[1:])
                drawn.append({"t": it.name, "m": found.value, "lo": low, "hi": high, "p": panel})
    order = list(dict.fromkeys(it["t"] for it in drawn))
    text = (
        "<p>The discounted return of an episode, in units of the rewards. What to decide by is the difference to the"
        " log by the same estimator in the same resampled episodes, for what is common to both cancels."
        f" {REFERENCE} is a copy of what the log does (the mode of a model of π<sub>β</sub>), judged in the same way:"
        " a policy that is no better than the copy has learned nothing more from the log.</p>"
    )
    chart = charts.points(
        "against",
        "Fitted Q: how much more than the log, and than its copy",
        "Points: differences of discounted returns. Lines: 95 % intervals over resampled episodes. Left of the dashed"
        " line is worse.",
        drawn,
        order,
        "difference of discounted returns",
        middle=0.0,
        panel=panels,
    )
    rows = []
    for it in judged.policies:
        for estimate in it.estimates:
            weighted = estimate.estimator in ("wdr", "dr", "wpdis", "pdis")
            value = Against(estimate.value, estimate.low, estimate.high)
            head, _, rest = with_interval(*value).partition(" ")
            rows.append(
                [
                    it.name,
                    ESTIMATORS[estimate.estimator],
                    Shown(f"{esc(head)} <i>{esc(rest)}</i>".replace("-", "−"), estimate.value),
                    quantity(estimate.per_step),
                    interval_cell(estimate.against_log),
                    interval_cell(against_reference(judged, it)) if estimate.estimator == "fqe" else None,
                    quantity(it.sample_size) if weighted and it.sample_size is not None else None,
                    len({*estimate.reasons, *it.reasons}) or None,
                ]
            )
    names = ("discounted return", "per step", "against the log", f"against {REFERENCE}", "worth episodes", "doubts")
    table = html.plain_table("estimates", columns_of(("policy", "estimate by"), names), rows)
    notes = (*missing(judged), *footnotes(judged))
    worth = (
        f"“Worth episodes”: of the {judged.episodes}, how many the importance weights leave (effective sample size):"
        " under ten the estimate is that of a few lucky days, and has no interval."
    )
    after = "".join(f'<p class="note">{esc(it)}</p>' for it in (worth, *notes))
    return text, [chart] if drawn else [], table + after


# --- actions -------------------------------------------------------------------------------------------------------


def by_region(view: View) -> tuple[str, list[Chart], str]:
    fine = contrasts(view.observation, view.logged, view.actions, FINE)
    columns, dimensions = view.columns[:PANELS], view.dimensions[:ACTIONS]
    panels = [view.place(it) for it in columns]
    colors = {"log": LOG_COLOR} | view.colors()
    found = list[Chart]()
    for dimension in dimensions if columns else ():
        rows = list[dict[str, Any]]()
        for it in fine:
            if it.column in columns:
                own, usual = view.raw(it.log)[dimension], view.raw(it.usual)[:, dimension]
                place = {"p": view.place(it.column), "s": brief(it.centre)}
                rows.append(place | {"a": "log", "m": brief(own), "lo": brief(usual[0]), "hi": brief(usual[1])})
                for name, mean in zip(colors, (own, *view.raw(it.policy)[:, dimension]), strict=False):
                    if name != "log":
                        rows.append(place | {"a": name, "m": brief(mean), "lo": None, "hi": None})
        found.append(
            charts.lines(
                f"action-{dimension}",
                f"{view.lever(dimension)}, over each sensor",
                "Lines: mean action where the sensor reads so much (tenths of the rows), of the log and of each policy"
                " at the same rows. Band: the middle 80 % of the log’s actions. Outside of it the policy does what was"
                " seldom tried.",
                rows,
                colors,
                panels,
                ("the sensor’s reading", view.lever(dimension)),
                "x",
            )
        )
    text = "<p>At every row of the judged episodes: what was done, and what each policy would do in its place.</p>"
    if len(view.policies) > len(COLORS):
        text += f'<p class="note">Figures show the first {len(COLORS)} of the {len(view.policies)} policies.</p>'
    if len(view.columns) > PANELS or len(view.dimensions) > ACTIONS:
        text += (
            f'<p class="note">Drawn are the {len(columns)} of {view.observation.shape[1]} columns over which the'
            f" policies vary most, and the {len(dimensions)} of {len(view.dimensions)} actions that change most; the"
            " table has all.</p>"
        )
    names = ("rows", "log, mean", "the log’s middle 80 %", *view.policies)
    rows = []
    for it in view.regions:
        for dimension in range(len(view.dimensions)):
            usual = view.raw(it.usual)[:, dimension]
            span = Shown(f"{number(usual[0])} to {number(usual[1])}".replace("-", "−"), float(usual[0]))
            means = [quantity(mean) for mean in view.raw(it.policy)[:, dimension]]
            logged = quantity(view.raw(it.log)[dimension])
            rows.append(
                [
                    where(view.names, it.column, it.low, it.high),
                    view.lever(dimension),
                    share(it.weight),
                    logged,
                    span,
                    *means,
                ]
            )
    table = html.plain_table("regions", columns_of(("where", "action"), names), rows)
    return text, found, f"<details><summary>Every fifth of every sensor: {len(rows)}</summary>{table}</details>"


def episode(view: View) -> tuple[str, list[Chart]]:
    log = view.material.log
    chosen = typical_episode(log)
    start, length = int(log.starts[chosen]), int(log.lengths[chosen])
    here = slice(start, start + min(length, WINDOW))
    scale, unit = time_axis(view.material.config, here.stop - here.start)
    colors = {"log": LOG_COLOR} | view.colors()
    rows, panels = list[dict[str, Any]](), list[str]()

    def add(panel: str, name: str, values: np.ndarray) -> None:
        panels.append(panel)
        plain = {"p": panel, "a": name, "lo": None, "hi": None}
        rows.extend(plain | {"s": brief(scale * step), "m": brief(value)} for step, value in enumerate(values))

    for dimension in view.dimensions[:ACTIONS]:
        for name, action in {"log": view.logged, **dict(zip(view.policies, view.actions, strict=True))}.items():
            if name in colors:
                add(view.lever(dimension), name, view.raw(action[here])[:, dimension])
    for column in view.columns[:SENSORS]:
        add(view.place(column), "log", view.observation[here, column])
    total = float(log.rows.reward[start : start + length].sum(dtype=np.float64))
    cut = f"; its first {WINDOW:,} are drawn" if length > WINDOW else ""
    text = (
        f"<p>Episode {chosen + 1} of the {len(log.starts)} judged: {length:,} rows{cut}, a usual one (of those of usual"
        f" length its return, {esc(number(total).replace('-', '−'))}, is the nearest to the middle).</p>"
    )
    chart = charts.lines(
        "episode",
        "What was done, and what the policies would have done at each moment",
        "The policies answer to what the sensors read under the log’s own actions: what would have come of theirs is"
        " not shown, for nobody knows it.",
        rows,
        colors,
        list(dict.fromkeys(panels)),
        (unit, "value"),
        "y",
        columns=1,
        steps=True,
    )
    return text, [chart]


def time_axis(config: Mapping[str, Any], rows: int) -> tuple[float, str]:
    """(a row's length, in which unit), where the data were read with a period."""
    period = (config.get("data", {}).get("rules") or {}).get("period")
    if not period:
        return 1.0, "rows since the episode’s beginning"
    seconds, unit = next((it for it in CLOCK if period * rows >= 2 * it[0]), CLOCK[-1])
    return period / seconds, f"{unit} since the episode’s beginning"


def limits(view: View) -> str:
    """How often actions are at their limits, and how often beyond what was logged."""
    known = view.logged if view.material.known is None else view.material.known.transitions.action
    low, high = view.raw(-np.ones(len(view.dimensions))), view.raw(np.ones(len(view.dimensions)))
    rows = []
    for dimension in view.dimensions:
        for name, action in {"log": view.logged, **dict(zip(view.policies, view.actions, strict=True))}.items():
            ends, outside = at_limits(action), beyond(action, known)
            rows.append(
                [
                    view.lever(dimension),
                    name,
                    plain(low[dimension]),
                    share(float(ends[0, dimension])),
                    plain(high[dimension]),
                    share(float(ends[1, dimension])),
                    share(float(outside[0, dimension])),
                    share(float(outside[1, dimension])),
                ]
            )
    ends = view.raw(np.stack([known.min(axis=0), known.max(axis=0)]))
    span = listed([f"{view.lever(it)} {ends[0, it]:.4g} to {ends[1, it]:.4g}" for it in view.dimensions[:TOP]])
    text = (
        f"<p>Shares of the rows. At a limit: within {100 * NEAR:.0f} % of the action’s range. Beyond: below the least"
        f" or above the largest action that was ever logged ({esc(span.replace('-', '−'))}); an export keeps within"
        " these.</p>"
    )
    names = ("lower limit", "at it", "upper limit", "at it", "below the log’s", "above the log’s")
    return text + html.plain_table("limits", columns_of(("action", "who"), names), rows)


def changes(view: View) -> str:
    """Where |policy - log| is largest."""
    entries = [
        (float(it.apart[:, dimension].mean()), it, dimension)
        for it in view.regions
        for dimension in range(len(view.dimensions))
    ]
    entries.sort(key=lambda entry: -entry[0])
    rows = []
    for apart, it, dimension in entries:
        logged, ours = view.raw(it.log)[dimension], view.raw(it.policy)[:, dimension]
        away = float(view.wide(apart * np.ones(len(view.dimensions)))[dimension])
        means = (quantity(logged), *map(quantity, ours), quantity(float(ours.mean() - logged), plus=True))
        place = (where(view.names, it.column, it.low, it.high), view.lever(dimension), share(it.weight))
        rows.append([*place, *means, quantity(away), share(apart / 2)])
    overall = [
        f"{view.lever(it)} differs by {number(view.wide(np.abs(view.actions - view.logged).mean(axis=(0, 1)))[it])}"
        f" ({np.abs(view.actions - view.logged)[:, :, it].mean() / 2 * 100:.0f} % of its range)"
        for it in view.dimensions[:ACTIONS]
    ]
    first = ""
    if entries:
        _, it, dimension = entries[0]
        logged, ours = view.raw(it.log)[dimension], float(view.raw(it.policy)[:, dimension].mean())
        name, unit = view.names.action(dimension), view.names.of_action(dimension)
        first = (
            f" Most where {view.names.observation(it.column)} is {it.low:.4g} to"
            f" {it.high:.4g}{view.names.of_observation(it.column)}: there {name} is {number(ours)}{unit} on average,"
            f" and was {number(logged)}{unit}."
        )
    text = f"Row by row, and in the mean over policies, {listed(overall)}.{first}".replace("-", "−")
    names = ("rows", "log, mean", *view.policies, "difference", "row by row", "of the range")
    return f"<p>{esc(text)}</p>" + table_with_rest(
        "changes", columns_of(("where", "action"), names), rows, "Every fifth of every sensor"
    )


# --- support -------------------------------------------------------------------------------------------------------


def unseen(judged: Judgement, view: View) -> str:
    own = [it for it in judged.policies if it.support is not None]
    rows = []
    for it in own:
        assert it.support is not None
        found = (it.support.unlikely, it.support.far, it.support.outside)
        rows.append([it.name, *(None if value is None else share(value) for value in found)])
    names = ("less likely than 99 % of the log’s", "farther from known rows than 99 %", "outside the usual of a region")
    text = (
        "<p>Shares of the rows where a policy’s action is none that the log would have taken: by a model of what it"
        " did in such states; by the distance of state and action to all known rows; and by the range that 98 % of the"
        " log’s actions keep to in a fifth of a sensor’s rows. Of the log itself each would be 1 to 2 %.</p>"
    )
    text += html.plain_table("support", columns_of(("policy",), names), rows)
    seeds = [it for it in own if it.seed is not None]
    by_place: dict[tuple[int, float, float], list[float]] = {}
    weights: dict[tuple[int, float, float], float] = {}
    for it in seeds:
        assert it.support is not None
        for region in it.support.regions:
            if region.column < view.observation.shape[1]:
                place = (region.column, region.low, region.high)
                by_place.setdefault(place, []).append(region.outside)
                weights[place] = region.weight
    worst = sorted(by_place, key=lambda place: -max(by_place[place]))
    rows = []
    for place in worst:
        rows.append([where(view.names, *place), share(weights[place]), *map(share, by_place[place])])
    names = ("rows", *(it.name for it in seeds))
    text += "<h3>Where its actions leave the log’s</h3>"
    text += table_with_rest("outside", columns_of(("where",), names), rows, "Every fifth of every sensor")
    return text + ranges(view)


def ranges(view: View) -> str:
    """Columns of the judged episodes against those of training."""
    if view.material.known is None:
        return "<p>The run’s own data can’t be read, so what it has seen of each sensor is not known.</p>"
    size = view.observation.shape[1]
    known = view.material.known.transitions.observation[:, :size]
    outside, rows = beyond(view.observation, known), []
    for column in range(size):
        low, high = float(known[:, column].min()), float(known[:, column].max())
        rows.append(
            [
                view.place(column),
                plain(low),
                plain(high),
                plain(float(view.observation[:, column].min())),
                plain(float(view.observation[:, column].max())),
                share(float(outside[:, column].sum())),
                "never varied: it has learned nothing of it" if low == high else "",
            ]
        )
    names = ("least in training", "largest", "least since", "largest", "rows beyond")
    columns = [*columns_of(("sensor",), names), Column("note")]
    head = "<h3>Sensors beyond what it was trained on</h3>"
    return head + html.plain_table("ranges", columns, rows)


# --- provenance ----------------------------------------------------------------------------------------------------


def provenance(judged: Judgement, material: Material) -> str:
    from itrpo import __version__

    about, config = material.about, material.config
    source, versions = about.get("dataset", {}).get("source", {}), about.get("versions") or {}
    git = about.get("git") or {}
    commit = f"{git['commit'][:10]}{' (changed)' if git.get('dirty') else ''}" if git.get("commit") else ""
    folds, seed = (judged.settings.get(it) for it in ("folds", "seed"))
    steps = FQE(steps=(judged.settings.get("fqe") or {}).get("steps")).length(judged.gamma)
    train = config.get("train", {})
    values = {
        "Run": judged.run,
        "Algorithm": f"{algorithm_name(judged.algorithm)}, preset {config.get('preset') or 'none'}",
        "Dataset": judged.dataset,
        "Data’s SHA-256": about.get("dataset_sha256") or "",
        "Data’s file": source.get("path") or source.get("url") or source.get("name") or "",
        "Trained on": f"{about.get('dataset', {}).get('transitions', 0):,} rows",
        "Held back": f"{judged.unseen}: {count(judged.episodes, 'episode')}, {judged.rows:,} rows",
        "Seeds": ", ".join(str(it.seed) for it in seeds_of(judged)),
        "Gradient steps": f"{judged.step:,}",
        "Seed of training": str(train.get("seed", "")),
        "Fitted Q": f"{steps:,} steps in each of {folds} folds, seed {seed}",
        "Judged in": f"{judged.seconds:,.0f} s, by itrpo {__version__}",
        "Trained with": ", ".join(f"{name} {versions[name]}" for name in ("itrpo", "jax", "numpy") if name in versions),
        "Commit": commit,
        "Machine": f"{', '.join(about.get('devices') or [])} {about.get('platform', '')}",
    }
    return html.facts({name: value for name, value in values.items() if value})
