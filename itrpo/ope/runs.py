"""`itrpo judge`: the policies of runs on episodes that the runs have not seen."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from itrpo import xla
from itrpo.config import checked, checked_options, to_json
from itrpo.console import make_console, say
from itrpo.data.again import load_again, source_again
from itrpo.data.holdout import of_rows
from itrpo.errors import InputError, StorageError
from itrpo.ope import judgement, page
from itrpo.ope.behavior import EDGE, fit_behavior
from itrpo.ope.estimate import Candidate, JudgeOptions, candidate, judge_candidates
from itrpo.ope.judgement import Judgement
from itrpo.ope.log import Log, begins_as, log_of, one_hot
from itrpo.ope.page import names_of
from itrpo.ope.reasons import Reason
from itrpo.policy import Policy, greedy
from itrpo.ranges import Discount
from itrpo.results.store import read_provenance
from itrpo.training.evaluate import load_policies
from itrpo.training.restore import recorded, trained_states
from itrpo.training.rows import in_pieces
from itrpo.types import Dataset, DiscreteSpec, SpaceSpec

if TYPE_CHECKING:
    from rich.console import Console

DISCOUNT = get_args(Discount)[1]
Folder = str | os.PathLike[str]  # of a run; a `Run` is one
USUAL_GAMMA = 0.99  # of an algorithm that has none, such as bc
SAMPLES = 4  # actions of a stochastic policy at each state, in the doubly robust estimates' V
BC = "BC"
KEPT = "judging.npz"  # in the first run's folder while its policies are being judged
# of a run's data, what decides which rows there are and what an action is
READ_BY = ("action_low", "action_high", "num_actions", "columns", "rules", "stack", "holdout")


class JudgedRun(NamedTuple):
    """A run, as its folder says."""

    folder: Path
    config: dict[str, Any]  # as JSON
    about: dict[str, Any]  # provenance
    policies: list[Policy]
    gamma: float


class Unseen(NamedTuple):
    """Episodes to judge on, and others."""

    dataset: Dataset  # whose rows no policy has seen
    known: Dataset | None  # what the runs were trained on; None: it can't be read
    why: str


def judge(
    folders: Sequence[Folder] | Folder,
    data: Any = None,
    options: JudgeOptions | None = None,
    *,
    gamma: float | None = None,
    again: bool = False,
    algorithm: str | None = None,
    console: Console | None = None,
) -> list[Judgement]:
    """Judges every seed's policy of some runs, and writes judgement.json into each folder.

    Runs on the same data are judged in the same folds, beside the same references. `data` is a dataset as
    `itrpo.load_dataset` takes it, with the columns and bounds of the runs: its episodes must be new to them, or it is
    the runs' own file at another place. Without it the runs must have been trained with `holdout`. What has been judged
    with the same options is read, unless `again`. `gamma` None: the discount that each run was trained with.
    `algorithm` MODULE:ENTRY: that of runs of a module of your own, which is imported for densities of their policies.
    `options` None: `JudgeOptions()`. `console` None: progress and the table go to standard output.
    Raises InputError before any long work, StorageError for a damaged policy or if the disk refuses.
    """
    console = console or make_console()
    options = checked_options(JudgeOptions() if options is None else options, JudgeOptions, "options")
    if gamma is not None and checked(gamma, float, "gamma") not in DISCOUNT:
        raise InputError(f"gamma must be {DISCOUNT}, got {gamma:g}")
    xla.prepare()
    runs = [read_run(it, gamma) for it in folders_of(folders)]
    if not runs:
        raise InputError("name the folder of at least one run to judge")
    if data is None:
        for it in runs:
            if not it.config["data"].get("holdout"):
                raise InputError(
                    f"{it.folder} was trained on all episodes of {it.config['data']['dataset']}, so none is left to"
                    " judge it by: train with --holdout 0.2, or give --data FILE with episodes that it has not seen"
                )
    groups: dict[str, list[JudgedRun]] = {}
    for it in runs:
        key = [it.about.get("dataset_sha256"), it.gamma, [it.config["data"].get(name) for name in READ_BY]]
        groups.setdefault(repr(key), []).append(it)
    found = dict[Path, Judgement]()
    for group in groups.values():
        unseen = read_unseen(group[0], data, console)
        rows = rows_hash(unseen.dataset)
        done = [None if again else judged_before(it, unseen.why, rows, options) for it in group]
        left = [it for it, before in zip(group, done, strict=True) if before is None]
        found |= {it.folder: before for it, before in zip(group, done, strict=True) if before is not None}
        if known := [str(it.folder) for it, before in zip(group, done, strict=True) if before is not None]:
            say(console, f"judged before, on the same rows: {', '.join(known)} (--again true judges anew)")
        if left:
            found |= judge_group(left, unseen, rows, options, console, algorithm)
        show(group, unseen, found, {it.folder for it in left}, console)
    return [found[it.folder] for it in runs]


def folders_of(given: Sequence[Folder] | Folder) -> list[Path]:
    """One folder stands for a list of one."""
    return [Path(it) for it in ([given] if isinstance(given, str | os.PathLike) else given)]


def read_run(folder: Path, gamma: float | None = None) -> JudgedRun:
    config = recorded(folder)["config"]
    gammas = [value for name, value in _leaves(config["algorithm_config"]) if name == "gamma"]
    about = read_provenance(folder)
    return JudgedRun(
        folder, config, about, load_policies(folder), gamma if gamma is not None else float((*gammas, USUAL_GAMMA)[0])
    )


def _leaves(values: dict[str, Any]) -> list[tuple[str, Any]]:
    return [leaf for name, it in values.items() for leaf in (_leaves(it) if isinstance(it, dict) else [(name, it)])]


# --- data ----------------------------------------------------------------------------------------------------------


def read_unseen(run: JudgedRun, data: Any, console: Console) -> Unseen:
    """Raises InputError where the episodes are none that the run has not seen."""
    own, recorded_hash = run.config["data"], run.about.get("dataset_sha256")
    share = own.get("holdout") or 0.0
    if data is None:
        dataset = load_again(source_of(run), own, share, console)
        if dataset.source.sha256 != recorded_hash:
            raise InputError(
                f"{run.folder} was trained on another version of {own['dataset']} (SHA-256 differs), so which episodes"
                " it has seen is not known; give --data FILE with the version of then, or with new episodes"
            )
    else:
        dataset = data if isinstance(data, Dataset) else load_again(data, own, 0.0, console)
        if dataset.source.sha256 != recorded_hash:
            return new_episodes(run, dataset, training_data(run, share, console))
        if not share:
            raise InputError(
                f"{run.folder} was trained on {dataset.name} itself: give --data FILE with episodes that it has not"
                " seen"
            )
        if dataset.held is None and isinstance(data, Dataset):
            raise InputError(
                f"data holds nothing out, and the episodes that {run.folder} has not seen are those that"
                f" holdout={share:g} sets aside: give what itrpo.load_dataset returns with it, whose `held` they are"
            )
        dataset = dataset if dataset.held is not None else load_again(data, own, share, console)
    assert dataset.held is not None
    return Unseen(dataset.held, dataset, f"--holdout {share:g} of {dataset.name}")


def new_episodes(run: JudgedRun, dataset: Dataset, known: Dataset | None) -> Unseen:
    """Those of another file, without any that the run was trained on. Raises InputError where too few are left."""
    if known is None or dataset.starts is None:
        return Unseen(dataset, known, dataset.name)
    log = log_of(dataset)
    seen = begins_as(log, log_of(known))
    if not seen.any():
        return Unseen(dataset, known, dataset.name)
    few = f"{seen.sum():,} of its {len(seen):,} episodes begin as ones that"
    if len(seen) - seen.sum() < 2:
        raise InputError(
            f"{dataset.name}: {few} {run.folder} was trained on; judging takes at least 2 that it has not seen"
        )
    return Unseen(
        of_rows(dataset, np.flatnonzero(~seen[log.episode])),
        known,
        f"{dataset.name}; {few} were trained on, and are left out",
    )


def source_of(run: JudgedRun) -> Any:
    """What names the data that a run was trained on. Raises InputError where nothing does."""
    found = source_again(run.about)
    if found is None:
        raise InputError(
            f"{run.folder} was trained on arrays in memory, which are gone: give --data FILE with episodes"
            " that it has not seen (in Python: data)"
        )
    return found


def training_data(run: JudgedRun, share: float, console: Console) -> Dataset | None:
    try:
        return load_again(source_of(run), run.config["data"], share, console)
    except (InputError, StorageError):
        return None


# --- policies ------------------------------------------------------------------------------------------------------


def judge_group(
    runs: Sequence[JudgedRun],
    unseen: Unseen,
    rows_sha256: str,
    options: JudgeOptions,
    console: Console,
    named: str | None = None,
) -> dict[Path, Judgement]:
    """Of runs on one dataset."""
    started, log, gamma = time.monotonic(), log_of(unseen.dataset), runs[0].gamma
    say(
        console,
        f"judging {sum(len(it.policies) for it in runs)} policies on {len(log.starts):,} episodes,"
        f" {len(log.rows.reward):,} rows ({unseen.why}), in {options.folds} folds of"
        f" {options.fqe.length(gamma):,} steps",
    )
    rows = (unseen.known or unseen.dataset).transitions
    number = unseen.dataset.num_actions
    behavior = fit_behavior(rows, options.behavior_steps, options.seed, console, number)
    candidates = [it for run in runs for it in of_run(run, log, named, behavior.edge)]
    candidates.append(candidate(BC, behavior.mode, log))
    taken = rows.action if number is None else one_hot(rows.action, number)
    known = None if unseen.known is None else (rows.observation, taken)
    names = names_of(unseen.dataset).observations
    kept = runs[0].folder / KEPT
    judged, reasons = judge_candidates(log, candidates, gamma, behavior, known, options, names, console, kept)
    if unseen.known is None:
        text = (
            "pi_beta was fitted on the judged episodes themselves, and nobody knows whether the run has seen them:"
            " its own data can't be read"
        )
        reasons += (Reason("behavior", text),)
    found, place = dict[Path, Judgement](), 0
    seconds = time.monotonic() - started
    for run in runs:
        own = judged[place : place + len(run.policies)]
        place += len(run.policies)
        found[run.folder] = Judgement(
            run=str(run.policies[0].metadata.get("run", "")),
            algorithm=run.config["algorithm"],
            dataset=unseen.dataset.name,
            step=int(run.policies[0].metadata.get("step", 0)),
            gamma=gamma,
            episodes=len(log.starts),
            rows=len(log.rows.reward),
            rows_sha256=rows_sha256,
            cut=float(log.cut.mean()),
            log_return=float(np.add.reduceat(log.rows.reward, log.starts, dtype=np.float64).mean()),
            unseen=unseen.why,
            settings=to_json(options),
            seconds=seconds,
            policies=(*own, *judged[-2:]),
            reasons=reasons,
        )
        judgement.write(run.folder, found[run.folder])
    kept.unlink(missing_ok=True)
    return found


def show(
    runs: Sequence[JudgedRun], unseen: Unseen, found: Mapping[Path, Judgement], anew: Container[Path], console: Console
) -> None:
    """Writes the page of each run that was judged anew or has none."""
    log = log_of(unseen.dataset)
    for run in runs:
        if run.folder not in anew and (run.folder / page.FILE).exists():
            continue
        actions = {f"seed {index}": actions_at(it, log.rows.observation) for index, it in enumerate(run.policies)}
        material = page.Material(log, actions, unseen.dataset, unseen.known, run.config, run.about)
        try:
            page.write_page(run.folder, found[run.folder], material)
        except InputError as error:  # without vl-convert the numbers are there nevertheless
            say(console, f"no page was written: {error}")
            return


def judged_before(run: JudgedRun, why: str, rows_sha256: str, options: JudgeOptions) -> Judgement | None:
    """What the folder has already, if it is the same."""
    try:
        found = judgement.read(run.folder)
    except StorageError:
        return None
    step, run_hash = (run.policies[0].metadata.get(name) for name in ("step", "run"))
    seeds = [it.seed for it in found.policies if it.seed is not None]
    ours = (found.step, found.run, found.unseen, len(seeds), found.rows_sha256, found.gamma)
    same = ours == (step, run_hash, why, len(run.policies), rows_sha256, run.gamma)
    return found if same and to_json(options) == found.settings else None


def rows_hash(dataset: Dataset) -> str:
    """Of all that estimates follow from. A file's own hash would not do: it can be read in several ways."""
    found = hashlib.sha256()
    for column in (*dataset.transitions, dataset.starts):
        if column is not None:
            found.update(np.ascontiguousarray(column).data)
    return found.hexdigest()


