"""The one place that knows how our pictures look, and how matplotlib is imported.

Figures are drawn on canvases of their own (Agg), inside an rc_context: neither pyplot's state nor anyone's rcParams
change.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from itrpo import files
from itrpo.errors import InputError
from itrpo.evaluation.environments import as_reference, reference_score, score_name
from itrpo.registry import nearest
from itrpo.report.aggregate import FEW, mean_interval, over_seeds
from itrpo.report.runs import RunEntry, labels, named_runs
from itrpo.report.tables import algorithm_name
from itrpo.results.moments import moments_path, read_moments
from itrpo.results.store import CONFIG, read_metrics, read_provenance, read_status
from itrpo.types import Reference

if TYPE_CHECKING:
    import polars
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from itrpo.data.health import Health

# Okabe and Ito's colours: told apart by colour-blind readers, and by their lightness in a grey print
BLUE, VERMILLION, BLACK, GREY = "#0072B2", "#D55E00", "#000000", "#777777"

STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 100.0,
    "savefig.dpi": 200.0,
}

# of many runs in one picture; after these come the same with other dashes
COLORS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", BLACK)
DASHES = ("-", "--", ":", "-.")

# metrics that get a panel of their own, if the run recorded them: metric -> label. The first PANELS_SHOWN.
RETURN = "return (sum of rewards per episode)"
PANELS = {
    "return": RETURN,
    "probe_kl": "KL[π ‖ πᵦ] (nats)",
    "probe_shaping_reward": "mean shaping\nreward",
    "probe_cloning_error": "mean of\n(π(s) − a)²",
    "probe_log_prob": "mean\nlog π(a|s)",
    "probe_q_policy": "Q of the\npolicy's actions",
    "probe_value": "V",
    "critic_loss": "critic loss",
    "policy_loss": "policy loss",
}
PANELS_SHOWN = 3
FROM_ZERO = ("probe_kl", "kl")  # divergences: never below, and 0 is where pi_beta is

CONSTANTS = {"alpha": r"$\alpha$", "tau": r"$\tau$"}  # of an algorithm's config, as titles show them


def learning_curve(run_dir: Path | str, path: Path | str) -> bool:
    """Draw a run's return against gradient steps as a PNG, with BC and the dataset, and its probes in panels below;
    without an environment, the probes or losses that it has.

    Thin lines are seeds, the thick one their mean; of FEW seeds or more, the band is the 95% interval of that mean
    (Student-t over seeds). Returns False, and writes nothing, if the run has recorded nothing since it began.
    """
    run_dir, matplotlib = Path(run_dir), import_matplotlib()
    metrics, status = read_metrics(run_dir), read_status(run_dir)
    recorded = set(metrics.filter(metrics["step"] > 0)["metric"])
    panels = ([metric for metric in PANELS if metric in recorded] or sorted(recorded))[:PANELS_SHOWN]
    if not panels:
        return False
    heights = [3.4 if metric == panels[0] else 1.5 for metric in panels]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.4, sum(heights) + 0.9)
        all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        seeds = f"{status.seeds} seed" if status.seeds == 1 else f"{status.seeds} seeds"
        where = f" ({status.env_id})" if status.env_id else ""
        all_axes[0].set_title(f"{algorithm_name(status.algorithm)} on {status.dataset}{where}, {seeds}")
        for axes, metric in zip(all_axes, panels, strict=True):
            shown = _draw_seeds(axes, metrics, metric, algorithm_name(status.algorithm))
            if metric == "return":
                about = read_provenance(run_dir)["dataset"]
                shown += _draw_references(axes, metrics, about)
                _draw_score_axis(axes, status.env_id, as_reference(about.get("reference")))
            _fit(axes, shown, metric)
            axes.set_ylabel(PANELS.get(metric, metric))
        all_axes[-1].set_xlabel("gradient steps")
        figure.align_ylabels(all_axes)
        figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        save(figure, path)
    return True


def run_curves(paths: Sequence[Path | str], path: Path | str, metric: str | None = None) -> list[RunEntry]:
    """Draw a metric of several runs against gradient steps as a PNG: a panel for each dataset, a colour for each run.

    `paths` are run folders, or folders with runs below. `metric` is the D4RL score where every run has it, else the
    first of PANELS that all have: the return, if there was an environment. Lines are means over seeds, with a band (the
    95% interval) of FEW seeds or more; of fewer, each seed is a thin line. -> the runs. Raises InputError for what has
    no such metric.
    """
    entries = named_runs([Path(it) for it in ([paths] if isinstance(paths, str) else paths)])
    frames = [read_metrics(entry.folder) for entry in entries]
    recorded = [set(rows.filter(rows["step"] > 0)["metric"]) for rows in frames]
    if metric is None:
        metric = next((it for it in ("score", *PANELS) if it in set.intersection(*recorded)), "return")
    for entry, own in zip(entries, recorded, strict=True):
        if metric not in own:
            has = f"it has: {', '.join(sorted(own))}; choose with --metric" if own else "it has measured nothing yet"
            raise InputError(f"{entry.folder} has no metric {metric!r}{nearest(metric, own)}; {has}")
    matplotlib = import_matplotlib()
    groups: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        groups.setdefault(entry.status.dataset if entry.status else "", []).append(index)
    across = min(len(groups), 3)
    down = -(-len(groups) // across)
    names, most = labels(entries), max(map(len, groups.values()))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.4 if across == 1 else 4.2 * across, (3.9 + 0.17 * most) * down)
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for axes in grid[len(groups) :]:
            axes.set_visible(False)
        for axes, (dataset, members) in zip(grid, groups.items(), strict=False):
            shown: list[float] = []
            for place, index in enumerate(members):
                line = COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]
                shown += _draw_seeds(axes, frames[index], metric, names[index], *line)
            _fit(axes, shown, metric)
            axes.set(title=dataset, xlabel="gradient steps")
            status = entries[members[0]].status
            named = score_name(status.env_id, status.reference) if status else score_name(None)
            axes.set_ylabel({**PANELS, "score": named}.get(metric, metric))
            axes.legend(fontsize=8.0, loc="upper left", bbox_to_anchor=(0, -0.16), borderpad=0)
        save(figure, path)
    return entries


def policy_paths(folders: Sequence[Path | str], path: Path | str, seed: int = 0) -> None:
    """Draw how the policies of runs on one dataset moved from evaluation to evaluation, as a PNG (Figure 1): a panel
    for each run, in the two principal directions of all their policies together.

    A policy is a point (`policy_points`) at which squared distances are mean KL divergences to second order, for stds
    near pi_beta's: axes and lengths are in square roots of nats. The origin is pi_beta of the first run, or, where that
    is no Gaussian, its first policy. Raises InputError if a run has no such path, or they are not of one dataset.
    """
    folders = [Path(folder) for folder in folders]
    runs = [read_moments(moments_path(folder, seed)) for folder in folders]
    data = {read_provenance(folder).get("dataset_sha256") for folder in folders}
    if len(data) > 1 or len({run.mean.shape[1:] for run in runs}) > 1:
        raise InputError(f"{', '.join(map(str, folders))} are runs on different datasets; name runs on the same one")
    origin = runs[0].behavior or (runs[0].mean[0], runs[0].log_std[0])
    points = [policy_points(run.mean, run.log_std, origin) for run in runs]
    together = np.concatenate(points)
    centered = together - together.mean(0)
    directions = np.linalg.svd(centered, full_matrices=False)[2][:2]
    shares = np.square(centered @ directions.T).sum(0) / max(np.square(centered).sum(), 1e-30)
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.2 * len(runs) + 1.0, 4.6)
        all_axes = figure.subplots(1, len(runs), sharex=True, sharey=True, squeeze=False)[0]
        for axes, run, own, folder in zip(all_axes, runs, points, folders, strict=True):
            drawn, status = own @ directions.T, read_status(folder)
            given = files.read_json(folder / CONFIG)["config"]["algorithm_config"]
            constants = ", ".join(f"{sign} = {given[name]:g}" for name, sign in CONSTANTS.items() if name in given)
            walked, moved = np.linalg.norm(np.diff(own, axis=0), axis=1).sum(), np.linalg.norm(own[-1] - own[0])
            axes.set_title(f"{algorithm_name(status.algorithm)}, {constants}\nwalked {walked:.2f}, moved {moved:.2f}")
            axes.plot(*drawn.T, color=GREY, linewidth=0.8)
            axes.scatter(*drawn.T, c=run.step, cmap="viridis", vmin=0, vmax=status.steps, s=18, zorder=4)
            if run.behavior is not None:
                at = policy_points(run.behavior[0][None], run.behavior[1][None], origin) @ directions.T
                axes.plot(*at.T, "D", color=BLUE, markersize=7, zorder=5, label="πᵦ", linestyle="none")
            axes.plot(*drawn[-1:].T, "*", color=VERMILLION, markersize=11, zorder=6, label="last policy")
            axes.set_xlabel(f"first direction (√nat), {shares[0]:.0%} of variance")
        all_axes[0].set_ylabel(f"second direction (√nat), {shares[1]:.0%}")
        figure.colorbar(all_axes[-1].collections[0], ax=list(all_axes), label="gradient steps", shrink=0.8)
        figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        save(figure, path)


def policy_points(mean: np.ndarray, log_std: np.ndarray, origin: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Gaussian policies [E, B, A] as points [E, 2 B A] around that of `origin` [B, A]: for each row and component,
    the change of the mean over origin's std, and sqrt(2) times that of log_std, all over sqrt(2 B).
    """
    parts = (mean - origin[0]) * np.exp(-origin[1]), np.sqrt(2.0) * (log_std - origin[1])
    return np.concatenate([it.reshape(len(mean), -1) for it in parts], axis=1) / np.sqrt(2.0 * mean.shape[1])


