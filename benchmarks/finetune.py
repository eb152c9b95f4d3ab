"""Offline to online on Pendulum: iTRPO and IQL learn from random torques, then go on in the environment.

iTRPO does so twice, once with a pi_beta that goes on being fitted.

    python benchmarks/finetune.py runs/finetune

40 logged episodes of uniform torques; 2,000 gradient steps offline, then 4,000 steps of the environment with an update
each, preset quick, 3 seeds, 20 episodes for each evaluation. Writes benchmarks/results/finetune.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium
import numpy as np

from itrpo import RunOptions, train
from itrpo.console import make_console
from itrpo.files import write
from itrpo.online.finetune import finetune

ARMS = {"itrpo": {}, "itrpo, pi_beta refitted at 1e-3": {"refit_rate": 1e-3}, "iql": {}}
OFFLINE, ONLINE, SEEDS, EPISODES = 2_000, 4_000, 3, 20


def write_log(path: Path) -> None:
    env, rng = gymnasium.make("Pendulum-v1"), np.random.default_rng(0)
    rows: dict[str, list] = {"observations": [], "actions": [], "rewards": [], "terminals": [], "timeouts": []}
    for episode in range(40):
        observation, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            following, reward, terminal, timeout, _ = env.step(action)
            for values, value in zip(rows.values(), (observation, action, reward, terminal, timeout), strict=True):
                values.append(value)
            observation, ended = following, terminal or timeout
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(values) for name, values in rows.items()}
    np.savez(path, allow_pickle=False, env_id="Pendulum-v1", **arrays)


def main(out: Path) -> None:
    log, console = out / "pendulum.npz", make_console()
    write_log(log)
    lines = [
        "# Offline to online on Pendulum",
        "",
        f"`python benchmarks/finetune.py RUNS`: {OFFLINE:,} gradient steps on 40 logged episodes of random torques,",
        f"then {ONLINE:,} steps of the environment with an update each; preset quick, {SEEDS} seeds, mean return of",
        f"{EPISODES} episodes. While learning: mean return of the episodes that the sampled policy played on the way.",
        "",
        "| algorithm | seed | before | after | while learning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for arm, more in ARMS.items():
        algorithm = arm.partition(",")[0]
        options = RunOptions(steps=OFFLINE, seeds=SEEDS, eval_every=OFFLINE, eval_episodes=EPISODES, preset="quick")
        bounds = {"action_low": -2.0, "action_high": 2.0, "out": out / algorithm}
        train(log, algorithm, RunOptions(**vars(options) | bounds), console=console)
        fields = {"steps": ONLINE, "every": 1_000, "episodes": EPISODES} | more
        done = finetune(
            out / algorithm, out / f"{'-'.join([algorithm, *more])}-finetuned", fields=fields, console=console
        )
        for index, curve in enumerate(done.curves):
            first, last = curve[0], curve[-1]
            numbers = (first["return"], last["return"], last["online_return"])
            lines.append(f"| {arm} | {index} | " + " | ".join(f"{it:,.0f}" for it in numbers) + " |")
    path = Path(__file__).parent / "results" / "finetune.md"
    write(path, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
