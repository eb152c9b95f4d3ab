"""Figures of `itrpo theory --out`: PNG, one idea each, in the package's style and on Agg canvases of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from itrpo import files
from itrpo.plotting import BLACK, BLUE, GREY, STYLE, VERMILLION, import_matplotlib, new_figure, save
from itrpo.theory import corollary1 as c1
from itrpo.theory import theorem2 as t2
from itrpo.theory.instances import draw_batches, large_temperature, unlikely_error
from itrpo.theory.lemma1 import h_residuals
from itrpo.theory.mdp import Array, chain_mdp, gridworld_mdp, kl, logged_behavior, soft_optimum, wandering_mdp
from itrpo.theory.schemes import averaged_q, brac_vi, itrpo_vi, moving_average

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORANGE, GREEN = "#E69F00", "#009E73"  # beside the package's colours; lines differ in style as well


def write_figures(folder: Path, seed: int = 0) -> list[Path]:
    """Write every figure into `folder` (made if missing), each atomically. Returns the paths."""
    files.make_folder(folder)
    with import_matplotlib().rc_context(STYLE):
        figures = {
            folder / "figure1_policy_paths.png": figure1(seed),
            folder / "convergence.png": convergence_figure(seed),
            folder / "corollary1_constant.png": corollary1_figure(seed),
            folder / "theorem2_bounds.png": theorem2_figure(),
            folder / "error_propagation.png": error_figure(seed),
            folder / "fixed_point.png": fixed_point_figure(seed),
        }
        for path, figure in figures.items():
            save(figure, path)
        return list(figures)


# Figure 1 -----------------------------------------------------------------------------------------------------------


def wandering_errors(iterations: int, size: float, rng: np.random.Generator) -> Array:
    """Errors of the decision state, [K, 4, 3]: each action in turn overrated by `size`, and Gaussian noise."""
    errors = np.zeros((iterations, 4, 3))
    errors[:, 0] = size / 3 * rng.standard_normal((iterations, 3)) - size / 2
    errors[np.arange(iterations), 0, np.arange(iterations) % 3] += 1.5 * size
    return errors


def figure1(seed: int) -> Figure:
    """Figure 1 made real: BRAC and iTRPO with the same optimum and the same errors, on the simplex of one state."""
    mdp, behavior = wandering_mdp()
    temperature, tau, iterations = 0.3, 0.9, 60
    alpha = temperature / (1 - tau)
    errors = wandering_errors(iterations, 0.3, np.random.default_rng([seed, 30]))
    brac = brac_vi(mdp, behavior, temperature, iterations, errors)
    itrpo = itrpo_vi(mdp, behavior, alpha, tau, iterations, errors)
    itrpo_title = f"iTRPO, $\\alpha$ = {alpha:g}, $\\tau$ = {tau:g} ($\\alpha(1-\\tau)$ = {temperature:g})"
    best = np.exp(soft_optimum(mdp, behavior, temperature).log_policy)[0]
    radius = float(kl(best, behavior[0])) * 1.1
    figure, axes = _subplots(1, 2, (9.6, 5.4))
    titles = (f"BRAC-VI, $\\alpha$ = {temperature:g}", itrpo_title)
    for axis, title, run in zip(axes.flat, titles, (brac, itrpo), strict=True):
        path = np.concatenate([behavior[None, 0], run.policies[:, 0]])
        _simplex(axis)
        _kl_ball(axis, behavior[0], radius, BLUE, "--", f"behavior ball, KL($\\pi\\|\\pi_\\beta$) $\\leq$ {radius:.2f}")
        if run is itrpo:
            step = float(kl(path[1:], path[:-1]).max())
            label = f"trust region of $\\pi_5$, KL($\\pi\\|\\pi_5$) $\\leq$ {step:.3f}"
            _kl_ball(axis, path[5], step, GREEN, "-", label)
            axis.plot(*_to_plane(path[5]), "s", color=GREEN, markersize=6, zorder=5, label="$\\pi_5$")
        axis.plot(*_to_plane(path), "-", color=GREY, linewidth=0.8)
        axis.scatter(*_to_plane(path), c=np.arange(len(path)), cmap="viridis", s=16, zorder=4)
        axis.plot(*_to_plane(behavior[0]), "D", color=BLUE, markersize=8, zorder=6, label="$\\pi_\\beta$ (start)")
        axis.plot(*_to_plane(best), "*", color=VERMILLION, markersize=13, zorder=6, label="$\\pi_*$ (optimum)")
        last = kl(path[-12:], best)
        axis.set_title(f"{title}\nKL($\\pi_k\\|\\pi_*$), last 12: {last.min():.4f} to {last.max():.4f}", fontsize=10)
        axis.legend(
            fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, labelspacing=0.9, frameon=False
        )
    figure.colorbar(axes[0, 0].collections[0], ax=axes, label="iteration k", shrink=0.8)
    return figure


def _to_plane(policy: Array) -> tuple[Array, Array]:
    """Barycentric coordinates: action 1 lower left, action 2 lower right, action 3 top."""
    return policy[..., 1] + policy[..., 2] / 2, policy[..., 2] * np.sqrt(3) / 2


def _simplex(axis: Axes) -> None:
    corners = np.eye(3)[[0, 1, 2, 0]]
    axis.plot(*_to_plane(corners), color=BLACK, linewidth=1)
    for name, corner, shift, align in (
        ("action 1\n(r = 0)", corners[0], -0.04, "top"),
        ("action 2\n(r = 0.3)", corners[1], -0.04, "top"),
        ("action 3 (r = 0.8)", corners[2], 0.03, "bottom"),
    ):
        x, y = map(float, _to_plane(corner))
        axis.text(x, y + shift, name, ha="center", va=align, fontsize=8)
    axis.set(aspect="equal", xlim=(-0.12, 1.12), ylim=(-0.14, 0.95))
    axis.axis("off")


def _kl_ball(axis: Axes, center: Array, radius: float, color: str, style: str, label: str) -> None:
    """The boundary KL(pi || center) = radius, found along rays from the center by bisection."""
    angles = np.linspace(0, 2 * np.pi, 721)
    basis = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2.0], [6.0]])
    directions = np.cos(angles)[:, None] * basis[0] + np.sin(angles)[:, None] * basis[1]
    with np.errstate(divide="ignore"):
        room = np.where(directions < 0, -center / directions, np.inf).min(-1)
    low, high = np.zeros(len(angles)), room
    for _ in range(60):
        middle = (low + high) / 2
        inside = kl(np.maximum(center + middle[:, None] * directions, 0), center) <= radius
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    axis.plot(*_to_plane(center + low[:, None] * directions), color=color, linestyle=style, linewidth=1.4, label=label)


# Curves -------------------------------------------------------------------------------------------------------------


def convergence_figure(seed: int) -> Figure:
    """Left: Lemma 1's residual falls like tau^k. Right: distance to the optimum, at the rate max(gamma, tau)."""
    mdp = gridworld_mdp(4, 0.9)
    behavior = logged_behavior(mdp, np.random.default_rng([seed, 31]))
    temperature, iterations = 0.1, 120
    figure, axes = _subplots(1, 2, (9.6, 3.8))
    steps = np.arange(iterations + 1)
    log_term = temperature * np.log(behavior)
    optimum = soft_optimum(mdp, behavior, temperature).q + log_term
    brac = brac_vi(mdp, behavior, temperature, iterations).q_values + log_term
    axes[0, 1].semilogy(steps, _largest(brac - optimum), color=BLACK, label="BRAC, $\\alpha$ = 0.1")
    for tau, color, style in ((0.5, BLUE, "-"), (0.9, ORANGE, "--"), (0.95, VERMILLION, "-.")):
        alpha = temperature / (1 - tau)
        run = itrpo_vi(mdp, behavior, alpha, tau, iterations)
        h = averaged_q(run, behavior, alpha, tau, np.full_like(behavior, 1 / mdp.actions))
        size = _largest(h_residuals(mdp, behavior, temperature, h))
        axes[0, 0].semilogy(steps[1:], size, color=color, linestyle=style, label=f"$\\tau$ = {tau:g}")
        axes[0, 0].semilogy(steps[1:], size[0] * tau ** (steps[1:] - 1), ":", color=GREY, linewidth=2.5, zorder=1)
        axes[0, 1].semilogy(steps, _largest(h - optimum), style, color=color, label=f"iTRPO, $\\tau$ = {tau:g}")
    axes[0, 0].plot([], [], ":", color=GREY, linewidth=2.5, label="law: $\\tau^k R_0$")
    axes[0, 0].set(title="Lemma 1: residual $\\|h_k - T_* h_{k-1}\\|_\\infty$", ylim=(1e-15, None))
    axes[0, 0].set(xlabel="iteration k", ylabel="residual (reward units)")
    axes[0, 1].semilogy(steps, _largest(brac - optimum)[0] * 0.9**steps, ":", color=GREY, label="$\\gamma^k$")
    axes[0, 1].set(title="Distance to the optimum $\\|h_k - h_*\\|_\\infty$")
    axes[0, 1].set(xlabel="iteration k", ylabel="distance (reward units)")
    _legends(axes)
    figure.suptitle("Gridworld, 16 states, $\\gamma$ = 0.9, $\\alpha(1-\\tau)$ = 0.1 for every curve", fontsize=10)
    return figure


