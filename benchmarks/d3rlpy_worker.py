"""Trains one policy with d3rlpy and prints what it scored, as one line of JSON. Started by against_d3rlpy.py and
bench.py.

It runs in d3rlpy's own environment and imports nothing of itrpo. The constants are those of itrpo's preset `matched`:
two layers of 256, batches of 256, learning rates of 3e-4. Where d3rlpy's own defaults differ, a comment says so.
"""

from __future__ import annotations

import argparse
import json
import time

import d3rlpy
import gymnasium
import h5py
import numpy as np
import torch
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.optimizers import AdamFactory
from d3rlpy.optimizers.lr_schedulers import CosineAnnealingLRFactory
from d3rlpy.preprocessing import StandardObservationScaler

RATES = {"actor_learning_rate": 3e-4, "critic_learning_rate": 3e-4, "batch_size": 256}
CVAE = RATES | {"imitator_learning_rate": 3e-4}


def config(algorithm: str, steps: int):
    """d3rlpy's configuration of an algorithm for a run of `steps`."""
    if algorithm == "td3_bc":
        return d3rlpy.algos.TD3PlusBCConfig(**RATES, alpha=2.5, observation_scaler=StandardObservationScaler())
    if algorithm == "iql":  # the actor's rate decays as in the source; d3rlpy's default is constant
        decaying = AdamFactory(lr_scheduler_factory=CosineAnnealingLRFactory(T_max=steps))
        return d3rlpy.algos.IQLConfig(**RATES, actor_optim_factory=decaying, expectile=0.7, weight_temp=3.0)
    if algorithm == "cql":  # weight 5 throughout, as in the source; d3rlpy's default adapts it
        fixed = {"alpha_learning_rate": 0.0, "initial_alpha": 1.0, "alpha_threshold": 0.0}
        return d3rlpy.algos.CQLConfig(**RATES, **fixed, temp_learning_rate=3e-4, conservative_weight=5.0)
    if algorithm == "bear":  # no entropy term, as in the source; d3rlpy's default adds SAC's
        plain = {"temp_learning_rate": 0.0, "initial_temperature": 1e-9, "alpha_threshold": 0.05, "mmd_sigma": 20.0}
        warm_up = max(1, round(0.04 * steps))  # 40,000 of 1M
        return d3rlpy.algos.BEARConfig(**CVAE, **plain, mmd_kernel="laplacian", warmup_steps=warm_up)
    if algorithm == "plas":  # the model is fitted for `steps // 2` first, as `matched` does
        rates = RATES | {"imitator_learning_rate": 1e-3}
        return d3rlpy.algos.PLASConfig(**rates, lam=0.75, warmup_steps=steps // 2)
    if algorithm == "bcq":  # 10 proposals at s', as in the source; d3rlpy's default is 100, there and in acting
        return d3rlpy.algos.BCQConfig(**CVAE, lam=0.75, n_action_samples=10, action_flexibility=0.05)
    if algorithm == "rebrac":
        critic = VectorEncoderFactory([256, 256], use_layer_norm=True)
        return d3rlpy.algos.ReBRACConfig(**RATES, actor_beta=0.01, critic_beta=0.01, critic_encoder_factory=critic)
    raise SystemExit(f"no such algorithm here: {algorithm}")


def read(path: str, reward_scale: float) -> d3rlpy.dataset.MDPDataset:
    with np.load(path) if path.endswith(".npz") else h5py.File(path) as file:
        names = ("observations", "actions", "rewards", "terminals", "timeouts")
        columns = {name: np.asarray(file[name]) for name in names}
    timeouts = columns["timeouts"].astype(bool) & ~columns["terminals"].astype(bool)
    timeouts[-1] = not columns["terminals"][-1]
    return d3rlpy.dataset.MDPDataset(
        columns["observations"].astype(np.float32),
        columns["actions"].astype(np.float32),
        columns["rewards"].astype(np.float32) * reward_scale,
        columns["terminals"].astype(np.float32),
        timeouts.astype(np.float32),
        action_space=d3rlpy.ActionSpace.CONTINUOUS,
    )


def returns(algorithm, env_id: str, episodes: int, seed: int) -> list[float]:
    """Undiscounted returns of the acting policy, all episodes side by side."""
    envs = [gymnasium.make(env_id) for _ in range(episodes)]
    observations = [env.reset(seed=seed * 1_000 + index)[0] for index, env in enumerate(envs)]
    totals, running = np.zeros(episodes), list(range(episodes))
    while running:
        actions = algorithm.predict(np.stack([observations[it] for it in running]).astype(np.float32))
        still = []
        for index, action in zip(running, actions, strict=True):
            observations[index], reward, terminated, truncated, _ = envs[index].step(action)
            totals[index] += reward
            if not (terminated or truncated):
                still.append(index)
        running = still
    return totals.tolist()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("--algorithm", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env", default="none")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--reward-scale", type=float, default=1.0)
    arguments = parser.parse_args()
    if arguments.env != "none":
        gymnasium.make(arguments.env).close()  # what is missing here shows before the training
    d3rlpy.seed(arguments.seed)
    dataset = read(arguments.dataset, arguments.reward_scale)
    algorithm = config(arguments.algorithm, arguments.steps).create(device=False)
    algorithm.build_with_dataset(dataset)
    fitting = arguments.steps // 2 if arguments.algorithm == "plas" else 0
    half = max(1, (fitting + arguments.steps) // 2)
    epochs = algorithm.fitter(
        dataset,
        n_steps=2 * half,
        n_steps_per_epoch=half,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )
    ends = [time.perf_counter() for _ in epochs]
    seconds = ends[1] - ends[0]  # of the second half: the first one begins with statistics of the whole dataset
    scores = [] if arguments.env == "none" else returns(algorithm, arguments.env, arguments.episodes, arguments.seed)
    about = {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps({"seconds": seconds, "returns": scores, "updates": half, **about}))


if __name__ == "__main__":
    main()
