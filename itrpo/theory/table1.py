"""Table 1: the regularisers that BRAC, Munchausen VI and iTRPO imply, identified from their runs (docs/theory.md, 5).

With lambda = alpha (1 - tau): BRAC has alpha KL to pi_beta; Munchausen VI, tau alpha KL to pi_k and lambda entropy;
iTRPO, tau alpha KL to pi_k and lambda KL to pi_beta.
"""

from __future__ import annotations

import numpy as np

from itrpo.theory.checks import ROUNDING, Row, Tally, logit_size, table_max, uniform_policy
from itrpo.theory.instances import Instance
from itrpo.theory.mdp import Array, backup, expand, inner
from itrpo.theory.schemes import Iterates, brac_vi, itrpo_vi, munchausen_vi


def implicit_weights(implied: Array, log_policies: Array, log_behavior: Array) -> Array:
    """Weights (KL to pi_k, KL to pi_beta, entropy) that explain a run's policies, by least squares, [N, 3].

    argmax <pi, Q'> - a KL(pi||pi_k) - b KL(pi||pi_beta) + c H(pi) gives, up to a constant per state,
    Q'_k = (a + b + c) log pi_{k+1} - a log pi_k - b log pi_beta. implied, log_policies [K, N, S, A]: Q'_1.., log pi_1..
    """
    columns = [log_policies[1:], -log_policies[:-1], np.broadcast_to(-log_behavior, log_policies[1:].shape)]
    design = np.stack([_flatten(_center(c)) for c in columns], axis=-1)
    target = _flatten(_center(implied[: len(log_policies) - 1]))
    size = np.sqrt((design**2).sum(-2, keepdims=True))
    size = np.where(size > 0, size, 1.0)
    total, previous, behavior = np.moveaxis(
        (np.linalg.pinv(design / size, rcond=1e-12) @ target[..., None])[..., 0] / size[..., 0, :], -1, 0
    )
    return np.stack([previous, behavior, total - previous - behavior], axis=-1)


def _center(table: Array) -> Array:
    return table - table.mean(-1, keepdims=True)


def _flatten(table: Array) -> Array:
    return np.moveaxis(table, 1, 0).reshape(table.shape[1], -1)


def check(batches: list[Instance], seed: int) -> list[Row]:
    found: dict[str, Tally] = {name: Tally() for name in ("BRAC", "MVI", "iTRPO")}
    values: dict[str, Tally] = {name: Tally() for name in found}
    same = Tally()
    iterations = 6
    for b in batches:
        log_behavior = np.log(b.behavior)
        # A start of the temperature's own size keeps every policy of the run away from the corners.
        start = expand(b.alpha) * b.initial_q
        zero = np.zeros_like(b.alpha)
        near, far = b.tau * b.alpha, (1 - b.tau) * b.alpha
        runs: dict[str, tuple[Iterates, Array, tuple[Array, Array, Array]]] = {
            "BRAC": (brac_vi(b.mdp, b.behavior, b.alpha, iterations, initial_q=start), zero, (zero, b.alpha, zero)),
            "MVI": (munchausen_vi(b.mdp, b.alpha, b.tau, iterations, initial_q=start), near, (near, zero, far)),
            "iTRPO": (
                itrpo_vi(b.mdp, b.behavior, b.alpha, b.tau, iterations, initial_q=start), near, (near, far, zero),
            ),
        }  # fmt: skip
        for name, (run, shaping, weights) in runs.items():
            reference = 0.0 if name == "MVI" else log_behavior
            implied = run.q_values[1:] - expand(shaping) * (run.log_policies - reference)
            identified = implicit_weights(implied, run.log_policies, log_behavior)
            found[name].add(b, np.abs(identified - np.stack(weights, -1)).max(-1) / b.alpha)
            values[name].add(b, _value_residual(b, run, implied, weights))
        uniform = uniform_policy(b)
        shaped = itrpo_vi(b.mdp, uniform, b.alpha, b.tau, iterations, initial_q=start)
        same.add(b, table_max(shaped.policies - runs["MVI"][0].policies), logit_size(b, shaped))
    labels = {
        "BRAC": "alpha KL to pi_beta",
        "MVI": "tau alpha KL to pi_k + lambda entropy",
        "iTRPO": "tau alpha KL to pi_k + lambda KL to pi_beta",
    }
    rows = []
    for name, label in labels.items():
        rows.append(found[name].row(f"{name}: policies show {label}", "weight error", 1e-6))
        rows.append(values[name].row(f"{name}: the same regularisers in the value step", "residual", ROUNDING))
    rows.append(same.row("MVI is iTRPO with a uniform pi_beta", "|pi - pi|", ROUNDING))
    return rows


def _value_residual(instance: Instance, run: Iterates, implied: Array, weights: tuple[Array, Array, Array]) -> Array:
    """Q'_{k+1} - (r + gamma P(<pi, Q'_k> - a KL(pi||pi_k) - b KL(pi||pi_beta) + c H(pi))), relative, k >= 1."""
    near, far, entropy = (w[..., None] for w in weights)
    log_policy, previous = run.log_policies[1:], run.log_policies[:-1]
    policy = np.exp(log_policy)
    target = (
        inner(policy, implied[:-1])
        - near * inner(policy, log_policy - previous)
        - far * inner(policy, log_policy - np.log(instance.behavior))
        - entropy * inner(policy, log_policy)
    )
    residual = implied[1:] - (instance.mdp.reward + backup(instance.mdp, target))
    return table_max(residual) / (table_max(run.q_values) + instance.alpha)
