from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from itrpo import policy as policy_module
from itrpo.policy import PolicyFileError, load_policy, save_policy

OBSERVATION, ACTION, COMPONENTS = 3, 2, 4
METADATA = {"env_id": "Hopper-v4", "algorithm": "itrpo"}


def arrays(output: int) -> dict:
    rng = np.random.default_rng(0)
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
    assert len(repr(load_policy(tmp_path / "p.npz"))) < 1500  # no weights in a notebook
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


def test_a_factored_mixture_acts_with_the_heaviest_mean_of_each_dimension(tmp_path):
    means = np.arange(ACTION * COMPONENTS, dtype=np.float32).reshape(ACTION, COMPONENTS) / 10
    for heaviest in np.ndindex(*(COMPONENTS,) * ACTION):
        logits = np.array([np.arange(COMPONENTS) == component for component in heaviest], np.float32)
        export = {
            "kind": "tanh_factored_mixture_mlp",
            "weight_0": np.zeros((2 * COMPONENTS * ACTION, OBSERVATION)),
            "bias_0": np.concatenate([logits.ravel(), means.ravel()]),
        }
        save(tmp_path / "p.npz", export, action_low=[-1, -1], action_high=[1, 1])
        chosen = np.tanh([means[dimension, component] for dimension, component in enumerate(heaviest)])
        act = load_policy(tmp_path / "p.npz")
        np.testing.assert_allclose(act(np.zeros((3, OBSERVATION))), np.tile(chosen, (3, 1)), rtol=1e-6)


LATENT, CANDIDATES = 5, 7
ON_ACTION = OBSERVATION + ACTION
NORMAL = {"observation_mean": np.zeros(OBSERVATION), "observation_std": np.ones(OBSERVATION)}
UNIT = NORMAL | {"action_low": -np.ones(ACTION), "action_high": np.ones(ACTION)}


def network(prefix: str, sizes: tuple[int, ...], seed: int) -> dict:
    rng = np.random.default_rng(seed)
    export: dict = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        export[f"{prefix}weight_{i}"] = rng.normal(0, 0.5, (outputs, inputs)).astype(np.float32)
        export[f"{prefix}bias_{i}"] = rng.normal(0, 0.5, outputs).astype(np.float32)
    return export


def composed(kind: str) -> dict:
    """One policy of each kind that consists of several networks, of random weights."""
    rng = np.random.default_rng(9)
    perturbation = network("perturbation_", (ON_ACTION, 9, ACTION), 2) | {"phi": np.float32(0.3)}
    critic = network("critic_", (ON_ACTION, 11, 6, 1), 3)
    if kind == "latent_decoder":
        parts = network("", (OBSERVATION, 8, LATENT), 0) | network("decoder_", (OBSERVATION + LATENT, 10, ACTION), 1)
        return {"kind": kind, **parts, "max_latent": np.float32(2.0), **perturbation}
    if kind == "best_of_gaussian":
        noise = rng.normal(size=(CANDIDATES, ACTION))
        ranges = {"noise": noise, "log_std_range": np.array([-1.0, 0.5])}
        return {"kind": kind, **network("", (OBSERVATION, 8, 2 * ACTION), 0), **ranges, **critic}
    decoder = network("", (OBSERVATION + LATENT, 10, ACTION), 1)
    return {"kind": kind, **decoder, "latents": rng.normal(size=(CANDIDATES, LATENT)), **perturbation, **critic}


def action_by_loops(export: dict, observation: np.ndarray) -> np.ndarray:
    """What `save_policy` says of each kind, for one observation and one candidate at a time, in float64."""

    def net(prefix: str, *inputs) -> np.ndarray:
        hidden = np.concatenate(inputs).astype(np.float64)
        depth = sum(name.startswith(f"{prefix}weight_") for name in export)
        for i in range(depth):
            hidden = export[f"{prefix}weight_{i}"] @ (hidden if i == 0 else np.maximum(hidden, 0))
            hidden = hidden + export[f"{prefix}bias_{i}"]
        return hidden

    def perturbed(action: np.ndarray) -> np.ndarray:
        if "phi" not in export:
            return action
        return np.clip(action + export["phi"] * np.tanh(net("perturbation_", observation, action)), -1, 1)

    if export["kind"] == "latent_decoder":
        latent = export["max_latent"] * np.tanh(net("", observation))
        return perturbed(np.tanh(net("decoder_", observation, latent)))
    if export["kind"] == "best_of_gaussian":
        mean, log_std = np.split(net("", observation), 2)
        std = np.exp(np.clip(log_std, *export["log_std_range"]))
        candidates = [np.tanh(mean + std * noise) for noise in export["noise"]]
    else:
        candidates = [perturbed(np.tanh(net("", observation, latent))) for latent in export["latents"]]
    return max(candidates, key=lambda action: net("critic_", observation, action)[0])


COMPOSED = ("latent_decoder", "best_of_gaussian", "best_of_decoder")


