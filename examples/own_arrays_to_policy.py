"""From arrays of your own to a policy: a tank whose operator holds 60 degrees, badly. No simulator is used to train."""

from pathlib import Path

import numpy as np

import itrpo


def log(episodes: int = 200, length: int = 60) -> dict[str, np.ndarray]:
    """What an operator did: temperatures, valve positions in [0, 1], and what each minute cost."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(episodes):
        temperature, outside = rng.uniform(20, 80), rng.uniform(-5, 15)
        for minute in range(length):
            valve = np.clip(0.5 + 0.01 * (60 - temperature) + 0.2 * rng.normal(), 0, 1)
            after = temperature + 4 * valve - 0.04 * (temperature - outside)
            rows.append((temperature, outside, valve, -abs(after - 60) / 20 - 0.1 * valve, minute == length - 1))
            temperature = after
    temperature, outside, valve, reward, last = np.array(rows).T
    return {
        "observations": np.stack([temperature, outside], axis=1),
        "actions": valve[:, None],
        "rewards": reward,
        "terminals": np.zeros(len(rows)),  # no minute ends the world
        "timeouts": last,
    }


def main(out: Path = Path("runs/tank"), steps: int = 12_000, seeds: int = 4) -> None:
    out.parent.mkdir(exist_ok=True)
    np.savez(f"{out}.npz", allow_pickle=False, **log())  # `train` takes arrays too; a file can be judged by later
    options = itrpo.RunOptions("laptop", steps, seeds, env="none", out=out, action_low=0, action_high=1, holdout=0.2)
    policy = itrpo.train(f"{out}.npz", "td3_bc", options).policy  # [..., O] -> [..., A], in the log's units
    print("valve at 40 degrees:", policy(np.array([40.0, 5.0])), "and at 70:", policy(np.array([70.0, 5.0])))


if __name__ == "__main__":
    main()
