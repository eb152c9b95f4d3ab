"""What follows from the equations and the paper does not say (docs/theory.md, 9): iTRPO(alpha, tau) and
BRAC(alpha (1 - tau)) share their fixed point, and the shaping is advantage learning.
"""

from __future__ import annotations

import numpy as np

from itrpo.theory.checks import ROUNDING, Row, Tally, logit_size, table_max
from itrpo.theory.instances import Instance
from itrpo.theory.mdp import Array, backup, expand, log_sum_exp, soft_optimum
from itrpo.theory.schemes import brac_vi, itrpo_vi


def shaped_fixed_point(instance: Instance) -> tuple[Array, Array, Array]:
    """(Q, Q', log pi) of Eq. 5's fixed point, built from BRAC's at lambda: Q = Q' + tau alpha log(pi/pi_beta)."""
    optimum = soft_optimum(instance.mdp, instance.behavior, instance.alpha * (1 - instance.tau))
    shaping = expand(instance.tau * instance.alpha) * (optimum.log_policy - np.log(instance.behavior))
    return optimum.q + shaping, optimum.q, optimum.log_policy


def check_fixed_point(batches: list[Instance], seed: int) -> list[Row]:
    residual, policy_residual, brac, change, less_pessimistic = (Tally() for _ in range(5))
    for b in batches:
        q, implied, log_policy = shaped_fixed_point(b)
        stepped = itrpo_vi(b.mdp, b.behavior, b.alpha, b.tau, 1, initial_q=q)
        residual.add(b, table_max(stepped.q_values[1:] - q) / (table_max(q[None]) + b.alpha))
        policy_residual.add(b, table_max(stepped.policies - np.exp(log_policy)), logit_size(b, stepped))
        same = brac_vi(b.mdp, b.behavior, b.alpha * (1 - b.tau), 1, initial_q=implied)
        brac.add(b, table_max(same.policies - np.exp(log_policy)), logit_size(b, stepped))
        weaker, stronger = (soft_optimum(b.mdp, b.behavior, it) for it in (b.alpha * (1 - b.tau), b.alpha))
        change.add(b, 0.5 * np.abs(np.exp(weaker.log_policy) - np.exp(stronger.log_policy)).sum(-1).max(-1))
        less_pessimistic.add(b, (stronger.v - weaker.v).max(-1) / (1 + np.abs(weaker.v).max(-1)))
    return [
        residual.row("BRAC(alpha(1-tau))'s optimum is a fixed point of iTRPO(alpha, tau)", "residual", ROUNDING),
        policy_residual.row("with the same policy", "|pi - pi|", ROUNDING),
        brac.row("and of BRAC(alpha(1-tau)) itself", "|pi - pi|", ROUNDING),
        change.row("dropping the shaping at fixed alpha moves the optimal policy", "total variation", None, "observed"),
        less_pessimistic.row("iTRPO backs up values at least BRAC(alpha)'s, everywhere", "shortfall", ROUNDING),
    ]


def check_advantage_learning(batches: list[Instance], seed: int) -> list[Row]:
    ratio, update, gaps, value = (Tally() for _ in range(4))
    for b in batches:
        run = itrpo_vi(b.mdp, b.behavior, b.alpha, b.tau, 40, initial_q=b.initial_q)
        scale = table_max(run.q_values) + b.alpha
        log_behavior = np.log(b.behavior)
        temperature = expand(b.alpha)
        q = run.q_values[:-1]
        v = temperature[..., 0] * log_sum_exp(q / temperature + log_behavior)
        advantage = q - v[..., None]
        ratio.add(b, table_max(temperature * (run.log_policies - log_behavior) - advantage) / scale)
        stepped = b.mdp.reward + expand(b.tau) * advantage + backup(b.mdp, v)
        update.add(b, table_max(stepped - run.q_values[1:]) / scale)
        fixed, implied, _ = shaped_fixed_point(b)
        gap, implied_gap = fixed[..., :1] - fixed, implied[..., :1] - implied
        grown = expand(1 - b.tau) * gap - implied_gap
        gaps.add(b, table_max(grown[None]) / (table_max(implied[None]) + b.alpha))
        soft_value = temperature[..., 0] * log_sum_exp(fixed / temperature + log_behavior)
        best = soft_optimum(b.mdp, b.behavior, b.alpha * (1 - b.tau)).v
        value.add(b, np.abs(soft_value - best).max(-1) / (table_max(fixed[None]) + b.alpha))
    return [
        ratio.row("alpha log(pi_{k+1}/pi_beta) = Q_k - V_k at the exact actor", "residual", ROUNDING),
        update.row("Eq. 5 is Q_{k+1} = r + tau (Q_k - V_k) + gamma P V_k", "residual", ROUNDING),
        gaps.row("action gaps at the fixed point are 1/(1-tau) times BRAC(lambda)'s", "residual", ROUNDING),
        value.row("with the same state values", "residual", ROUNDING),
    ]
