"""Eq. 5 with the author's clip, the shaping tau alpha max(log(pi/pi_beta), c), c <= 0 (docs/theory.md, 9.4).

With Q'_k = Q_k - tau alpha max(log(pi_k/pi_beta), c) it is Theorem 1 around pi_k lifted, max(pi_k, e^c pi_beta) / Z_k,
and a bonus tau alpha log Z_k. Its fixed point weighs actions by lambda where log(pi/pi_beta) >= c, by alpha below c.
"""

from __future__ import annotations

import numpy as np

from itrpo.theory.checks import RATIO_LIMIT, ROUNDING, Row, Tally, logit_size, table_max
from itrpo.theory.instances import Instance
from itrpo.theory.mdp import Array, backup, expand, inner, kl, log_softmax, log_sum_exp, soft_optimum, state_values
from itrpo.theory.schemes import itrpo_vi, theorem1_vi

OVERSHOOT = 2.0  # tau times an actor's excess: above 1 the unclipped shaping feeds on itself


def draw_clips(seed: int, batch: Instance) -> Array:
    """One clip c per instance, log-uniform in [-3, -0.003], one in eight exactly 0. [N]"""
    draws = np.stack([np.random.default_rng([seed, int(it), 2]).random(2) for it in batch.number])
    return np.where(draws[:, 0] < 1 / 8, 0.0, -3 * 10.0 ** (-3 * draws[:, 1]))


def clipped_log_ratio(advantage: Array, alpha: Array, tau: Array, low: Array) -> Array:
    """log(pi/pi_beta) at the fixed point, from Q' - V: slope 1 / lambda from c on, 1 / alpha below."""
    unclipped = advantage / expand(alpha * (1 - tau))
    return np.maximum(unclipped, advantage / expand(alpha) + expand(tau * low))


def clipped_optimum(batch: Instance, low: Array) -> tuple[Array, Array]:
    """(V, log(pi/pi_beta)) of the fixed point, by Newton on sum_a pi = 1 in all states: convex, from below. [N, S]"""
    mdp, alpha, tau, log_behavior = batch.mdp, batch.alpha, batch.tau, np.log(batch.behavior)
    values, nothing = soft_optimum(mdp, batch.behavior, alpha * (1 - tau)).v, mdp._replace(reward=0 * mdp.reward)
    for _ in range(100):
        log_ratio = clipped_log_ratio(mdp.reward + backup(mdp, values) - values[..., None], alpha, tau, low)
        excess = log_sum_exp(log_ratio + log_behavior)
        slopes = np.exp(log_softmax(log_ratio + log_behavior)) / np.where(log_ratio >= expand(low), expand(1 - tau), 1)
        total = slopes.sum(-1)
        step = state_values(nothing, slopes / total[..., None], alpha[..., None] * excess / total)
        values = values + step
        if np.abs(step).max() < 1e-15 * (1 + np.abs(values).max()):
            break
    return values, clipped_log_ratio(mdp.reward + backup(mdp, values) - values[..., None], alpha, tau, low)


def overshooting(batch: Instance, low: float | Array) -> Array:
    """max |Q_k| of Eq. 5 when the actor moves OVERSHOOT / tau times as far from pi_beta as it should. [N]"""
    q, log_behavior, largest = batch.initial_q, np.log(batch.behavior), np.zeros_like(batch.alpha)
    excess = OVERSHOOT / np.where(batch.tau > 0, batch.tau, np.inf) + (batch.tau == 0)
    for _ in range(100):
        log_policy = log_softmax(expand(excess / batch.alpha) * q + log_behavior)
        log_ratio = log_policy - log_behavior
        target = inner(np.exp(log_policy), q - expand(batch.alpha) * log_ratio)
        shaping = expand(batch.tau * batch.alpha) * np.maximum(log_ratio, expand(low))
        q = batch.mdp.reward + shaping + backup(batch.mdp, target)
        largest = np.maximum(largest, np.abs(q).max((-2, -1)))
    return largest


