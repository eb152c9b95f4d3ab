"""From many runs to the scores [R, T] of one arm: R seeds on T datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from itrpo.errors import InputError
from itrpo.report.aggregate import final_values, over_seeds
from itrpo.results.frames import Results

if TYPE_CHECKING:
    import polars

DONE = ("finished", "diverged")  # a run that blew up scores what it scored last; one that goes on scores nothing yet


class Scores(NamedTuple):
    """One arm. Seeds are those that every dataset has."""

    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    values: np.ndarray  # [R, T] float64


class Curves(NamedTuple):
    """A metric of one arm over time, at the steps that every dataset and seed has."""

    datasets: tuple[str, ...]
    steps: np.ndarray  # [K]
    values: np.ndarray  # [R, T, K]


def of_kind(results: Results, kind: str) -> Results:
    """The runs on data of one kind ("d4rl", "generated", ...): what is measured on different data is never mixed."""
    return chosen(results, results.runs.filter(results.runs["kind"] == kind))


def chosen(results: Results, runs: polars.DataFrame) -> Results:
    """Some of the runs, and what they measured."""
    return Results(runs, results.rows.join(runs.select("run"), on="run", how="semi"))


def arm(results: Results, name: str) -> Results | None:
    """The finished runs of the arm with this label; where there is none, of the one arm of this algorithm.

    Where plans have an arm of one name, a dataset's run is that of table2 or table3, else the longest.
    """
    done = results.runs.filter(results.runs["state"].is_in(DONE))
    own = done.filter(done["label"] == name)
    if own.is_empty():
        own = done.filter(done["algorithm"] == name)
    if own.is_empty() or own["label"].n_unique() > 1:
        return None
    first = own.with_columns(table=own["plan"].is_in(("table2", "table3")).fill_null(False)).sort(
        ["table", "step", "seeds", "run"], descending=[True, True, True, False]
    )
    return chosen(results, first.unique("dataset", keep="first", maintain_order=True).drop("table"))


def scores(one: Results, metric: str = "score") -> Scores | None:
    """An arm's scores, by the paper's protocol (`aggregate.final_values`), or None if no dataset has any.

    Raises InputError if a dataset has two runs.
    """
    found = {
        dataset: measured
        for dataset, rows in by_dataset(one, metric).items()
        if (measured := final_values(rows, metric)) is not None
    }
    if not found:
        return None
    seeds = sorted(set.intersection(*(set(it.seeds) for it in found.values())))
    own = {name: it.values[[it.seeds.index(seed) for seed in seeds]] for name, it in found.items()}
    return Scores(tuple(own), tuple(seeds), np.stack([it.mean(axis=1) for it in own.values()], axis=1))


def curves(one: Results, metric: str = "score") -> Curves | None:
    """An arm's metric over time after step 0, or None if nothing is common to all."""
    found = {dataset: over_seeds(rows, metric) for dataset, rows in by_dataset(one, metric).items()}
    if not found:
        return None
    seeds = sorted(set.intersection(*(set(own) for _, _, own in found.values())))
    steps = sorted(set.intersection(*(set(at.tolist()) for at, _, _ in found.values())) - {0})
    if not seeds or not steps:
        return None
    values = [
        measured[np.ix_([own.index(seed) for seed in seeds], np.searchsorted(at, steps).tolist())]
        for at, measured, own in found.values()
    ]
    return Curves(tuple(found), np.array(steps), np.stack(values, axis=1))


def by_dataset(one: Results, metric: str) -> dict[str, polars.DataFrame]:
    """The rows of a metric for each dataset that has some, by name. Raises InputError if a dataset has two runs."""
    found: dict[str, polars.DataFrame] = {}
    rows = one.rows.filter(one.rows["metric"] == metric)
    for run, dataset, label in one.runs.sort("dataset").select("run", "dataset", "label").iter_rows():
        if dataset in found:
            both = one.runs.filter(one.runs["dataset"] == dataset)["run"].to_list()
            raise InputError(
                f"arm {label} has several runs on {dataset} ({', '.join(both)}); name the runs of one sweep"
            )
        own = rows.filter(rows["run"] == run)
        if not own.is_empty():
            found[dataset] = own
    return found


def common(*every: Scores) -> list[Scores]:
    """The same arms on the datasets that all of them have."""
    shared = [name for name in every[0].datasets if all(name in it.datasets for it in every)]
    return [
        it._replace(
            datasets=tuple(shared),
            values=it.values[:, [it.datasets.index(name) for name in shared]],
        )
        for it in every
    ]