def corollary1_figure(seed: int) -> Figure:
    """Share of Corollary 1's bound that an instance uses, against gamma: random, worst found, proven."""
    figure, axes = _subplots(1, 1, (6.6, 4.2))
    axis = axes[0, 0]
    for batch in draw_batches(seed, 2000):
        terms = c1.terms(batch.mdp, batch.policy, batch.previous, batch.behavior)
        axis.plot(batch.mdp.discount, np.abs(terms.loss / terms.bound), ".", color=GREY, markersize=2, alpha=0.5)
    axis.plot([], [], ".", color=GREY, label="2,000 random instances")
    rng = np.random.default_rng([seed, 32])
    grid = np.array([0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98])
    found = [float(c1.occupancy_ratio(*c1.worst_leaky_fork(float(g), rng))) for g in grid]
    fine = np.linspace(0.01, 0.99, 200)
    axis.plot(fine, c1.sharper_factor(fine), color=VERMILLION, label="proven upper limit (docs/theory.md, 6.3)")
    axis.plot(grid, found, "o", color=ORANGE, label="worst found by search")
    limit = "$\\sqrt{1-\\gamma}$: exact limit as $\\pi\\to\\pi_\\beta$"
    axis.plot(fine, c1.local_factor(fine), "--", color=BLUE, label=limit)
    axis.set(xlabel="discount $\\gamma$", ylabel="loss / printed bound", yscale="log", ylim=(1e-4, 1.5))
    axis.set_title("How much of Corollary 1's constant is needed", fontsize=10)
    _legends(axes)
    return figure


