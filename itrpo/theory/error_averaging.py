"""What the moving average E_k does to single, independent and constant errors (docs/theory.md, 8)."""

from __future__ import annotations

import numpy as np

from itrpo.theory import theorem2
from itrpo.theory.checks import RATIO_LIMIT, ROUNDING, Row, Tally, table_max, uniform_policy
from itrpo.theory.instances import Instance, draw_errors
from itrpo.theory.lemma1 import h_residuals
from itrpo.theory.mdp import Array, expand
from itrpo.theory.schemes import Iterates, averaged_q, brac_vi, itrpo_vi, moving_average


def spike_peak(discount: Array, tau: Array, horizon: int) -> Array:
    """max_n (1 - tau) sum_{m<=n} gamma^(n-m) tau^m, n < horizon: how high one unit error can stand in ||h_k||. [...]"""
    standing, peak, weight = np.zeros_like(tau), np.zeros_like(tau), 1 - tau
    for _ in range(horizon):
        standing = discount * standing + weight
        peak, weight = np.maximum(peak, standing), tau * weight
    return peak


def check(batches: list[Instance], seed: int) -> list[Row]:
    identity, carried, carried_brac, peak, constant = (Tally() for _ in range(5))
    measured, predicted, wins, spike_wins = [], [], [], []
    iterations, strike = 60, 30
    for b in batches:
        temperature = b.alpha * (1 - b.tau)
        log_term = expand(temperature) * np.log(b.behavior)
        errors = draw_errors(seed, b, iterations)
        spike = np.zeros_like(errors)
        spike[strike - 1] = errors[strike - 1]
        bias = np.broadcast_to(errors[0], errors.shape)

        def shaped(injected: Array | None, b: Instance = b) -> tuple[Iterates, Array]:
            run = itrpo_vi(b.mdp, b.behavior, b.alpha, b.tau, iterations, injected)
            return run, averaged_q(run, b.behavior, b.alpha, b.tau, uniform_policy(b))

        def plain(injected: Array | None, b: Instance = b, log_term: Array = log_term) -> tuple[Iterates, Array]:
            run = brac_vi(b.mdp, b.behavior, b.alpha * (1 - b.tau), iterations, injected)
            return run, run.q_values + log_term

        clean = shaped(None)[1]
        noisy_run, noisy = shaped(errors)
        brac_clean, brac_noisy = plain(None)[1], plain(errors)
        averages = moving_average(errors, b.tau)
        problem = (b.mdp, b.behavior, temperature)
        difference = h_residuals(*problem, noisy) - h_residuals(*problem, clean)
        identity.add(b, table_max(difference - averages) / table_max(noisy))
        carried.add(b, _carried_ratio(noisy - clean, averages, b.mdp.discount))
        carried_brac.add(b, _carried_ratio(brac_noisy[1] - brac_clean, errors, b.mdp.discount))

        shaped_spike = np.abs(shaped(spike)[1] - clean).max((0, -2, -1))
        plain_spike = np.abs(plain(spike)[1] - brac_clean).max((0, -2, -1))
        peak.add(b, shaped_spike / plain_spike / spike_peak(b.mdp.discount, b.tau, iterations))
        settled = 1 - expand(b.tau) ** np.arange(1, iterations + 1)[:, None, None, None]
        constant.add(b, table_max(moving_average(bias, b.tau) - settled * bias) / table_max(bias))

        if (b.tau > 0.5).any():
            long = b.tau > 0.5
            late = averages[strike:, long]
            settled_power = 1 - b.tau[long] ** (2 * iterations)
            measured.append((late**2).mean((0, -2, -1)))
            predicted.append(0.01 * (1 - b.tau[long]) / (1 + b.tau[long]) * settled_power)
            ours = theorem2.regularised_gap(b.mdp, b.behavior, temperature, noisy_run)[strike:, long].mean(0)
            theirs = theorem2.regularised_gap(b.mdp, b.behavior, temperature, brac_noisy[0])[strike:, long].mean(0)
            wins.append(ours < theirs)
            spike_wins.append((shaped_spike < plain_spike)[long])
    rows = [
        identity.row("h_k - T* h_{k-1} = tau^k R_0 + E_k, E_k the moving average", "residual", ROUNDING),
        carried.row("iTRPO: |h_k - clean| <= sum gamma^(k-j) |E_j|", "ratio", RATIO_LIMIT),
        carried_brac.row("BRAC(lambda): |h_k - clean| <= sum gamma^(k-j) |epsilon_j|", "ratio", RATIO_LIMIT),
        peak.row("one error: iTRPO's peak / BRAC's <= max_n (1-tau) sum gamma^(n-m) tau^m", "ratio", RATIO_LIMIT),
        constant.row("constant error: E_k = (1 - tau^k) epsilon, nothing is averaged away", "residual", ROUNDING),
    ]
    if measured:
        ratio = float(np.sqrt(np.concatenate(measured).sum() / np.concatenate(predicted).sum()))
        won, spike_won = np.concatenate(wins), np.concatenate(spike_wins)
        rows += [
            Row("independent errors, tau > 1/2: RMS(E_k) / (sigma sqrt((1-tau)/(1+tau)))", len(won), None, ratio,
                "ratio", None, "observed"),
            Row("tau > 1/2: one error raises |h_k - clean| less in iTRPO", len(spike_won),
                int((~spike_won).sum()), float(spike_won.mean()), "of instances", None, "holds"),
            Row("tau > 1/2: independent errors, smaller mean gap than BRAC(lambda)", len(won),
                None, float(won.mean()), "of instances", None, "observed"),
        ]  # fmt: skip
    return rows


def _carried_ratio(deviation: Array, errors: Array, discount: Array) -> Array:
    """max_k ||h_k - clean|| / sum_j gamma^(k-j) ||e_j||, [N]."""
    standing, worst = np.zeros_like(discount), np.zeros_like(discount)
    for k in range(len(errors)):
        standing = discount * standing + np.abs(errors[k]).max((-2, -1))
        worst = np.maximum(worst, np.abs(deviation[k + 1]).max((-2, -1)) / standing)
    return worst
