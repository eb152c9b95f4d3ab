"""What goes wrong in a process that steps environments is said in the one that asked, in the same words."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from itrpo.errors import InputError, ItrpoError
from itrpo.evaluation.beside import Evaluations
from itrpo.evaluation.environments import allow
from itrpo.evaluation.slots import LocalSlots, RemoteSlots
from tests.evaluation.test_beside import policy_files
from tests.own_envs import FAULT

OWN = "tests.own_envs:Mine-v0"


def test_a_step_that_fails_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT, "1")
    allow(OWN)
    seeds, active, actions = np.array([3], np.uint32), np.ones(1, bool), np.zeros((1, 1), np.float32)
    words = f"environment {OWN} failed at a step: ConnectionError: lost the simulator"
    with closing(RemoteSlots(OWN, 1)) as there, closing(LocalSlots(OWN, 1)) as here:
        there.send_reset(seeds)
        np.testing.assert_array_equal(there.receive_reset(), here.reset(seeds))
        for _ in range(2):
            there.send_step(active, actions)
            np.testing.assert_array_equal(there.receive_step()[0], here.step(active, actions)[0])
        there.send_step(active, actions)
        for step in (there.receive_step, lambda: here.step(active, actions)):
            with pytest.raises(ItrpoError, match=words):
                step()


def test_what_cannot_be_built_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that this program has registered itself, with a class of gymnasium's."""
    entry_point = "gymnasium.envs.classic_control.pendulum:PendulumEnv"
    monkeypatch.setitem(
        gymnasium.registry, "ItrpoHere-v0", gymnasium.envs.registration.EnvSpec("ItrpoHere-v0", entry_point)
    )
    with closing(Evaluations("ItrpoHere-v0", 1, 1)) as evaluations:
        evaluations.start(policy_files(tmp_path, 1, 3, 1), 0, 0, [0], pytest.fail)
        with pytest.raises(InputError, match=r"unknown environment 'ItrpoHere-v0'.*MODULE:ItrpoHere-v0"):
            evaluations.settle()
