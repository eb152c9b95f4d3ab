from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrpo.data import memory
from itrpo.data.episodes import both_flags, episode_statistics, left_out_rows, to_transitions
from itrpo.data.formats.npz import read_mapping
from itrpo.errors import InputError
from itrpo.types import Attributes, Episodes, Transition


def episodes_of(terminals: list[int], timeouts: list[int]) -> Episodes:
    rows = np.arange(len(terminals), dtype=np.float32)
    return read_mapping(
        {
            "observations": np.stack([rows, -rows], axis=1),
            "actions": (rows[:, None] + 1) / 1000,
            "rewards": 10 + rows,
            "terminals": np.array(terminals),
            "timeouts": np.array(timeouts),
        }
    )


def loop(episodes: Episodes) -> list[tuple[Any, ...]]:
    """What D4RL's `qlearning_dataset` says, row by row (terminate_on_end=False), with the logged next action; without
    `d4rl_view` every terminal row as well.
    """
    rows, last = [], len(episodes.rewards) - 1
    for i in range(last + 1):
        done = bool(episodes.terminals[i])
        if (episodes.timeouts[i] or i == last) and (episodes.attributes.d4rl_view or not done):
            continue
        next_action = [0.0] if done else episodes.actions[i + 1].tolist()
        rows.append(
            (
                episodes.observations[i].tolist(),
                episodes.actions[i].tolist(),
                float(episodes.rewards[i]),
                1.0 - done,
                episodes.observations[min(i + 1, last)].tolist(),
                next_action,
            )
        )
    return rows


def as_rows(transitions: Transition) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in transitions), strict=True))


flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40)


@settings(max_examples=300, deadline=None)
@given(flags, st.booleans())
def test_transitions_equal_a_loop_on_any_flags(flags: list[tuple[bool, bool]], d4rl_view: bool) -> None:
    episodes = episodes_of([int(a) for a, _ in flags], [int(b) for _, b in flags])
    episodes = replace(episodes, attributes=Attributes(d4rl_view=d4rl_view))
    expected = loop(episodes)
    if not expected:
        with pytest.raises(InputError, match="no transition is left"):
            to_transitions(episodes)
        return
    assert as_rows(to_transitions(episodes)) == expected


@settings(max_examples=100, deadline=None)
@given(flags, st.booleans())
def test_taking_over_the_memory_of_the_rows_changes_no_value(flags: list[tuple[bool, bool]], own_next: bool) -> None:
    first, second = (episodes_of([int(a) for a, _ in flags], [int(b) for _, b in flags]) for _ in range(2))
    if own_next:
        first, second = (replace(it, next_observations=np.roll(it.observations, -1, axis=0)) for it in (first, second))
    elif not loop(first):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "BLOCK", 3)  # rows move from one block to another
        in_place = to_transitions(second, in_place=True)
    assert as_rows(in_place) == as_rows(to_transitions(first))
    for taken in (in_place.observation, in_place.action, in_place.reward):
        assert any(np.shares_memory(taken, it) for it in (second.observations, second.actions, second.rewards))


def test_rows_that_may_not_be_written_to_are_copied() -> None:
    episodes = episodes_of([0, 1, 0, 0], [1, 0, 0, 0])
    episodes.observations.flags.writeable = False
    transitions = to_transitions(episodes, in_place=True)
    assert not np.shares_memory(transitions.observation, episodes.observations)
    assert kept_rows(transitions) == [1, 2]


@settings(max_examples=200, deadline=None)
@given(flags)
def test_statistics_equal_a_loop_over_rows_on_any_flags(flags: list[tuple[bool, bool]]) -> None:
    episodes = episodes_of([int(a) for a, _ in flags], [int(b) for _, b in flags])
    returns, lengths, total, length = [], [], 0.0, 0
    for reward, terminal, timeout in zip(episodes.rewards, episodes.terminals, episodes.timeouts, strict=True):
        total, length = total + float(reward), length + 1
        if terminal or timeout:
            returns.append(total)
            lengths.append(length)
            total, length = 0.0, 0
    measured = episode_statistics(episodes)
    assert measured[0].tolist() == returns  # whole numbers, so sums are exact
    assert measured[1].tolist() == lengths
    assert (measured[0].dtype, measured[1].dtype) == (np.float64, np.int64)


def kept_rows(transitions: Transition) -> list[int]:
    return transitions.observation[:, 0].astype(int).tolist()


def test_row_cut_by_a_timeout_is_dropped_and_the_terminal_row_kept() -> None:
    transitions = to_transitions(episodes_of([0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]))
    assert kept_rows(transitions) == [0, 1, 2, 3, 5]
    assert transitions.continues.tolist() == [1, 1, 0, 1, 1]
    assert transitions.next_observation[:, 0].tolist() == [1, 2, 3, 4, 6]


