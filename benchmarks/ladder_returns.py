"""Returns of the policies inside the package, written into itrpo/collection/policies/ladders.json.

    python benchmarks/ladder_returns.py [HalfCheetah-v4 ...]

100 episodes with sampled actions and 20 of the mode for each policy, from seeded starts; the same on the same machine.
"""

from __future__ import annotations

import json
import re
import sys

import numpy as np

from itrpo.collection.ladders import POLICY_FOLDER
from itrpo.collection.rollout import ActingPolicy, Simulators, act, load_acting_policy

ENV_IDS = {"Hopper-v4": "hopper", "HalfCheetah-v4": "halfcheetah", "Walker2d-v4": "walker2d"}
SAMPLED_EPISODES, MODE_EPISODES = 100, 20


def first_returns(simulators: Simulators, policy: ActingPolicy, sampled: bool, seed: int) -> np.ndarray:
    """Undiscounted returns [B] of one episode in each environment."""
    count = len(simulators.envs)
    rng = np.random.default_rng(seed)
    for slot in range(count):
        simulators.reset(slot, seed=seed * count + slot)
    returns, active = np.zeros(count), np.arange(count)
    for _ in range(simulators.time_limit):
        noise = rng.standard_normal((count, simulators.envs[0].action_space.shape[0]), dtype=np.float32)[active]
        actions, _ = act(policy, simulators.observe(active), noise if sampled else 0 * noise)
        rewards, terminals = simulators.step(active, actions)
        returns[active] += rewards
        active = active[~terminals]
        if not len(active):
            break
    return returns


def main() -> None:
    path = POLICY_FOLDER / "ladders.json"
    for env_id in sys.argv[1:] or ENV_IDS:
        files = sorted(POLICY_FOLDER.glob(f"{ENV_IDS[env_id]}_sac_*k.safetensors"))
        many, few = Simulators(env_id, SAMPLED_EPISODES), Simulators(env_id, MODE_EPISODES)
        rungs = []
        for file in files:
            policy = load_acting_policy(file)
            sampled, mode = (first_returns(many, policy, True, 1), first_returns(few, policy, False, 2))
            thousands = re.search(r"(\d+)k$", file.stem)
            assert thousands
            rung = {
                "policy": file.stem,
                "environment_steps": 1000 * int(thousands[1]),
                "sampled": [round(float(sampled.mean()), 1), round(float(sampled.std()), 1)],
                "mode": [round(float(mode.mean()), 1), round(float(mode.std()), 1)],
            }
            rungs.append(rung)
            print(json.dumps(rung), flush=True)
        table = (json.loads(path.read_text()) if path.exists() else {}) | {env_id: rungs}
        lines = [f' "{env}": [\n  ' + ",\n  ".join(map(json.dumps, table[env])) + "\n ]" for env in sorted(table)]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
