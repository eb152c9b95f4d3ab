"""Each statement of the paper as a check over instances. The proofs are in docs/theory.md, in the same order.

A check returns rows; a row holds the worst number over all instances and the instance that gives it. `expected` says
what the mathematics says: "holds" (proven: a violation is a failure), "fails" (a claim as printed that has a
counter-example: no violation is a failure), "observed" (a measurement, no verdict).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from itrpo.theory import corollary1 as c1
from itrpo.theory import theorem2 as t2
from itrpo.theory.instances import (
    Counterexample,
    Instance,
    draw_errors,
    large_temperature,
    rare_and_rewarding,
    unlikely_error,
)
from itrpo.theory.mdp import (
    Array,
    FiniteMDP,
    backup,
    expand,
    expected_return,
    inner,
    kl,
    log_softmax,
    log_sum_exp,
    occupancy,
    soft_optimum,
    state_values,
)
from itrpo.theory.schemes import (
    Iterates,
    averaged_q,
    brac_vi,
    implicit_q,
    itrpo_vi,
    lemma1_vi,
    moving_average,
    munchausen_vi,
    soft_maximum,
    theorem1_vi,
)

# Identities are exact in real arithmetic. Residuals are relative to the largest number that enters them, and equal
# policies may differ by the rounding of their logits, Q / alpha: what float64 leaves is a small multiple of 1e-16 times
# the iterations and the conditioning 1 / (1 - gamma).
ROUNDING = 1e-12
RATIO_LIMIT = 1 + 1e-9

Expected = Literal["holds", "fails", "observed"]


class Row(NamedTuple):
    """One line of a statement's table.

    `instance` is None for hand-made instances and pooled numbers; `violations` is None where nothing is claimed.
    """

    claim: str
    instances: int
    violations: int | None
    worst: float
    measure: str
    instance: int | None
    expected: Expected

    @property
    def as_expected(self) -> bool:
        return self.expected == "observed" or (self.violations == 0) == (self.expected == "holds")


class Statement(NamedTuple):
    name: str
    description: str
    check: Callable[[list[Instance], int], list[Row]]


class _Tally:
    """Collects one number per instance over the batches and makes the row of the largest."""

    def __init__(self) -> None:
        self.values: list[Array] = []
        self.allowances: list[Array] = []
        self.indices: list[Array] = []

    def add(self, instance: Instance, values: Array, allowance: Array | float = 1.0) -> None:
        """`values` [N] may reach the row's limit times `allowance`."""
        self.values.append(np.asarray(values))
        self.allowances.append(np.broadcast_to(np.asarray(allowance, dtype=np.float64), np.shape(values)))
        self.indices.append(instance.number)

    def row(self, claim: str, measure: str, limit: float | None, expected: Expected = "holds") -> Row:
        values, indices = np.concatenate(self.values), np.concatenate(self.indices)
        values = np.where(np.isnan(values), np.inf, values)
        worst = int(values.argmax())
        violations = None if limit is None else int((values > limit * np.concatenate(self.allowances)).sum())
        return Row(claim, len(values), violations, float(values[worst]), measure, int(indices[worst]), expected)


def _relative(residual: Array, scale: Array, axes: tuple[int, ...]) -> Array:
    return np.abs(residual).max(axes) / np.abs(scale).max(axes)


def _table_max(values: Array) -> Array:
    """Largest magnitude over iterates and cells: [K, N, S, A] -> [N]."""
    return np.abs(values).max((0, -2, -1))


def _logit_size(instance: Instance, run: Iterates) -> Array:
    """Largest logit of a run's policies, at least 1: by how much rounding is magnified in a policy. [N]"""
    return 1 + _table_max(run.q_values) / instance.alpha


def _uniform(instance: Instance) -> Array:
    return np.full_like(instance.behavior, 1 / instance.mdp.actions)


# Theorem 1 ----------------------------------------------------------------------------------------------------------


