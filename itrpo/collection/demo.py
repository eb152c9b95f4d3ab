"""`hopper-demo`: a small dataset of mixed quality that needs no network, made once per machine.

The name stands for one recipe: a changed recipe must get a new name, or cached files would no longer match it.
"""

from __future__ import annotations

from typing import NamedTuple

from itrpo.collection.ladders import policy_path, policy_sha256
from itrpo.collection.making import Part, Plan, versions
from itrpo.collection.rollout import Task

ENV_ID = "Hopper-v4"
SEED = 0
STEPS_PER_SLOT = 10_000


class Share(NamedTuple):
    """Slots of one policy: environments with seeds of their own."""

    policy: str
    slots: int


SHARES = (  # in the order of the rows
    Share("hopper_sac_040k", 1),  # return of its episodes in the file: 414 ± 84
    Share("hopper_sac_100k", 2),  # 687 ± 80
    Share("hopper_sac_080k", 4),  # 1632 ± 862
    Share("hopper_sac_140k", 5),  # 1436 ± 334
    Share("hopper_sac_200k", 4),  # 2416 ± 919
    Share("hopper_sac_360k", 4),  # 3257 ± 376
)


def plan(shares: tuple[Share, ...] = SHARES, steps_per_slot: int = STEPS_PER_SLOT, seed: int = SEED) -> Plan:
    """What makes `hopper-demo`; other values are for tests."""
    tasks = tuple(
        Task(ENV_ID, policy_path(policy), steps_per_slot, tuple((seed, index, slot) for slot in range(slots)))
        for index, (policy, slots) in enumerate(shares)
    )
    recipe = {
        "env_id": ENV_ID,
        "seed": seed,
        "steps_per_slot": steps_per_slot,
        "actions": "sampled",
        "parts": [{"policy": policy, "slots": slots, "sha256": policy_sha256(policy)} for policy, slots in shares],
        "versions": versions(),
    }
    steps = steps_per_slot * sum(share.slots for share in shares)
    return Plan(ENV_ID, "itrpo.collection.rollout:collect", (Part(tasks),), steps, recipe, extra={})
