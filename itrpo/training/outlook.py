"""What is said before a run: what it is, where it goes, and how long it takes, as measured in its first seconds.

What is measured is the block that training runs, on the same data, so that its compilation is not lost: training finds
the program in JAX's cache.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from itrpo import files, registry, xla
from itrpo.config import DataConfig, RunConfig, leaves, to_json
from itrpo.console import duration, progress_bar, say, silent_console
from itrpo.data.actions import CLIPPED, on_a_bound
from itrpo.data.fit import check_fit
from itrpo.data.next_actions import with_next_actions
from itrpo.data.preprocess import constant
from itrpo.data.wording import column_word, listed
from itrpo.errors import InputError, StorageError
from itrpo.evaluation.beside import Evaluations
from itrpo.evaluation.environments import is_antmaze
from itrpo.report.tables import algorithm_name, count
from itrpo.results.run_folder import RunFolder
from itrpo.results.store import read_status
from itrpo.training import divergence, loop
from itrpo.training.configure import BEHAVIOR, EDGES, in_antmaze
from itrpo.training.scaling import algorithm_of, behavior_of, behavior_steps
from itrpo.training.seeds import over_seeds
from itrpo.training.session import FIT_BEHAVIOR, INIT, INIT_BEHAVIOR, TRAIN, Own, Session, ready
from itrpo.types import AlgorithmEntry, Dataset

if TYPE_CHECKING:
    from rich.console import Console

MEASURED_SECONDS = 2.0  # of pi_beta's fit, and of training
PLACES = 6  # of training, evenly spread, that are measured: COMBO's and BPPO's first steps are faster than later ones
WORTH_MEASURING = 2_000  # steps: shorter runs are over before this is
MAY_TAKE_LONG = 100_000  # steps from which one run is worth a look ahead
LONG = 7 * 24 * 3600.0  # seconds that nobody starts by mistake


class Expected(NamedTuple):
    """Of one run."""

    config: RunConfig
    done: int  # steps
    rate: float | None  # steps per second, for all seeds; None: not measured
    seconds: float | None  # that it still takes, without evaluations


NOTHING_HELD = ", and nothing held out to judge by (--holdout 0.2)"


def print_header(config: RunConfig, dataset: Dataset, folders: Sequence[Path], console: Console) -> None:
    """What trains on what, for how long, and where it goes."""
    train, evaluation, env = config.train, config.evaluation, config.data.env
    episodes = f"{count(evaluation.eval_episodes, 'episode')} in {env}"
    blind = "no environment to evaluate in" + ("" if dataset.holdout else NOTHING_HELD)
    look = blind if env == "none" else f"{episodes} every {evaluation.eval_every:,} steps"
    cores = files.available_cores()
    device = jax.devices()[0].device_kind + (f" with {cores} cores" if jax.default_backend() == "cpu" else "")
    more = f" and {len(folders) - 1} more with it" if len(folders) > 1 else ""
    lines = {
        "dataset": f"{dataset.name}: {len(dataset):,} rows{held_out_in_words(dataset)}",
        "algorithm": f"{algorithm_name(config.algorithm)}, preset {config.preset}, on {device}",
        "length": f"{train.seeds} {'seed' if train.seeds == 1 else 'seeds'} x {train.steps:,} steps, {look}",
        "run folder": f"{folders[0]}{more}; the policies in it: seedK/policy.npz",
    }
    for name, text in lines.items():
        say(console, f"{name:11}{text}")


def held_out_in_words(dataset: Dataset) -> str:
    if dataset.held is None or dataset.held.starts is None:
        return ""
    held = f"{len(dataset.held.starts):,} episodes, {len(dataset.held):,} rows"
    return f"; held out for `itrpo judge`: {held}, drawn once for this data"


def announce(configs: Sequence[RunConfig], dataset: Dataset, console: Console) -> Dataset:
    """Says what is done with the data, to a user who may know better. -> the dataset of the rows that train.

    The configs are of runs that may train together. Raises InputError for data that does not fit.
    """
    config = configs[0]
    entry: AlgorithmEntry = registry.algorithm(config.algorithm)
    if found := check_fit(dataset, config.data.env):
        say(console, f"warning: {found}", "bold yellow")
    reward = dataset.transitions.reward
    if dataset.num_terminals == 0 and reward.min() == reward.max():
        said = f"every reward is {reward[0]:.6g}, and no episode ends: nothing says which action is better"
        say(console, f"warning: {said}", "bold yellow")
    own = dataset.notes if dataset.source.kind not in ("d4rl", "generated") else ()
    words, note = [f"note: {it}" for it in own], entry.presets[config.preset].note
    if entry.reads_next_action(config.algorithm_config):
        dataset, left_out = with_next_actions(dataset, config.algorithm)
        words.append(left_out)
    words.append(f"preset {config.preset}: {note}" if note else "")
    words += [observations_in_words(config.data, dataset), actions_in_words(config, dataset), mazes_in_words(config)]
    for it in filter(None, words):
        say(console, it)
    return dataset


def observations_in_words(config: DataConfig, dataset: Dataset) -> str:
    """How training sees the observations, and why."""
    mean, std = dataset.observation_moments
    varying, given = std[~constant(mean, std)], "observations: "
    ends = [f"{it:.3g}" for it in (varying.min(), varying.max())] if len(varying) else []
    sizes = f"standard deviations {' to '.join(dict.fromkeys(ends))}" if ends else "none varies"
    if dataset.stack > 1:
        given += f"{dataset.stack} in a row and the actions between them, {len(mean)} numbers; "
    if config.parent is not None:
        kept = "normalised as in" if config.normalize_observations else "as they are, as in"
        return f"{given}{kept} run {config.parent['run']}, which this one continues"
    if not config.normalize_observations:
        return f"{given}as they are ({sizes}); --normalize-observations true would normalise them"
    if not config.by_column:
        return f"{given}normalised, (s - mean) / (std + 1e-3), as published ({sizes})"
    flat = np.flatnonzero(constant(mean, std)[: dataset.frame.observation_dim]).tolist()
    left_out = f"; left out, as constant: {listed([column_name(dataset, i) for i in flat])}" if flat else ""
    otherwise = "--normalize-observations false leaves them as they are"
    return f"{given}normalised column by column ({sizes}){left_out}; {otherwise}"


def column_name(dataset: Dataset, index: int) -> str:
    """'observation 3', or 'observation 3 (speed)' where the user named the columns."""
    names = dataset.attributes.observation_names or (dataset.source.recipe.get("columns") or {}).get("observations", ())
    return column_word("observation", index, names if len(names) == dataset.frame.observation_dim else ())


def actions_in_words(config: RunConfig, dataset: Dataset) -> str:
    """Where densities of clipped actions are asked; '' where none are clipped, or no density is asked."""
    found = {
        f"--{prefix}{name}".replace("_", "-"): value
        for prefix, of in (("", config.algorithm_config), (BEHAVIOR, config.behavior_config))
        for name, _, value in (leaves(of) if of is not None else ())
        if name in EDGES
    }
    share = on_a_bound(dataset.transitions.action)
    if share < CLIPPED or not found:
        return ""
    flags = ", ".join(f"{flag} {value:g}" for flag, value in found.items())
    return f"actions: {share:.0%} of their numbers lie on a bound; densities are asked at 1 - edge: {flags}"


def mazes_in_words(config: RunConfig) -> str:
    """That constants for AntMaze are not in use, where its environment is; '' where they are, or there are none."""
    if not is_antmaze(config.data.env) or in_antmaze(config.data.task):
        return ""
    if registry.algorithm(config.algorithm).presets[config.preset].tasks is None:
        return ""
    return (
        "note: AntMaze, but the dataset's name says no task: constants are those of other tasks; --task "
        "antmaze-large-play, or whichever it is, brings its own"
    )


# --- how long it takes ---------------------------------------------------------------------------------------------


def look_ahead(
    wanted: Sequence[tuple[RunConfig, Path]], dataset: Dataset, console: Console, enough: float = float("inf")
) -> list[Expected]:
    """What each run still takes. Once they take `enough` seconds together, the rest is not measured.

    Raises InputError where the dataset does not fit an environment: before anything is measured.
    """
    for env_id in {config.data.env for config, _ in wanted}:
        check_fit(dataset, env_id)
    found, total, fitted = list[Expected](), 0.0, set[str]()
    with progress_bar(console, "measuring the speed", len(wanted)) as advance:
        for config, folder in wanted:
            try:
                done = read_status(folder).step
            except StorageError:
                done = 0
            rate, seconds, left = None, None, max(0, config.train.steps - done)
            if left == 0:
                seconds = 0.0
            elif config.train.steps >= WORTH_MEASURING and total < enough:
                fit, step = measured(config, dataset)
                # algorithms with the same model of pi_beta share its fit
                shared = to_json(config.behavior_config), behavior_steps(config), config.data.normalize_observations
                model = repr(shared)
                seconds, rate = left * step + (0.0 if done or model in fitted else fit), 1 / step
                fitted.add(model)
                total += seconds
            found.append(Expected(config, done, rate, seconds))
            advance(1)
    return found


def measured(config: RunConfig, dataset: Dataset) -> tuple[float, float]:
    """Seconds of the fit of pi_beta, and of the mean step of training, for all seeds. Nothing is written."""
    xla.prepare()
    preprocess, data = ready(config, dataset)
    own = (Own(RunFolder(Path()), config, ""),)
    seeds = range(config.train.seeds)
    session = Session(own, seeds, dataset, preprocess, data, Evaluations(), silent_console(), [])
    params, fit, steps = None, 0.0, behavior_steps(config)
    behavior = behavior_of(config, dataset.spec, steps)
    if behavior is not None:
        state = over_seeds(behavior.init, [True])(session.keys(INIT_BEHAVIOR))
        params = over_seeds(behavior.params, [True])(state)
        fit_step = behavior.fit_step
        fit = steps * seconds_per_step(
            session, lambda state, batch, key, step: fit_step(state, batch, key), state, behavior.batch_size
        )
    algorithm = algorithm_of(config, dataset.spec, behavior, config.train.steps)
    state = over_seeds(algorithm.init, [True, True])(session.keys(INIT), params)
    value = algorithm.value_metric
    return fit, seconds_per_step(session, algorithm.update, state, algorithm.batch_size, value)


def seconds_per_step(
    session: Session, update: Callable[..., Any], state: Any, batch_size: int, value_metric: str | None = None
) -> float:
    """Mean over places in training."""
    shapes = jax.eval_shape(lambda: state)
    names = loop.metric_names(update, shapes, session.data, batch_size)
    limits = divergence.limits(names, value_metric, session.config.train, session.data.reward)
    block, keys = loop.make_block(update, batch_size), session.keys(FIT_BEHAVIOR if value_metric is None else TRAIN)
    carry = block(loop.start(state, names), session.data, keys, limits, 0, 0)  # compiles
    carry = block(carry, session.data, keys, limits, 0, 1)  # the first step is slower than others
    jax.block_until_ready(carry.count)
    found = list[float]()
    for place in range(PLACES):
        first = step = session.config.train.steps * (2 * place + 1) // (2 * PLACES)
        size, elapsed, started = 1, 0.0, time.perf_counter()
        while elapsed <= MEASURED_SECONDS / PLACES:
            carry = block(carry, session.data, keys, limits, step, step + size)
            jax.block_until_ready(carry.count)
            step, elapsed = step + size, time.perf_counter() - started
            size = 2 * size
        found.append(elapsed / (step - first))
    return sum(found) / PLACES


def print_outlook(found: Sequence[Expected], folder: Path, console: Console) -> float:
    """How many runs there are and what they take, a line for each. -> seconds, of those that are known."""
    for each in found:
        if each.seconds is None:
            short = each.config.train.steps < WORTH_MEASURING
            words = f"not measured{f': over in less than {WORTH_MEASURING:,} steps' if short else ''}"
        else:
            words = "finished" if each.seconds == 0 else f"about {duration(each.seconds)}"
        rate = "" if each.rate is None else f" at {each.rate:,.3g} steps/s"
        begun = f", from step {each.done:,}" if each.done and each.seconds != 0 else ""
        name = f"{algorithm_name(each.config.algorithm)} ({each.config.preset})"
        say(console, f"  {name:28} {words}{rate}{begun}")
    train = found[0].config.train
    seconds = sum(each.seconds or 0.0 for each in found)
    runs = "1 run" if len(found) == 1 else f"{len(found)} runs"
    unknown = sum(each.seconds is None for each in found)
    least = "at least " if unknown else "about "
    takes = f"; {least}{duration(seconds)} by the speed of now, evaluations not counted" if unknown < len(found) else ""
    seeds = "1 seed" if train.seeds == 1 else f"{train.seeds} seeds"
    say(console, f"{runs} of {seeds} x {train.steps:,} steps into {folder}{takes}")
    return seconds


def confirm(
    seconds: float, console: Console, less: str = "--scale laptop, fewer --algorithms, --steps or --seeds, a GPU"
) -> None:
    """Asks before what would take more than a week; `less` is what would not. Raises InputError without a yes."""
    if seconds <= LONG:
        return
    takes = f"this would take {duration(seconds)} here, or longer"
    if not (console.is_terminal and sys.stdin.isatty()):
        raise InputError(f"{takes}: give --yes to train all the same, or less: {less}")
    if console.input(f"{takes}. Train? [y/N] ", markup=False).strip().lower() not in ("y", "yes"):
        raise InputError(f"nothing was trained; what takes less: {less}")
