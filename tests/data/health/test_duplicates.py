from __future__ import annotations

import numpy as np

from itrpo.data.health import check_dataset
from tests.data.health.sound_log import ROWS, SOUND, check, only


def test_repeated_rows_and_episodes() -> None:
    again = {key: SOUND[key].copy() for key in SOUND}
    for key in ("observations", "actions", "rewards"):
        again[key][[301, 302, 5000]] = again[key][[300, 300, 40]]
    finding = only(check(**again))
    assert (finding.severity, finding.name, finding.rows) == ("note", "duplicate-rows", (301, 302, 5000))

    ends = np.flatnonzero(SOUND["terminals"] | SOUND["timeouts"])
    first = slice(0, int(ends[1]) + 1)  # two episodes
    doubled = {key: np.concatenate([SOUND[key], SOUND[key][first]]) for key in SOUND}
    finding = only(check_dataset(doubled))
    assert (finding.severity, finding.name, finding.rows) == (
        "warning",
        "duplicate-episodes",
        (ROWS, ROWS + ends[0] + 1),
    )
    assert f"{ends[1] + 1:,} rows" in finding.what


def test_many_repeated_rows_are_a_warning() -> None:
    times = 1 + ((np.arange(ROWS) % 20 == 0) & ~SOUND["terminals"] & ~SOUND["timeouts"])
    health = check_dataset({key: np.repeat(SOUND[key], times, axis=0) for key in SOUND})
    finding = next(finding for finding in health.findings if finding.name == "duplicate-rows")
    assert (finding.severity, finding.name, finding.rows[:2]) == ("warning", "duplicate-rows", (1, 22))


def test_few_states_and_actions_come_back_without_a_fault() -> None:
    """A walk over five cells: it repeats rows at once where it runs into a wall, and later wherever it goes."""
    rng = np.random.default_rng(0)
    moves, cells = rng.integers(0, 2, ROWS), np.zeros(ROWS + 1, int)
    for row in range(ROWS):
        cells[row + 1] = np.clip(cells[row] + 2 * moves[row] - 1, 0, 4)
    walk = {"observations": np.eye(5, dtype=np.float32)[cells[:-1]], "actions": moves, "rewards": cells[1:] == 4}
    walk |= {"terminals": np.zeros(ROWS, bool), "timeouts": np.arange(ROWS) % 100 == 99}
    (finding,) = (it for it in check_dataset(walk).findings if it.name == "duplicate-rows")
    assert (finding.severity, finding.advice[:32]) == ("note", "a problem of few states and acti")
