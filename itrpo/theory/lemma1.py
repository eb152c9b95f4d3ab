"""Lemma 1: Eq. 5 averages Q' and solves an entropy-regularised MDP (docs/theory.md, 4).

h_k = (1 - tau) sum_{j<=k} tau^(k-j) (Q'_j + lambda log pi_beta), lambda = alpha (1 - tau), gives
pi_{k+1} = softmax(h_k / lambda) and, for k -> infinity, h_k = T* h_{k-1}.

Corrected: the softmax needs a uniform pi_0 (from pi_0 = pi_beta, h_k lacks one term, tau^(k+1) lambda log pi_beta), and
h_k = T* h_{k-1} + tau^k R_0 for every k.
"""

from __future__ import annotations

import numpy as np

from itrpo.theory.checks import RATIO_LIMIT, ROUNDING, Row, Tally, logit_size, table_max, uniform_policy
from itrpo.theory.instances import Instance
from itrpo.theory.mdp import Array, FiniteMDP, backup, expand, log_softmax, soft_optimum
from itrpo.theory.schemes import averaged_q, itrpo_vi, lemma1_vi, soft_maximum


def h_residuals(mdp: FiniteMDP, behavior: Array, temperature: float | Array, h: Array) -> Array:
    """R_k = h_k - T* h_{k-1} for k = 1 .. K, T* the operator of Lemma 1's entropy-regularised MDP. [K, ..., S, A]"""
    scale = expand(temperature)
    reward = mdp.reward + scale * np.log(behavior)
    return h[1:] - reward - backup(mdp, soft_maximum(h[:-1], scale))


def check(batches: list[Instance], seed: int) -> list[Row]:
    softmax, recursion, limit, from_behavior, fixed, contraction = (Tally() for _ in range(6))
    iterations = 60
    for b in batches:
        temperature = expand(b.alpha * (1 - b.tau))
        run = itrpo_vi(b.mdp, b.behavior, b.alpha, b.tau, iterations, initial_q=b.initial_q)
        uniform = uniform_policy(b)
        h = averaged_q(run, b.behavior, b.alpha, b.tau, uniform)
        recovered = np.exp(log_softmax(h[:-1] / temperature))
        softmax.add(b, table_max(recovered - run.policies), logit_size(b, run))

        # R_0 uses h_{-1} = 0, whose soft maximum is lambda log |A|.
        first = h[:1] - (
            b.mdp.reward
            + temperature * np.log(b.behavior)
            + backup(b.mdp, soft_maximum(np.zeros_like(h[0]), temperature))
        )
        residuals = np.concatenate([first, h_residuals(b.mdp, b.behavior, b.alpha * (1 - b.tau), h)])
        rate = np.power(expand(b.tau), np.arange(iterations + 1)[:, None, None, None])
        recursion.add(b, table_max(residuals - rate * first) / table_max(h))

        optimum = soft_optimum(b.mdp, b.behavior, b.alpha * (1 - b.tau))
        h_star = optimum.q + temperature * np.log(b.behavior)
        distance = np.abs(h - h_star).max((-2, -1))
        predicted = _distance_bound(b, distance[0], np.abs(first[0]).max((-2, -1)), iterations)
        floor = 1e-13 * np.abs(h).max((0, -2, -1)) / (1 - b.mdp.discount)
        limit.add(b, (distance / (predicted + floor)).max(0))

        started_at_behavior = averaged_q(run, b.behavior, b.alpha, b.tau, b.behavior)
        log_policies = log_softmax(started_at_behavior[:-1] / temperature)
        from_behavior.add(b, table_max(np.exp(log_policies) - run.policies))
        missing = rate[1:] * temperature * np.log(b.behavior)
        fixed_policies = log_softmax((started_at_behavior[:-1] + missing) / temperature)
        fixed.add(b, table_max(np.exp(fixed_policies) - run.policies), logit_size(b, run))

        plain = lemma1_vi(b.mdp, b.behavior, b.alpha, b.tau, iterations, initial_h=h[0])
        plain_distance = np.abs(plain.q_values - h_star).max((-2, -1))
        gamma_rate = np.power(b.mdp.discount, np.arange(iterations + 1)[:, None])
        contraction.add(b, (plain_distance / (gamma_rate * plain_distance[0] + floor)).max(0))
    return [
        softmax.row("pi_{k+1} = softmax(h_k / lambda), pi_0 uniform", "|pi - pi|", ROUNDING),
        recursion.row("h_k - T* h_{k-1} = tau^k R_0: shrinks by tau per step", "residual", ROUNDING),
        limit.row("h_k -> h*: within gamma^k |h_0 - h*| + sum gamma^(k-j) tau^j |R_0|", "ratio", RATIO_LIMIT),
        contraction.row("the lemma's own scheme contracts to h* at rate gamma", "ratio", RATIO_LIMIT),
        fixed.row("pi_0 = pi_beta: softmax needs h_k + tau^(k+1) lambda log pi_beta", "|pi - pi|", ROUNDING),
        from_behavior.row("pi_0 = pi_beta with h_k as printed", "|pi - pi|", ROUNDING, "observed"),
    ]


def _distance_bound(instance: Instance, start: Array, first: Array, iterations: int) -> Array:
    """gamma^k start + sum_{j=1..k} gamma^(k-j) tau^j first, k = 0 .. K: [K+1, N]."""
    rows = [start]
    for k in range(1, iterations + 1):
        rows.append(instance.mdp.discount * rows[-1] + instance.tau**k * first)
    return np.stack(rows)
