"""What changed over updates: snapshots on fixed rows, LAG updates apart, and the probes computed from them.

Every evaluation is preceded by up to LAGS + 1 snapshots (`types.Snapshot`), the last one at its own step. LAG and LAGS
are the same for all runs, whatever their `eval_every`, so that runs can be compared. 100 updates are about one
iteration of the paper's scheme: targets that follow by 0.005 (0.03) per update have moved by 39 % (95 %) of their way;
1,000 updates are some ten of them. Snapshots cut training into blocks, which changes no bit of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from itrpo.ops import choices
from itrpo.ops.divergences import normal_kl
from itrpo.types import Algorithm, DiscreteSnapshot, Metrics, Snapshot, Transition

LAG = 100  # updates
LAGS = 10
ROWS = 256  # fixed rows of the dataset

# the policy: mean and log_std [B, A] before the tanh, or log probabilities [B, n] of choices
Moments = tuple[Float[Array, "B A"], Float[Array, "B A"]] | tuple[Float[Array, "B n"]]


class Watched(NamedTuple):
    """Of one seed. A checkpoint holds it, so that a resumed run measures the same."""

    recent: Snapshot | DiscreteSnapshot  # the newest LAGS + 1, [LAGS + 1, B, ...], oldest first
    evaluated: Moments  # at the last evaluation; before the first one, at the start


def begin(algorithm: Algorithm, state: Any, rows: Transition, key: Key[Array, ""]) -> Watched | tuple[()]:
    """Before the first step. Empty if the algorithm is not watched."""
    if algorithm.watch is None:
        return ()
    first = algorithm.watch(state, rows, key)
    recent = jax.tree.map(lambda it: jnp.broadcast_to(it, (LAGS + 1, *it.shape)), first)
    return Watched(recent, policy_in(first))


def policy_in(snapshot: Snapshot | DiscreteSnapshot) -> Moments:
    if isinstance(snapshot, DiscreteSnapshot):
        return (snapshot.log_probs,)
    return snapshot.mean, snapshot.log_std


def policy_kl(new: Moments, old: Moments) -> Float[Array, "*rows"]:
    """D_KL[new || old] at each row."""
    return choices.kl(*new, *old) if len(new) == 1 else normal_kl(*new, *old)


def look(algorithm: Algorithm, watched: Watched, state: Any, rows: Transition, key: Key[Array, ""]) -> Watched:
    """With one snapshot more, in place of the oldest."""
    assert algorithm.watch is not None
    newest = algorithm.watch(state, rows, key)
    return watched._replace(
        recent=jax.tree.map(lambda old, it: jnp.append(old[1:], it[None], 0), watched.recent, newest)
    )


def steps(begun: int, stop: int) -> list[int]:
    """When to look, on the way from one evaluation to the next."""
    return [step for step in range(stop - LAGS * LAG, stop + 1, LAG) if step > begun]


def measure(watched: Watched, lags: Int[Array, ""]) -> tuple[Watched, Metrics]:
    """At an evaluation, `lags` of whose lags have passed since the last one: -> what to go on with, the probes.

    KLs are in closed form, means over rows. A fluctuation is the root mean square, over rows and three successive
    snapshots, of (x_1 - 2 x_2 + x_3) / sqrt(6): the standard deviation over updates of what is independent between
    snapshots, and 0 for what rises evenly, as values do while they are learned.
    """
    recent = watched.recent
    newest, oldest = (jax.tree.map(lambda it, at=at: it[at], recent) for at in (-1, 0))
    moments, all_of = policy_in(newest), policy_in(recent)
    since_evaluation = policy_kl(moments, watched.evaluated)
    since_oldest = policy_kl(moments, policy_in(oldest))
    following, before = (jax.tree.map(lambda it, at=at: it[at], all_of) for at in (slice(1, None), slice(-1)))
    kl = policy_kl(following, before)  # [LAGS, B]

    def of_newest(values: Float[Array, "n"], number: Array) -> Float[Array, ""]:
        counted = jnp.arange(len(values)) >= len(values) - number
        return jnp.sum(jnp.where(counted, values, 0.0)) / jnp.maximum(number, 1)

    def fluctuation(values: Float[Array, "moments B"]) -> Float[Array, ""]:
        return jnp.sqrt(of_newest(jnp.mean(jnp.square(jnp.diff(values, 2, axis=0)), axis=1) / 6.0, lags - 1))

    return watched._replace(evaluated=moments), {
        "probe_kl_evaluations": jnp.mean(since_evaluation),
        "probe_kl_evaluations_max": jnp.max(since_evaluation),
        "probe_kl_100": of_newest(jnp.mean(kl, axis=1), lags),
        "probe_kl_100_max": of_newest(jnp.max(kl, axis=1), lags),
        "probe_target_fluctuation": fluctuation(recent.target),
        "probe_implicit_q_fluctuation": fluctuation(recent.implicit_q),
        "probe_kl_1000": jnp.mean(since_oldest),
        "probe_error": jnp.sqrt(jnp.mean(jnp.square(recent.error))),
        "probe_error_average": jnp.sqrt(jnp.mean(jnp.square(jnp.mean(recent.error, axis=0)))),
    }


# how many lags must have passed since the last evaluation
NEEDED = {
    "probe_kl_evaluations": 0,
    "probe_kl_evaluations_max": 0,
    "probe_kl_100": 1,
    "probe_kl_100_max": 1,
    "probe_target_fluctuation": 2,
    "probe_implicit_q_fluctuation": 2,
    "probe_kl_1000": LAGS,
    "probe_error": LAGS,
    "probe_error_average": LAGS,
}


def measured(probes: Metrics, lags: int) -> Metrics:
    """Those that mean something where evaluations are `lags` lags apart."""
    return {name: value for name, value in probes.items() if lags >= NEEDED[name]}


def lags_since(begun: int, stop: int) -> int:
    return min((stop - begun) // LAG, LAGS)
