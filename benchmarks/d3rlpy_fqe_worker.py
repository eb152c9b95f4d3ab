"""The value that d3rlpy's FQE gives one policy, as one line of JSON. Started by offline_choice.py.

    python d3rlpy_fqe_worker.py ROWS.npz POLICY.npz STEPS GAMMA

It runs in d3rlpy's own environment and imports nothing of itrpo. The policy is put into a SAC of d3rlpy, whose networks
are the same; FQE acts by its mode. All else is d3rlpy's default, but for gamma.
"""

from __future__ import annotations

import json
import sys
import time

import d3rlpy
import numpy as np
import torch
from d3rlpy.metrics import InitialStateValueEstimationEvaluator
from d3rlpy.ope import FQE, FQEConfig


def main() -> None:
    rows, policy, steps, gamma = np.load(sys.argv[1]), np.load(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    d3rlpy.seed(0)
    dataset = d3rlpy.dataset.MDPDataset(
        rows["observations"].astype(np.float32),
        rows["actions"].astype(np.float32),
        rows["rewards"].astype(np.float32),
        rows["terminals"].astype(np.float32),
        rows["timeouts"].astype(np.float32),
        action_space=d3rlpy.ActionSpace.CONTINUOUS,
    )
    algorithm = d3rlpy.algos.SACConfig().create(device=False)
    algorithm.build_with_dataset(dataset)
    network = algorithm.impl.policy
    layers = [it for it in network.modules() if isinstance(it, torch.nn.Linear)]
    order = [it for it in layers if it not in (network._mu, network._logstd)] + [network._mu, network._logstd]
    with torch.no_grad():
        for place, layer in enumerate(order):
            layer.weight.copy_(torch.from_numpy(policy[f"w{place}"].T.copy()))
            layer.bias.copy_(torch.from_numpy(policy[f"b{place}"]))
    some = rows["observations"][:256].astype(np.float32)
    hidden = some
    for place in (0, 1):
        hidden = np.maximum(hidden @ policy[f"w{place}"] + policy[f"b{place}"], 0)
    wanted = np.tanh(hidden @ policy["w2"] + policy["b2"])
    if np.abs(algorithm.predict(some) - wanted).max() > 1e-4:
        raise SystemExit("d3rlpy's policy is not the one that was given")
    config = FQEConfig(gamma=gamma)
    fqe = FQE(algo=algorithm, config=config, device=False)
    started = time.perf_counter()
    fqe.fit(
        dataset,
        n_steps=steps,
        n_steps_per_epoch=steps,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )
    value = InitialStateValueEstimationEvaluator()(fqe, dataset)
    print(json.dumps({"value": float(value), "seconds": time.perf_counter() - started, "d3rlpy": d3rlpy.__version__}))


if __name__ == "__main__":
    main()
