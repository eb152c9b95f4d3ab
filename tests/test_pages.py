"""The commands of the pages run as printed, section by section in one folder, on small data and with few steps; what is
not run here is named, with the reason. (The guides: test_guides.py.)"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from itrpo import files
from itrpo.collection import demo, making
from tests.test_docs import PAGES, commands
from tests.test_guides import play


class Case(NamedTuple):
    sections: tuple[tuple[str, str], ...]  # page, heading: in this order
    commands: int  # of itrpo that run
    smaller: dict[str, str]  # words of the pages, and what stands for them here


COLUMNS = "observations=temp,pressure actions=valve rewards=r terminals=tripped episode=run_id"
TINY = "--scale smoke --steps 2"
SAC = "--steps 60 --uniform-steps 20 --every 30 --episodes 1 --envs 2 --policy-hidden 16,16 --critic-hidden 16,16"
ON_POLICY = "--steps 128 --every 64 --episodes 1 --envs 2 --steps-per-block 32"

QUICK = {
    "logs of one's own": Case(
        tuple(("docs/datasets.md", heading) for heading in ("What to bring", "Your own logs", "Converting")),
        9,
        {
            "recipes.hdf5 --algorithm dqn --env none --scale laptop": f"recipes.hdf5 --algorithm dqn --env none {TINY}",
            "itrpo train log.hdf5 --env none --scale laptop": f"itrpo train log.hdf5 --algorithm bc --env none {TINY}",
            "terminals=dones --env none": f"terminals=dones --env none --algorithm bc {TINY}",
            "hopper-medium-v2 ": "hopper-demo ",
        },
    ),
}
SLOW = {
    "acting policies": Case(
        (
            *(
                ("docs/acting_policies.md", heading)
                for heading in ("Acting policies", "TD3", "PPO, GePPO and TRPO", "What to choose")
            ),
            ("docs/made_datasets.md", "Mazes"),
        ),
        13,
        {
            "runs/hopper                       #": f"runs/hopper {SAC} #",
            "--until 6000    #": f"--until 6000 {SAC} #",
            "--out runs/robot         #": f"--out runs/robot {SAC} #",
            "--steps 200000 --out part": "--steps 40 --out part",
            "--out runs/hopper_td3\n": f"--out runs/hopper_td3 {SAC}\n",
            "--out runs/hopper_ppo\n": f"--out runs/hopper_ppo {ON_POLICY}\n",
            "--steps 500000 --every 100000 --episodes 10": ON_POLICY,
            "--policy-hidden 128,128 --critic-hidden 128,128 --critic-learning-rate 1e-3 --updates-per-step 0.5": (
                f"--critic-learning-rate 1e-3 --updates-per-step 0.5 {SAC}"
            ),
            "$FAST --steps 800000": "$FAST",
            "$FAST --every 40000": "$FAST",
            "--steps 200000 --every 50000 --episodes 8 --out runs/ant"
            " --policy-hidden 128,128 --critic-hidden 128,128": f"--out runs/ant {SAC}",
        },
    ),
    "new data and going on": Case(
        (
            ("docs/finetuning.md", "New data: `itrpo train --continue-from`"),
            ("docs/finetuning.md", "In the environment: `itrpo finetune`"),
        ),
        7,
        {
            "--columns ... --out runs/2025": f"--columns {COLUMNS} --env none --action-low 0 --action-high 100 {TINY}"
            " --out runs/2025",
            "--columns ... --continue-from": f"--columns {COLUMNS} --continue-from",
            "itrpo finetune runs/demo --steps 100000": f"itrpo train hopper-demo {TINY} --out runs/demo\n"
            "itrpo finetune runs/demo --steps 40 --every 20 --episodes 1",
            "evaluate runs/demo-online": "evaluate runs/demo-online --episodes 2",
        },
    ),
    "judging": Case(
        (("docs/judging.md", "Judging without a simulator"), ("docs/judging.md", "Choosing")),
        12,
        {
            "--holdout 0.2 --out runs/mine ": f"--holdout 0.2 {TINY} --out runs/mine ",
            "itrpo judge runs/itrpo runs/td3_bc ": "\n".join(
                f"itrpo train mylog.npz --env none --holdout 0.2 --algorithm {it} {TINY} --out runs/{it}"
                for it in ("itrpo", "td3_bc")
            )
            + "\nitrpo judge runs/itrpo runs/td3_bc --steps 20 --folds 3 ",
            "judge runs/mine  ": "judge runs/mine --steps 20 --folds 3 ",
            "judge runs/mine --data": "judge runs/mine --steps 20 --folds 3 --data",
            "judge runs/mine --gamma": "judge runs/mine --steps 20 --folds 3 --gamma",
            "judge runs/mine --json": "judge runs/mine --steps 20 --folds 3 --json",
            "itrpo select runs ": "itrpo select runs/itrpo runs/td3_bc ",  # runs/mine was judged in other folds
        },
    ),
    "sweeps and reports": Case(
        (
            ("docs/sweeps.md", "Sweeps"),
            ("docs/guides/cluster.md", "Run on a cluster"),
            ("docs/guides/cluster.md", "Ray"),
            ("docs/results.md", "Results pages"),
            ("docs/guides/read_a_report.md", "Read a report"),
        ),
        15,
        {
            "itrpo sweep table2 --executor ray": "true",  # tests/sweep/test_on_ray.py
            "pip install '.[report]'": "true",
            "itrpo sweep table2 --packed": "itrpo runs pack runs/table2 --out rows.parquet\n"
            "itrpo sweep table2 --packed",
            "sweep table2": "sweep tiny.yaml",
            "sweep myplan.yaml": "sweep tiny.yaml --out runs/jobs",
            "/shared/table2": "runs/table2",
            "runs/table2 runs/figure2": "runs/table2",
            "--algorithms itrpo,bc --scale laptop": f"--algorithms itrpo,bc {TINY}",
        },
    ),
}
ELSEWHERE = {
    ("README.md", "On the command line"): "its lines are those of the pages below",
    ("docs/deploying.md", "An example: from CSV to C"): "tests/shipping/test_export.py",
    ("docs/extending.md", "An algorithm of your own"): "tests/training/test_extending.py",
    ("docs/guides/cluster.md", "A cloud, and Slurm"): "needs one; the page says that it was not run",
}
GUIDES = ("docs/guides/d4rl_score.md", "docs/guides/plant_to_pc.md")  # test_guides.py
AS_MEASURED = ("docs/experiments.md", "docs/trust_region.md", "docs/tuning.md")  # hours; what came of it stands there
TINY_PLAN = """
name: tiny
title: Two arms
datasets: [hopper-demo]
arms: {itrpo: {}, bc: {}}
options: {steps: 4, seeds: 2, eval_every: 4, eval_episodes: 1, preset: quick}
scales:
  smoke: {steps: 2, seeds: 2, eval_every: 2, eval_episodes: 1}
