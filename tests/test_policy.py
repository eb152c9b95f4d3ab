from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from itrpo import policy as policy_module
from itrpo.policy import PolicyFileError, load_policy, save_policy

OBSERVATION, ACTION, COMPONENTS = 3, 2, 4
METADATA = {"env_id": "Hopper-v4", "algorithm": "itrpo"}


def arrays(output: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    sizes = (OBSERVATION, 16, 8, output)
    export: dict = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        export[f"weight_{i}"] = rng.normal(size=(outputs, inputs)).astype(np.float32)
        export[f"bias_{i}"] = rng.normal(size=outputs).astype(np.float32)
    return export


def save(path: Path, export: dict, **changed) -> None:
    parts = {
        "observation_mean": np.array([0.5, -1.0, 2.0]),
        "observation_std": np.array([1.0, 2.0, 0.5]),
        "action_low": np.array([-1.0, 0.0]),
        "action_high": np.array([1.0, 10.0]),
        "metadata": METADATA,
    }
    save_policy(path, export, **(parts | changed))


def test_a_hand_computed_action(tmp_path):
    """One hidden unit: (3 - 1) / 2 = 1, relu(2 * 1 - 1) = 1, tanh(0.5 * 1 + 0.25), scaled to [2, 6]."""
    export = {
        "kind": "tanh_mlp",
        "weight_0": [[2.0]],
        "bias_0": [-1.0],
        "weight_1": [[0.5]],
        "bias_1": [0.25],
    }
    save_policy(tmp_path / "p.npz", export, [1.0], [2.0], [2.0], [6.0], {})
    act = load_policy(tmp_path / "p.npz")
    np.testing.assert_allclose(act([3.0]), [4 + 2 * np.tanh(0.75)], rtol=1e-6)
    np.testing.assert_allclose(act([0.0]), [4 + 2 * np.tanh(0.25)], rtol=1e-6)  # the unit is off


def test_parity_with_the_same_network_in_jax(tmp_path):
    import jax
    import jax.numpy as jnp

    export = arrays(ACTION)
    save(tmp_path / "p.npz", {"kind": "tanh_mlp", **export})
    observations = np.random.default_rng(1).normal(size=(5, 7, OBSERVATION)).astype(np.float32)

    def network(observation):
        hidden = (observation - jnp.array([0.5, -1.0, 2.0])) / jnp.array([1.0, 2.0, 0.5])
        for i in range(2):
            hidden = jax.nn.relu(export[f"weight_{i}"] @ hidden + export[f"bias_{i}"])
        output = export["weight_2"] @ hidden + export["bias_2"]
        return jnp.array([0.0, 5.0]) + jnp.array([1.0, 5.0]) * jnp.tanh(output)

    expected = jax.vmap(jax.vmap(network))(observations)
    actions = load_policy(tmp_path / "p.npz")(observations)
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, expected, atol=2e-5)
    np.testing.assert_allclose(load_policy(tmp_path / "p.npz")(observations[2, 3]), actions[2, 3], atol=2e-5)


def test_a_mixture_acts_with_the_mean_of_its_heaviest_component(tmp_path):
    means = np.arange(COMPONENTS * ACTION, dtype=np.float32).reshape(COMPONENTS, ACTION) / 10
    for heaviest in range(COMPONENTS):
        logits = np.where(np.arange(COMPONENTS) == heaviest, 0.1, 0.0)
        export = {
            "kind": "tanh_mixture_mlp",
            "weight_0": np.zeros((COMPONENTS * (1 + ACTION), OBSERVATION)),
            "bias_0": np.concatenate([logits, means.ravel()]),
        }
        save(tmp_path / "p.npz", export, action_low=[-1, -1], action_high=[1, 1])
        act = load_policy(tmp_path / "p.npz")
        np.testing.assert_allclose(
            act(np.zeros((6, OBSERVATION))), np.tile(np.tanh(means[heaviest]), (6, 1)), rtol=1e-6
        )


def test_metadata_and_identical_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        save(tmp_path / name, {"kind": "tanh_mlp", **arrays(ACTION)})
    assert load_policy(tmp_path / "a.npz").metadata == METADATA
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]  # no temporary file stays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "decision_tree"}, "unknown kind of policy 'decision_tree'"),
        ({"weight_1": np.zeros((8, 15))}, "layer 1"),
        ({"bias_2": np.zeros(ACTION + 1), "weight_2": np.zeros((ACTION + 1, 8))}, "does not fit actions"),
        ({"bias_0": np.full(16, np.nan)}, "bias_0"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(PolicyFileError, match=message):
        save(tmp_path / "p.npz", {"kind": "tanh_mlp", **arrays(ACTION), **change})
    assert not list(tmp_path.iterdir())


def test_damaged_files(tmp_path):
    path = tmp_path / "p.npz"
    save(path, {"kind": "tanh_mlp", **arrays(ACTION)})
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"bias_0.npy") + 300] ^= 0xFF
    for content in (whole[: len(whole) // 2], b"", b"not a policy", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(PolicyFileError, match=r"p\.npz"):
            load_policy(path)
    np.savez(path, anything=np.zeros(3))
    with pytest.raises(PolicyFileError, match="not a policy file"):
        load_policy(path)
    with pytest.raises(FileNotFoundError):
        load_policy(tmp_path / "absent.npz")


def test_a_pickle_in_the_file_is_never_opened(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, version=np.array([{"a": 1}], dtype=object))
    with pytest.raises(PolicyFileError, match="allow_pickle"):
        load_policy(path)


def test_wrong_observation_size(tmp_path):
    save(tmp_path / "p.npz", {"kind": "tanh_mlp", **arrays(ACTION)})
    with pytest.raises(ValueError, match=r"\[\.\.\., 3\], not \[4\]"):
        load_policy(tmp_path / "p.npz")(np.zeros(4))


def test_the_module_alone_needs_numpy_alone(tmp_path):
    """Copied into an empty folder, it acts in a process where no other third-party package gets imported."""
    save(tmp_path / "p.npz", {"kind": "tanh_mlp", **arrays(ACTION)})
    shutil.copy(policy_module.__file__, tmp_path / "policy.py")
    script = """
import sys
before = set(sys.modules)
from policy import load_policy
print(load_policy("p.npz")([0.0, 0.0, 0.0]).tolist())
import_roots = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(import_roots - set(sys.stdlib_module_names) - {"numpy", "policy"}))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": ""}
    )
    action, others = result.stdout.splitlines()
    assert others == "[]"
    np.testing.assert_allclose(eval(action), load_policy(tmp_path / "p.npz")(np.zeros(3)), rtol=1e-6)