def returns_curve(curve: Sequence[Mapping[str, Any]], title: str, env_id: str, path: Path) -> None:
    """Draw the returns of a policy in training against environment steps as a PNG.

    `curve` has rows with `step`, and the mean and standard deviation over episodes of the returns of sampled actions
    (`sampled_mean`, `sampled_std`) and of the mode (`mode_mean`, `mode_std`). Bands are one standard deviation wide on
    either side.
    """
    matplotlib = import_matplotlib()
    steps = np.array([row["step"] for row in curve])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.4, 3.9)
        axes = figure.subplots()
        axes.set_title(title)
        for kind, color, label in (("mode", VERMILLION, "mode"), ("sampled", BLUE, "sampled actions")):
            mean, std = (np.array([row[f"{kind}_{what}"] for row in curve]) for what in ("mean", "std"))
            axes.fill_between(steps, mean - std, mean + std, color=color, alpha=0.15, linewidth=0.0)
            axes.plot(steps, mean, color=color, linewidth=1.6, label=label)
        _draw_score_axis(axes, env_id)
        _ticks(axes)
        axes.set_ylabel(RETURN)
        axes.set_xlabel("environment steps")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        save(figure, path)


def health_picture(health: Health, path: Path) -> None:
    """Draw a dataset as a PNG: returns and lengths of its completed episodes, and its actions by dimension.

    Lengths are told apart by what ended the episode. Of more than 16 action dimensions, the first 16 are shown.
    """
    matplotlib = import_matplotlib()
    from matplotlib.ticker import MaxNLocator

    shown = min(health.actions.shape[1], 16)
    across = 3 if shown in (3, 5, 6, 9) else min(shown, 4)
    rows_of_actions = -(-shown // across)
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "y"}):
        figure = new_figure(8.0, 3.0 + 1.7 * rows_of_actions)
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.0, 1.7 * rows_of_actions])[:, 0]
        title = f"{health.name}: {len(health.actions):,} rows, {len(health.returns):,} completed episodes"
        upper.suptitle(title, x=0.01, ha="left", fontsize=10.0)
        left, right = upper.subplots(1, 2)
        left.set(xlabel=RETURN, ylabel="episodes")
        right.set_xlabel("length (steps)")
        if len(health.returns):
            left.hist(health.returns[np.isfinite(health.returns)], bins=40, color=BLUE)
            bins = np.linspace(0, health.lengths.max() * 1.0001, 41)
            by = {"ended by the environment": health.by_terminal, "by the clock": ~health.by_terminal}
            lengths = [health.lengths[kind] for kind in by.values()]
            labels = [f"{label} ({kind.sum():,})" for label, kind in by.items()]
            right.hist(lengths, bins=bins.tolist(), stacked=True, color=[VERMILLION, BLUE], label=labels)
            right.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0, handlelength=1, fontsize=8.0)
            for axes in (left, right):
                _ticks(axes)
                axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        else:
            for axes in (left, right):
                axes.text(0.5, 0.5, "no completed episode", ha="center", va="center", transform=axes.transAxes)
                axes.set(xticks=[], yticks=[])
        low, high = health.action_bounds
        alike = bool((low == low[0]).all() and (high == high[0]).all())
        grid = lower.subplots(rows_of_actions, across, sharex=alike, sharey=True, squeeze=False)
        for index, axes in enumerate(grid.flat):
            axes.set_visible(index < shown)
            if index < shown:
                values = health.actions[:, index]
                values = values[np.isfinite(values)]
                least, most = values.min(initial=low[index]), values.max(initial=high[index])
                weights = np.full(len(values), 1 / max(1, len(values)))
                axes.hist(values, bins=np.linspace(least, most, 41).tolist(), weights=weights, color=BLUE)
                axes.set_title(health.action_names[index])
                _ticks(axes, 4)
                axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        more = f" (the first {shown} of {health.actions.shape[1]})" if shown < health.actions.shape[1] else ""
        lower.supxlabel(f"actions, share of rows{more}", fontsize=9.0)
        save(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure on a canvas of its own; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path | str) -> None:
    """Writes a PNG whole or not at all. Raises InputError for the name of another kind of file, StorageError."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: pictures are PNG files: let its name end in .png")
    with files.replacing(path) as file:
        figure.savefig(file, format="png")


def import_matplotlib() -> ModuleType:
    """Matplotlib, with its font list in our cache: its own default would write to the home folder.

    Matplotlib reads the variable once. One that is set, or a matplotlib that was imported before, is left alone.
    """
    if "matplotlib" not in sys.modules and "MPLCONFIGDIR" not in os.environ:
        os.environ["MPLCONFIGDIR"] = str(files.cache_dir() / "matplotlib")
        try:
            importlib.import_module("matplotlib.font_manager")
        finally:
            del os.environ["MPLCONFIGDIR"]
    import matplotlib

    return matplotlib


def _draw_seeds(
    axes: Axes, metrics: polars.DataFrame, metric: str, label: str, color: str = BLUE, dashes: str = "-"
) -> list[float]:
    """-> what the axes must show: the values of the seeds, not a band that few of them make wide."""
    steps, values, seeds = over_seeds(metrics, metric)
    marker = "o" if len(steps) <= 25 else None
    name, center = label, values.mean(0)
    if len(seeds) > 1:
        name = f"{label}, mean of {len(seeds)} seeds"
        for seed_values in values:
            axes.plot(steps, seed_values, color=color, alpha=0.35, linewidth=0.8)
    if len(seeds) >= FEW:
        half_width = np.array([mean_interval(column).half_width for column in values.T], np.float64)
        low, high = center - half_width, center + half_width
        if metric in FROM_ZERO:
            low = np.maximum(low, 0.0)
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0.0)
        name += ", 95% interval"
    axes.plot(steps, center, dashes, color=color, linewidth=1.6, marker=marker, markersize=3.5, label=name)
    return values.ravel().tolist()


def _fit(axes: Axes, shown: Sequence[float], metric: str) -> None:
    """Scales the y axis by these values alone."""
    finite = np.array(shown)[np.isfinite(shown)]
    if len(finite):
        low, high = float(finite.min()), float(finite.max())
        low = min(low, 0.0) if metric in FROM_ZERO else low
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low if metric in FROM_ZERO else low - margin, high + margin)
    _ticks(axes)


def _ticks(axes: Axes, most: int = 6) -> None:
    """Numbers as our tables have them, on both axes: 12,000 and 0.05."""
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(_number)


def _number(value: float, _: float) -> str:
    return f"{value:,.10g}".replace("-", "−")


def _draw_references(axes: Axes, metrics: polars.DataFrame, dataset: dict[str, Any]) -> list[float]:
    """Horizontal lines: the mode of the fitted pi_beta (mean over seeds), and the mean return of the logged
    episodes. -> where they are.
    """
    behavior, shown = over_seeds(metrics, "behavior_return")[1], list[float]()
    if behavior.size:
        shown.append(float(behavior[:, 0].mean()))
        axes.axhline(shown[-1], color=VERMILLION, linestyle="--", linewidth=1.5, label="BC (πᵦ)")
    if dataset.get("return_mean") is not None:
        shown.append(dataset["return_mean"])
        axes.axhline(shown[-1], color=BLACK, linestyle=":", linewidth=1.5, label="dataset mean")
    return shown


def _draw_score_axis(axes: Axes, env_id: str | None, own: Reference | None = None) -> None:
    reference = reference_score(env_id, own) if env_id else None
    if reference is None:
        return
    low, high = reference
    functions = (lambda value: 100 * (value - low) / (high - low), lambda score: low + score * (high - low) / 100)
    right = axes.secondary_yaxis("right", functions=functions)
    right.set_ylabel(score_name(env_id, own))
    right.yaxis.set_major_formatter(_number)
    right.spines["right"].set_visible(True)
