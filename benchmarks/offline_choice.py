"""What choosing a policy from logged data alone is worth: policies whose returns are known, judged without them.

    python benchmarks/offline_choice.py judge --snapshots DIR --out runs/choice    # truth, then judgements; resumes
    python benchmarks/offline_choice.py peer --snapshots DIR --out runs/choice --python PEER/bin/python    # resumes
    python benchmarks/offline_choice.py table --out runs/choice > benchmarks/results/offline_choice.md

Pools: `ladder`, the package's own acting policies of an environment, and `snapshots`, files ENV_NAME.npz of DIR with
the SAC policies that came with D4RL and deep_ope (W0, b0, W1, b1, W_mu, b_mu, W_logstd, b_logstd; Apache-2.0, not in
this project). True returns are played in gymnasium's -v4 from seeded starts. Rows are written as they come, and what
is there is not measured again. Definitions are at the functions below and in the table.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from itrpo import files, xla
from itrpo.collection.ladders import ladder, policy_path
from itrpo.collection.rollout import LOG_STD_RANGE, ActingPolicy, Simulators, act, load_acting_policy
from itrpo.data.load import load_dataset
from itrpo.ope import bootstrap, fqe
from itrpo.ope.behavior import EDGE, fit_behavior
from itrpo.ope.choose import rank
from itrpo.ope.estimate import Candidate, JudgeOptions, judge_candidates
from itrpo.ope.fqe import FQE
from itrpo.ope.log import Log, make_log
from itrpo.ope.trials import Rule, advise
from itrpo.types import Dataset, Transition

GAMMA = 0.99
EPISODES = 20  # of each policy, of the mode and as many of sampled actions
ENVIRONMENTS = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4"}
# dataset -> episodes that are judged on; pi_beta is fitted on as many others. About 120,000 rows each
DATASETS = {"hopper-full-replay-itrpo1": 400, "halfcheetah-full-replay-itrpo1": 120, "hopper-medium-itrpo1": 250}
KINDS = ("mode", "sampled")  # how a policy acts
POOLS = ("snapshots", "ladder")
FQE_STEPS = 4_000
SETTINGS = JudgeOptions(folds=6, fqe=FQE(steps=FQE_STEPS))
PEER_WORKER = Path(__file__).with_name("d3rlpy_fqe_worker.py")
SAMPLES = 2  # of a policy's actions at each state
LONG = 20_000  # steps of d3rlpy's FQE on one pool


class Known(NamedTuple):
    """A policy; the place in its pool is the order of training, weaker and unrelated ones first."""

    name: str
    acting: ActingPolicy


@dataclass(frozen=True)
class Judge:
    snapshots: Path
    out: Path
    datasets: tuple[str, ...] = tuple(DATASETS)  # or files ENV_NAME.hdf5, judged on half of their episodes


@dataclass(frozen=True)
class Peer:
    snapshots: Path
    out: Path
    python: Path
    datasets: tuple[str, ...] = tuple(DATASETS)
    pools: tuple[str, ...] = POOLS
    steps: int = FQE_STEPS  # of d3rlpy's FQE


@dataclass(frozen=True)
class Table:
    out: Path


# --- policies ------------------------------------------------------------------------------------------------------


def pool_of(pool: str, environment: str, snapshots: Path) -> list[Known]:
    if pool == "ladder":
        rungs = ladder(ENVIRONMENTS[environment])
        return [Known(it.policy, load_acting_policy(policy_path(it.policy))) for it in rungs]
    paths = snapshots.glob(f"{environment}_*.npz")
    return [Known(it.stem, read_snapshot(it)) for it in sorted(paths, key=by_training)]


def by_training(path: Path) -> tuple[bool, str]:
    """Unrelated policies first, as if they were the youngest."""
    return "_ood" not in path.stem, path.stem


def read_snapshot(path: Path) -> ActingPolicy:
    with np.load(path) as file:
        given = {name: file[name] for name in file.files if name != "meta"}
    return ActingPolicy(
        ((given["W0"], given["b0"]), (given["W1"], given["b1"])),
        (given["W_mu"], given["b_mu"]),
        (given["W_logstd"], given["b_logstd"]),
    )


def heads(policy: ActingPolicy, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log-deviation before tanh, [N, A]."""
    hidden = observation
    for weight, bias in policy.hidden:
        hidden = np.maximum(hidden @ weight + bias, 0)
    mean, log_std = (hidden @ weight + bias for weight, bias in (policy.mean, policy.log_std))
    return mean, np.clip(log_std, *LOG_STD_RANGE)


