"""Rules for tables whose rows are moments in time: gaps that end episodes, a fixed period, missing values.

    load_dataset("logs/*.parquet", columns={"time": "stamp", ...}, max_gap="5m", period="1m", fill="previous")

Only what is asked for is done, in this order, and everything that is made up or left out is counted and said:

1. Episodes end where the `episode` column changes, else where a file ends; where flags say so; and where the time from
   one row to the next is longer than `max_gap`. No later step looks across such an end.
2. `period`: one row per period, at the whole multiples of it. Its observations are the first ones in the period: later
   ones have seen its action. Its action is the mean, its reward the sum of those in it (or with `period_rewards` the
   mean), a flag is set if one of them is. A period without rows is a row whose values are missing. Choices have no
   mean: periods with several different ones are refused.
3. `fill`, for values that are missing (null, empty, NaN): `previous` takes the value before, `interpolate` the line
   between the values on both sides (refused for choices), neither further than `max_gap` if there is one. A row that
   stays without a value is left out and ends its episode. `drop` leaves out every episode that misses one. Without
   `fill` all this is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from itrpo.data.actions import choices
from itrpo.data.layout import FLAGS
from itrpo.data.wording import first_rows, listed
from itrpo.errors import InputError

if TYPE_CHECKING:
    import polars

    Selected = Mapping[str, Sequence[str]]

VECTORS = ("observations", "actions", "next_observations")
UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
MICROSECONDS = 1_000_000
QUANTITIES = (
    "if actions are quantities all the same: --continuous-actions (continuous_actions=True), or their bounds,"
    " --action-low and --action-high"
)
LEAP = 10  # times the usual step in time is a gap
MOST = 10  # rows that a period may make of one
# columns of our own beside the table's
FILE, OWN_EPISODE, EPISODE, TIME, PERIOD = "\0file", "\0own episode", "\0episode", "\0time", "\0period"


class Rules(NamedTuple):
    """See above; times in seconds."""

    max_gap: float | None = None
    fill: str | None = None
    period: float | None = None
    period_rewards: str | None = None
    quantities: bool | None = None  # whether actions are, not choices, by somebody's word; None: by their looks

    def given(self) -> dict[str, Any]:
        said = self._asdict().items()
        return {name: value for name, value in said if value is not None and name != "quantities"}


AS_IT_IS = Rules()


def rules_of(
    max_gap: str | float | None = None,
    fill: str | None = None,
    period: str | float | None = None,
    period_rewards: str | None = None,
    quantities: bool | None = None,
) -> Rules:
    """Raises InputError for what is none."""
    for name, value, known in (
        ("fill", fill, ("previous", "interpolate", "drop")),
        ("period_rewards", period_rewards, ("sum", "mean")),
    ):
        if value not in (None, *known):
            raise InputError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if period_rewards is not None and period is None:
        raise InputError("period_rewards says how the rewards of a period become one: give a period, too, such as 1m")
    return Rules(_seconds("max_gap", max_gap), fill, _seconds("period", period), period_rewards, quantities)


def _seconds(name: str, value: str | float | None) -> float | None:
    """90, '90', '90s', '1m30s', '1.5 min' -> 90.0"""
    if value is None:
        return None
    text = str(value).replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|sec|s|min|m|h|d|w)", text)
    try:
        seconds = float(text)
    except ValueError:
        seconds = sum(float(number) * UNITS[unit] for number, unit in parts) if parts else 0.0
        seconds = seconds if "".join(number + unit for number, unit in parts) == text else 0.0
    if not 1e-6 <= seconds < float("inf"):
        raise InputError(f"{name} must be a time such as 30s, 5m, 1h30m or 2d, or a number of seconds, got {value!r}")
    return seconds


def in_words(seconds: float) -> str:
    """300.0 -> '5m'"""
    for unit in ("d", "h", "m", "s"):
        if seconds % UNITS[unit] == 0:
            return f"{seconds / UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def arranged(
    frames: Sequence[polars.DataFrame], selected: Selected, rules: Rules, where: str
) -> tuple[polars.DataFrame, list[str]]:
    """The rows of all frames, with `EPISODE`, and what was done to them. Columns hold single numbers; `TIME` is there,
    in microseconds, if `time` is selected, and `OWN_EPISODE` if `episode` is.

    Raises InputError where the rows can't be arranged so.
    """
    import polars

    if "time" not in selected:
        for name in ("max_gap", "period"):
            if getattr(rules, name) is not None:
                raise InputError(
                    f"{where}: --{name.replace('_', '-')} needs to know when a row was: add time=COLUMN to --columns"
                    " (columns={'time': ...} in Python)"
                )
    if "log_probs" in selected and rules.period is not None:
        raise InputError(f"{where}: --period changes actions, so their log_probs say nothing; leave log_probs out")
    numbered = [frame.with_columns(polars.lit(index).alias(FILE)) for index, frame in enumerate(frames)]
    notes: list[str] = []
    data = _episodes(polars.concat(numbered, how="vertical_relaxed"), selected, rules, where, notes)
    if rules.period is not None:
        data = _resampled(data, selected, rules, where, notes)
    if rules.fill is not None:
        data = (_dropped if rules.fill == "drop" else _filled)(data, selected, rules, where, notes)
    elif rules.period is not None and (holes := _holes(data, _values(selected))):
        raise InputError(
            f"{where}: with --period {in_words(rules.period)}, values are missing ({_counted(holes)}): say what becomes"
            " of them, --fill previous, interpolate or drop (fill=... in Python), or end episodes there with --max-gap"
        )
    return data, notes


def _values(selected: Selected) -> list[str]:
    """The columns that may be filled; flags, episodes and times must be known."""
    fields = (*VECTORS, "rewards", "log_probs")
    return list(dict.fromkeys(name for field in fields for name in selected.get(field, ())))


def _flags(data: polars.DataFrame, selected: Selected) -> list[str]:
    return [selected[it][0] for it in FLAGS if it in selected and selected[it][0] in data.columns]


def _episodes(
    data: polars.DataFrame, selected: Selected, rules: Rules, where: str, notes: list[str]
) -> polars.DataFrame:
    """With `EPISODE`: 1, 2, ..., in order."""
    from polars import all_horizontal, any_horizontal, col

    own = OWN_EPISODE if "episode" in selected else FILE
    begins = [col(own).ne_missing(col(own).shift())]
    begins += [col(name).cast(bool).shift().fill_null(False) for name in _flags(data, selected)]
    if "next_observations" in selected and not {"episode", "timeouts"} & set(selected):
        pairs = zip(selected["next_observations"], selected["observations"], strict=True)
        begins.append(any_horizontal(col(led).shift().ne(col(name)) for led, name in pairs).fill_null(False))
    new = data.select(any_horizontal(begins)).to_series()
    if TIME in data.columns:
        step = data[TIME].diff().fill_null(0)
        back = np.flatnonzero((step < 0) & ~new)
        if back.size:
            raise InputError(
                f"{where}: the time in {selected['time'][0]!r} goes back within an episode, in {back.size:,} places"
                f" (first: {first_rows(back)}); put the rows in the order in which they happened, or say with"
                " episode=COLUMN where a new episode begins"
            )
        if rules.max_gap is not None:
            gaps = (step > rules.max_gap * MICROSECONDS) & ~new
            if gaps.any():
                notes.append(f"gaps longer than {in_words(rules.max_gap)}, each an end of an episode: {gaps.sum():,}")
            new |= gaps
        usual = step.filter(step > 0).median()
        usual = usual if isinstance(usual, float) and rules.max_gap is None else float("inf")
        far = (step > LEAP * usual) & ~new
        if far.any():
            longest, often = (in_words(float(it) / MICROSECONDS) for it in (np.max(step.filter(far).to_numpy()), usual))
            notes.append(
                f"gaps in time within episodes, of up to {longest} where rows are {often} apart: {far.sum():,}; what"
                " follows a gap is taken for the next step: --max-gap ends episodes there"
            )
    onwards = data.select(all_horizontal(col(FILE) != col(FILE).shift())).to_series().fill_null(False) & ~new
    if onwards.any():
        notes.append(f"episodes that go on in the next file, as {selected['episode'][0]!r} says: {onwards.sum():,}")
    return data.with_columns(new.cast(int).cum_sum().alias(EPISODE))


def _resampled(
    data: polars.DataFrame, selected: Selected, rules: Rules, where: str, notes: list[str]
) -> polars.DataFrame:
    import polars
    from polars import col

    assert rules.period is not None
    period = round(rules.period * MICROSECONDS)
    step = data.select(col(TIME).diff().over(EPISODE)).to_series().drop_nulls()
    usual = step.filter(step > 0).median()
    if isinstance(usual, float) and usual > 1.001 * period:
        raise InputError(
            f"{where}: --period {in_words(rules.period)} is shorter than the {in_words(usual / MICROSECONDS)} between"
            " rows of the file: most rows would be made up; take a longer period"
        )

    def first(name: str) -> polars.Expr:
        return col(name).drop_nulls().first()

    def reward(name: str) -> polars.Expr:
        if rules.period_rewards == "mean":
            return col(name).mean()
        return polars.when(col(name).null_count() == 0).then(col(name).sum())

    made = {
        "observations": first,
        "actions": lambda name: col(name).mean(),
        "rewards": reward,
        "next_observations": lambda name: col(name).drop_nulls().last(),
    }
    uses = dict[str, list[str]]()
    for field in (*made, *FLAGS):
        for name in (it for it in selected.get(field, ()) if it in data.columns):  # terminals=none is no column
            uses.setdefault(name, []).append(field)
    if twice := next((name for name, fields in uses.items() if len(fields) > 1), None):
        both = " and ".join(uses[twice])
        raise InputError(
            f"{where}: column {twice!r} is given for {both}, and --period makes another value of it for each: write it"
            " into the file twice, under two names"
        )
    if several := _several_choices(data, selected, rules, (EPISODE, col(TIME) // period)):
        raise InputError(
            f"{where}: --period {in_words(rules.period)} takes the mean of the actions in a period, and {several:,}"
            f" periods hold several different choices: write one decision per row into the log yourself; {QUANTITIES}"
        )
    values = [how(name) for field, how in made.items() for name in selected.get(field, ())]
    flags = [col(name).cast(bool).any() for name in _flags(data, selected)]
    by_period = data.group_by(EPISODE, (col(TIME) // period).alias(PERIOD), maintain_order=True).agg(*values, *flags)
    ends = by_period.group_by(EPISODE, maintain_order=True).agg(
        col(PERIOD).min().alias("first"), (col(PERIOD).max() + 1).alias("end")
    )
    rows = int(ends.select((col("end") - col("first")).sum()).item())
    if rows > MOST * len(data):
        raise InputError(
            f"{where}: --period {in_words(rules.period)} makes {rows:,} rows of {len(data):,}, because there are long"
            " gaps in time: end episodes there with --max-gap, such as --max-gap 5m"
        )
    grid = ends.select(EPISODE, polars.int_ranges("first", "end").alias(PERIOD)).explode(PERIOD)
    found = grid.join(by_period, on=[EPISODE, PERIOD], how="left", maintain_order="left")
    empty = f", {rows - len(by_period):,} of them periods without a row" if rows > len(by_period) else ""
    notes.append(f"{len(data):,} rows became {rows:,}, one per {in_words(rules.period)}{empty}")
    return found.with_columns(
        (col(PERIOD) * period).alias(TIME), *(col(name).fill_null(False) for name in _flags(found, selected))
    )


def _are_choices(data: polars.DataFrame, names: Sequence[str], rules: Rules) -> bool:
    from polars import col

    if rules.quantities is not None:
        return not rules.quantities
    actions = data.select(col(names).cast(float)).to_numpy()
    return choices(actions[np.isfinite(actions).all(axis=1)]) is not None


def _several_choices(data: polars.DataFrame, selected: Selected, rules: Rules, period: Sequence[Any]) -> int:
    """Periods with more than one choice."""
    from polars import any_horizontal, col

    names = list(selected["actions"])
    if not _are_choices(data, names, rules):
        return 0
    differ = any_horizontal(col(names).min() != col(names).max()).alias("differ")
    return int(data.group_by(*period).agg(differ)["differ"].sum())


def _filled(data: polars.DataFrame, selected: Selected, rules: Rules, where: str, notes: list[str]) -> polars.DataFrame:
    """`previous` or `interpolate`."""
    import polars
    from polars import any_horizontal, col

    if TIME not in data.columns:
        data = data.with_columns(polars.int_range(polars.len()).alias(TIME))  # rows are evenly spaced, for all we know
    reach = float("inf") if rules.max_gap is None else rules.max_gap * MICROSECONDS
    names, missing = _values(selected), data.select(col(_values(selected)).is_null())

    def at(name: str) -> polars.Expr:
        return polars.when(col(name).is_not_null()).then(col(TIME))

    def previous(name: str) -> polars.Expr:
        near = col(TIME) - at(name).forward_fill() <= reach
        return polars.coalesce(col(name), polars.when(near).then(col(name).forward_fill()))

    def interpolated(name: str) -> polars.Expr:
        start, end = at(name).forward_fill(), at(name).backward_fill()
        low, high = col(name).forward_fill().cast(float), col(name).backward_fill().cast(float)
        line = low + (high - low) * polars.when(end > start).then((col(TIME) - start) / (end - start)).otherwise(0.0)
        return polars.coalesce(col(name), polars.when(end - start <= reach).then(line))

    acting = list(selected["actions"])
    if rules.fill == "interpolate" and (gone := _holes(data, acting)) and _are_choices(data, acting, rules):
        raise InputError(
            f"{where}: --fill interpolate makes actions between two choices, and some are missing ({_counted(gone)}):"
            f" take --fill previous; {QUANTITIES}"
        )
    rule = previous if rules.fill == "previous" else interpolated
    data = data.with_columns(rule(name).over(EPISODE).alias(name) for name in names)
    holes = _holes(data, names)
    out = data.select(any_horizontal(col(names).is_null())).to_series()
    _refuse_nothing(~out, where, holes)
    counts = {name: int((missing[name] & ~out).sum()) for name in names}
    if any(counts.values()):
        notes.append(f"values filled ({rules.fill}): {_counted(counts)}")
    if holes:
        flagged = data.select(any_horizontal(False, *_flags(data, selected))).to_series() & out
        lost = f"; marked as ends in the log: {flagged.sum():,}" if flagged.any() else ""
        far = "" if rules.max_gap is None else f" within {in_words(rules.max_gap)}"
        notes.append(
            f"rows left out without a value{far}, and episodes end there: {out.sum():,} ({_counted(holes)}){lost}"
        )
    again = data[EPISODE].ne_missing(data[EPISODE].shift()) | out.shift().fill_null(False)
    return data.with_columns(again.cast(int).cum_sum().alias(EPISODE)).filter(~out)


def _dropped(
    data: polars.DataFrame, selected: Selected, rules: Rules, where: str, notes: list[str]
) -> polars.DataFrame:
    from polars import any_horizontal, col

    names = _values(selected)
    holes = _holes(data, names)
    out = data.select(any_horizontal(col(names).is_null()).any().over(EPISODE)).to_series()
    _refuse_nothing(~out, where, holes)
    if holes:
        episodes, whole = data.filter(out)[EPISODE].n_unique(), data[EPISODE].n_unique()
        what = f"episodes left out that miss values ({_counted(holes)})"
        notes.append(f"{what}: {episodes:,} of {whole:,}, with {out.sum():,} rows")
    return data.filter(~out)


def _holes(data: polars.DataFrame, names: Sequence[str]) -> dict[str, int]:
    """Missing values by column, where there are any."""
    return {name: count for name in names if (count := data[name].null_count())}


def _counted(counts: Mapping[str, int]) -> str:
    return listed([f"{name} {count:,}" for name, count in counts.items() if count])


def _refuse_nothing(kept: polars.Series, where: str, holes: Mapping[str, int]) -> None:
    if holes and kept.sum() < 2:
        raise InputError(
            f"{where}: --fill leaves {kept.sum()} of {len(kept):,} rows: too many values are missing"
            f" ({_counted(holes)}); leave those columns out, fill by another rule, or allow a longer --max-gap"
        )
