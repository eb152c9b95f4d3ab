"""A policy where neither JAX nor itrpo is installed: its file, and itrpo/policy.py copied beside this one."""

from pathlib import Path

import numpy as np

try:
    from policy import load_policy  # the copy
except ImportError:
    from itrpo.policy import load_policy


def main(file: Path = Path("runs/tank/seed0/policy.npz"), minutes: int = 120) -> float:
    """Plays the tank of own_arrays_to_policy.py. -> mean cost per minute."""
    policy = load_policy(file)
    temperature, outside, cost = 30.0, 5.0, 0.0
    for _ in range(minutes):
        (valve,) = policy(np.array([temperature, outside]))
        temperature += 4 * valve - 0.04 * (temperature - outside)
        cost += abs(temperature - 60) / 20 + 0.1 * valve
    print(f"{minutes} minutes later: {temperature:.1f} degrees, mean cost {cost / minutes:.3f}")
    return cost / minutes


if __name__ == "__main__":
    main()