def check_theorem1(batches: list[Instance], seed: int) -> list[Row]:
    policies, values, any_first = _Tally(), _Tally(), _Tally()
    with_errors = _Tally()
    for b in batches:
        args = (b.mdp, b.behavior, b.alpha, b.tau, 100)
        shaped = itrpo_vi(*args, initial_q=b.initial_q)
        explicit = theorem1_vi(*args, initial_q=b.initial_q)
        implied = implicit_q(shaped, b.behavior, b.alpha, b.tau, b.behavior)
        policies.add(b, _table_max(shaped.policies - explicit.policies), _logit_size(b, shaped))
        scale = _table_max(shaped.q_values) + b.alpha
        values.add(b, _table_max(implied - explicit.q_values) / scale)
        other = theorem1_vi(*args, initial_q=b.initial_q, first_policy=b.previous)
        any_first.add(b, _table_max(shaped.policies - other.policies), _logit_size(b, shaped))
        errors = draw_errors(seed, b, 100)
        noisy = itrpo_vi(*args, errors, b.initial_q)
        noisy_explicit = theorem1_vi(*args, errors, b.initial_q)
        with_errors.add(b, _table_max(noisy.policies - noisy_explicit.policies), _logit_size(b, noisy))
    return [
        policies.row("Eq. 5 and the two-KL scheme: same policies, 100 iterations", "|pi - pi|", ROUNDING),
        values.row("Q'_k = Q_k - tau alpha log(pi_k/pi_beta) along the run", "residual", ROUNDING),
        any_first.row("same policies from any pi_0 (Eq. 5 never reads it)", "|pi - pi|", ROUNDING),
        with_errors.row("same policies with errors injected (Eq. 7)", "|pi - pi|", ROUNDING),
    ]


# Lemma 1 ------------------------------------------------------------------------------------------------------------


def h_residuals(instance: Instance, h: Array) -> Array:
    """R_k = h_k - T* h_{k-1} for k = 1 .. K, T* the operator of Lemma 1's entropy-regularised MDP. [K, N, S, A]"""
    temperature = expand(instance.alpha * (1 - instance.tau))
    reward = instance.mdp.reward + temperature * np.log(instance.behavior)
    return h[1:] - reward - backup(instance.mdp, soft_maximum(h[:-1], temperature))


def check_lemma1(batches: list[Instance], seed: int) -> list[Row]:
    softmax, recursion, limit, from_behavior, fixed, contraction = (_Tally() for _ in range(6))
    iterations = 60
    for b in batches:
        temperature = expand(b.alpha * (1 - b.tau))
        run = itrpo_vi(b.mdp, b.behavior, b.alpha, b.tau, iterations, initial_q=b.initial_q)
        uniform = _uniform(b)
        h = averaged_q(run, b.behavior, b.alpha, b.tau, uniform)
        recovered = np.exp(log_softmax(h[:-1] / temperature))
        softmax.add(b, _table_max(recovered - run.policies), _logit_size(b, run))

        # R_0 uses h_{-1} = 0, whose soft maximum is lambda log |A|.
        first = h[:1] - (
            b.mdp.reward
            + temperature * np.log(b.behavior)
            + backup(b.mdp, soft_maximum(np.zeros_like(h[0]), temperature))
        )
        residuals = np.concatenate([first, h_residuals(b, h)])
        rate = np.power(expand(b.tau), np.arange(iterations + 1)[:, None, None, None])
        recursion.add(b, _table_max(residuals - rate * first) / _table_max(h))

        optimum = soft_optimum(b.mdp, b.behavior, b.alpha * (1 - b.tau))
        h_star = optimum.q + temperature * np.log(b.behavior)
        distance = np.abs(h - h_star).max((-2, -1))
        predicted = _distance_bound(b, distance[0], np.abs(first[0]).max((-2, -1)), iterations)
        floor = 1e-13 * np.abs(h).max((0, -2, -1)) / (1 - b.mdp.discount)
        limit.add(b, (distance / (predicted + floor)).max(0))

        started_at_behavior = averaged_q(run, b.behavior, b.alpha, b.tau, b.behavior)
        log_policies = log_softmax(started_at_behavior[:-1] / temperature)
        from_behavior.add(b, _table_max(np.exp(log_policies) - run.policies))
        missing = rate[1:] * temperature * np.log(b.behavior)
        fixed_policies = log_softmax((started_at_behavior[:-1] + missing) / temperature)
        fixed.add(b, _table_max(np.exp(fixed_policies) - run.policies), _logit_size(b, run))

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


# Corollary 1 --------------------------------------------------------------------------------------------------------


