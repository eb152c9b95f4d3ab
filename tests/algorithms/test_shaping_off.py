"""Without the shaping reward, iTRPO is BRAC with value penalty, to the bit."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from itrpo.algorithms.brac import BRAC_V
from itrpo.algorithms.itrpo import ITRPO, Config
from itrpo.algorithms.kl_actor_critic import Backbone
from itrpo.behavior.gaussian import GAUSSIAN
from itrpo.training import loop
from itrpo.types import SpaceSpec, Transition

SPEC = SpaceSpec(4, 2)
BACKBONE = Backbone(policy_hidden=(16, 16), critic_hidden=(16, 16), batch_size=32)
SHAPINGS_OFF = {"tau=0": {"tau": 0.0}, "clip=[0,0]": {"tau": 0.8, "log_ratio_low": 0.0, "log_ratio_high": 0.0}}


def trained(entry, config):
    """State after 50 updates of two seeds."""
    rng = np.random.default_rng(0)
    shapes = ((256, 4), (256, 2), (256,), (256,), (256, 4), (256, 2))
    data = Transition(*(jax.numpy.asarray(rng.uniform(-1, 1, shape), "float32") for shape in shapes))
    model = GAUSSIAN.make(GAUSSIAN.config(hidden=(16,)), SPEC, 10)
    algorithm = entry.make(config, SPEC, model)
    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.jit(jax.vmap(lambda key: model.params(model.init(key))))(keys)
    state = jax.jit(jax.vmap(algorithm.init))(keys, params)
    names = loop.metric_names(algorithm.update, state, data, algorithm.batch_size)
    block = loop.make_block(algorithm.update, algorithm.batch_size)
    return block(loop.start(state, names), data, keys, dict.fromkeys(names, 1e30), 0, 50).state


@pytest.fixture(scope="module")
def brac():
    return trained(BRAC_V, BRAC_V.config(alpha=0.7, backbone=BACKBONE))


@pytest.mark.parametrize("shaping", SHAPINGS_OFF)
def test_itrpo_without_shaping_is_brac_v_to_the_bit(shaping, brac):
    itrpo = trained(ITRPO, Config(alpha=0.7, backbone=BACKBONE, **SHAPINGS_OFF[shaping]))
    for left, right in zip(jax.tree.leaves(itrpo), jax.tree.leaves(brac), strict=True):
        np.testing.assert_array_equal(left, right)


def test_with_shaping_it_is_not(brac):
    itrpo = trained(ITRPO, Config(alpha=0.7, tau=0.5, backbone=BACKBONE))
    assert not np.array_equal(itrpo.critic.params.mlp.layers[0].weight, brac.critic.params.mlp.layers[0].weight)


@pytest.mark.slow
def test_so_it_is_as_users_run_it_with_xla_optimising():
    """The other tests compile without optimisation, which hides what a computed zero does to the last bits."""
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    brac, itrpo = done.stdout.split()
    assert len(brac) == 64
    assert itrpo == brac


def digest(state) -> str:
    return hashlib.sha256(b"".join(np.asarray(it).tobytes() for it in jax.tree.leaves(state))).hexdigest()


if __name__ == "__main__":
    print(digest(trained(BRAC_V, BRAC_V.config(alpha=0.7, backbone=BACKBONE))))
    print(digest(trained(ITRPO, Config(alpha=0.7, backbone=BACKBONE, tau=0.0))))
