from __future__ import annotations

import json
from pathlib import Path

from itrpo.collection import mazes
from itrpo.collection.making import make
from itrpo.results import store
from itrpo.training.configure import train


def test_a_maze_is_evaluated_on_ten_times_the_episodes_a_tenth_as_often(tmp_path: Path):
    """From a made set to scores in its own maze. `smoke` asks for 2 episodes every 100 steps elsewhere."""
    path = tmp_path / "pointmaze-umaze-itrpo1.hdf5"
    make(mazes.plan("pointmaze-umaze", 500, seed=0), path, workers=1)
    train(path, "bc", scale="smoke", steps=3, seeds=1, out=tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["data"]["env"] == "itrpo/PointMaze_UMaze-v0"
    assert (config["evaluation"]["eval_episodes"], config["evaluation"]["eval_every"]) == (20, 1000)
    assert store.read_metrics(tmp_path / "run").filter(metric="return")["step"].to_list() == [3]
