"""Time per call of exported policies: OPENBLAS_NUM_THREADS=1 python benchmarks/export_speed.py

Policies of the sizes that the algorithms have with their presets, with random weights: a call takes as long with any.
Each is exported to every format with its default guards, proven on 200 inputs, and called 100 times; printed
is the median, for C the mean. ONNX Runtime and JAX include the way from Python and back.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import itrpo
from itrpo.policy import save_policy
from itrpo.shipping import verify

OBSERVATION, ACTION, HIDDEN = 11, 3, 256  # Hopper's
FORMATS = ("npz", "onnx", "stablehlo", "c")


def network(prefix: str, *sizes: int) -> dict[str, Any]:
    rng, arrays = np.random.default_rng(len(prefix)), dict[str, Any]()
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        arrays[f"{prefix}weight_{i}"] = rng.normal(0, 1 / np.sqrt(inputs), (outputs, inputs))
        arrays[f"{prefix}bias_{i}"] = rng.normal(0, 0.1, outputs)
    return arrays


def policies() -> dict[str, dict[str, Any]]:
    """Kinds and sizes: of `source` presets."""
    rng, on_action = np.random.default_rng(0), OBSERVATION + ACTION
    critic, latent = network("critic_", on_action, HIDDEN, HIDDEN, 1), 2 * ACTION
    decoder = {"max_latent": 2.0, **network("decoder_", OBSERVATION + latent, 750, 750, ACTION)}
    bcq = network("perturbation_", on_action, 400, 300, ACTION) | {
        "phi": 0.05,
        "latents": rng.normal(size=(100, latent)),
    }
    return {
        "iTRPO, IQL, TD3+BC, ... (two layers of 256)": {
            "kind": "tanh_mlp",
            **network("", OBSERVATION, HIDDEN, HIDDEN, ACTION),
        },
        "PLAS (decoder of 750)": {"kind": "latent_decoder", **network("", OBSERVATION, 400, 300, latent), **decoder},
        "BEAR, UWAC (100 samples)": {
            "kind": "best_of_gaussian",
            **network("", OBSERVATION, HIDDEN, HIDDEN, 2 * ACTION),
            "noise": rng.normal(size=(100, ACTION)),
            "log_std_range": [-5.0, 2.0],
            **critic,
        },
        "BCQ (100 decoded candidates)": {
            "kind": "best_of_decoder",
            **network("", OBSERVATION + latent, 750, 750, ACTION),
            **bcq,
            **network("critic_", on_action, 400, 300, 1),
        },
    }


def main() -> None:
    verify.INPUTS = 200  # of policies whose weights nobody uses
    rng = np.random.default_rng(1)
    rows = 2000
    data = {
        "observations": rng.normal(size=(rows, OBSERVATION)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, ACTION)).astype(np.float32),
        "rewards": np.zeros(rows),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(rows) % 100 == 99,
    }
    print("| policy | NumPy, no guards | NumPy | ONNX Runtime | StableHLO (JAX) | C (-O3) | C source |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name, export in policies().items():
            path = Path(folder) / "policy.npz"
            save_policy(path, export, np.zeros(OBSERVATION), np.ones(OBSERVATION), [-1] * ACTION, [1] * ACTION, {})
            bare = itrpo.export(
                path, "npz", Path(folder) / "bare.npz", data=data, guards=itrpo.GuardOptions(guards=False)
            )
            done = {it: itrpo.export(path, it, Path(folder) / f"e.{it}", data=data) for it in FORMATS}
            cells = [bare.seconds_numpy, *(done[it].seconds or 0.0 for it in FORMATS)]
            size = done["c"].paths[-1].stat().st_size
            print(f"| {name} | {' | '.join(f'{1e6 * it:,.0f} us' for it in cells)} | {size / 1e6:.1f} MB |", flush=True)


if __name__ == "__main__":
    main()
