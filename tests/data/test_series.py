"""Tables in time: gaps, fills and periods against what they must be, worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from itrpo.data.convert import convert
from itrpo.data.formats.table import moments
from itrpo.data.health import check_dataset
from itrpo.data.load import load_dataset, read_episodes
from itrpo.data.series import rules_of
from itrpo.errors import InputError

MAP = {"observations": ["s"], "actions": "a", "rewards": "r", "terminals": "none", "timeouts": "none", "time": "t"}


def log(times: Any, **changed: Any) -> polars.DataFrame:
    rows = len(times)
    columns = {"t": times, "s": [float(it) for it in range(rows)], "a": [0.0] * rows, "r": [1.0] * rows}
    return polars.DataFrame({**columns, **changed}, strict=False)


def read(frame: polars.DataFrame, columns: dict[str, Any] | None = None, **rules: Any) -> Any:
    episodes = read_episodes(frame, columns=MAP | (columns or {}), rules=rules_of(**rules))
    return episodes, list(episodes.source.recipe.get("changes", []))


def ends(episodes: Any) -> list[int]:
    return np.flatnonzero(episodes.timeouts).tolist()


def test_a_gap_longer_than_the_rule_ends_an_episode():
    episodes, changes = read(log([0, 1, 2, 8, 9, 14]), max_gap=5)  # 2 to 8 is longer than 5 s, 9 to 14 is not
    assert ends(episodes) == [2, 5]
    assert changes == ["gaps longer than 5s, each an end of an episode: 1"]
    dataset = load_dataset(log([0, 1, 2, 8, 9, 14]), columns=MAP, max_gap="5s")
    assert dataset.transitions.next_observation[:, 0].tolist() == [1, 2, 4, 5]  # none leads across the gap
    assert ends(read(log([0, 1, 2, 8, 9, 14]))[0]) == [5]


def test_gaps_that_no_rule_ends_are_counted():
    """The rows after them are the successors of those before: nobody is told otherwise."""
    episodes, changes = read(log([0, 60, 120, 180, 3840, 3900]))
    assert ends(episodes) == [5]
    assert changes == [
        "gaps in time within episodes, of up to 61m where rows are 1m apart: 1; what follows a gap is taken for the"
        " next step: --max-gap ends episodes there"
    ]
    assert read(log([0, 60, 120, 180, 700, 760]))[1] == []
    assert read(log([0, 60, 120, 180, 3840, 3900]), max_gap=3660)[1] == []


def test_the_value_before_fills_as_far_as_the_rule_reaches():
    s = [None, 10.0, None, None, None, 20.0, float("nan"), 30.0]
    episodes, changes = read(log([0, 1, 2, 3, 4, 5, 6, 7], s=s), fill="previous", max_gap=2)
    assert episodes.observations[:, 0].tolist() == [10, 10, 10, 20, 20, 30]  # rows 1, 2, 3, 5, 6, 7
    assert ends(episodes) == [2, 5]
    assert changes == [
        "values filled (previous): s 3",
        "rows left out without a value within 2s, and episodes end there: 2 (s 2)",
    ]
    assert len(read(log(range(8), s=s), fill="previous")[0].rewards) == 7  # without a reach only the first is lost


def test_the_line_between_neighbours_goes_by_time():
    s = [0.0, None, None, 10.0, None]
    episodes, changes = read(log([0, 1, 4, 5, 6], s=s), fill="interpolate")
    assert episodes.observations[:, 0].tolist() == [0, 2, 8, 10]
    assert "s 2" in changes[0]
    assert changes[1] == "rows left out without a value, and episodes end there: 1 (s 1)"
    assert len(read(log([0, 1, 4, 5, 6], s=s), fill="interpolate", max_gap=4)[0].rewards) == 2  # 5 s apart
    assert len(read(log([0, 1, 4, 5, 6], s=s), fill="interpolate", max_gap=5)[0].rewards) == 4
    same, _ = read(log([60, 60, 60, 61], s=[4.0, None, 8.0, 9.0]), fill="interpolate")  # logged by whole seconds
    assert same.observations[:, 0].tolist() == [4, 4, 8, 9]
    columns = {field: name for field, name in MAP.items() if field != "time"}
    frame = log(range(5), s=[0.0, None, None, 9.0, 1.0])
    by_rows = read_episodes(frame, columns=columns, rules=rules_of(fill="interpolate"))
    assert by_rows.observations[:, 0].tolist() == [0, 3, 6, 9, 1]


def test_an_episode_that_misses_a_value_can_be_left_out():
    episode = {"columns": {"episode": "run"}}
    frame = log(range(6), run=["a", "a", "b", "b", "c", "c"], r=[1.0, 1.0, 1.0, None, 5.0, 5.0])
    episodes, changes = read(frame, **episode, fill="drop")
    assert episodes.observations[:, 0].tolist() == [0, 1, 4, 5]
    assert ends(episodes) == [1, 3]
    assert changes == ["episodes left out that miss values (r 1): 1 of 3, with 2 rows"]


@pytest.mark.parametrize("rule", ["previous", "interpolate"])
def test_nothing_is_filled_across_an_end(rule: str):
    """Not across a terminal, a change of the episode, or a gap."""
    frame = log(range(5), s=[1.0, 2.0, None, None, 5.0], end=[0, 1, 0, 0, 0])
    episodes, _ = read(frame, {"terminals": "end"}, fill=rule)
    assert episodes.observations[:, 0].tolist() == [1, 2, 5]
    frame = log(range(5), s=[1.0, 2.0, None, None, 5.0], run=[1, 1, 2, 2, 2])
    assert read(frame, {"episode": "run"}, fill=rule)[0].observations[:, 0].tolist() == [1, 2, 5]
    frame = log([0, 1, 10, 11, 12], s=[1.0, 2.0, None, None, 5.0])
    assert read(frame, fill=rule, max_gap=5)[0].observations[:, 0].tolist() == [1, 2, 5]


def test_one_row_per_period():
    """Observations: the first; actions: the mean; rewards: the sum; flags: any. Periods begin at their multiples."""
    frame = log(
        [58, 60, 80, 119, 120, 130], a=[0.1, 0.0, 0.5, 1.0, -1.0, 0.0], r=[1, 2, 3, 4, 5, 6], end=[0, 0, 0, 0, 0, 1]
    )
    episodes, changes = read(frame, {"terminals": "end"}, period="1m")
    assert episodes.observations[:, 0].tolist() == [0, 1, 4]
    np.testing.assert_allclose(episodes.actions[:, 0], [0.1, 0.5, -0.5], rtol=1e-6)
    assert episodes.rewards.tolist() == [1, 9, 11]
    assert episodes.terminals.tolist() == [False, False, True]
    assert changes == ["6 rows became 3, one per 1m"]
    assert read(frame, period=60, period_rewards="mean")[0].rewards.tolist() == [1, 3, 5.5]


SWITCHED = {"a": [0, 2, 3, 1, 1, 1], "end": [0, 0, 0, 0, 0, 1]}  # two different choices in each of two minutes


def test_a_period_makes_no_choices_that_nobody_made():
    """The mean of 3 and 1 is another choice, 2."""
    frame, columns = log(range(0, 360, 60), **SWITCHED), MAP | {"terminals": "end"}
    with pytest.raises(InputError, match=r"--period 2m takes the mean.* 2 periods hold several .*one decision per row"):
        read(frame, {"terminals": "end"}, period="2m")
    for given in ({}, {"num_actions": 4}):
        with pytest.raises(InputError, match="write one decision per row"):
            load_dataset(frame, columns=columns, period="2m", **given)
        with pytest.raises(InputError, match="write one decision per row"):
            check_dataset(frame, columns=columns, period="2m", **given)
    for given in ({"continuous_actions": True, "action_high": 3}, {"action_low": 0, "action_high": 3}):
        data = load_dataset(frame, columns=columns, period="2m", **given)
        raw = data.action_low + (data.transitions.action + 1) / 2 * (data.action_high - data.action_low)
        np.testing.assert_allclose(raw[:, 0], [1, 2, 1], rtol=1e-6)
    assert len(load_dataset(frame, columns=columns, period="1m").transitions.action) == 6  # one decision in each
    halves = frame.with_columns(polars.col("a") / 4)
    assert len(load_dataset(halves, columns=columns, period="2m").transitions.action) == 3
    with pytest.raises(InputError, match="2 periods hold several"):  # said to be, looks or not
        load_dataset(halves, columns=columns, period="2m", num_actions=4)


def test_the_word_of_the_file_is_heard_before_looks(tmp_path: Path):
    frame, columns = log(range(0, 360, 60), **SWITCHED), MAP | {"terminals": "end"}
    assert len(load_dataset(frame, columns=columns | {"action_low": 0, "action_high": 3}, period="2m").starts) == 1
    frame.write_csv(tmp_path / "log.csv")
    convert(tmp_path / "log.csv", tmp_path / "a.csv", columns=MAP | {"terminals": "end"}, num_actions=4)
    with pytest.raises(InputError, match="write one decision per row"):
        convert(tmp_path / "log.csv", tmp_path / "b.csv", columns=columns, period="2m")
    done = convert(tmp_path / "log.csv", tmp_path / "b.csv", columns=columns, period="2m", action_low=0, action_high=3)
    assert done.rows == 3


def test_no_line_leads_from_one_choice_to_another():
    frame = log(range(4), a=[0, None, 2, 1])
    with pytest.raises(InputError, match=r"--fill interpolate makes.*\(a 1\): take --fill previous; if actions are"):
        load_dataset(frame, columns=MAP, fill="interpolate")
    assert read(frame, fill="previous")[0].actions[:, 0].tolist() == [0, 0, 2, 1]
    assert read(frame, fill="interpolate", quantities=True)[0].actions[:, 0].tolist() == [0, 1, 2, 1]
    seen = log(range(4), s=[0.0, None, 2.0, 3.0], a=[0, 1, 2, 1])
    assert read(seen, fill="interpolate")[0].observations[:, 0].tolist() == [0, 1, 2, 3]
    valve = log(range(4), a=[0.0, None, 0.5, 1.0])
    assert read(valve, fill="interpolate")[0].actions[:, 0].tolist() == [0, 0.25, 0.5, 1]


def test_numbers_missing_in_arrays_are_filled_too():
    ends = np.array([0, 0, 0, 1], bool)
    rows = {"observations": np.array([[0, 1], [np.nan, 3], [4, np.nan], [6, 7]]), "actions": np.full((4, 1), 0.5)}
    rows |= {"rewards": np.ones(4), "terminals": ends, "timeouts": ~np.ones(4, bool)}
    dataset = load_dataset(rows, fill="previous")
    assert dataset.transitions.observation.tolist() == [[0, 1], [0, 3], [4, 3], [6, 7]]
    assert dataset.notes[0] == "values filled (previous): observations[0] 1, observations[1] 1"


def test_a_period_keeps_returns_and_does_not_mix_episodes():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.5, 1.5, 200))
    frame = log(times, r=rng.normal(size=200), run=np.repeat(["a", "b", "c"], [70, 1, 129]))
    returns = [load_dataset(frame, columns=MAP | {"episode": "run"}, period=it).episode_returns for it in (None, 5)]
    np.testing.assert_allclose(*returns, rtol=1e-4)
    assert len(returns[1]) == 3


def test_periods_without_rows_are_missing_values():
    frame = log([0, 1, 2, 5, 6])
    with pytest.raises(InputError, match=r"--period 1s, values are missing \(s 2, a 2, r 2\): say"):
        read(frame, period=1)
    episodes, changes = read(frame, period=1, fill="previous")
    assert episodes.observations[:, 0].tolist() == [0, 1, 2, 2, 2, 3, 4]
    assert changes == [
        "5 rows became 7, one per 1s, 2 of them periods without a row",
        "values filled (previous): s 2, a 2, r 2",
    ]
    assert len(read(frame, period=1, max_gap=2)[0].rewards) == 5  # a gap: nothing is missing any more


@pytest.mark.parametrize(
    ("times", "rules", "message"),
    [
        ([0, 1, 3, 2], {}, r"time in 't' goes back within an episode, in 1 places \(first: row 3\)"),
        ([0, 60, 120, 180], {"period": 30}, "shorter than the 1m between rows"),
        ([0, 1, 2, 1000], {"period": 1, "fill": "previous"}, "makes 1,001 rows of 4.*--max-gap"),
        (["noon", "1", "2", "3"], {}, "must hold times, not 'noon'; write them as 2024-03-01 12:00:05"),
        (["01/02/2024 10:00"] * 4, {}, "must hold times"),  # the first of February, or the second of January?
        (["1", "", "2", "3"], {}, "column 't' is empty in 1 of 4 rows"),
        ([0, 1, 2, 3], {"max_gap": "5 minits"}, "max_gap must be a time such as 30s, 5m"),
        ([0, 1, 2, 3], {"max_gap": 0}, "max_gap must be a time"),
        ([0, 1, 2, 3], {"fill": "zero"}, "fill must be one of previous, interpolate, drop, got 'zero'"),
        ([0, 1, 2, 3], {"period_rewards": "sum"}, "give a period, too"),
    ],
)
def test_what_can_not_be_is_said(times: list[Any], rules: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        read(log(times), **rules)


def test_a_rule_that_leaves_nothing_or_needs_a_time_is_said():
    with pytest.raises(InputError, match=r"--fill leaves 0 of 3 rows: too many values are missing \(s 3\)"):
        read(log(range(3), s=[None] * 3), fill="previous")
    columns = {field: name for field, name in MAP.items() if field != "time"}
    with pytest.raises(InputError, match="--max-gap needs to know when a row was: add time=COLUMN"):
        load_dataset(log(range(3)), columns=columns, max_gap=5)
    with pytest.raises(InputError, match=r"column 's' is empty in 1 of 3 rows.*--fill previous"):
        load_dataset(log(range(3), s=[1.0, None, 2.0]), columns=MAP)


def test_every_way_to_write_a_time_is_the_same_moment():
    moment = datetime(2026, 3, 29, 1, 2, 3, tzinfo=UTC)
    seconds = moment.timestamp()
    texts = ["2026-03-29 01:02:03", "2026-03-29T01:02:03Z", "2026-03-29T03:02:03.000+02:00", "29.03.2026 01:02:03"]
    written = [polars.Series([text, text]) for text in texts]
    written += [polars.Series([it, it]) for it in (seconds, int(seconds), int(seconds * 1e3), int(seconds * 1e9))]
    written += [polars.Series([str(seconds)] * 2), polars.Series([moment] * 2)]
    written += [polars.Series([moment.astimezone(timezone(timedelta(hours=5)))] * 2)]
    assert [moments(it, "x").to_list() for it in written] == [[int(seconds * 1e6)] * 2] * len(written)
    assert moments(polars.Series(["2026-03-29 01:02:03.25", "2026-03-29 01:02:03.5"]), "x").diff()[1] == 250_000


def test_times_of_narrow_types_do_not_run_over():
    """A million times their seconds is beyond 32 bits after 36 minutes."""
    for kind in (polars.Int16, polars.UInt16, polars.Int32, polars.UInt32, polars.Int64, polars.Float32):
        assert moments(polars.Series([0, 5_000, 30_000], dtype=kind), "x").to_list() == [0, 5 * 10**9, 30 * 10**9]
    frame = log([*range(0, 1000, 10), *range(5300, 6300, 10)]).with_columns(polars.col("t").cast(polars.Int32))
    episodes, changes = read(frame, max_gap="5m")
    assert ends(episodes) == [99, 199]
    assert changes == ["gaps longer than 5m, each an end of an episode: 1"]


def test_offsets_from_universal_time_may_change_and_be_none():
    """London's clocks on 29 March 2026, and what a recorder writes that says Z in winter."""
    for before in ("2026-03-29T00:59:00+00:00", "2026-03-29T00:59:00Z"):
        assert moments(polars.Series([before, "2026-03-29T02:00:00+01:00"]), "x").diff()[1] == 60 * 10**6


def test_a_column_of_two_fields_has_no_one_value_in_a_period():
    with pytest.raises(InputError, match="column 'r' is given for observations and rewards, and --period makes"):
        read(log(range(4)), {"observations": ["s", "r"]}, period=2)
    assert len(read(log(range(4)), {"observations": ["s", "r"]})[0].rewards) == 4


def test_times_in_words():
    spelled = ["90", "90s", "1m30s", "1.5min", "1.5 m", 90, 90.0]
    assert {rules_of(max_gap=it).max_gap for it in spelled} == {90.0}
    assert [rules_of(period=it).period for it in ("250ms", "2h", "1d")] == [0.25, 7200.0, 86400.0]


def test_lists_are_filled_dimension_by_dimension():
    """Not the numbers within a list: they must be there. A period or a fill sees a column for each."""
    frame = log([0, 1, 2, 3], s=[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]], r=[1.0, 1.0, None, 1.0])
    assert read(frame, fill="previous")[0].observations.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert read(frame, fill="previous", period=2)[0].observations.tolist() == [[0, 1], [4, 5]]