"""


def sections(page: str) -> dict[str, str]:
    """heading -> its own text, up to the next heading."""
    found, heading, fenced = dict[str, str](), "", False
    for line in page.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if not fenced and (title := re.match(r"#+ (.+)", line)):
            heading = title[1]
        found[heading] = found.get(heading, "") + line
    return found


def write_logs(folder: Path) -> None:
    """What the pages take for granted: logs (log.csv also by year), low_dim.hdf5, two NPZ files, a module, a plan."""
    rng = np.random.default_rng(0)
    rows = [
        [f"r{run}", 50 + rng.normal(), 1.8 + 0.1 * rng.normal(), 50 * (1 + rng.uniform(-0.9, 0.9)), rng.normal(), 0]
        for run in range(8)
        for _ in range(30)
    ]
    for name in ("log", "log-2025", "log-2026"):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["run_id", "temp", "pressure", "valve", "r", "tripped"], *rows])
    recipes = [
        [step, *rng.normal(size=2), rng.choice([1, 2, 4]), rng.normal(), run] for run in "abcd" for step in range(20)
    ]
    with (folder / "recipes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["step", "temp", "pressure", "recipe", "gain", "run"], *recipes])
    with h5py.File(folder / "low_dim.hdf5", "w") as file:
        for demonstration in range(3):
            group = file.create_group(f"data/demo_{demonstration}")
            group["obs/object"] = rng.normal(size=(40, 3))
            group["actions"] = rng.uniform(-0.9, 0.9, (40, 2))
            group["rewards"] = group["dones"] = (np.arange(40) == 39).astype(int)
    for name in ("mylog", "newlog"):
        columns = {"observations": (600, 2), "actions": (600, 1), "rewards": 600}
        values = {key: rng.uniform(-0.9, 0.9, shape) for key, shape in columns.items()}
        np.savez(folder / f"{name}.npz", **values, terminals=np.zeros(600, bool), timeouts=np.arange(600) % 20 == 19)
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    (folder / "my_package" / "envs.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Robot-v0', 'gymnasium.envs.classic_control.pendulum:PendulumEnv', max_episode_steps=20)\n"
    )
    (folder / "tiny.yaml").write_text(TINY_PLAN)


@pytest.mark.parametrize(
    "case",
    [*(pytest.param(it, id=name) for name, it in QUICK.items())]
    + [pytest.param(it, id=name, marks=pytest.mark.slow) for name, it in SLOW.items()],
)
def test_commands_run_as_printed(case: Case, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.syspath_prepend(str(tmp_path))
    shares = (demo.Share("hopper_sac_040k", 1), demo.Share("hopper_sac_100k", 2))
    making.make(demo.plan(shares, steps_per_slot=400), files.generated_path("hopper-demo"), workers=1)
    write_logs(tmp_path)
    text = "\n".join(sections(PAGES[page])[heading] for page, heading in case.sections)
    ran = play(text, case.smaller, tmp_path, monkeypatch)
    assert len(ran) == case.commands
    assert "Traceback" not in capsys.readouterr().out


def test_every_command_that_a_page_shows_is_run_or_it_is_said_why_not():
    shown = {
        (page, heading)
        for page, text in PAGES.items()
        if page not in GUIDES + AS_MEASURED and not page.startswith("benchmarks/results/")
        for heading, own in sections(text).items()
        if commands(own)
    }
    run = {it for case in (QUICK | SLOW).values() for it in case.sections}
    assert shown == run | ELSEWHERE.keys()
