"""Whether the loops here do what itrpo does, no less and no more: the same updates from the same weights.

    python benchmarks/peers/same_work.py --python PEER/bin/python

For each algorithm and preset, itrpo's own initial weights, four batches of hopper-demo's rows and itrpo's own noise go
to each loop. After four updates all losses, and of each network the number of parameters and the sum of their squares,
agree with itrpo's within `--tolerance`, or the script fails. Every loop has thereby the same networks, batches, losses,
gradients, rates, targets and delays; what is left to each is how it computes them.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np
import tyro

import itrpo
from itrpo import registry
from itrpo.algorithms import kl_actor_critic
from itrpo.behavior import gaussian
from itrpo.types import Transition

LOOPS = ("torch_loop.py", "flax_loop.py")
FIELDS = dict(zip(common.COLUMNS, ("observation", "action", "reward", "next_observation", "continues"), strict=True))
UPDATES = 4


@dataclass(frozen=True)
class Arguments:
    python: Path
    """of the environment with torch, flax and optax"""
    tolerance: float = 1e-4


def layers(name: str, params: Any) -> dict[str, np.ndarray]:
    each = enumerate(params.mlp.layers)
    return {f"{name}.{i}.{part}": np.asarray(getattr(it, part)) for i, it in each for part in ("weight", "bias")}


def ours(algorithm: str, preset: str, data: dict[str, np.ndarray], spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the loops are given, and what should come of it."""
    entry = registry.lookup(algorithm, registry.ALGORITHMS, "algorithm")
    config = entry.presets[preset].config
    if algorithm == "iql":
        config = replace(config, schedule_steps=UPDATES)
    if algorithm == "itrpo":  # an actor unlike pi_beta, so that no ratio is 0
        config = replace(config, backbone=replace(config.backbone, warm_start=False))
    model = behavior_params = None
    if algorithm == "itrpo":
        model = gaussian.make(gaussian.Config(hidden=config.backbone.policy_hidden), spec, 100)
        behavior_params = model.params(model.init(jax.random.key(1)))
    made = entry.make(config, spec, model)
    state = made.init(jax.random.key(2), behavior_params)
    given = layers("policy", state.policy.params) | layers("critics", state.critic.params)
    given |= layers("value", state.value.params) if algorithm == "iql" else {}
    given |= layers("behavior", behavior_params) if algorithm == "itrpo" else {}

    rows = np.random.default_rng(0).integers(len(data["rewards"]), size=(UPDATES, made.batch_size))
    batches = {name: column[rows] for name, column in data.items()}
    noises, losses = [], []
    for k in range(UPDATES):
        fields = {FIELDS[name]: jnp.asarray(batches[name][k]) for name in common.COLUMNS}
        key, batch = jax.random.key(k), Transition(**fields, next_action=jnp.zeros_like(fields["action"]))
        if model is not None:  # iTRPO's
            parts = kl_actor_critic.make_parts(config.backbone, spec, model)
            noises.append([it[:, 0] for it in kl_actor_critic.draw_noise(parts.networks, batch, key)[:2]])
        else:
            noises.append([jax.random.normal(key, batch.action.shape)])
        state, metrics = made.update(state, batch, key, jnp.asarray(k))
        losses.append({name: float(value) for name, value in metrics.items() if name.endswith("_loss")})
        if algorithm == "td3_bc" and (k + 1) % config.backbone.policy_delay:  # no step of the actor: the last one's
            del losses[-1]["policy_loss"]
    networks = {"policy": state.policy.params, "critics": state.critic.params}
    networks |= {"target critics": state.critic.target_params}
    networks |= {"value": state.value.params} if algorithm == "iql" else {}
    counts = {name: common.summary(jax.tree.leaves(it)) for name, it in networks.items()}
    return given | batches | {"noise": np.asarray(noises)}, {"losses": losses, "parameters": counts}


def largest_difference(expected: Any, found: Any) -> float:
    """Relative, over all numbers that are expected."""
    if isinstance(expected, dict):
        return max(largest_difference(expected[name], found[name]) for name in expected)
    if isinstance(expected, list | tuple):
        return max(largest_difference(*pair) for pair in zip(expected, found, strict=True))
    return abs(expected - found) / max(abs(expected), 1e-3)


def main(arguments: Arguments) -> None:
    dataset = itrpo.load_dataset("hopper-demo")
    worst = 0.0
    for algorithm, preset in common.CONSTANTS:
        columns = {name: np.asarray(getattr(dataset.transitions, FIELDS[name])) for name in common.COLUMNS}
        if (algorithm, preset) in common.NORMALIZED:
            columns = common.normalized(columns)
        given, expected = ours(algorithm, preset, columns, dataset.spec)
        sizes = ", ".join(f"{name} {count:,}" for name, (count, _) in expected["parameters"].items())
        print(f"{algorithm}, {preset}: {sizes} parameters, {len(given['rewards'][0])} rows", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "given.npz"
            np.savez(file, **given)
            for loop in LOOPS:
                flags = ["--algorithm", algorithm, "--preset", preset, "--steps", str(UPDATES), "--check", str(file)]
                command = [str(arguments.python), str(Path(__file__).with_name(loop)), "none", *flags]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                if [it[0] for it in expected["parameters"].values()] != [
                    found["parameters"][name][0] for name in expected["parameters"]
                ]:
                    raise SystemExit(f"{loop}: other numbers of parameters: {found['parameters']}")
                difference = largest_difference(expected, found)
                worst = max(worst, difference)
                print(f"    {loop}: largest relative difference {difference:.1e}", flush=True)
    if not worst <= arguments.tolerance:
        raise SystemExit(f"{worst:.1e} is more than {arguments.tolerance:g}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
