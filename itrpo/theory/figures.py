"""Figures of `itrpo theory --out`: PNG, one idea each, in the package's style and on Agg canvases of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from itrpo import files
from itrpo.plotting import BLACK, BLUE, STYLE, VERMILLION, import_matplotlib, new_figure, save
from itrpo.theory import corollary1 as c1
from itrpo.theory import theorem2 as t2
from itrpo.theory.instances import draw_batches, large_temperature, unlikely_error
from itrpo.theory.lemma1 import h_residuals
from itrpo.theory.mdp import Array, chain_mdp, gridworld_mdp, kl, logged_behavior, soft_optimum, wandering_mdp
from itrpo.theory.schemes import averaged_q, brac_vi, itrpo_vi, moving_average

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORANGE, GREEN, GREY = "#E69F00", "#009E73", "#777777"  # beside the package's colours; lines differ in style as well


def write_figures(folder: Path, seed: int = 0) -> list[Path]:
    """Write every figure into `folder` (made if missing), each atomically. Returns the paths."""
    files.make_folder(folder)
    with import_matplotlib().rc_context(STYLE):
        figures = {
            "figure1_policy_paths": figure1(seed),
            "convergence": convergence_figure(seed),
            "corollary1_constant": corollary1_figure(seed),
            "theorem2_bounds": theorem2_figure(),
            "error_propagation": error_figure(seed),
            "fixed_point": fixed_point_figure(seed),
        }
        paths = [folder / f"{name}.png" for name in figures]
        for figure, path in zip(figures.values(), paths, strict=True):
            save(figure, path)
        return paths


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
    paths = (
        (
            f"BRAC-VI, $\\alpha$ = {temperature:g}",
            brac_vi(mdp, behavior, temperature, iterations, errors).policies,
            False,
        ),
        (
            f"iTRPO, $\\alpha$ = {alpha:g}, $\\tau$ = {tau:g} ($\\alpha(1-\\tau)$ = {temperature:g})",
            itrpo_vi(mdp, behavior, alpha, tau, iterations, errors).policies,
            True,
        ),
    )
    best = np.exp(soft_optimum(mdp, behavior, temperature).log_policy)[0]
    radius = float(kl(best, behavior[0])) * 1.1
    figure, axes = _subplots(1, 2, (9.6, 5.4))
    for axis, (title, policies, trust) in zip(axes.flat, paths, strict=True):
        path = np.concatenate([behavior[None, 0], policies[:, 0]])
        _simplex(axis)
        _kl_ball(axis, behavior[0], radius, BLUE, "--", f"behavior ball, KL($\\pi\\|\\pi_\\beta$) $\\leq$ {radius:.2f}")
        if trust:
            step = float(kl(path[1:], path[:-1]).max())
            _kl_ball(
                axis, path[5], step, GREEN, "-", f"trust region of $\\pi_5$, KL($\\pi\\|\\pi_5$) $\\leq$ {step:.3f}"
            )
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
    for name, (x, y), shift in zip(
        ("action 1\n(r = 0)", "action 2\n(r = 0.3)", "action 3 (r = 0.8)"),
        np.stack(_to_plane(np.eye(3)), -1),
        ((0, -0.04), (0, -0.04), (0, 0.03)),
        strict=True,
    ):
        align = "bottom" if shift[1] > 0 else "top"
        axis.text(x + shift[0], y + shift[1], name, ha="center", va=align, fontsize=8)
    axis.set_aspect("equal")
    axis.set_xlim(-0.12, 1.12)
    axis.set_ylim(-0.14, 0.95)
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
        axes[0, 1].semilogy(
            steps, _largest(h - optimum), color=color, linestyle=style, label=f"iTRPO, $\\tau$ = {tau:g}"
        )
    axes[0, 0].plot([], [], ":", color=GREY, linewidth=2.5, label="law: $\\tau^k R_0$")
    axes[0, 0].set(
        title="Lemma 1: residual $\\|h_k - T_* h_{k-1}\\|_\\infty$", xlabel="iteration k", ylim=(1e-15, None)
    )
    axes[0, 0].set_ylabel("residual (reward units)")
    axes[0, 1].semilogy(steps, _largest(brac - optimum)[0] * 0.9**steps, ":", color=GREY, label="$\\gamma^k$")
    axes[0, 1].set(title="Distance to the optimum $\\|h_k - h_*\\|_\\infty$", xlabel="iteration k")
    axes[0, 1].set_ylabel("distance (reward units)")
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
    axis.plot(
        fine, c1.local_factor(fine), "--", color=BLUE, label="$\\sqrt{1-\\gamma}$: exact limit as $\\pi\\to\\pi_\\beta$"
    )
    axis.set(xlabel="discount $\\gamma$", ylabel="loss / printed bound", yscale="log", ylim=(1e-4, 1.5))
    axis.set_title("How much of Corollary 1's constant is needed", fontsize=10)
    _legends(axes)
    return figure


def theorem2_figure() -> Figure:
    """Gap against every form of the bound on the two counter-examples."""
    figure, axes = _subplots(1, 2, (9.6, 4.0))
    large = large_temperature()
    shown = t2.bounds_against_gap(*large)
    started = t2.bounds_against_gap(*large, from_behavior=True)
    steps = np.arange(large.iterations)
    left = axes[0, 0]
    left.semilogy(steps, shown.gap, color=BLACK, linewidth=2, label="exact gap")
    left.semilogy(steps, shown.bounds["as printed"], "--", color=VERMILLION, label="as printed, $(\\tau/\\lambda)^j$")
    left.semilogy(steps, shown.bounds["corrected"], "-", color=BLUE, label="corrected, $(\\tau/\\gamma)^j$")
    left.semilogy(steps, started.bounds["natural start"], "-.", color=GREEN, label="from $Q_0 = 0$, $\\max|r|$")
    left.semilogy(
        steps, started.bounds["quadratic"], ":", color=ORANGE, linewidth=2, label="from $Q_0 = 0$, second order"
    )
    left.semilogy(steps, started.gap, color=GREY, linewidth=2, label="exact gap from $Q_0 = 0$")
    left.set_title("A: no error, $\\alpha$ = 100, $\\tau$ = 0.95, $\\gamma$ = 0.5", fontsize=10)
    rare = unlikely_error()
    shown = t2.bounds_against_gap(*rare)
    right = axes[0, 1]
    window = slice(rare.iterations - 12, rare.iterations)
    steps = np.arange(rare.iterations)[window]
    right.semilogy(
        steps, np.maximum(shown.gap[window], 1e-9), "o-", color=BLACK, label="exact gap (below $10^{-9}$: drawn there)"
    )
    right.semilogy(steps, shown.bounds["as printed"][window], "s--", color=VERMILLION, label="as printed")
    right.semilogy(
        steps, shown.bounds["base only"][window], "x:", color=ORANGE, label="$(\\tau/\\gamma)^j$, Assumption 1's $c(t)$"
    )
    right.semilogy(steps, shown.bounds["corrected"][window], "^-", color=BLUE, label="corrected, path $C(t)$")
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
    constant = np.broadcast_to(independent[0], independent.shape)
    figure, axes = _subplots(2, 3, (10.5, 5.6))
    cases = (
        ("one error at k = 30", single),
        ("independent errors", independent),
        ("the same error every time", constant),
    )
    methods = (
        (0.0, "BRAC", BLACK, "-"),
        (0.9, "iTRPO, $\\tau$ = 0.9", BLUE, "-"),
        (0.98, "iTRPO, $\\tau$ = 0.98", VERMILLION, "--"),
    )
    for column, (title, errors) in enumerate(cases):
        for tau, name, color, style in methods:
            alpha = temperature / (1 - tau)
            start = soft_optimum(mdp, behavior, temperature)
            shaping = tau * alpha * (start.log_policy - np.log(behavior))
            run = itrpo_vi(mdp, behavior, alpha, tau, iterations, errors, start.q + shaping)
            gap = t2.regularised_gap(mdp, behavior, temperature, run)
            steps = np.arange(1, iterations + 1)
            axes[0, column].plot(steps, _largest(moving_average(errors, tau)), style, color=color, label=name)
            axes[1, column].semilogy(steps, np.maximum(gap, 1e-8), style, color=color, label=name)
        axes[0, column].set_title(title, fontsize=10)
        axes[1, column].set_xlabel("iteration k")
    axes[0, 0].set_ylabel("$\\|E_k\\|_\\infty$ (reward units)")
    axes[1, 0].set_ylabel("gap of $\\pi_k$, floored at $10^{-8}$ (return units)", fontsize=9)
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(
        "Chain of 6 states, $\\gamma$ = 0.9, $\\alpha(1-\\tau)$ = 0.1 for every method, started at the optimum",
        fontsize=10,
    )
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
