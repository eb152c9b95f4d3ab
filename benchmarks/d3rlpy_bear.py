"""Does the actor of d3rlpy's BEAR feel its MMD after the warm-up? Its gradient, as it is and without the dual step.

    PEER/bin/python benchmarks/d3rlpy_bear.py     # in d3rlpy's own environment, as against_d3rlpy.py has it

d3rlpy 2.8.1 ascends the multiplier inside the actor's loss, by a backward pass of -multiplier * (MMD - limit) through
the policy as well; the actor's own backward pass adds the same with a plus sign, and the two cancel.
"""

from __future__ import annotations

import d3rlpy
import numpy as np
import torch
from d3rlpy.torch_utility import TorchMiniBatch

MULTIPLIER = 100.0


def gradient_norm(dual_step: bool) -> float:
    rng = np.random.default_rng(0)
    ends = np.zeros(600, np.float32)
    ends[99::100] = 1.0
    columns = rng.normal(size=(600, 3)), rng.uniform(-0.9, 0.9, (600, 2)), rng.normal(size=600)
    dataset = d3rlpy.dataset.MDPDataset(*(it.astype(np.float32) for it in columns), ends)
    d3rlpy.seed(0)
    config = d3rlpy.algos.BEARConfig(initial_alpha=MULTIPLIER, temp_learning_rate=0.0, initial_temperature=1e-9)
    algorithm = config.create(device=False)
    algorithm.build_with_dataset(dataset)
    if not dual_step:
        object.__setattr__(algorithm.impl._modules, "alpha_optim", None)
    rows = dataset.sample_transition_batch(64)
    batch = TorchMiniBatch.from_batch(rows, gamma=0.99, compute_returns_to_go=False, device="cpu")
    torch.manual_seed(1)
    algorithm.impl.compute_actor_grad(batch)
    return float(torch.cat([it.grad.flatten() for it in algorithm.impl._modules.policy.parameters()]).norm())


if __name__ == "__main__":
    print(f"multiplier {MULTIPLIER:g}: norm of the actor's gradient {gradient_norm(True):.3f} as it is,")
    print(f"{gradient_norm(False):.3f} without the dual step")
