"""Theorem 1: shaping the reward is a trust region (docs/theory.md, 3).

With Q'_k = Q_k - tau alpha log(pi_k/pi_beta), Eq. 5 (`schemes.itrpo_vi`) has the same policies as the scheme with both
KLs in the open (`schemes.theorem1_vi`): tau alpha KL(pi || pi_k) and alpha (1 - tau) KL(pi || pi_beta).
"""

from __future__ import annotations

from itrpo.theory.checks import ROUNDING, Row, Tally, logit_size, table_max
from itrpo.theory.instances import Instance, draw_errors
from itrpo.theory.schemes import implicit_q, itrpo_vi, theorem1_vi


def check(batches: list[Instance], seed: int) -> list[Row]:
    policies, values, any_first = Tally(), Tally(), Tally()
    with_errors = Tally()
    for b in batches:
        args = (b.mdp, b.behavior, b.alpha, b.tau, 100)
        shaped = itrpo_vi(*args, initial_q=b.initial_q)
        explicit = theorem1_vi(*args, initial_q=b.initial_q)
        implied = implicit_q(shaped, b.behavior, b.alpha, b.tau, b.behavior)
        policies.add(b, table_max(shaped.policies - explicit.policies), logit_size(b, shaped))
        scale = table_max(shaped.q_values) + b.alpha
        values.add(b, table_max(implied - explicit.q_values) / scale)
        other = theorem1_vi(*args, initial_q=b.initial_q, first_policy=b.previous)
        any_first.add(b, table_max(shaped.policies - other.policies), logit_size(b, shaped))
        errors = draw_errors(seed, b, 100)
        noisy = itrpo_vi(*args, errors, b.initial_q)
        noisy_explicit = theorem1_vi(*args, errors, b.initial_q)
        with_errors.add(b, table_max(noisy.policies - noisy_explicit.policies), logit_size(b, noisy))
    return [
        policies.row("Eq. 5 and the two-KL scheme: same policies, 100 iterations", "|pi - pi|", ROUNDING),
        values.row("Q'_k = Q_k - tau alpha log(pi_k/pi_beta) along the run", "residual", ROUNDING),
        any_first.row("same policies from any pi_0 (Eq. 5 never reads it)", "|pi - pi|", ROUNDING),
        with_errors.row("same policies with errors injected (Eq. 7)", "|pi - pi|", ROUNDING),
    ]