@pytest.mark.parametrize("kind", COMPOSED)
def test_policies_of_several_networks_do_what_their_kind_says(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(policy_module, "ROWS_AT_ONCE", 4)
    export = composed(kind)
    save(tmp_path / "p.npz", export, **UNIT)
    act = load_policy(tmp_path / "p.npz")
    observations = np.random.default_rng(5).normal(size=(3, 5, OBSERVATION)).astype(np.float32)
    expected = np.array([[action_by_loops(export, it) for it in row] for row in observations])
    assert np.ptp(expected, axis=(0, 1)).max() > 0.1  # states differ in what is best
    np.testing.assert_allclose(act(observations), expected, atol=1e-5)
    np.testing.assert_allclose(act(observations[1, 2]), expected[1, 2], atol=1e-5)
    assert act(np.zeros((0, OBSERVATION))).shape == (0, ACTION)
    # observations and actions are scaled as for every kind
    save(tmp_path / "q.npz", export)
    scaled = load_policy(tmp_path / "q.npz")(observations * [1.0, 2.0, 0.5] + [0.5, -1.0, 2.0])
    np.testing.assert_allclose(scaled, [0, 5] + expected * [1, 5], atol=1e-4)


@pytest.mark.parametrize("kind", COMPOSED[::2])
def test_without_a_perturbation_network_actions_are_the_decoders(tmp_path, kind):
    export = {name: value for name, value in composed(kind).items() if "perturbation" not in name and name != "phi"}
    save(tmp_path / "p.npz", export, **UNIT)
    observations = np.random.default_rng(5).normal(size=(5, OBSERVATION)).astype(np.float32)
    expected = [action_by_loops(export, it) for it in observations]
    np.testing.assert_allclose(load_policy(tmp_path / "p.npz")(observations), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("latent_decoder", {"max_latent": np.zeros(2)}, r"max_latent: \(2,\) instead of \(\)"),
        ("latent_decoder", {"decoder_weight_0": np.zeros((10, 7))}, r"decoder_: \(7, 2\) instead of \(8, 2\)"),
        ("latent_decoder", {"phi": None}, r"phi: None instead of \(\)"),
        ("best_of_gaussian", {"noise": np.zeros((7, 3))}, r"noise: \(7, 3\) instead of \(7, 2\)"),
        ("best_of_gaussian", {"noise": np.float32(1)}, "noise"),
        ("best_of_gaussian", {"critic_bias_1": None}, "lacks critic_bias_1"),
        ("best_of_gaussian", {"critic_weight_1": np.zeros((6, 12))}, "critic_layer 1"),
        ("best_of_decoder", {"latents": np.zeros((7, 4))}, r"its network: \(8, 2\) instead of \(7, 2\)"),
        ("best_of_decoder", {"latents": np.full((7, 5), np.nan)}, "latents"),
        ("best_of_decoder", {"perturbation_weight_1": np.zeros((3, 9)), "perturbation_bias_1": np.zeros(3)}, "perturb"),
        ("best_of_decoder", {"surprise": np.zeros(2)}, "surprise"),
    ],
)
def test_parts_of_several_networks_that_do_not_fit_are_refused(tmp_path, kind, change, message):
    export = {name: value for name, value in (composed(kind) | change).items() if value is not None}
    with pytest.raises(PolicyFileError, match=message):
        save(tmp_path / "p.npz", export, **UNIT)
    assert not list(tmp_path.iterdir())


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


def test_a_policy_without_actions_is_refused(tmp_path):
    export = {"kind": "tanh_mlp", "weight_0": np.zeros((0, 2)), "bias_0": np.zeros(0)}
    with pytest.raises(PolicyFileError, match="there must be observations and actions"):
        save_policy(tmp_path / "p.npz", export, np.zeros(2), np.ones(2), np.zeros(0), np.zeros(0), {})


def test_a_folder_is_no_policy(tmp_path):
    with pytest.raises(PolicyFileError, match=r"a folder; name a policy's file, such as seed0/policy\.npz"):
        load_policy(tmp_path)


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


RANGE = {"trained_low": [0.0, -1.0, 2.0], "trained_high": [10.0, 1.0, 2.0]}  # the last never varied


def test_it_says_once_what_is_far_outside_and_counts_all(tmp_path):
    names = {"observation_names": ["temp", "level", "pressure"]}
    save(tmp_path / "p.npz", {"kind": "tanh_mlp", **arrays(ACTION)}, metadata=RANGE | names)
    act = load_policy(tmp_path / "p.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        act([[14.9, -1.9, 2.0], [-4.9, 1.9, 2.001]])  # half a range farther is not far
        act.act([99.0, 0.0, 2.0])  # says nothing, as in an evaluation
    assert act.outside.tolist() == [0, 0, 0]
    with pytest.warns(RuntimeWarning) as caught:
        answer = act([[15.1, 0.0, 2.1], [np.nan, 2.1, 2.0]])
    assert [str(it.message).partition(":")[0] for it in caught] == [
        "observation 0 (temp) is 15.1, and in training it was from 0 to 10",
        "observation 1 (level) is 2.1, and in training it was from -1 to 1",
        "observation 2 (pressure) is 2.1, and in training it was from 2 to 2",
    ]
    assert (answer.shape, act.outside.tolist()) == ((2, ACTION), [2, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        act([16.0, 0.0, 2.0])
    assert act.outside.tolist() == [3, 1, 1]


@pytest.mark.parametrize(
    "metadata",
    [
        RANGE | {"trained_low": [0.0, 0.0]},
        RANGE | {"trained_high": ["a", 1, 2]},
        {"trained_low": [0, 0, 0]},
        RANGE | {"trained_high": [-1.0, 1.0, 2.0]},
    ],
)
def test_a_range_that_is_none_is_refused(tmp_path, metadata):
    with pytest.raises(PolicyFileError, match="trained_low and trained_high"):
        save(tmp_path / "p.npz", {"kind": "tanh_mlp", **arrays(ACTION)}, metadata=metadata)


def test_a_policy_of_no_known_ranges_says_that_a_number_is_missing(tmp_path):
    """Its file may lack what the data's ranges were: files of strangers do."""
    save(tmp_path / "p.npz", {"kind": "tanh_mlp", **arrays(ACTION)})
    with pytest.warns(RuntimeWarning, match=r"observation 1 is nan: the policy has not learned"):
        load_policy(tmp_path / "p.npz")([0.0, np.nan, 0.0])