def log_density(policy: ActingPolicy, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[N], with actions clipped as the model of pi_beta clips them."""
    mean, log_std = (it.astype(np.float64) for it in heads(policy, observation))
    u = np.arctanh(np.clip(action.astype(np.float64), -1 + EDGE, 1 - EDGE))
    normal = -0.5 * ((u - mean) * np.exp(-log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    return (normal - np.log(1 - np.tanh(u) ** 2)).sum(axis=1)


def sampled(policy: ActingPolicy, observation: np.ndarray, seed: int) -> np.ndarray:
    """[N, SAMPLES, A]"""
    mean, log_std = heads(policy, observation)
    noise = np.random.default_rng(seed).standard_normal((len(mean), SAMPLES, mean.shape[1]), dtype=np.float32)
    return np.tanh(mean[:, None] + np.exp(log_std)[:, None] * noise)


# --- truth ---------------------------------------------------------------------------------------------------------


def returns(simulators: Simulators, policy: ActingPolicy, noisy: bool) -> tuple[np.ndarray, np.ndarray]:
    """Undiscounted and discounted returns [B] of one episode in each environment, as benchmarks/ladder_returns.py."""
    count = len(simulators.envs)
    rng = np.random.default_rng(0)
    for slot in range(count):
        simulators.reset(slot, seed=1_000 + slot)
    totals, discounted, active = np.zeros(count), np.zeros(count), np.arange(count)
    for step in range(simulators.time_limit):
        noise = rng.standard_normal((count, simulators.envs[0].action_space.shape[0]), dtype=np.float32)[active]
        actions, _ = act(policy, simulators.observe(active), noise if noisy else 0 * noise)
        rewards, terminals = simulators.step(active, actions)
        totals[active] += rewards
        discounted[active] += GAMMA**step * rewards
        active = active[~terminals]
        if not len(active):
            break
    return totals, discounted


def measure_truth(environment: str, pool: str, policies: list[Known], path: Path) -> None:
    done, simulators = {it["policy"] for it in read_lines(path)}, None
    for it in policies:
        if it.name in done:
            continue
        simulators = simulators or Simulators(ENVIRONMENTS[environment], EPISODES)
        row: dict[str, Any] = {"environment": environment, "pool": pool, "policy": it.name}
        for kind in KINDS:
            total, discounted = returns(simulators, it.acting, kind == "sampled")
            row[kind] = {"return": total.round(2).tolist(), "discounted": discounted.round(3).tolist()}
        files.append(path, files.json_line(row))
        print(pool, it.name, *(f"{kind} {np.mean(row[kind]['return']):.0f}" for kind in KINDS), flush=True)


# --- judging -------------------------------------------------------------------------------------------------------


def episodes_of(dataset: Dataset, chosen: np.ndarray) -> Log:
    starts = np.asarray(dataset.starts)
    lengths = np.diff(starts, append=len(dataset))[chosen]
    rows = np.concatenate(
        [np.arange(first, first + length) for first, length in zip(starts[chosen], lengths, strict=True)]
    )
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return make_log(Transition(*(np.asarray(it)[rows] for it in dataset.transitions)), begins)


def halves(name: str) -> tuple[Log, Log]:
    """Episodes to judge on, and as many others to fit pi_beta on, drawn from a fixed seed."""
    dataset = load_dataset(name)
    order = np.random.default_rng(0).permutation(len(np.asarray(dataset.starts)))
    count = DATASETS.get(name, len(order) // 2)
    return episodes_of(dataset, np.sort(order[:count])), episodes_of(dataset, np.sort(order[count : 2 * count]))


def candidate(place: int, it: Known, log: Log) -> Candidate:
    observation, end = log.rows.observation, log.rows.next_observation[log.ends]
    action, last = (np.tanh(heads(it.acting, rows)[0]) for rows in (observation, end))
    return Candidate(
        it.name,
        action,
        last,
        log_density(it.acting, observation, log.rows.action),
        sampled(it.acting, observation, place),
        sampled(it.acting, end, place + 1_000),
    )


def judge_pool(name: str, pool: str, policies: list[Known], log: Log, other: Log, path: Path) -> None:
    started = time.monotonic()
    behavior = fit_behavior(other.rows)
    candidates = [candidate(place, it, log) for place, it in enumerate(policies)]
    known = other.rows.observation, other.rows.action
    judged, reasons = judge_candidates(log, candidates, GAMMA, behavior, known, SETTINGS)
    noisy = fit_sampled(log, candidates)
    for it, value in zip(judged, [*noisy, None], strict=True):
        row: dict[str, Any] = {"dataset": name, "pool": pool, "policy": it.name}
        kept = {one.estimator: one.folds[: SETTINGS.folds] for one in it.estimates}
        row["estimates"] = {name: [round(fold, 3) for fold in folds] for name, folds in kept.items()}
        if value is not None:
            row["estimates"]["fqe_sampled"] = [round(float(value), 3)]
        row |= {"missing": it.missing, "sample_size": it.sample_size, "mean_weight": it.mean_weight}
        row |= {"reasons": [str(one) for one in (*it.reasons, *it.estimates[0].reasons)]}
        row |= {"of_all": [*map(str, reasons)]}
        if it.support is not None:
            row["support"] = {"unlikely": it.support.unlikely, "far": it.support.far, "outside": it.support.outside}
        files.append(path, files.json_line(row))
    episodes, rows, seconds = len(log.starts), len(log.rows.reward), time.monotonic() - started
    undiscounted = float(np.add.reduceat(log.rows.reward, log.starts, dtype=np.float64).mean())
    about = {"dataset": name, "pool": pool, "policy": None, "episodes": episodes, "rows": rows, "seconds": seconds}
    files.append(path, files.json_line(about | {"log_return": undiscounted}))
    print(f"{name} {pool}: {len(policies)} policies, {rows:,} rows, {seconds:.0f} s", flush=True)


def fit_sampled(log: Log, candidates: list[Candidate]) -> np.ndarray:
    """[P]: fitted Q with sampled actions at s' and at the start."""
    after, first = [], []
    for it in candidates:
        assert it.samples is not None
        assert it.last_samples is not None
        rows = np.empty_like(it.samples)
        rows[:-1], rows[log.ends] = it.samples[1:], it.last_samples
        after.append(rows)
        first.append(it.samples[log.starts])
    weights = bootstrap.fold_weights(len(log.starts), 1)
    return fqe.fit(log, np.stack(after), np.stack(first), GAMMA, weights, SETTINGS.fqe).value[:, 0]


def judge(command: Judge) -> None:
    xla.prepare()
    truth, judged = command.out / "truth.jsonl", command.out / "judged.jsonl"
    for environment in ENVIRONMENTS:
        for pool in POOLS:
            measure_truth(environment, pool, pool_of(pool, environment, command.snapshots), truth)
    for dataset in command.datasets:
        name, halved = Path(dataset).stem, None
        for pool in POOLS:
            if any((it["dataset"], it["pool"], it["policy"]) == (name, pool, None) for it in read_lines(judged)):
                continue
            halved = halved or halves(dataset)
            judge_pool(name, pool, pool_of(pool, environment_of(name), command.snapshots), *halved, judged)


def environment_of(name: str) -> str:
    return name.replace("_", "-").split("-")[0]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# --- peers -------------------------------------------------------------------------------------------------------


def peer(command: Peer) -> None:
    """The pools by d3rlpy's FQE and SCOPE-RL on the same rows, in an environment of their own: with as many gradient
    steps, and with our model of pi_beta for the densities.
    """
    xla.prepare()
    for dataset in command.datasets:
        name = Path(dataset).stem
        rows = command.out / f"{name}.npz"
        if not rows.exists():
            write_rows(dataset, rows)
        for pool in command.pools:
            peer_of_pool(command, name, pool, rows)


def write_rows(name: str, path: Path) -> None:
    log, other = halves(name)
    ends = np.zeros(len(log.rows.reward), bool)
    ends[log.ends] = True
    columns = {"observations": log.rows.observation, "actions": log.rows.action, "rewards": log.rows.reward}
    columns["log_density"] = fit_behavior(other.rows).log_prob(log.rows.observation, log.rows.action)
    part = path.with_suffix(".part.npz")
    np.savez(part, **columns, terminals=log.rows.continues == 0, timeouts=ends & (log.rows.continues != 0))
    part.replace(path)


def peer_of_pool(command: Peer, name: str, pool: str, rows: Path) -> None:
    path, given = command.out / "peer.jsonl", command.out / f"{name}-{pool}-policy.npz"
    done = {(it["dataset"], it["pool"], it["policy"], it["steps"]) for it in read_lines(path)}
    for it in pool_of(pool, environment_of(name), command.snapshots):
        if (name, pool, it.name, command.steps) in done:
            continue
        layers = [*it.acting.hidden, it.acting.mean, it.acting.log_std]
        np.savez(
            given,
            allow_pickle=False,
            **{f"{part}{at}": own for at, layer in enumerate(layers) for part, own in zip("wb", layer, strict=True)},
        )
        words = [str(command.python), str(PEER_WORKER), str(rows), str(given), str(command.steps), str(GAMMA)]
        answer = json.loads(
            subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        )
        about = {"dataset": name, "pool": pool, "policy": it.name, "steps": command.steps}
        files.append(path, files.json_line(about | answer))
        print(it.name, answer, flush=True)


# --- the table -----------------------------------------------------------------------------------------------------


class Pool(NamedTuple):
    """Of P policies on one dataset."""

    truth: dict[str, np.ndarray]  # kind -> returns [P, EPISODES], undiscounted
    discounted: dict[str, np.ndarray]
    score: dict[str, np.ndarray]  # method -> what it ranks by, [P, folds]; -inf where it has none
    log_return: float  # J(pi_b)
    about: dict[str, Any]


METHODS = {
    "fqe": "fitted Q (what `itrpo select` ranks by)",
    "fqe_low": "fitted Q, the least of its bootstraps",
    "fqe_sampled": "fitted Q of sampled actions",
    "wdr": "weighted doubly robust",
    "dr": "doubly robust",
    "wpdis": "importance sampling, self-normalised",
    "pdis": "importance sampling",
    "d3rlpy": "d3rlpy's FQE",
    "d3rlpy_long": f"d3rlpy's FQE, {LONG:,} steps",
    "scope_pdis": "SCOPE-RL's self-normalised importance sampling",
    "scope_dr": "SCOPE-RL's self-normalised doubly robust",
    "near": "nearest to the data",
    "last": "longest trained",
    "random": "at random",
}
SAMPLED = ("fqe_sampled", "wdr", "dr", "wpdis", "pdis")  # judge the policy as it samples; the others its mode
PEERS = {  # steps of d3rlpy's FQE, and the name in their rows
    "d3rlpy": (SETTINGS.fqe.steps, "value"),
    "d3rlpy_long": (LONG, "value"),
    "scope_pdis": (SETTINGS.fqe.steps, "scope_pdis"),
    "scope_dr": (SETTINGS.fqe.steps, "scope_dr"),
}
VALUES = (*SAMPLED, "fqe", "fqe_low", *PEERS)  # estimates of a value, whose error can be told
REPETITIONS = 2_000


def read_pools(out: Path) -> dict[tuple[str, str], Pool]:
    truth = {(it["environment"], it["policy"]): it for it in read_lines(out / "truth.jsonl")}
    judged, peers = read_lines(out / "judged.jsonl"), read_lines(out / "peer.jsonl")
    found: dict[tuple[str, str], Pool] = {}
    for about in (it for it in judged if it["policy"] is None):
        name, pool = about["dataset"], about["pool"]
        rows = [
            it for it in judged if (it["dataset"], it["pool"]) == (name, pool) and it["policy"] not in (None, "log")
        ]
        true = [truth[environment_of(name), it["policy"]] for it in rows]
        score = dict[str, np.ndarray]()
        for method in ("fqe", *SAMPLED):
            length = 1 if method == "fqe_sampled" else SETTINGS.folds
            nothing = [-np.inf] * length
            score[method] = np.array([it["estimates"].get(method, nothing) for it in rows])
        score["fqe_low"] = score["fqe"].min(axis=1, keepdims=True)
        score["near"] = -np.array([[it["support"]["far"]] for it in rows])
        score["last"] = np.arange(len(rows), dtype=float)[:, None]
        theirs = {(it["policy"], it["steps"]): it for it in peers if (it["dataset"], it["pool"]) == (name, pool)}
        for method, (steps, key) in PEERS.items():
            if all((it["policy"], steps) in theirs for it in rows):
                found_by = [theirs[it["policy"], steps].get(key) for it in rows]
                score[method] = np.array([[-np.inf if it is None else it] for it in found_by])
        undiscounted, discounted = (
            {kind: np.array([it[kind][which] for it in true]) for kind in KINDS} for which in ("return", "discounted")
        )
        found[name, pool] = Pool(undiscounted, discounted, score, about["log_return"], about)
    return found


def spearman(truth: np.ndarray, score: np.ndarray) -> float:
    """Pearson's correlation of ranks, equal ones with their mean rank; 0 where one is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(it) for it in (truth, score)]
    if min(it.std() for it in ranks) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def first(score: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-score, kind="stable")[:k]


def regret(truth: np.ndarray, score: np.ndarray, k: int) -> float:
    """(best of all - best of the k that are ranked first) / (best - worst of all): 0 is the best, 1 the worst."""
    return float((truth.max() - truth[first(score, k)].max()) / max(np.ptp(truth), 1e-12))


def sharpe_ratio(truth: np.ndarray, score: np.ndarray, k: int, base: float) -> float:
    """(best of the k that are ranked first and pi_b - pi_b) / deviation of the k: SharpeRatio@k of arXiv:2311.18207,
    where pi_b, which returns `base`, can always be gone back to.
    """
    chosen = truth[first(score, k)]
    return float(max(chosen.max() - base, 0.0) / max(chosen.std(), 1e-12))


def figures(truth: np.ndarray, score: np.ndarray, base: float) -> np.ndarray:
    """truth, score: [P]"""
    return np.array(
        [spearman(truth, score), regret(truth, score, 1), regret(truth, score, 3), sharpe_ratio(truth, score, 3, base)]
    )


def measured(pool: Pool, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Figures [4], and [REPETITIONS, 4] of resampled policies, each with a fold of the estimates drawn at random."""
    generator = np.random.default_rng(0)
    truth = pool.truth["sampled" if method in SAMPLED else "mode"].mean(axis=1)
    count = len(truth)
    if method == "random":
        drawn = np.stack([figures(truth, generator.random(count), pool.log_return) for _ in range(REPETITIONS)])
        return drawn.mean(axis=0), drawn
    score = pool.score[method]
    resampled = np.empty((REPETITIONS, 4))
    for repetition in range(REPETITIONS):
        some, fold = generator.integers(count, size=count), generator.integers(score.shape[1])
        resampled[repetition] = figures(truth[some], score[some, fold], pool.log_return)
    return figures(truth, score[:, 0], pool.log_return), resampled


def estimated(pool: Pool, method: str) -> bool:
    """Whether there is anything to rank by."""
    return method == "random" or (method in pool.score and bool(np.isfinite(pool.score[method][:, 0]).any()))


def error(pool: Pool, method: str) -> tuple[float, int]:
    """Mean absolute error of the discounted return, over the policies that have an estimate, and how many have none."""
    if method not in VALUES:
        return np.nan, 0
    value = pool.score[method][:, 0]
    truth = pool.discounted["sampled" if method in SAMPLED else "mode"].mean(axis=1)
    known = np.isfinite(value)
    return (float(np.abs(value - truth)[known].mean()) if known.any() else np.nan), int((~known).sum())


def cell(value: float, resampled: np.ndarray, interval: bool) -> str:
    if value > 1e3:
        return "> 1,000"
    low, high = np.quantile(resampled, (0.025, 0.975))
    return f"{value:.2f} ({low:.2f} to {high:.2f})" if interval else f"{value:.2f}"


def apart(pool: Pool, episodes: int) -> dict[str, float]:
    """What `itrpo select` says of a pool by fitted Q, and whether it is so."""
    folds, truth = pool.score["fqe"], pool.truth["mode"].mean(axis=1)
    pairs = [(i, j) for i in range(len(truth)) for j in range(len(truth)) if folds[i, 0] > folds[j, 0]]
    told = [(i, j) for i, j in pairs if bootstrap.interval(folds[i] - folds[j], episodes).low > 0]
    ranked = rank(folds, episodes, [True] * len(folds))
    leading = [it.place for it in ranked if it.group == 0]
    size = np.ptp(truth)
    return {
        "pairs": len(pairs),
        "told": len(told),
        "right": sum(truth[i] > truth[j] for i, j in told),
        "right_of_all": sum(truth[i] > truth[j] for i, j in pairs),
        "leading": len(leading),
        "groups": ranked[-1].group + 1,
        "best_in": float((truth.max() - truth[leading].max()) / size),
        "average_in": float((truth.max() - truth[leading].mean()) / size),
    }


# --- a user who can try a few --------------------------------------------------------------------------------------

LOOKS = (1, 3, 5, 10, 20, 50, 100, 200)  # trials after which the pick is looked at
USERS = 50


def user(returns: np.ndarray, order: np.ndarray, rule: Rule, seed: int) -> tuple[np.ndarray, int, float]:
    """Plays single episodes, drawn from `returns` [P, EPISODES], as `advise` says.

    -> normalised regret of the best mean after each of LOOKS trials, the trial after which it said stop (0: it never
    did), and by how much the pick was then worse than the best, in parts of what was worth no more trials.
    """
    generator, own = np.random.default_rng(seed), [list[float]() for _ in order]
    means, looks, stopped, excess = returns.mean(axis=1), list[float](), 0, 0.0
    for trial in range(LOOKS[-1] + 1):
        advice = advise(own, rule)
        if trial in LOOKS:
            assert advice.best is not None
            looks.append(float((means.max() - means[order[advice.best]]) / np.ptp(means)))
        following = advice.following
        if following is None:
            assert advice.best is not None
            if not stopped:
                stopped, excess = (
                    trial,
                    float((means[order].max() - means[order[advice.best]]) / max(advice.worth, 1e-12)),
                )
            following = advice.best
        own[following].append(float(generator.choice(returns[order[following]])))
    return np.array(looks), stopped, excess


def users(pool: Pool, ranked: bool, rule: Rule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of USERS users: regrets [USERS, LOOKS], when they were told to stop, and the excess at that."""
    returns, found = pool.truth["mode"], list[tuple[np.ndarray, int, float]]()
    for seed in range(USERS):
        order = (
            first(pool.score["fqe"][:, 0], len(returns))
            if ranked
            else np.random.default_rng(seed).permutation(len(returns))
        )
        found.append(user(returns, order[: rule.keep], rule, seed))
    looks, stopped, excess = zip(*found, strict=True)
    return np.stack(looks), np.array(stopped), np.array(excess)


WAYS = {
    "in the order of fitted Q": (True, Rule()),
    "in random order": (False, Rule()),
    "only the first 5 of fitted Q": (True, Rule(keep=5)),
}


ABOUT = """Spearman: rank correlation with the true returns. regret@k: what the best of the first k lacks of the best of
all, as a share of the range of returns. SharpeRatio@k: by how much the best of the first k beats the log, per
deviation of the k (arXiv:2311.18207). error: mean absolute error of the discounted return, as a share of its mean or in
its own units. In brackets: 95% over resampled policies and folds. Without: policies that had no estimate. Trials:
regret after so many, of the policy whose mean is the best so far.
"""


def table(command: Table) -> None:
    pools = read_pools(command.out)
    print_figures(pools)
    print_apart(pools)
    print_trials(pools)


HEAD = "| ranked by | Spearman | regret@1 | regret@3 | SharpeRatio@3 | error | without |\n|" + " --- |" * 7
Measured = dict[str, tuple[np.ndarray, np.ndarray]]  # by method: figures, and those of resampled policies


def print_means(title: str, pools: dict[tuple[str, str], Pool], found: dict[tuple[str, str], Measured]) -> None:
    """Of the methods that have an estimate in every pool."""
    print(f"## {title}\n\n{HEAD}")
    for method, name in METHODS.items():
        own = [found[key][method] for key in pools if method in found[key]]
        if len(own) == len(pools):
            means, resampled = np.mean([it[0] for it in own], axis=0), np.mean([it[1] for it in own], axis=0)
            parts = [error(it, method)[0] / np.abs(it.discounted["mode"].mean()) for it in pools.values()]
            cells = [cell(means[at], resampled[:, at], at < 3) for at in range(4)]
            wrong = "" if method not in VALUES else f"{np.nanmean(parts):.0%}"
            print(f"| {name} | {' | '.join(cells)} | {wrong} | |")
    print()


def print_figures(pools: dict[tuple[str, str], Pool]) -> None:
    print("# What offline choice is worth, measured\n")
    print("`python benchmarks/offline_choice.py judge`, `peer` (d3rlpy, SCOPE-RL) and `table` wrote this page.\n")
    print(ABOUT)
    found = {
        key: {method: measured(it, method) for method in METHODS if estimated(it, method)} for key, it in pools.items()
    }
    print_means(f"Mean of all {len(pools)}", pools, found)
    peers = {key: it for key, it in pools.items() if "d3rlpy" in it.score}
    if 0 < len(peers) < len(pools):
        print_means(f"Mean of the {len(peers)} that d3rlpy judged as well", peers, found)
    for key, pool in pools.items():
        about, discounted = pool.about, pool.discounted["mode"].mean(axis=1)
        total = pool.truth["mode"].mean(axis=1)
        print(f"## {' of '.join(reversed(key))}\n")
        print(
            f"{len(total)} policies with returns of {total.min():,.0f} to {total.max():,.0f} (discounted"
            f" {discounted.min():,.1f} to {discounted.max():,.1f}); the log returns {pool.log_return:,.0f}."
            f" {about['episodes']} episodes, {about['rows']:,} rows, {about['seconds']:.0f} s.\n\n{HEAD}"
        )
        for method, (value, resampled) in found[key].items():
            wrong, without = error(pool, method)
            cells = [cell(value[at], resampled[:, at], at < 2) for at in range(4)]
            said = "" if np.isnan(wrong) else f"{wrong:,.1f}"
            print(f"| {METHODS[method]} | {' | '.join(cells)} | {said} | {without or ''} |")
        if nothing := [METHODS[method] for method in pool.score if not estimated(pool, method)]:
            print(f"\nNo estimate for any policy: {', '.join(nothing)}.")
        print()


def print_apart(pools: dict[tuple[str, str], Pool]) -> None:
    print("## What `itrpo select` tells apart\n")
    print("| pool | pairs | told apart | of these right | of all right | first group | best's regret | mean regret |")
    print("|" + " --- |" * 8)
    for key, pool in pools.items():
        it = apart(pool, pool.about["episodes"])
        right = f"{it['right'] / it['told']:.0%}" if it["told"] else ""
        print(
            f"| {', '.join(key)} | {it['pairs']} | {it['told'] / it['pairs']:.0%} | {right} |"
            f" {it['right_of_all'] / it['pairs']:.0%} | {it['leading']} of {len(pool.truth['mode'])} |"
            f" {it['best_in']:.2f} | {it['average_in']:.2f} |"
        )


def print_trials(pools: dict[tuple[str, str], Pool]) -> None:
    print("\n## A few real trials\n")
    print("| pool | first round | " + " | ".join(f"{it}" for it in LOOKS) + " | told to stop | after | then wrong |")
    print("|" + " --- |" * (len(LOOKS) + 5))
    for key, pool in pools.items():
        for way, (ranked, rule) in WAYS.items():
            looks, stopped, excess = users(pool, ranked, rule)
            told = stopped > 0
            after = f"{np.median(stopped[told]):.0f}" if told.any() else ""
            wrong = f"{(excess[told] > 1).mean():.0%}" if told.any() else ""
            cells = " | ".join(f"{it:.2f}" for it in looks.mean(axis=0))
            print(f"| {', '.join(key)} | {way} | {cells} | {told.mean():.0%} | {after} | {wrong} |", flush=True)


if __name__ == "__main__":
    command = tyro.cli(Judge | Peer | Table)
    if isinstance(command, Judge):
        judge(command)
    elif isinstance(command, Peer):
        peer(command)
    else:
        table(command)