def check(batches: list[Instance], seed: int) -> list[Row]:
    objective, normaliser, schemes, fixed, slopes, far, above, between, closer, bounded, free = (
        Tally() for _ in range(11)
    )
    for b in batches:
        low, lam = draw_clips(seed, b), b.alpha * (1 - b.tau)
        shaping = expand(b.tau * b.alpha)
        # the greedy step: any Q, pi and pi_k
        lifted = np.maximum(b.previous, np.exp(expand(low)) * b.behavior)
        z = lifted.sum(-1)
        implied = b.initial_q - shaping * np.maximum(np.log(b.previous / b.behavior), expand(low))
        eq5 = inner(b.policy, b.initial_q) - b.alpha[:, None] * kl(b.policy, b.behavior)
        two = inner(b.policy, implied) - lam[:, None] * kl(b.policy, b.behavior)
        two += shaping[..., 0] * (np.log(z) - kl(b.policy, lifted / z[..., None]))
        objective.add(b, np.abs(eq5 - two).max(-1) / (2 + b.alpha * np.abs(np.log(b.behavior)).max((-2, -1))))
        normaliser.add(b, np.maximum(1 - z, z - 1 - np.exp(low)[:, None]).max(-1))
        # the scheme
        args = (b.mdp, b.behavior, b.alpha, b.tau)
        shaped = itrpo_vi(*args, 100, initial_q=b.initial_q, low=low)
        explicit = theorem1_vi(*args, 100, initial_q=b.initial_q, low=low)
        schemes.add(b, table_max(shaped.policies - explicit.policies), logit_size(b, shaped))
        # its fixed point
        v, log_ratio = clipped_optimum(b, low)
        q = b.mdp.reward + backup(b.mdp, v) + shaping * np.maximum(log_ratio, expand(low))
        stay = itrpo_vi(*args, 1, initial_q=q, low=low)
        fixed.add(b, table_max(stay.q_values[1:] - q) / (table_max(q[None]) + b.alpha))
        slopes.add(b, table_max(stay.log_policies - np.log(b.behavior) - log_ratio), logit_size(b, stay))
        far.add(b, table_max(itrpo_vi(*args, 600, initial_q=b.initial_q, low=low).policies[-1:] - stay.policies))
        brac = soft_optimum(b.mdp, b.behavior, lam)
        for lower in (low, low - 3, low - 30):
            most = b.tau * b.alpha * np.exp(lower - 1) / (1 - b.mdp.discount)
            gain, rounding = clipped_optimum(b, lower)[0] - brac.v, ROUNDING * (1 + np.abs(brac.v).max(-1))
            above.add(b, np.maximum(-gain.min(-1) / rounding, gain.max(-1) / (most + rounding)))
        # how far its policy is from pi_beta
        implied = b.mdp.reward + backup(b.mdp, v)
        weaker, stronger = (np.exp(log_softmax(implied / expand(it) + np.log(b.behavior))) for it in (lam, b.alpha))
        ours = stay.policies[0]
        weak, own, strong = (kl(it, b.behavior) for it in (weaker, ours, stronger))
        between.add(b, np.maximum(strong - own, own + kl(weaker, ours) - weak).max(-1), logit_size(b, stay))
        closer.add(b, (own - kl(np.exp(brac.log_policy), b.behavior)).mean(-1))
        # an actor that is not exact
        wide = np.abs(np.log(b.behavior)).max((-2, -1))
        worth = np.abs(b.mdp.reward).max((-2, -1)) + b.alpha * (b.tau * np.maximum(-low, wide) + b.mdp.discount * wide)
        most = np.maximum(worth / (1 - b.mdp.discount), np.abs(b.initial_q).max((-2, -1)))
        bounded.add(b, overshooting(b, low) / most)
        free.add(b, overshooting(b, -np.inf) / most)
    return [
        objective.row("any pi, pi_k: Eq. 5's objective is the two-KL one around lifted pi_k", "residual", ROUNDING),
        normaliser.row("1 <= Z_k <= 1 + e^c", "excess", ROUNDING),
        schemes.row("Eq. 5 with the clip and that scheme: same policies, 100 iterations", "|pi - pi|", ROUNDING),
        fixed.row("fixed point: one step of the clipped Eq. 5 keeps Q", "residual", ROUNDING),
        slopes.row("log(pi/pi_beta) in Q' - V: slope 1/lambda above c, 1/alpha below", "|log - log|", ROUNDING),
        far.row("600 iterations from Q_0 end there", "|pi - pi|", None, "observed"),
        above.row(
            "values exceed BRAC(lambda)'s by 0 to tau alpha e^(c-1) / (1-gamma); c, c-3, c-30", "ratio", RATIO_LIMIT
        ),
        between.row("same Q': KL to pi_beta from BRAC(alpha)'s to BRAC(lambda)'s", "excess", ROUNDING),
        closer.row("at the two fixed points: mean KL less BRAC(lambda)'s", "nats", None, "observed"),
        bounded.row("an actor that overshoots: |Q_k| stays within its bound", "ratio", RATIO_LIMIT),
        free.row("the same without the clip", "ratio", RATIO_LIMIT, "fails"),
    ]