def check_corollary1(batches: list[Instance], seed: int) -> list[Row]:
    printed, sharper, identity, shift = (_Tally() for _ in range(4))
    for b in batches:
        terms = c1.terms(b.mdp, b.policy, b.previous, b.behavior)
        ratio = terms.loss / terms.bound
        printed.add(b, ratio)
        sharper.add(b, ratio / c1.sharper_factor(b.mdp.discount))
        shift.add(b, c1.occupancy_ratio(b.mdp, b.policy, b.behavior) / c1.sharper_factor(b.mdp.discount))
        difference = expected_return(b.mdp, b.policy) - expected_return(b.mdp, b.previous)
        advantage = (occupancy(b.mdp, b.policy) * inner(b.policy, _advantages(b))).sum(-1) / (1 - b.mdp.discount)
        scale = np.abs(b.mdp.reward).max((-2, -1)) / (1 - b.mdp.discount)
        identity.add(b, np.abs(difference - advantage) / scale)
    rows = [
        identity.row("eta(pi) - eta(pi_k) = E_{d^pi}[A-bar] / (1 - gamma)", "residual", ROUNDING),
        printed.row("eta(pi) >= L - C sqrt(KLmax KLexp), random instances", "share of C", RATIO_LIMIT),
        sharper.row("the same with the sharper C (x min(1, 2.63 sqrt((1-g)/g)))", "share of C", RATIO_LIMIT),
        shift.row("|d^pi - d^beta|_1 <= the sharper bound on it", "ratio", RATIO_LIMIT),
    ]
    rng = np.random.default_rng([seed, 20])
    for discount in (0.1, 0.9, 0.99):
        local = float(c1.local_factor(discount))
        mdp, policy, behavior = c1.fork(discount)
        used = _share_used(*c1.lift(mdp, policy, behavior))
        off = abs(used / local - 1)
        rows.append(
            Row(f"fork at gamma {discount}: share -> sqrt(1-gamma) = {local:.4f}", 1, int(off > 1e-5), used,
                "share of C", None, "holds")
        )  # fmt: skip
    for discount in (0.9, 0.99):
        limit = float(c1.sharper_factor(discount))
        found = max(
            _share_used(*c1.lift(*c1.climb_random(discount, rng))),
            _share_used(*c1.lift(*c1.worst_leaky_fork(discount, rng))),
        )
        rows.append(
            Row(f"worst found by search, gamma {discount} (proven limit {limit:.3f})", 260, int(found > limit), found,
                "share of C", None, "holds")
        )  # fmt: skip
    return rows


def _advantages(instance: Instance) -> Array:
    values = instance.mdp.reward + backup(instance.mdp, state_values(instance.mdp, instance.previous))
    return values - inner(instance.previous, values)[..., None]


def _share_used(mdp: FiniteMDP, policy: Array, previous: Array, behavior: Array) -> float:
    terms = c1.terms(mdp, policy, previous, behavior)
    return float(np.squeeze(terms.loss / terms.bound))


# Theorem 2 ----------------------------------------------------------------------------------------------------------

THEOREM2_FORMS = ("as printed", "base only", "corrected")


class BoundAgainstGap(NamedTuple):
    """A run of Eq. 7 and its bounds, k = 0 .. K-1: gap [K, ...] and one [K, ...] per form of the theorem.

    `floor` [...] is the gap that rounding of log pi alone makes; a smaller gap says nothing.
    """

    gap: Array
    floor: Array
    bounds: dict[str, Array]


def theorem2_forms(
    mdp: FiniteMDP,
    behavior: Array,
    alpha: float | Array,
    tau: float | Array,
    iterations: int,
    errors: Array | None,
    from_behavior: bool = False,
    concentrations: tuple[Array, Array] | None = None,
) -> BoundAgainstGap:
    """The gap and each form, started at h_0 = 0 (the printed constant's start) or at Q_0 = 0 (pi_1 = pi_beta).

    "as printed": (tau/lambda)^j and Assumption 1's c(t). "base only": (tau/gamma)^j, Assumption 1's c(t). "corrected":
    (tau/gamma)^j and the path concentrability C(t). From the behavior also "natural start" and "quadratic".
    `concentrations` is (c, C) if already computed.
    """
    start = None if from_behavior else t2.zero_h_start(behavior, alpha, tau)
    temperature = np.asarray(alpha) * (1 - np.asarray(tau))
    run = itrpo_vi(mdp, behavior, alpha, tau, iterations, errors, start)
    gap = t2.regularised_gap(mdp, behavior, temperature, run)
    assumed = paths = None
    if errors is not None:
        assumed, paths = concentrations or both_concentrabilities(mdp, behavior, temperature, iterations)
    args = (mdp, behavior, alpha, tau, iterations, errors)
    bounds = {
        "as printed": t2.as_printed(*args, assumed),
        "base only": t2.corrected(*args, assumed),
        "corrected": t2.corrected(*args, paths),
    }
    if from_behavior:
        bounds["natural start"] = t2.corrected_from_behavior(*args, paths)
        bounds["quadratic"] = t2.quadratic_from_behavior(*args)
    largest = np.abs(run.q_values[-1]).max((-2, -1)) + np.abs(np.log(behavior)).max((-2, -1)) * np.asarray(alpha)
    floor = temperature * (1e-14 * (1 + largest / temperature)) ** 2 / (1 - mdp.discount)
    return BoundAgainstGap(gap, floor, bounds)


