"""Statistics of the made datasets beside D4RL's published ones: the table in docs/made_datasets.md.

    python benchmarks/made_datasets.py FOLDER [--steps 200000] [--only hopper-medium ...]

Makes each set that is not in FOLDER yet (`itrpo datasets make NAME --out FOLDER/NAME-itrpo1.hdf5 --steps ...`;
medium-replay has its own number of steps) and prints one line of Markdown for it. Without --only: all of MuJoCo.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from itrpo.collection.recipes import ENV_IDS, SETS, make_dataset
from itrpo.console import make_console
from itrpo.data.d4rl_files import D4RL_FILES
from itrpo.data.load import load_dataset
from itrpo.report.page.datasets import d4rl_sets
from itrpo.report.tables import return_digits

D4RL_RETURNS = {name: it["return"] for name, it in d4rl_sets().items()}
D4RL_ROWS = {"medium-expert": "2M", "hopper-medium-replay": "402,000", "halfcheetah-medium-replay": "202,000"}
D4RL_ROWS |= {"walker2d-medium-replay": "302,000"}


@dataclass(frozen=True)
class Arguments:
    folder: Annotated[Path, tyro.conf.Positional]
    steps: int | None = 200_000
    only: tuple[str, ...] = ()


def main(arguments: Arguments) -> None:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print("| set | rows | transitions | episodes | terminals | return, max | D4RL's rows | episodes | return, max |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.only or [f"{environment}-{kind}" for environment in ENV_IDS for kind in SETS]:
        kind = name.partition("-")[2]
        path = arguments.folder / f"{name}-itrpo1.hdf5"
        if not path.exists():
            steps = None if kind == "medium-replay" else arguments.steps
            make_dataset(name, path, steps=steps, console=make_console())
        data = load_dataset(path)
        returns, digits = data.episode_returns, return_digits(data.episode_returns.mean())
        theirs, file = D4RL_RETURNS.get(name), D4RL_FILES.get(f"{name}-v2")
        published = f"{D4RL_ROWS.get(name) or D4RL_ROWS.get(kind) or '1M'} | {file.episodes:,}" if file else "- | -"
        print(
            f"| {name} | {data.num_rows:,} | {len(data):,} | {len(returns):,} | {data.num_terminals:,} "
            f"| {returns.mean():,.{digits}f} ± {returns.std():,.{digits}f}, {returns.max():,.0f} "
            f"| {published} | {'-' if theirs is None else f'{theirs[0]:,.0f} ± {theirs[1]:,.0f}, {theirs[2]:,.0f}'} |",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
