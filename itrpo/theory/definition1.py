"""Definition 1: the KL-entropy-regularised operator and its greedy policy (docs/theory.md, 2).

T^{eta,mu}_{pi,pi'} q = r + gamma P(<pi, q> - eta KL(pi || pi') + mu H(pi)), Eq. 6, and T* = max_pi T_{pi,pi'}.
"""

from __future__ import annotations

import numpy as np

from itrpo.theory.checks import RATIO_LIMIT, ROUNDING, Row, Tally
from itrpo.theory.instances import Instance
from itrpo.theory.mdp import Array, FiniteMDP, backup, expand, inner, kl, log_softmax, log_sum_exp, state_values
from itrpo.theory.schemes import theorem1_vi


def kl_entropy_operator(
    mdp: FiniteMDP, policy: Array, other: Array, kl_weight: Array, entropy_weight: Array, q: Array
) -> Array:
    """Eq. 6: T q = r + gamma P(<pi, q> - eta KL(pi || pi') + mu H(pi)), weights [...]; [..., S, A]."""
    log_policy = np.log(policy)
    entropy = -inner(policy, log_policy)
    divergence = inner(policy, log_policy - np.log(other))
    target = inner(policy, q) - kl_weight[..., None] * divergence + entropy_weight[..., None] * entropy
    return mdp.reward + backup(mdp, target)


def greedy_policy(other: Array, kl_weight: Array, entropy_weight: Array, q: Array) -> tuple[Array, Array]:
    """argmax_pi <pi, q> - eta KL(pi || pi') + mu H(pi) as log pi [..., S, A], and the maximum [..., S]."""
    total = expand(kl_weight + entropy_weight)
    logits = (q + expand(kl_weight) * np.log(other)) / total
    return log_softmax(logits), total[..., 0] * log_sum_exp(logits)


def check(batches: list[Instance], seed: int) -> list[Row]:
    greedy, contraction, monotone, fixed, theorem1_link = (Tally() for _ in range(5))
    for b in batches:
        near, far = b.tau * b.alpha, (1 - b.tau) * b.alpha
        q, other_q = b.initial_q, b.initial_q[..., ::-1] + 0.5 * b.mdp.reward
        log_best, maximum = greedy_policy(b.previous, near, far, q)
        value = (
            inner(b.policy, q)
            - near[..., None] * kl(b.policy, b.previous)
            - far[..., None] * inner(b.policy, np.log(b.policy))
        )
        shortfall = b.alpha[..., None] * inner(b.policy, np.log(b.policy) - log_best)
        greedy.add(b, _relative(maximum - value - shortfall, maximum, (-1,)))

        def best(table: Array, b: Instance = b, near: Array = near, far: Array = far) -> Array:
            return b.mdp.reward + backup(b.mdp, greedy_policy(b.previous, near, far, table)[1])

        change = np.abs(best(q) - best(other_q)).max((-2, -1))
        contraction.add(b, change / (b.mdp.discount * np.abs(q - other_q).max((-2, -1))))
        lower = np.minimum(q, other_q)
        monotone.add(b, (best(lower) - best(q)).max((-2, -1)))

        bonus = -near[..., None] * kl(b.policy, b.previous) - far[..., None] * inner(b.policy, np.log(b.policy))
        own = b.mdp.reward + backup(b.mdp, state_values(b.mdp, b.policy, bonus))
        applied = kl_entropy_operator(b.mdp, b.policy, b.previous, near, far, own)
        fixed.add(b, _relative(applied - own, own, (-2, -1)))

        # Theorem 1's Q' iteration is Eq. 6 with eta = tau alpha, mu = lambda, on Q' + lambda log pi_beta and r-hat.
        run = theorem1_vi(b.mdp, b.behavior, b.alpha, b.tau, 2, initial_q=b.initial_q)
        shift = expand(far) * np.log(b.behavior)
        shaped = b.mdp._replace(reward=b.mdp.reward + shift)
        tables = run.q_values + shift
        reference = np.exp(greedy_policy(b.behavior, near, far, tables[0])[0])
        smooth = np.maximum(reference, 1e-300)
        stepped = kl_entropy_operator(shaped, smooth, b.behavior, near, far, tables[0])
        theorem1_link.add(b, _relative(stepped - tables[1], tables[1], (-2, -1)))
    return [
        greedy.row("objective = maximum - (eta + mu) KL(pi || greedy): greedy is optimal", "residual", ROUNDING),
        contraction.row("T* is a gamma-contraction in the maximum norm", "ratio", RATIO_LIMIT),
        monotone.row("T* is monotone", "decrease", ROUNDING),
        fixed.row("T_{pi,pi'} has the exactly solved value as its fixed point", "residual", ROUNDING),
        theorem1_link.row("Theorem 1's step is Eq. 6 with eta = tau alpha, mu = lambda", "residual", ROUNDING),
    ]


def _relative(residual: Array, scale: Array, axes: tuple[int, ...]) -> Array:
    return np.abs(residual).max(axes) / np.abs(scale).max(axes)
