"""The Ray executor on a real cluster of several nodes on this machine, whose worker is really killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from itrpo.results.store import read_status
from itrpo.sweep.local import LocalExecutor
from itrpo.sweep.on_ray import RayExecutor
from itrpo.sweep.plan import read_plan
from itrpo.sweep.run import Sweep, begin, sweep
from tests.processes import parent_of, running

ray = pytest.importorskip("ray", reason="pip install 'itrpo[ray]'")


@pytest.fixture
def cluster() -> Iterator[str]:
    """A head without cores, so that runs go to the other two nodes."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


def planned(path: Path, out: Path, console: Console) -> Sweep:
    return begin(read_plan(str(path)), out, ["one"], console)


def environment(pid: int) -> list[str]:
    """Of a process; empty if it ended meanwhile: not all of them are ours."""
    try:
        return Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return []


class Killer(RayExecutor):
    """Kills the worker of Ray's that a run was given to, and the run itself, once it has a checkpoint to go on from."""

    killed: tuple[int, ...] = ()

    def ended(self):
        mine = [pid for pid in running("itrpo.sweep.worker") if self.out in environment(pid)]
        status = self.folder / "status.json"
        parents = [it for it in map(parent_of, mine) if it is not None]
        if not self.killed and parents and status.exists() and 0 < read_status(self.folder).step < 800:
            self.killed = (*parents, *mine)
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)
        return super().ended()


def test_a_run_whose_worker_is_killed_goes_on_elsewhere_to_the_same_bits(cluster, write_plan, tmp_path, monkeypatch):
    console, path = Console(width=200), write_plan()
    assert sweep(planned(path, tmp_path / "here", console), LocalExecutor(), 1, console) == []
    executor = Killer(cluster, 1, 0)
    executor.out, executor.folder = f"ITRPO_CACHE={os.environ['ITRPO_CACHE']}", tmp_path / "there" / "one" / "itrpo"
    began = time.monotonic()
    assert sweep(planned(path, tmp_path / "there", console), executor, 2, console) == []
    assert time.monotonic() - began < 300
    assert len(executor.killed) >= 2
    log = (tmp_path / "there" / "one" / "itrpo.log").read_text()
    assert "resuming train at step" in log
    for arm in ("itrpo", "brac"):
        here, there = (tmp_path / place / "one" / arm / "metrics.jsonl" for place in ("here", "there"))
        assert here.read_bytes() == there.read_bytes()