def actions_at(policy: Policy, observation: np.ndarray) -> np.ndarray:
    """The policy's actions [N, A] in [-1, 1], choices as codes [N, n], at raw observations [N, O], with their history
    if it has one.
    """
    rows = (observation - policy.observation_mean) / policy.observation_std
    parts = [greedy(policy, rows[i : i + 4_096], np) for i in range(0, len(rows), 4_096)]
    actions = np.concatenate(parts)
    if policy.num_actions is None:
        return actions
    return one_hot(np.rint(actions[:, 0] - policy.action_low[0]).astype(int), policy.num_actions)


def of_run(run: JudgedRun, log: Log, named: str | None = None, edge: float = EDGE) -> list[Candidate]:
    """Each seed's policy as it ships; where it has a density, also as it samples. `edge`: that of pi_beta's model."""
    size = log.rows.observation.shape[1]
    for policy in run.policies:
        if policy.num_actions != (log.rows.action.shape[1] if log.choices else None):
            ours = "choices" if log.choices else "vectors"
            raise InputError(f"{run.folder}: its policies act otherwise than this log, whose actions are {ours}")
        if len(policy.observation_mean) != size:
            raise InputError(
                f"{run.folder}: its policies take {len(policy.observation_mean)} numbers, and observations here have"
                f" {size}"
            )
    plain = [
        candidate(f"seed {index}", partial(actions_at, policy), log, index) for index, policy in enumerate(run.policies)
    ]
    return with_densities(run, log, plain, named, edge)


