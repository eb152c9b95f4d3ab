"""Evaluations beside other work: the same numbers and the same errors as here, and no process is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from itrpo.errors import ItrpoError
from itrpo.evaluation import rollout
from itrpo.evaluation.beside import Evaluated, Evaluations
from itrpo.evaluation.rollout import failure
from itrpo.policy import load_policy, save_policy
from tests.evaluation.test_rollout import Countdown

LONG = "itrpo/AntMaze_Large-v0"  # up to 1,000 steps of a slow simulation


def policy_files(folder: Path, count: int, observations: int, actions: int, scale: float = 1.0) -> list[Path]:
    paths, rng = [folder / f"{index}.npz" for index in range(count)], np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for path in paths:
        shapes = {"weight_0": (8, observations), "bias_0": (8,), "weight_1": (actions, 8), "bias_1": (actions,)}
        export = {name: scale * rng.normal(size=shape) for name, shape in shapes.items()}
        bounds = np.ones(actions)
        save_policy(
            path, export | {"kind": "tanh_mlp"}, np.zeros(observations), np.ones(observations), -bounds, bounds, {}
        )
    return paths


def long_evaluation(folder: Path) -> Evaluations:
    evaluations = Evaluations(LONG, 1, 4)
    evaluations.start(policy_files(folder, 1, 29, 8), 0, 0, [0], pytest.fail)
    return evaluations


def test_it_gives_what_the_same_evaluation_gives_here(tmp_path):
    paths, done = policy_files(tmp_path, 2, 11, 3), list[Evaluated]()
    with closing(Evaluations("Hopper-v4", 2, 4)) as evaluations:
        for step in (5, 10):
            evaluations.start(paths, 1, step, [3, 4], done.append)
            assert len(done) == (step == 10)  # it goes on by itself
            evaluations.settle()
            evaluations.settle()  # once is enough
    with closing(rollout.make_pool("Hopper-v4", 2, 4)) as pool:
        for step, evaluated in zip((5, 10), done, strict=True):
            here = rollout.evaluate(pool, rollout.acting(list(map(load_policy, paths))), 1, step, [3, 4])
            assert evaluated.returns is not None
            np.testing.assert_array_equal(evaluated.returns.returns, here.returns)
            np.testing.assert_array_equal(evaluated.returns.lengths, here.lengths)
            assert evaluated.seconds > 0


def test_it_is_settled_without_waiting_only_once_it_is_over(tmp_path):
    done = list[Evaluated]()
    with closing(Evaluations("Hopper-v4", 1, 1)) as evaluations:
        evaluations.start(policy_files(tmp_path, 1, 11, 3), 0, 0, [0], done.append)
        evaluations.settle(wait=False)
        assert not done  # the process has hardly started
        deadline = time.monotonic() + 60
        while not done and time.monotonic() < deadline:
            time.sleep(0.01)
            evaluations.settle(wait=False)
        assert done


def test_a_policy_that_fails_takes_no_other_with_it(tmp_path):
    (broken,), (good,) = policy_files(tmp_path / "a", 1, 11, 3, scale=5e37), policy_files(tmp_path / "b", 1, 11, 3)
    both, alone = list[Evaluated](), list[Evaluated]()
    with closing(Evaluations("Hopper-v4", 2, 1)) as evaluations:  # of seeds 4 and 5; inf - inf
        evaluations.start([broken, good], 0, 9, [4, 5], both.append)
        evaluations.settle()
    with closing(Evaluations("Hopper-v4", 1, 1)) as evaluations:
        evaluations.start([good], 0, 9, [5], alone.append)
        evaluations.settle()
    (played,), (by_itself,) = both, alone
    assert played.returns is not None
    assert by_itself.returns is not None
    said = "seed 4, training step 9: an action of the policy in Hopper-v4, or the reward that it got, is not finite"
    assert failure("Hopper-v4", played.returns, 0, 4, 9) == said
    assert failure("Hopper-v4", played.returns, 1, 5, 9) is None
    np.testing.assert_array_equal(played.returns.returns[1], by_itself.returns.returns[0])


def test_a_process_that_was_killed_is_one_sentence(tmp_path):
    with closing(long_evaluation(tmp_path)) as evaluations:
        assert evaluations._process is not None
        evaluations._process._process.kill()
        with pytest.raises(ItrpoError, match=r"evaluates in itrpo/AntMaze_Large-v0 ended \(status -9\)"):
            evaluations.settle()


def test_it_ends_in_the_middle_when_the_trainer_is_gone(tmp_path):
    with closing(long_evaluation(tmp_path)) as evaluations:
        assert evaluations._process is not None
        evaluations._process._pipe.close()  # as the system does for who is killed
        assert evaluations._process._process.wait(timeout=30) == 0


def test_closing_it_leaves_no_process(tmp_path):
    evaluations = long_evaluation(tmp_path)
    started = time.monotonic()
    evaluations.close()
    assert time.monotonic() - started < 5
    assert evaluations._process is not None
    assert evaluations._process._process.returncode == -9


@pytest.fixture
def countdown() -> Iterator[str]:
    gymnasium.register("ItrpoCountdownBeside-v0", entry_point=Countdown)
    yield "ItrpoCountdownBeside-v0"
    del gymnasium.registry["ItrpoCountdownBeside-v0"]


def test_an_environment_known_to_this_process_alone_is_played_at_once(countdown, tmp_path):
    evaluations, done = Evaluations(countdown, 2, 3), list[Evaluated]()
    evaluations.start(policy_files(tmp_path, 2, 2, 1), 0, 0, [0, 1], done.append)
    assert evaluations._process is None
    assert done[0].returns is not None
    assert done[0].returns.lengths.shape == (2, 3)
    assert evaluations.waited >= done[0].seconds > 0


def test_without_an_environment_there_is_nothing_to_wait_for():
    done = list[Evaluated]()
    Evaluations().start([], 0, 0, [], done.append)
    assert done[0].returns is None