def both_concentrabilities(
    mdp: FiniteMDP, behavior: Array, temperature: float | Array, horizon: int
) -> tuple[Array, Array]:
    """(Assumption 1's c(t), the path concentrability C(t)), each [horizon, ...]."""
    assumed = t2.assumption1_concentrability(mdp, behavior, temperature, horizon)
    return assumed, t2.path_concentrability(mdp, behavior, horizon)


def check_theorem2(batches: list[Instance], seed: int) -> list[Row]:
    printed, corrected, natural, quadratic, definition = (_Tally() for _ in range(5))
    noisy_printed, noisy_base, noisy_corrected, noisy_quadratic = (_Tally() for _ in range(4))
    for b in batches:
        case = (b.mdp, b.behavior, b.alpha, b.tau)
        clean = theorem2_forms(*case, 100, None)
        printed.add(b, _largest_ratio(clean, "as printed"))
        corrected.add(b, _largest_ratio(clean, "corrected"))
        started = theorem2_forms(*case, 100, None, from_behavior=True)
        natural.add(b, _largest_ratio(started, "natural start"))
        quadratic.add(b, _largest_ratio(started, "quadratic"))
        definition.add(b, _gap_identity(b), 1 / (1 - b.mdp.discount))
        horizon = 12
        errors = draw_errors(seed, b, horizon)
        both = both_concentrabilities(b.mdp, b.behavior, b.alpha * (1 - b.tau), horizon)
        noisy = theorem2_forms(*case, horizon, errors, concentrations=both)
        noisy_printed.add(b, _largest_ratio(noisy, "as printed"))
        noisy_base.add(b, _largest_ratio(noisy, "base only"))
        noisy_corrected.add(b, _largest_ratio(noisy, "corrected"))
        started = theorem2_forms(*case, horizon, errors, True, both)
        noisy_quadratic.add(
            b, np.maximum(_largest_ratio(started, "natural start"), _largest_ratio(started, "quadratic"))
        )
    rows = [
        definition.row("gap = E_{d^pi}[lambda KL(pi||pi*)] / (1 - gamma)", "residual", ROUNDING),
        printed.row("as printed, (tau/lambda)^j, no error", "gap/bound", RATIO_LIMIT, "observed"),
        corrected.row("corrected, (tau/gamma)^j, no error", "gap/bound", RATIO_LIMIT),
        natural.row("corrected from Q_0 = 0: max|r| for r-hat_max + lambda log|A|", "gap/bound", RATIO_LIMIT),
        quadratic.row("second-order form from Q_0 = 0, no error", "gap/bound", RATIO_LIMIT),
        noisy_printed.row("as printed, random errors", "gap/bound", RATIO_LIMIT, "observed"),
        noisy_base.row("(tau/gamma)^j with Assumption 1's c(t), random errors", "gap/bound", RATIO_LIMIT, "observed"),
        noisy_corrected.row("corrected, path concentrability C(t), random errors", "gap/bound", RATIO_LIMIT),
        noisy_quadratic.row("both forms from Q_0 = 0, random errors", "gap/bound", RATIO_LIMIT),
    ]
    large = _counterexample_forms(large_temperature())
    rare = _counterexample_forms(unlikely_error())
    from_behavior = _counterexample_forms(rare_and_rewarding(), from_behavior=True)
    cases: tuple[tuple[str, BoundAgainstGap, str, Expected], ...] = (
        ("counter-example A (lambda = 5, no error): as printed", large, "as printed", "fails"),
        ("counter-example A: corrected", large, "corrected", "holds"),
        ("counter-example B (one unlikely error): as printed", rare, "as printed", "fails"),
        ("counter-example B: (tau/gamma)^j with Assumption 1's c(t)", rare, "base only", "fails"),
        ("counter-example B: corrected", rare, "corrected", "holds"),
        (
            "counter-example C (r-hat = 0, Q_0 = 0): (tau/gamma)^j, printed constant",
            from_behavior,
            "corrected",
            "fails",
        ),
        ("counter-example C: max|r| for the constant", from_behavior, "natural start", "holds"),
    )
    for claim, result, form, expected in cases:
        ratio = float(_largest_ratio(result, form))
        rows.append(Row(claim, 1, int(ratio > RATIO_LIMIT), ratio, "gap/bound", None, expected))
    return rows


