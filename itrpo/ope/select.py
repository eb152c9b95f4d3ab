"""`itrpo select`: policies or runs ranked by what judging says of them, and trials where some can be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from itrpo import files
from itrpo.config import checked_options, differences
from itrpo.console import make_console
from itrpo.errors import InputError
from itrpo.ope import judgement, trials
from itrpo.ope.choose import Ranked, rank
from itrpo.ope.estimate import JudgeOptions
from itrpo.ope.judgement import ESTIMATORS, Estimate, Judged, Judgement
from itrpo.ope.runs import Folder, folders_of, judge
from itrpo.ope.table import number, with_interval
from itrpo.ope.table import warnings as warnings_of
from itrpo.ranges import check_ranges
from itrpo.report.runs import labels, named_runs
from itrpo.report.tables import count
from itrpo.training.evaluate import load_policies

if TYPE_CHECKING:
    from rich.console import Console

By = Literal["policy", "run"]
Estimator = Literal["fqe", "wdr", "dr", "wpdis", "pdis"]


class Place(NamedTuple):
    """A policy, or a run as the mean of its policies."""

    name: str  # RUN/seedK, or RUN
    folder: Path
    seed: int | None  # None: all of the run
    step: int
    about: str  # algorithm, and in what it differs from the others
    estimate: Estimate  # of a run: with the spread over its seeds in the interval
    doubts: int  # reasons not to believe it
    ranked: Ranked


@dataclass(frozen=True)
class Selection:
    by: By
    estimator: Estimator
    places: tuple[Place, ...]  # best first
    log: Estimate  # of the logged episodes, by the same estimator or as they are
    judgements: tuple[Judgement, ...]  # of the runs
    warnings: tuple[str, ...]


def select(
    folders: Sequence[Folder] | Folder,
    data: Any = None,
    by: By = "policy",
    estimator: Estimator = "fqe",
    options: JudgeOptions | None = None,
    *,
    console: Console | None = None,
) -> Selection:
    """Ranks the policies of runs, or the runs, best first, by judgement.json of each; who has none of its policies is
    judged first, as `itrpo.judge` does with `data` and `options`.

    `by` "policy" ranks each seed's policy, "run" each run by the mean over its seeds. `estimator` is the estimate that
    counts: one of `itrpo.ope.judgement.ESTIMATORS`. `console` None: what is judged first is told on standard output.
    Raises InputError for runs that were not judged on the same episodes, for then nothing can be said about their
    difference, and where `estimator` is not there for one; StorageError for damaged files.
    """
    console = console or make_console()
    options = checked_options(JudgeOptions() if options is None else options, JudgeOptions, "options")
    entries = named_runs(folders_of(folders))
    paths = [it.folder for it in entries]
    found = {path: _judged_already(path) for path in paths}
    if missing := [path for path, it in found.items() if it is None]:
        found |= zip(missing, judge(missing, data, options, console=console), strict=True)
    all_of_them = [it for it in found.values() if it is not None]
    _check_same(paths, all_of_them)
    episodes, first = all_of_them[0].episodes, all_of_them[0]
    rows: list[tuple[Path, Judgement, str, list[Judged]]] = []
    for path, own, about in zip(paths, all_of_them, labels(entries), strict=True):
        seeds = [it for it in own.policies if it.seed is not None]
        rows += [(path, own, about, part) for part in ([[it] for it in seeds] if by == "policy" else [seeds])]
    estimates = [[_of(path, it, estimator) for it in part] for path, _, _, part in rows]
    folds = np.stack([np.mean([it.folds for it in part], axis=0) for part in estimates])
    known = [all(np.isfinite(it.low) for it in part) for part in estimates]
    spread = np.array([_seed_error(part) for part in estimates])
    places = list[Place]()
    for it in rank(folds, episodes, known, spread):
        (path, own, about, part), of = rows[it.place], estimates[it.place]
        name = f"{path}/seed{part[0].seed}" if by == "policy" else str(path)
        doubts = {reason for one in part for reason in one.reasons} | {reason for one in of for reason in one.reasons}
        estimate = of[0] if len(of) == 1 else _mean(of, folds[it.place], episodes, float(spread[it.place]))
        seed = part[0].seed if by == "policy" else None
        places.append(Place(name, path, seed, own.step, about, estimate, len(doubts), it))
    log = first.policy("log")
    of_log = log.by(estimator) or log.by("log")
    assert of_log is not None  # every judgement has it
    return Selection(by, estimator, tuple(places), of_log, tuple(all_of_them), _warnings(paths, all_of_them))


def _seed_error(of: Sequence[Estimate]) -> float:
    """The standard error of the mean over seeds; 0 for one policy, which is what it is."""
    return float(np.std([it.value for it in of], ddof=1) / np.sqrt(len(of))) if len(of) > 1 else 0.0


def _judged_already(folder: Path) -> Judgement | None:
    """What is known of the policies that are there now."""
    if not (folder / judgement.FILE).exists():
        return None
    found, policies = judgement.read(folder), load_policies(folder)
    now = [(it.metadata.get("run"), it.metadata.get("step")) for it in policies]
    seeds = [it.seed for it in found.policies if it.seed is not None]
    return found if set(now) == {(found.run, found.step)} and len(seeds) == len(policies) else None


def _check_same(paths: Sequence[Path], found: Sequence[Judgement]) -> None:
    def episodes(of: Judgement) -> tuple[Any, ...]:
        return of.dataset, of.episodes, of.rows, of.log_return, of.gamma, files.strict(of.settings)

    for path, it in zip(paths, found, strict=True):
        if episodes(it) != episodes(found[0]):
            moved = differences(found[0].settings, it.settings)
            others = f", with other settings ({'; '.join(moved)})" if moved else ""
            if it.dataset == found[0].dataset:
                advice = "judge them together with `itrpo judge RUN... --again` and one --data, --gamma and --folds"
            else:
                advice = "policies are ranked on the same new episodes (--data), which all of them can read"
            raise InputError(
                f"{path} was judged on {count(it.episodes, 'episode')} of {it.dataset} at gamma {it.gamma:g}, and"
                f" {paths[0]} on {count(found[0].episodes, 'episode')} of {found[0].dataset} at gamma"
                f" {found[0].gamma:g}{others}: nothing can be said about their difference; {advice}"
            )


def _of(path: Path, judged: Judged, estimator: Estimator) -> Estimate:
    found = judged.by(estimator)
    if found is None:
        raise InputError(
            f"{path}: {judged.name} has no estimate by {estimator} ({judged.missing.get(estimator, 'not measured')});"
            " --estimator fqe is there for every policy"
        )
    return found


def _mean(of: Sequence[Estimate], folds: np.ndarray, episodes: int, spread: float) -> Estimate:
    from itrpo.ope.bootstrap import interval

    value, low, high = interval(folds, episodes, more=spread)
    return replace(of[0], value=value, low=low, high=high, folds=tuple(folds.tolist()), against_log=None, reasons=())


def _warnings(paths: Sequence[Path], found: Sequence[Judgement]) -> tuple[str, ...]:
    """Each sentence once, with the runs that it is about unless it is about all."""
    about: dict[str, list[str]] = {}
    for path, it in zip(paths, found, strict=True):
        for sentence in map(str, warnings_of(it)):
            about.setdefault(sentence, []).append(str(path))
    return tuple(
        sentence if len(whose) == len(paths) else f"{', '.join(whose)}: {sentence}" for sentence, whose in about.items()
    )


# --- trials --------------------------------------------------------------------------------------------------------


class Tried(NamedTuple):
    """Trials of the policies of a selection."""

    names: tuple[str, ...]  # RUN/seedK, in the order of the estimates
    returns: tuple[tuple[float, ...], ...]  # of each
    rule: trials.Rule
    advice: trials.Advice
    left_out: int  # returns of policies that are not among them, or have been trained on since


def try_out(selection: Selection, path: Path, new: Sequence[str] = (), **given: Any) -> Tried:
    """Adds `new` returns ('RUN/seed0=123.4') to the file at `path`, and says which policy to try next.

    `given`: fields of `trials.Rule`, which the file keeps; None leaves what it has. Raises InputError for a policy that
    is not among the selected ones, before the file is written.
    """
    if selection.by != "policy":
        raise InputError("trials are of policies: leave --by run out")
    words = trials.parse(new)
    with files.lock(path.with_name(f".{path.name}.lock"), f"{path}: another program is writing it"):
        before = trials.read(path)
        rule = replace(before.rule, **{name: it for name, it in given.items() if it is not None})
        check_ranges(rule)
        places = selection.places[: rule.keep]
        selected = selection.places
        key = {(it.folder.resolve(), it.seed): trials.name_from(path, it.folder, it.seed or 0) for it in selected}
        step = {key[it.folder.resolve(), it.seed]: it.step for it in selected}
        tried = list(before.tried)
        for (folder, seed, value), word in zip(words, new, strict=True):
            name = key.get((folder.resolve(), seed))
            if name is None:
                known = ", ".join(it.name for it in places[:3])
                raise InputError(f"--tried {word}: no policy of these runs; they are {known}, ...")
            tried.append(trials.Trial(name, step[name], value))
        after = trials.Trials(rule, tuple(tried))
        if after != before or not path.exists():
            trials.write(path, after)
    names = [key[it.folder.resolve(), it.seed] for it in places]
    returns = [tuple(it.value for it in tried if (it.policy, it.step) == (name, step[name])) for name in names]
    left_out = len(tried) - sum(map(len, returns))
    return Tried(tuple(it.name for it in places), tuple(returns), rule, trials.advise(returns, rule), left_out)


# --- as files and for people ---------------------------------------------------------------------------------------


def to_json(selection: Selection, tried: Tried | None = None) -> dict[str, Any]:
    of = selection.judgements[0]
    places = [
        {
            "name": it.name,
            "seed": it.seed,
            "step": it.step,
            "about": it.about,
            "group": it.ranked.group,
            "value": it.estimate.value,
            "low": it.estimate.low,
            "high": it.estimate.high,
            "behind": it.ranked.behind._asdict(),
            "doubts": it.doubts,
        }
        for it in selection.places
    ]
    about: dict[str, Any] = {"by": selection.by, "estimator": selection.estimator, "dataset": of.dataset}
    about |= {"gamma": of.gamma, "episodes": of.episodes, "settings": of.settings, "log": selection.log.value}
    about |= {"warnings": list(selection.warnings), "places": places}
    if tried is not None:
        advice = tried.advice
        about["trials"] = {
            "rule": asdict(tried.rule),
            "returns": dict(zip(tried.names, tried.returns, strict=True)),
            "best": None if advice.best is None else tried.names[advice.best],
            "next": None if advice.following is None else tried.names[advice.following],
            "better_by": advice.better_by,
            "worth": advice.worth,
        }
    return about


def print_selection(selection: Selection, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    of = selection.judgements[0]
    for sentence in selection.warnings:
        console.print(Text(f"- {sentence}", style="yellow"))
    table = Table(
        title=f"{count(len(selection.places), selection.by)} by"
        f" {ESTIMATORS[selection.estimator]} on {count(of.episodes, 'episode')} of {of.dataset}",
        title_justify="left",
    )
    for name in ("", selection.by, "what", "discounted return", "behind the first", "doubts"):
        table.add_column(name, justify="left" if name in ("", selection.by, "what") else "right", overflow="fold")
    for it, after in zip(selection.places, [*selection.places[1:], None], strict=True):
        behind = with_interval(*it.ranked.behind) if it.ranked.place != selection.places[0].ranked.place else ""
        value = with_interval(it.estimate.value, it.estimate.low, it.estimate.high)
        cells = (str(it.ranked.group + 1), it.name, it.about, value, behind, str(it.doubts or ""))
        table.add_row(*map(Text, cells))
        if after is None or after.ranked.group != it.ranked.group:
            table.add_section()
    console.print(table)
    for sentence in verdict(selection):
        console.print(Text(sentence))


def verdict(selection: Selection) -> list[str]:
    best, kind = selection.places[0], "policies" if selection.by == "policy" else "runs"
    same = [it for it in selection.places if it.ranked.group == 0]
    lines = [f"Ahead of all others: {best.name}."] if len(same) == 1 else []
    if 1 < len(same) < len(selection.places):
        lines.append(f"Can't tell which of the first {len(same)} is best; they are ahead of the other {kind}.")
    elif len(same) > 1:
        lines.append(f"Can't tell: none of the {len(same)} {kind} is ahead of the others by more than chance.")
    lines.append(
        f"The log itself: {number(selection.log.value)}. In brackets: 95% intervals over resampled episodes, of the"
        " differences with the tail shared by all of them; they know nothing of what is wrong with an estimator"
        " (docs/judging.md has how often the first is not the best)."
    )
    return lines


def print_tried(tried: Tried, path: Path, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Trials ({path})", title_justify="left")
    for name in ("policy", "trials", "mean return", "deviation"):
        table.add_column(name, justify="left" if name == "policy" else "right", overflow="fold")
    for name, own in zip(tried.names, tried.returns, strict=True):
        mean = number(float(np.mean(own))) if own else ""
        deviation = number(float(np.std(own, ddof=1))) if len(own) > 1 else ""
        table.add_row(*map(Text, (name, str(len(own)), mean, deviation)))
    console.print(table)
    for sentence in next_step(tried):
        console.print(Text(sentence))


def next_step(tried: Tried) -> list[str]:
    advice, total = tried.advice, sum(map(len, tried.returns))
    lines = [f"Left out: {count(tried.left_out, 'return')} of policies that are not among these, or were trained on."]
    lines = lines if tried.left_out else []
    best = None if advice.best is None else tried.names[advice.best]
    open_end = "nobody knows yet by how much another is better" if not np.isfinite(advice.better_by) else ""
    margin = open_end or f"another is better by at most {number(max(advice.better_by, 0.0))} (95%)"
    if advice.following is not None:
        following = tried.names[advice.following]
        lines.append(f"Try next: {following}, and say what came: --tried {following}=RETURN")
        if best is not None:
            lines.append(f"Best so far: {best}; {margin}; trials end once that is at most {number(advice.worth)}.")
    elif best is None:
        lines.append("The budget allows no trial.")
    else:
        why = "the budget is spent" if advice.spent else f"less than {number(advice.worth)} is not worth more trials"
        lines.append(f"Stop after {count(total, 'trial')}, and take {best}: {margin}; {why}.")
    return lines


def write(path: Path, selection: Selection, tried: Tried | None) -> None:
    """selection.json, whole or not at all. Raises StorageError."""
    files.write_json(path, to_json(selection, tried))