def theorem2_figure() -> Figure:
    """Gap against every form of the bound on the two counter-examples."""
    figure, axes = _subplots(1, 2, (9.6, 4.0))
    large, rare = large_temperature(), unlikely_error()
    shown, started = (t2.bounds_against_gap(*large, from_behavior=it) for it in (False, True))
    left, right = axes[0]
    for values, style, color, width, label in (
        (shown.gap, "-", BLACK, 2, "exact gap"),
        (shown.bounds["as printed"], "--", VERMILLION, 1.5, "as printed, $(\\tau/\\lambda)^j$"),
        (shown.bounds["corrected"], "-", BLUE, 1.5, "corrected, $(\\tau/\\gamma)^j$"),
        (started.bounds["natural start"], "-.", GREEN, 1.5, "from $Q_0 = 0$, $\\max|r|$"),
        (started.bounds["quadratic"], ":", ORANGE, 2, "from $Q_0 = 0$, second order"),
        (started.gap, "-", GREY, 2, "exact gap from $Q_0 = 0$"),
    ):
        left.semilogy(np.arange(large.iterations), values, style, color=color, linewidth=width, label=label)
    left.set_title("A: no error, $\\alpha$ = 100, $\\tau$ = 0.95, $\\gamma$ = 0.5", fontsize=10)
    shown = t2.bounds_against_gap(*rare)
    for values, style, color, label in (
        (np.maximum(shown.gap, 1e-9), "o-", BLACK, "exact gap (below $10^{-9}$: drawn there)"),
        (shown.bounds["as printed"], "s--", VERMILLION, "as printed"),
        (shown.bounds["base only"], "x:", ORANGE, "$(\\tau/\\gamma)^j$, Assumption 1's $c(t)$"),
        (shown.bounds["corrected"], "^-", BLUE, "corrected, path $C(t)$"),
    ):
        right.semilogy(np.arange(rare.iterations)[-12:], values[-12:], style, color=color, label=label)
    right.set_title("B: one error at an unlikely pair", fontsize=10)
    for axis in axes.flat:
        axis.set_xlabel("iteration k")
        axis.set_ylabel("$V_\\lambda^*(\\rho) - V_\\lambda^{\\pi_{k+1}}(\\rho)$ (return units)", fontsize=9)
    _legends(axes)
    return figure


