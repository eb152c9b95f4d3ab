from __future__ import annotations

import numpy as np

from tests.data.health.sound_log import ROWS, SOUND, changed, check, names, only


def test_constant_rewards() -> None:
    finding = only(check(rewards=np.ones(ROWS)))
    assert (finding.severity, finding.name) == ("warning", "constant-reward")  # longer episodes still pay more
    health = check(rewards=np.ones(ROWS), terminals=np.zeros(ROWS), timeouts=SOUND["timeouts"] | SOUND["terminals"])
    assert health.findings[0].name == "constant-reward"
    assert health.findings[0].severity == "error"


def test_rewards_out_of_proportion() -> None:
    quiet = np.flatnonzero(~SOUND["terminals"])[[50, 700]]
    finding = only(check(rewards=changed("rewards", quiet, [-1e4, 500])))
    assert (finding.severity, finding.name, finding.rows) == ("warning", "reward-outliers", tuple(quiet))
    assert "up to -10000" in finding.what
    ends = np.flatnonzero(SOUND["terminals"])
    finding = only(check(rewards=changed("rewards", ends, -300)))
    assert (finding.severity, finding.name, finding.count) == ("note", "reward-outliers", len(ends))
    assert "in terminal rows" in finding.what


def test_sparse_and_large_rewards() -> None:
    goals = np.flatnonzero(SOUND["terminals"])
    finding = only(check(rewards=np.where(SOUND["terminals"], 1.0, 0.0)))
    assert (finding.severity, finding.name, finding.count) == ("note", "sparse-rewards", len(goals))
    sparse = np.where(SOUND["terminals"], 1 + 0.1 * SOUND["rewards"], 0)
    sparse[goals[3]] = 1e6
    assert "reward-outliers" in names(check(rewards=sparse))
    assert names(check(rewards=SOUND["rewards"] * 1000)) == ["large-rewards"]


def test_huge_rewards_are_divided_by_a_number() -> None:
    rewards = (SOUND["rewards"] / SOUND["rewards"].std() * 1.5e30).astype(np.float32)
    assert only(check(rewards=rewards)).advice.endswith("divide rewards by about 1e+30")
    assert only(check(rewards=SOUND["rewards"] * 1000)).advice.endswith("divide rewards by about 100")
