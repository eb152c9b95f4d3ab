"""Policies over choices in their file and as C: the rule by hand, and what each export proves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from itrpo.errors import InputError
from itrpo.options import GuardOptions
from itrpo.policy import MissingInput, PolicyFileError, load_policy, save_policy
from itrpo.shipping import verify
from itrpo.shipping.export import export

RNG = np.random.default_rng(0)
ARRAYS = {
    f"{prefix}{part}_{layer}": (scale * RNG.normal(size=shape)).astype(np.float32)
    for prefix, scale in (("", 1.0), ("q1_", 1.0), ("behavior_", 0.5))
    for layer, (size, inputs) in enumerate(((8, 2), (3, 8)))
    for part, shape in (("weight", (size, inputs)), ("bias", (size,)))
}
RULE = {"epsilon": 1e-6, "behavior_weight": 0.7, "log_threshold": np.log(0.3)}


def saved(path: Path, low: float = 2, high: float = 4) -> Path:
    about = {"trained_low": [-2, -2], "trained_high": [2, 2]}
    save_policy(path, {"kind": "argmax", **ARRAYS, **RULE}, np.zeros(2), np.ones(2), [low], [high], about)
    return path


def by_hand(observation: np.ndarray) -> int:
    def network(prefix: str, standardise: bool) -> np.ndarray:
        hidden = np.maximum(ARRAYS[f"{prefix}weight_0"] @ observation + ARRAYS[f"{prefix}bias_0"], 0)
        if standardise:
            hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-6)
        return ARRAYS[f"{prefix}weight_1"] @ hidden + ARRAYS[f"{prefix}bias_1"]

    logits = network("behavior_", False)
    value = np.minimum(network("", True), network("q1_", True)) + 0.7 * logits
    likely = np.exp(logits - logits.max()) > 0.3
    return 2 + int(np.where(likely, value, -np.inf).argmax())


def test_a_policy_is_its_rule_and_gives_whole_numbers(tmp_path: Path) -> None:
    policy = load_policy(saved(tmp_path / "policy.npz"))
    observations = RNG.normal(size=(50, 2))
    chosen = policy.act(observations)
    assert (chosen.dtype, policy.num_actions) == (np.int64, 3)
    expected = [by_hand(it) for it in observations]
    assert len(set(expected)) > 1
    np.testing.assert_array_equal(chosen, expected)
    assert policy(observations[0]) == expected[0]
    assert np.shape(policy(observations[0])) == ()
    with pytest.raises(MissingInput, match="NaN or infinite"):
        policy.act([np.nan, 0])
    with pytest.raises(PolicyFileError, match="first and the last choice"):
        saved(tmp_path / "other.npz", 0.5, 2.5)


@pytest.mark.skipif(verify.compiler() is None, reason="no C compiler")
def test_c_does_what_the_policy_does(tmp_path: Path) -> None:
    source = saved(tmp_path / "policy.npz")
    for guards in (GuardOptions(missing="fallback", fallback=3.0), GuardOptions(guards=False)):
        out = tmp_path / f"policy_{guards.missing}.c"
        assert export(source, "c", out, guards=guards).proof.ties < 10
    for wrong, message in (
        ({"rate": 1.0}, "another choice is not a smaller one"),
        ({"missing": "hold", "fallback": 2.5}, "one of the choices"),
    ):
        with pytest.raises(InputError, match=message):
            export(source, "c", tmp_path / "no.c", guards=GuardOptions(**wrong))
