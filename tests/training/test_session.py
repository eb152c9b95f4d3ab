"""How a run goes from step to step, and where a signal stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from rich.console import Console

from itrpo import files
from itrpo.config import DataConfig, EvalConfig, RunConfig, TrainConfig
from itrpo.console import LiveLine
from itrpo.evaluation.beside import Evaluations
from itrpo.results.checkpoint import sorted_checkpoints
from itrpo.results.run_folder import RunFolder
from itrpo.training import loop
from itrpo.training.configure import make_setup
from itrpo.training.session import Own, Session
from itrpo.types import Dataset, DataSource


def session(folder: Path, signals: list[int]) -> Session:
    data = DataConfig("arrays", "none", None, False, 1.0, 0.0, (-1.0,), (1.0,))
    setup = make_setup("td3_bc")
    config = RunConfig(data, train=TrainConfig(10, 1, 0, None), evaluation=EvalConfig(5, 1), **setup.constants())
    nothing: Any = None
    dataset = Dataset(
        "arrays", nothing, None, nothing, nothing, nothing, nothing, 0, 0, 0, DataSource("arrays", "arrays")
    )
    files.write_json(folder / "config.json", {})  # as every run begins
    own = Own(RunFolder(folder), config, "0")
    return Session((own,), range(1), dataset, nothing, nothing, Evaluations(), Console(quiet=True), signals)


def counted(carry: loop.Carry, start: int, stop: int) -> loop.Carry:
    return carry._replace(count=carry.count + (stop - start))


def test_a_signal_in_the_last_piece_lets_the_evaluation_come_first(tmp_path):
    """What was measured up to an evaluation belongs to it: a run that stops there would lose it."""
    running = session(tmp_path, signals=[2])
    carry = loop.start({"weights": jnp.zeros((1, 3))}, ["loss"])
    with LiveLine(running.console, "training", 10, 1, 0) as live:
        carry = running.advance("train", counted, carry, 4, 5, live)
        assert carry.count == 1
        assert sorted_checkpoints(running.folder.checkpoints) == []
        with pytest.raises(KeyboardInterrupt, match="stopped at step 6 "):
            running.advance("train", counted, carry, 5, 10, live)
    assert [path.name for path in sorted_checkpoints(running.folder.checkpoints)] == ["train_0000000006"]


class Unfinished:
    """A process that has not answered yet."""

    def send(self, message: bytes) -> None: ...

    def answered(self) -> bool:
        return False

    def receive(self) -> bytes:
        return b'{"returns": [[1.0]], "lengths": [[1]], "seconds": 1.0}'


def test_an_evaluation_is_written_down_before_the_checkpoint_of_a_later_step(tmp_path):
    running, seen = session(tmp_path, signals=[2]), []
    running.evaluations._process = Unfinished()  # pyright: ignore[reportAttributeAccessIssue]
    running.evaluations.start([], 0, 5, [0], lambda _: seen.append(sorted_checkpoints(running.folder.checkpoints)))
    carry = loop.start({"weights": jnp.zeros((1, 3))}, ["loss"])
    with LiveLine(running.console, "training", 10, 1, 0) as live, pytest.raises(KeyboardInterrupt):
        running.advance("train", counted, carry, 5, 10, live)
    assert seen == [[]]