def with_densities(
    run: JudgedRun, log: Log, plain: list[Candidate], named: str | None = None, edge: float = EDGE
) -> list[Candidate]:
    """As they are where the algorithm's policy has no density, or its newest checkpoint is not there."""
    kind = DiscreteSpec if log.choices else SpaceSpec
    spec = kind(log.rows.observation.shape[1], log.rows.action.shape[1])
    try:
        algorithm, states, step = trained_states(run.folder, spec, named)
    except (InputError, StorageError) as error:
        return [it._replace(why=str(error)) for it in plain]
    acting, found = algorithm.acting, list[Candidate]()
    if acting.log_prob is None:
        return plain
    if step != run.policies[0].metadata.get("step") or len(states) != len(plain):
        return [it._replace(why="the newest checkpoint is of another step than the policy") for it in plain]
    end = log.rows.next_observation[log.ends]

    @jax.jit
    def draw(state: Any, rows: jax.Array, number: jax.Array) -> jax.Array:
        """[B, SAMPLES, A] at some rows of all, whose numbers [B] these are: no two rows share their noise."""
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), number[0]), SAMPLES)
        return jax.vmap(lambda key: acting.act(state, rows, key, False), out_axes=1)(keys)

    log_prob, inside = jax.jit(acting.log_prob), np.clip(log.rows.action, -1 + edge, 1 - edge).astype(np.float32)
    if isinstance(spec, DiscreteSpec):  # in place of samples their probabilities: expectations are exact
        every, inside, given = spec.num_actions, log.rows.action.argmax(axis=1).astype(np.int32), acting.log_prob
        choices = jnp.arange(every, dtype=jnp.int32)

        def probabilities(state: Any, rows: jax.Array, number: jax.Array) -> jax.Array:
            each = jax.vmap(lambda it: given(state, rows, jnp.full(len(rows), it)), out_axes=1)(choices)
            return jnp.exp(each)[:, None]

        draw = jax.jit(probabilities)
    for own, policy, state in zip(plain, run.policies, states, strict=True):
        mean, std = policy.observation_mean, policy.observation_std
        rows, last = (((it - mean) / std).astype(np.float32) for it in (log.rows.observation, end))
        number = np.arange(len(rows) + len(last), dtype=np.int32)
        found.append(
            own._replace(
                log_prob=in_pieces(log_prob, state, rows, inside),
                samples=in_pieces(draw, state, rows, number[: len(rows)]),
                last_samples=in_pieces(draw, state, last, number[len(rows) :]),
            )
        )
    return found