def test_row_both_terminal_and_timeout_is_terminal_but_dropped_in_d4rls_view() -> None:
    episodes = episodes_of([0, 1, 0, 0], [0, 1, 0, 0])
    assert to_transitions(episodes).continues.tolist() == [1, 0, 1]
    assert both_flags(episodes) == "1 rows are both terminal and timeout: taken as terminals"
    transitions = to_transitions(replace(episodes, attributes=Attributes(d4rl_view=True)))
    assert kept_rows(transitions) == [0, 2]
    assert transitions.continues.tolist() == [1, 1]


def test_terminal_last_row_is_a_transition_but_in_d4rls_view() -> None:
    episodes = episodes_of([0, 1, 0, 1], [0, 0, 0, 0])
    transitions = to_transitions(episodes)
    assert kept_rows(transitions) == [0, 1, 2, 3]
    assert (transitions.reward[3], transitions.continues[3], transitions.next_action[3, 0]) == (13, 0, 0)
    assert left_out_rows(episodes) is None
    episodes = replace(episodes, attributes=Attributes(d4rl_view=True))
    assert kept_rows(to_transitions(episodes)) == [0, 1, 2]
    assert left_out_rows(episodes) == (
        "1 of 4 rows have no successor and are left out, as in D4RL, with 1 of the 4 rewards other than 0,"
        " 1 of the 2 terminals"
    )
    returns, lengths = episode_statistics(episodes)
    assert returns.tolist() == [10 + 11, 12 + 13]
    assert lengths.tolist() == [2, 2]


def test_unfinished_last_episode_gives_transitions_but_no_return() -> None:
    episodes = episodes_of([0, 1, 0, 0], [0, 0, 0, 0])
    assert kept_rows(to_transitions(episodes)) == [0, 1, 2]
    assert episode_statistics(episodes)[0].tolist() == [21]


def test_no_completed_episode_has_no_statistics() -> None:
    returns, lengths = episode_statistics(episodes_of([0, 0], [0, 0]))
    assert returns.shape == lengths.shape == (0,)


def test_next_action_never_crosses_an_episode_end() -> None:
    transitions = to_transitions(episodes_of([0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]))
    assert kept_rows(transitions) == [0, 1, 2, 3]
    np.testing.assert_array_equal(transitions.next_action[:, 0], np.float32([2 / 1000, 0, 0, 5 / 1000]))


def test_only_transitions_are_kept_in_float32() -> None:
    assert {column.dtype for column in to_transitions(episodes_of([0, 1, 0], [0, 0, 0]))} == {np.dtype(np.float32)}


def own_successors() -> dict[str, np.ndarray]:
    """Rows 0-1 one episode cut by the clock, row 2 a terminal one, rows 3-4 cut by the end of the data."""
    return {
        "observations": np.array([[0.0], [1], [5], [7], [8]]),
        "actions": np.array([[0.1], [0.2], [0.3], [0.4], [0.5]]),
        "rewards": np.ones(5),
        "terminals": np.array([0, 0, 1, 0, 0]),
        "timeouts": np.array([0, 1, 0, 0, 0]),
        "next_observations": np.array([[1.0], [2], [6], [8], [9]]),
    }


def test_with_next_observations_every_row_is_a_transition() -> None:
    transitions = to_transitions(read_mapping(own_successors()))
    assert transitions.next_observation[:, 0].tolist() == [1, 2, 6, 8, 9]
    assert transitions.continues.tolist() == [1, 1, 0, 1, 1]
    np.testing.assert_array_equal(transitions.next_action[:, 0], np.float32([0.2, 0, 0, 0.5, 0]))


def test_with_next_observations_a_timeout_ends_the_episode_even_if_the_next_row_goes_on_from_there() -> None:
    arrays = own_successors()
    arrays["observations"][2] = arrays["next_observations"][1]
    assert to_transitions(read_mapping(arrays)).next_action[1].tolist() == [0]


def test_with_next_observations_shuffled_rows_have_no_next_action() -> None:
    order = [3, 0, 4, 2, 1]
    arrays = {key: values[order] for key, values in own_successors().items()}
    transitions = to_transitions(read_mapping(arrays))
    assert transitions.action[:, 0].tolist() == np.float32([0.4, 0.1, 0.5, 0.3, 0.2]).tolist()
    assert not transitions.next_action.any()


def test_the_users_arrays_are_left_as_they_are() -> None:
    arrays = {key: np.asarray(values, np.float32) for key, values in own_successors().items()}
    before = {key: values.copy() for key, values in arrays.items()}
    to_transitions(read_mapping(arrays))
    for key, values in arrays.items():
        np.testing.assert_array_equal(values, before[key])


def test_cuts_are_found_without_timeouts() -> None:
    arrays = own_successors()
    del arrays["timeouts"]
    episodes = read_mapping(arrays)
    assert episodes.timeouts.tolist() == [False, True, False, False, False]
    assert episode_statistics(episodes)[1].tolist() == [2, 1]
