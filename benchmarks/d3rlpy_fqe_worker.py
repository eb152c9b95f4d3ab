"""The values that d3rlpy's FQE and SCOPE-RL's estimators give one policy, as one line of JSON. Started by
offline_choice.py.

    python d3rlpy_fqe_worker.py ROWS.npz POLICY.npz STEPS GAMMA

It runs in an environment of d3rlpy's own and imports nothing of itrpo. The policy is put into a SAC of d3rlpy, whose
networks are the same; FQE acts by its mode. All else is d3rlpy's default, but for gamma. SCOPE-RL (arXiv:2311.18206),
where it is installed, takes that FQE as its model, and densities of logged actions from ROWS; its kernel and bandwidth
are its defaults. It wants episodes of one length: shorter ones are filled up with steps that change no weight and
return nothing.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from typing import Any

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
    answer = {"value": float(value), "seconds": time.perf_counter() - started, "d3rlpy": d3rlpy.__version__}
    if find_spec("scope_rl"):
        answer |= by_scope_rl(rows, algorithm, fqe, gamma)
    print(json.dumps(answer))


def by_scope_rl(rows: Any, algorithm: Any, fqe: Any, gamma: float) -> dict[str, Any]:
    import scope_rl
    from scope_rl.ope.continuous import SelfNormalizedDR, SelfNormalizedPDIS
    from scope_rl.utils import gaussian_kernel

    observation, action = rows["observations"].astype(np.float32), rows["actions"].astype(np.float32)
    own = np.concatenate([algorithm.predict(part) for part in np.array_split(observation, 50)])
    q = np.stack([fqe.predict_value(observation, it.astype(np.float32)) for it in (action, own)], axis=1)
    ends = np.flatnonzero((rows["terminals"] != 0) | (rows["timeouts"] != 0))
    lengths = np.diff(ends, prepend=-1)
    episode = np.repeat(np.arange(len(ends)), lengths)
    place = np.arange(len(action)) - np.repeat(ends + 1 - lengths, lengths)
    longest, size = int(lengths.max()), action.shape[1]

    def filled(values: np.ndarray, other: float) -> np.ndarray:
        """[N, ...] -> [episodes * longest, ...]"""
        full = np.full((len(ends), longest, *values.shape[1:]), other, np.float64)
        full[episode, place] = values
        return full.reshape(-1, *values.shape[1:])

    nothing = np.zeros((1, size))
    density = np.ones((len(action), size))  # of each column; SCOPE-RL multiplies them
    density[:, 0] = np.exp(rows["log_density"])
    pscore = filled(density, 1.0)
    same = np.ones((len(ends), longest), bool)
    same[episode, place] = False
    pscore[same.reshape(-1), 0] = float(gaussian_kernel(nothing, nothing, bandwidth=1.0)[0])  # a weight of 1
    given = {
        "step_per_trajectory": longest,
        "action": filled(action, 0.0),
        "reward": filled(rows["rewards"], 0.0),
        "pscore": pscore,
        "evaluation_policy_action": filled(own, 0.0),
        "gamma": gamma,
    }
    with np.errstate(all="ignore"):  # products of a thousand densities leave float64
        weighed = SelfNormalizedPDIS().estimate_policy_value(**given)
        robust = SelfNormalizedDR().estimate_policy_value(**given, state_action_value_prediction=filled(q, 0.0))
    found = {"scope_pdis": float(weighed), "scope_dr": float(robust)}
    return {name: value if np.isfinite(value) else None for name, value in found.items()} | {
        "scope_rl": scope_rl.__version__
    }


if __name__ == "__main__":
    main()