def _counterexample_forms(example: Counterexample, from_behavior: bool = False) -> BoundAgainstGap:
    return theorem2_forms(*example, from_behavior=from_behavior)


def _largest_ratio(result: BoundAgainstGap, form: str) -> Array:
    """Largest gap / bound over the iterates whose gap is more than rounding."""
    return np.where(result.gap > result.floor, result.gap / result.bounds[form], 0.0).max(0)


def _gap_identity(instance: Instance) -> Array:
    """The gap by its KL form against the plain difference of two exact values, first iterate."""
    temperature = instance.alpha * (1 - instance.tau)
    run = itrpo_vi(instance.mdp, instance.behavior, instance.alpha, instance.tau, 1, initial_q=instance.initial_q)
    gap = t2.regularised_gap(instance.mdp, instance.behavior, temperature, run)[0]
    policy = run.policies[0]
    penalty = -temperature[..., None] * inner(policy, run.log_policies[0] - np.log(instance.behavior))
    best = soft_optimum(instance.mdp, instance.behavior, temperature).v
    values = state_values(instance.mdp, policy, penalty)
    plain = (instance.mdp.start * (best - values)).sum(-1)
    return np.abs(gap - plain) / (np.abs(best).max(-1) + np.abs(values).max(-1))


# Definition 1 and Assumption 1 --------------------------------------------------------------------------------------


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


def check_definition1(batches: list[Instance], seed: int) -> list[Row]:
    greedy, contraction, monotone, fixed, theorem1_link = (_Tally() for _ in range(5))
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


def check_assumption1(batches: list[Instance], seed: int) -> list[Row]:
    mass, at_least_one, covers, paths, dominates, outside = (_Tally() for _ in range(6))
    horizon = 8
    for b in batches:
        temperature = b.alpha * (1 - b.tau)
        mass.add(b, np.abs(occupancy(b.mdp, b.policy).sum(-1) - 1))
        assumed = t2.assumption1_concentrability(b.mdp, b.behavior, temperature, horizon)
        full = t2.path_concentrability(b.mdp, b.behavior, horizon)
        at_least_one.add(b, (1 / assumed).max(0))
        dominates.add(b, (assumed / full).max(0))
        data = t2.data_distribution(b.mdp, b.behavior)
        optimal = np.exp(soft_optimum(b.mdp, b.behavior, temperature).log_policy)
        states = occupancy(b.mdp, b.policy)
        along_optimal = states[..., None] * b.policy
        along_learned = along_optimal
        worst_assumed, worst_full, worst_crossed = [], [], []
        for t in range(horizon):
            worst_assumed.append((along_optimal / data).max((-2, -1)) / assumed[t])
            worst_full.append((along_learned / data).max((-2, -1)) / full[t])
            worst_crossed.append((along_learned / data).max((-2, -1)) / assumed[t])
            along_optimal = _next_pairs(b.mdp, along_optimal, optimal)
            along_learned = _next_pairs(b.mdp, along_learned, b.previous)
        covers.add(b, np.max(worst_assumed, axis=0))
        paths.add(b, np.max(worst_full, axis=0))
        outside.add(b, np.max(worst_crossed, axis=0))
    return [
        mass.row("occupancies sum to one", "residual", ROUNDING),
        covers.row("d^pi P_{pi*}^t <= c(t) d^D for a random pi, t < 8", "ratio", RATIO_LIMIT),
        at_least_one.row("c(t) >= 1", "1 / c(t)", RATIO_LIMIT),
        dominates.row("c(t) <= C(t)", "ratio", RATIO_LIMIT),
        paths.row("d^pi P_{pi'}^t <= C(t) d^D for another policy pi'", "ratio", RATIO_LIMIT),
        outside.row(
            "d^pi P_{pi'}^t <= c(t) d^D, what a proof from Assumption 1 needs", "ratio", RATIO_LIMIT, "observed"
        ),
    ]


