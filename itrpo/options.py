"""What a user may say of a run besides its dataset, its algorithm and that algorithm's own fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from itrpo.ranges import Count, Finite, Interval, Seed, Seeds, ShareBelowOne

ScaleName = Literal["smoke", "laptop", "paper"]


class Scale(NamedTuple):
    steps: int
    seeds: int
    eval_every: int
    eval_episodes: int
    preset: str  # where an algorithm has it, else that algorithm's default


SCALES: dict[ScaleName, Scale] = {
    "smoke": Scale(300, 2, eval_every=100, eval_episodes=2, preset="quick"),
    "laptop": Scale(12_000, 4, eval_every=2_000, eval_episodes=10, preset="quick"),
    "paper": Scale(1_000_000, 4, eval_every=5_000, eval_episodes=10, preset="source"),
}
USUAL_SCALE: ScaleName = "paper"
MAZE_FACTOR = 10  # where a return says little by itself: ten times the episodes, a tenth as often


@dataclass(frozen=True)
class RunOptions:
    """Options of `itrpo train` and `itrpo compare`, and of `itrpo.train` and `itrpo.compare`.

    The comments below are the text of `itrpo train --help`, which prints what each option is; in brackets stands what
    happens where it is not given.
    """

    scale: ScaleName | None = None  # sets the next four and the preset, where they are not given [paper]
    steps: Count | None = None  # gradient steps [the scale's]
    seeds: Seeds | None = None  # policies to train, each as if it were alone [the scale's]
    eval_every: Count | None = None  # gradient steps between evaluations [the scale's; in mazes 10 times as many]
    eval_episodes: Count | None = None  # episodes per seed and evaluation [the scale's; in mazes 10 times as many]
    seed: Seed = 0  # everything random comes from it
    out: Path | str | None = None  # folder to write into [runs/DATASET-ALGORITHM-HASH, or runs/compare-DATASET]
    preset: str | None = None  # set of constants: `itrpo algorithms NAME` [the scale's]
    env: str | None = None  # gymnasium id to evaluate in, MODULE:ID of your own, or none [what the dataset says]
    task: str | None = None  # whose constants a preset takes, e.g. hopper-medium [what the dataset's name says]
    behavior: str | None = None  # model of pi_beta, of those that the algorithm can use [the preset's]
    behavior_steps: Count | None = None  # gradient steps of its fit [the source's, scaled by steps, at least 100]
    columns: Mapping[str, Any] | None = None  # which columns are what: FIELD=COLUMN ... [their usual names]
    exclude: tuple[str, ...] = ()  # columns, or parts of a Dict observation, to leave out, such as images [none]
    max_gap: str | float | None = None  # a longer gap in the time of a table ends the episode, e.g. 5m [none does]
    fill: Literal["previous", "interpolate", "drop"] | None = None  # for values missing in a table [an error]
    period: str | float | None = None  # resample a table to one row per period, e.g. 1m [its own rows]
    period_rewards: Literal["sum", "mean"] | None = None  # of the rewards in a period [sum]
    normalize_observations: bool | None = None  # of mean 0, deviation 1 [own data: by their scales; else the preset's]
    stack: Count | None = None  # observations in a row that a policy sees, with the actions between them [1]
    holdout: ShareBelowOne | None = None  # share of the episodes that training never sees, for `itrpo judge` [0]
    reward_scale: Finite | None = None  # train on reward_scale * r + reward_shift [the preset's]
    reward_shift: Finite | None = None  # see reward_scale [the preset's]
    action_low: tuple[float, ...] | float | None = None  # raw action that becomes -1: one number, or one each [-1]
    action_high: tuple[float, ...] | float | None = None  # raw action that becomes +1 [+1]
    num_actions: Count | None = None  # an action is one of so many choices, --action-low the first [what the data say]
    continuous_actions: bool = False  # train on actions that look like choices: they are quantities, such as positions
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()  # where else metrics go: extras of itrpo [nowhere]


RULES = ("max_gap", "fill", "period", "period_rewards")
# say how a dataset is read: keywords of load_dataset
READING = ("env", "columns", "exclude", *RULES, "action_low", "action_high", "num_actions", "continuous_actions")


def reading(options: RunOptions) -> dict[str, Any]:
    """What the options say of how a dataset is read."""
    return {name: getattr(options, name) for name in READING}


@dataclass(frozen=True)
class GuardOptions:
    """Guards of `itrpo export` and `itrpo.export`, in the data's units: see `itrpo.policy.Guards`."""

    guards: bool = True  # false: none, the policy as it was trained
    missing: Literal["error", "hold", "fallback"] = "error"  # on NaN or infinity: no action, the last one, a fixed one
    fallback: tuple[float, ...] | float | None = None  # that fixed action, and the first to hold: one number, or each
    quantile: Annotated[float, Interval("[0, 0.5)")] = 0.001  # of each column: what is beyond, at both ends, counts
    clamp: bool = False  # and becomes that end
    constants: bool = True  # a column that never varied is what it was in the data, whatever comes
    action_low: tuple[float, ...] | float | None = None  # least action: one number, or each [the least in the data]
    action_high: tuple[float, ...] | float | None = None  # largest action [the largest in the data]
    rate: tuple[float, ...] | float | None = None  # most that an action changes per step: one number, or each [any]


def lengths(options: RunOptions, in_maze: bool) -> Scale:
    """How long a run is and how it is evaluated: as given, or as its scale says."""
    scale = SCALES[options.scale or USUAL_SCALE]
    if in_maze:
        scale = scale._replace(
            eval_every=MAZE_FACTOR * scale.eval_every, eval_episodes=MAZE_FACTOR * scale.eval_episodes
        )
    given = {name: getattr(options, name) for name in Scale._fields}
    return scale._replace(**{name: value for name, value in given.items() if value is not None})


def scales_in_words() -> str:
    """One line per scale, for help texts."""
    return "\n".join(
        f"--scale {name}: {steps:,} steps, {seeds} seeds, {episodes} episodes every {every:,} steps, preset {preset}"
        for name, (steps, seeds, every, episodes, preset) in SCALES.items()
    )