def error_figure(seed: int) -> Figure:
    """The same errors through BRAC and iTRPO with one optimum: one error, independent errors, a constant error."""
    mdp = chain_mdp(6, 0.9)
    behavior = np.full((mdp.states, mdp.actions), 0.5)
    temperature, iterations = 0.1, 120
    rng = np.random.default_rng([seed, 33])
    independent = 0.3 * rng.standard_normal((iterations, mdp.states, mdp.actions))
    single = np.zeros_like(independent)
    single[29, 2, 0] = 3.0
    start = soft_optimum(mdp, behavior, temperature)
    steps = np.arange(1, iterations + 1)
    figure, axes = _subplots(2, 3, (10.5, 5.6))
    cases = {
        "one error at k = 30": single,
        "independent errors": independent,
        "the same error every time": np.broadcast_to(independent[0], independent.shape),
    }
    methods = (
        (0.0, "BRAC", BLACK, "-"),
        (0.9, "iTRPO, $\\tau$ = 0.9", BLUE, "-"),
        (0.98, "iTRPO, $\\tau$ = 0.98", VERMILLION, "--"),
    )
    for column, (title, errors) in enumerate(cases.items()):
        for tau, name, color, style in methods:
            alpha = temperature / (1 - tau)
            shaping = tau * alpha * (start.log_policy - np.log(behavior))
            run = itrpo_vi(mdp, behavior, alpha, tau, iterations, errors, start.q + shaping)
            gap = t2.regularised_gap(mdp, behavior, temperature, run)
            axes[0, column].plot(steps, _largest(moving_average(errors, tau)), style, color=color, label=name)
            axes[1, column].semilogy(steps, np.maximum(gap, 1e-8), style, color=color, label=name)
        axes[0, column].set_title(title, fontsize=10)
        axes[1, column].set_xlabel("iteration k")
    axes[0, 0].set_ylabel("$\\|E_k\\|_\\infty$ (reward units)")
    axes[1, 0].set_ylabel("gap of $\\pi_k$, floored at $10^{-8}$ (return units)", fontsize=9)
    axes[0, 0].legend(fontsize=8)
    title = "Chain of 6 states, $\\gamma$ = 0.9, $\\alpha(1-\\tau)$ = 0.1 for every method, started at the optimum"
    figure.suptitle(title, fontsize=10)
    return figure


def fixed_point_figure(seed: int) -> Figure:
    """Left: which BRAC shares iTRPO's optimum. Right: action gaps grow by 1 / (1 - tau)."""
    mdp = gridworld_mdp(4, 0.9)
    behavior = logged_behavior(mdp, np.random.default_rng([seed, 31]))
    alpha, tau, iterations = 0.5, 0.8, 150
    run = itrpo_vi(mdp, behavior, alpha, tau, iterations)
    figure, axes = _subplots(1, 2, (9.6, 3.9))
    steps = np.arange(1, iterations + 1)
    for temperature, label, color, style in (
        (alpha * (1 - tau), "BRAC, $\\alpha(1-\\tau)$ = 0.1", BLUE, "-"),
        (alpha, "BRAC, $\\alpha$ = 0.5: shaping dropped, $\\alpha$ kept", VERMILLION, "--"),
    ):
        target = np.exp(soft_optimum(mdp, behavior, temperature).log_policy)
        distance = 0.5 * np.abs(run.policies - target).sum(-1).max(-1)
        axes[0, 0].semilogy(steps, np.maximum(distance, 1e-16), style, color=color, label=f"optimum of {label}")
    axes[0, 0].set(xlabel="iteration k", ylabel="largest total variation over states")
    axes[0, 0].set_title("iTRPO, $\\alpha$ = 0.5, $\\tau$ = 0.8: distance to two optima", fontsize=10)
    optimum = soft_optimum(mdp, behavior, alpha * (1 - tau))
    best = optimum.q.argmax(-1)[:, None]
    for values, label, color, marker in (
        (run.q_values[-1], "iTRPO's Q, measured", BLUE, "o"),
        (optimum.q, "BRAC's Q", BLACK, "."),
    ):
        gaps = np.take_along_axis(values, best, -1) - values
        reference = np.take_along_axis(optimum.q, best, -1) - optimum.q
        axes[0, 1].plot(reference.ravel(), gaps.ravel(), marker, color=color, markersize=4, label=label)
    line = np.linspace(0, reference.max(), 2)
    axes[0, 1].plot(line, line / (1 - tau), ":", color=VERMILLION, label="law: slope $1/(1-\\tau)$ = 5")
    axes[0, 1].set(xlabel="action gap of BRAC, $\\alpha(1-\\tau)$ (return units)", ylabel="action gap (return units)")
    axes[0, 1].set_title("Action gaps $Q(s, a_*) - Q(s, a)$ at convergence", fontsize=10)
    _legends(axes)
    return figure


# Plumbing -----------------------------------------------------------------------------------------------------------


def _largest(tables: Array) -> Array:
    return np.abs(tables).max((-2, -1))


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    figure = new_figure(*size)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _legends(axes: np.ndarray) -> None:
    for axis in axes.flat:
        axis.legend(fontsize=8)