def _next_pairs(mdp: FiniteMDP, pairs: Array, policy: Array) -> Array:
    """d P_pi on state-action pairs, [..., S, A]."""
    flat = mdp.transition.reshape(*mdp.transition.shape[:-3], -1, mdp.states)
    states = (pairs.reshape(*pairs.shape[:-2], 1, -1) @ flat)[..., 0, :]
    return states[..., None] * policy


# Table 1 ------------------------------------------------------------------------------------------------------------


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


def check_table1(batches: list[Instance], seed: int) -> list[Row]:
    found: dict[str, _Tally] = {name: _Tally() for name in ("BRAC", "MVI", "iTRPO")}
    values: dict[str, _Tally] = {name: _Tally() for name in found}
    same = _Tally()
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
        uniform = _uniform(b)
        shaped = itrpo_vi(b.mdp, uniform, b.alpha, b.tau, iterations, initial_q=start)
        same.add(b, _table_max(shaped.policies - runs["MVI"][0].policies), _logit_size(b, shaped))
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
    return _table_max(residual) / (_table_max(run.q_values) + instance.alpha)


# Error averaging ----------------------------------------------------------------------------------------------------


def spike_peak(discount: Array, tau: Array, horizon: int) -> Array:
    """max_n (1 - tau) sum_{m<=n} gamma^(n-m) tau^m, n < horizon: how high one unit error can stand in ||h_k||. [...]"""
    standing, peak, weight = np.zeros_like(tau), np.zeros_like(tau), 1 - tau
    for _ in range(horizon):
        standing = discount * standing + weight
        peak, weight = np.maximum(peak, standing), tau * weight
    return peak


def check_error_averaging(batches: list[Instance], seed: int) -> list[Row]:
    identity, carried, carried_brac, peak, constant = (_Tally() for _ in range(5))
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
            return run, averaged_q(run, b.behavior, b.alpha, b.tau, _uniform(b))

        def plain(injected: Array | None, b: Instance = b, log_term: Array = log_term) -> tuple[Iterates, Array]:
            run = brac_vi(b.mdp, b.behavior, b.alpha * (1 - b.tau), iterations, injected)
            return run, run.q_values + log_term

        clean = shaped(None)[1]
        noisy_run, noisy = shaped(errors)
        brac_clean, brac_noisy = plain(None)[1], plain(errors)
        averages = moving_average(errors, b.tau)
        difference = h_residuals(b, noisy) - h_residuals(b, clean)
        identity.add(b, _table_max(difference - averages) / _table_max(noisy))
        carried.add(b, _carried_ratio(noisy - clean, averages, b.mdp.discount))
        carried_brac.add(b, _carried_ratio(brac_noisy[1] - brac_clean, errors, b.mdp.discount))

        shaped_spike = np.abs(shaped(spike)[1] - clean).max((0, -2, -1))
        plain_spike = np.abs(plain(spike)[1] - brac_clean).max((0, -2, -1))
        peak.add(b, shaped_spike / plain_spike / spike_peak(b.mdp.discount, b.tau, iterations))
        settled = 1 - expand(b.tau) ** np.arange(1, iterations + 1)[:, None, None, None]
        constant.add(b, _table_max(moving_average(bias, b.tau) - settled * bias) / _table_max(bias))

        if (b.tau > 0.5).any():
            long = b.tau > 0.5
            late = averages[strike:, long]
            settled_power = 1 - b.tau[long] ** (2 * iterations)
            measured.append((late**2).mean((0, -2, -1)))
            predicted.append(0.01 * (1 - b.tau[long]) / (1 + b.tau[long]) * settled_power)
            ours = t2.regularised_gap(b.mdp, b.behavior, temperature, noisy_run)[strike:, long].mean(0)
            theirs = t2.regularised_gap(b.mdp, b.behavior, temperature, brac_noisy[0])[strike:, long].mean(0)
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


# What follows from the equations and the paper does not say -----------------------------------------------------------


def shaped_fixed_point(instance: Instance) -> tuple[Array, Array, Array]:
    """(Q, Q', log pi) of Eq. 5's fixed point, built from BRAC's at lambda: Q = Q' + tau alpha log(pi/pi_beta)."""
    optimum = soft_optimum(instance.mdp, instance.behavior, instance.alpha * (1 - instance.tau))
    shaping = expand(instance.tau * instance.alpha) * (optimum.log_policy - np.log(instance.behavior))
    return optimum.q + shaping, optimum.q, optimum.log_policy


def check_fixed_point(batches: list[Instance], seed: int) -> list[Row]:
    residual, policy_residual, brac, change, less_pessimistic = (_Tally() for _ in range(5))
    for b in batches:
        q, implied, log_policy = shaped_fixed_point(b)
        stepped = itrpo_vi(b.mdp, b.behavior, b.alpha, b.tau, 1, initial_q=q)
        residual.add(b, _table_max(stepped.q_values[1:] - q) / (_table_max(q[None]) + b.alpha))
        policy_residual.add(b, _table_max(stepped.policies - np.exp(log_policy)), _logit_size(b, stepped))
        same = brac_vi(b.mdp, b.behavior, b.alpha * (1 - b.tau), 1, initial_q=implied)
        brac.add(b, _table_max(same.policies - np.exp(log_policy)), _logit_size(b, stepped))
        weaker, stronger = (
            soft_optimum(b.mdp, b.behavior, b.alpha * (1 - b.tau)),
            soft_optimum(b.mdp, b.behavior, b.alpha),
        )
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
    ratio, update, gaps, value = (_Tally() for _ in range(4))
    for b in batches:
        run = itrpo_vi(b.mdp, b.behavior, b.alpha, b.tau, 40, initial_q=b.initial_q)
        scale = _table_max(run.q_values) + b.alpha
        log_behavior = np.log(b.behavior)
        temperature = expand(b.alpha)
        q = run.q_values[:-1]
        v = temperature[..., 0] * log_sum_exp(q / temperature + log_behavior)
        advantage = q - v[..., None]
        ratio.add(b, _table_max(temperature * (run.log_policies - log_behavior) - advantage) / scale)
        stepped = b.mdp.reward + expand(b.tau) * advantage + backup(b.mdp, v)
        update.add(b, _table_max(stepped - run.q_values[1:]) / scale)
        fixed, implied, _ = shaped_fixed_point(b)
        gap, implied_gap = fixed[..., :1] - fixed, implied[..., :1] - implied
        grown = expand(1 - b.tau) * gap - implied_gap
        gaps.add(b, _table_max(grown[None]) / (_table_max(implied[None]) + b.alpha))
        soft_value = temperature[..., 0] * log_sum_exp(fixed / temperature + log_behavior)
        best = soft_optimum(b.mdp, b.behavior, b.alpha * (1 - b.tau)).v
        value.add(b, np.abs(soft_value - best).max(-1) / (_table_max(fixed[None]) + b.alpha))
    return [
        ratio.row("alpha log(pi_{k+1}/pi_beta) = Q_k - V_k at the exact actor", "residual", ROUNDING),
        update.row("Eq. 5 is Q_{k+1} = r + tau (Q_k - V_k) + gamma P V_k", "residual", ROUNDING),
        gaps.row("action gaps at the fixed point are 1/(1-tau) times BRAC(lambda)'s", "residual", ROUNDING),
        value.row("with the same state values", "residual", ROUNDING),
    ]


STATEMENTS: tuple[Statement, ...] = (
    Statement("definition1", "the KL-entropy-regularised operator and its greedy policy", check_definition1),
    Statement("theorem1", "shaping the reward is a trust region: Eq. 5 equals the two-KL scheme", check_theorem1),
    Statement("lemma1", "the scheme averages Q' and solves an entropy-regularised MDP", check_lemma1),
    Statement("table1", "the regularisers that BRAC, Munchausen VI and iTRPO imply, identified from their runs",
              check_table1),
    Statement("corollary1", "the lower bound on the return, and how much of its constant is needed", check_corollary1),
    Statement("assumption1", "concentrability c(t) computed exactly, and what it leaves out", check_assumption1),
    Statement("theorem2", "the error bound as printed and corrected, against the exact gap", check_theorem2),
    Statement("error_averaging", "what the moving average E_k does to single, independent and constant errors",
              check_error_averaging),
    Statement("fixed_point", "iTRPO(alpha, tau) and BRAC(alpha(1-tau)) share their fixed point", check_fixed_point),
    Statement("advantage_learning", "the shaping is advantage learning: action gaps grow by 1/(1-tau)",
              check_advantage_learning),
)  # fmt: skip
