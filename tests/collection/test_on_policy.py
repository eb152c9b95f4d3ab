"""PPO, GePPO and TRPO: what an iteration sees, that it stays where it should, and that runs go on to the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from itrpo.cli import main
from itrpo.collection import on_policy, online_run, ppo, rollout, trpo
from itrpo.collection.on_policy import Recent, Rows, Running, Shared, Sized
from itrpo.collection.online_run import GeppoRun, OnPolicyRun, PpoRun, TrpoRun
from itrpo.ops import distributions, divergences
from itrpo.types import SpaceSpec

QUIET = Console(quiet=True)
SPEC, STEPS, ENVS = SpaceSpec(3, 2), 6, 2
SMALL = Shared(policy_hidden=(8, 8), value_hidden=(8, 8), minibatches=2, epochs=2)
RNG = np.random.default_rng(5)
PREPARED, POLICY_LOSS = (jax.jit(it, static_argnums=(0, 1)) for it in (on_policy.prepared, ppo.policy_loss))
WITH_SCALES, LOG_PROB = (jax.jit(it, static_argnums=0) for it in (on_policy.with_scales, on_policy.log_prob))


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Whatever ran before."""
    RNG.bit_generator.state = np.random.default_rng(5).bit_generator.state


def made_rows(batches: int) -> Rows:
    shape = (batches, STEPS, ENVS)
    ends = RNG.uniform(size=shape) < 0.2
    draw = lambda *more: jnp.asarray(RNG.normal(size=(*shape, *more)), jnp.float32)  # noqa: E731
    action = jnp.tanh(draw(2))
    continues = jnp.asarray(1.0 - (ends & (RNG.uniform(size=shape) < 0.5)), jnp.float32)
    return Rows(draw(3), action, draw(), continues, jnp.asarray(1.0 - ends, jnp.float32), draw(3))


def made(config: Any, agent: Any) -> tuple[Any, Any]:
    updates = agent.make(Sized(config, STEPS, ENVS), SPEC)
    return updates, jax.jit(updates.init)(jax.random.key(0))


def test_an_iteration_weighs_batches_by_age_and_keeps_the_densities_that_acted():
    """The newest batch has place 1 of 4, the one before it place 0, the oldest place 2; then a fifth takes that."""
    config = ppo.Config(batches=2, shared=SMALL)
    networks = on_policy.make_networks(SMALL, SPEC, optax.identity())
    _, state = made(config, ppo.GEPPO)
    rows, weights = made_rows(4), jnp.asarray([0.4, 0.3, 0.2, 0.1])
    older = jnp.asarray(RNG.normal(size=(4, STEPS, ENVS)), jnp.float32)
    state = state._replace(log_probs=older, batches=jnp.asarray(5))
    recent = Recent(rows, jnp.asarray(1), jnp.asarray(True))
    after, data = PREPARED(SMALL, networks, weights, 1.0, state, recent)
    weight, by_place = np.asarray(data.weight).reshape(4, -1), np.array([[0.3], [0.4], [0.1], [0.2]])
    np.testing.assert_allclose(weight, np.broadcast_to(4 * by_place, weight.shape), rtol=1e-6)
    pre_tanh = np.arctanh(np.clip(np.asarray(rows.action, np.float64), -1 + 1e-6, 1 - 1e-6))
    mean, log_std = jax.jit(networks.policy.apply)(state.policy.params, rows.observation)  # nothing seen: scales are 1
    now = -0.5 * ((pre_tanh - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    now = now.sum(-1)
    np.testing.assert_allclose(after.log_probs[1], now[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(after.log_probs[0], older[0])
    centre = np.exp(now - np.where(np.arange(4)[:, None, None] == 1, now, older))
    np.testing.assert_allclose(data.centre.reshape(4, STEPS, ENVS), centre, rtol=1e-3)
    early = state._replace(batches=jnp.asarray(1))  # this one and one before are there
    _, data = PREPARED(SMALL, networks, weights, 1.0, early, recent)
    weight = np.asarray(data.weight).reshape(4, -1)[:, 0]
    np.testing.assert_allclose(weight, 4 * np.array([0.3, 0.4, 0, 0]) / 0.7, rtol=1e-6)
    assert np.isfinite(np.asarray(data.centre)).all()


def test_value_targets_and_advantages_are_those_of_gae_on_one_batch():
    networks = on_policy.make_networks(SMALL, SPEC, optax.identity())
    _, state = made(ppo.Config(shared=SMALL), ppo.PPO)
    state = state._replace(returns=Running(jnp.asarray(2.0), jnp.zeros(()), jnp.asarray(8.0)))  # deviation 2
    rows = made_rows(1)
    _, data = PREPARED(SMALL, networks, jnp.ones(1), 1.0, state, Recent(rows, jnp.asarray(0), jnp.asarray(True)))
    value, following = (
        np.asarray(networks.value.apply(state.value.params, it), np.float64)[0]
        for it in (rows.observation, rows.next_observation)
    )
    error = np.asarray(rows.reward[0]) / 2 + 0.995 * np.asarray(rows.continues[0]) * following - value
    expected, later = np.zeros((STEPS, ENVS)), np.zeros(ENVS)
    for t in reversed(range(STEPS)):
        expected[t] = later = error[t] + 0.995 * 0.97 * np.asarray(rows.goes_on[0, t]) * later
    np.testing.assert_allclose(data.advantage.reshape(STEPS, ENVS), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(data.value_target.reshape(STEPS, ENVS), expected + value, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(data.centre, 1.0)  # PPO's ratio
    np.testing.assert_array_equal(data.weight, 1.0)


def test_the_loss_of_a_policy_is_numpys():
    config = ppo.Config(batches=2, shared=SMALL)
    networks = on_policy.make_networks(SMALL, SPEC, optax.identity())
    params = jax.jit(networks.policy.init)(jax.random.key(3))
    rows = 40
    draw = lambda *more: jnp.asarray(RNG.normal(size=(rows, *more)), jnp.float32)  # noqa: E731
    observation, pre_tanh = draw(3), draw(2)
    acted = LOG_PROB(networks, params, observation, pre_tanh) + 0.1 * draw()
    weight, centre = (jnp.asarray(RNG.uniform(0.5, 1.5, rows), jnp.float32) for _ in range(2))
    data = on_policy.Data(observation, pre_tanh, acted, centre, draw(), draw(), weight)
    loss, _ = POLICY_LOSS(config, networks, params, data)
    w, c, a = (np.asarray(it, np.float64) for it in (weight, centre, data.advantage))
    a_scaled = (a - (w * c * a).mean() / (w * c).mean()) / (w * c * a).std()
    ratio = np.exp(np.asarray(LOG_PROB(networks, params, observation, pre_tanh) - acted, np.float64))
    surrogate = np.minimum(ratio * a_scaled, np.clip(ratio, c - 0.1, c + 0.1) * a_scaled)  # 0.2 / 2
    np.testing.assert_allclose(loss, -(w * surrogate).mean(), rtol=1e-4)


def test_rows_that_are_not_there_yet_change_nothing():
    """Half of the rows have weight 0 and the others 2, as in the first iterations of GePPO: the loss of those alone."""
    config = ppo.Config(batches=2, shared=SMALL)
    networks = on_policy.make_networks(SMALL, SPEC, optax.identity())
    params = jax.jit(networks.policy.init)(jax.random.key(3))
    draw = lambda *more: jnp.asarray(RNG.normal(size=(40, *more)), jnp.float32)  # noqa: E731
    there = jnp.arange(40) % 2 == 0
    data = on_policy.Data(draw(3), draw(2), draw() - 3.0, jnp.ones(40), 3.0 * draw(), draw(), 2.0 * there)
    alone = on_policy.Data(*(leaf[there] for leaf in data))._replace(weight=jnp.ones(20))
    loss, other = (POLICY_LOSS(config, networks, params, it)[0] for it in (data, alone))
    np.testing.assert_allclose(loss, other, rtol=1e-5)


def test_what_has_not_moved_yet_keeps_its_units_and_scaled_rewards_are_clipped():
    """A first batch without a reward, and a column that stands still, would else be divided by 1e-4."""
    _, state = made(ppo.Config(shared=SMALL), ppo.PPO)
    still = Rows(*(leaf[0] for leaf in made_rows(1)))
    column = still.observation.at[..., 0].set(0.0).at[..., 1].set(7.3)
    for _ in range(3):
        state = WITH_SCALES(SMALL, state, still._replace(observation=column, reward=jnp.zeros((STEPS, ENVS))))
    assert state.returns.std == 1
    np.testing.assert_array_equal(state.observations.std[:2], 1.0)
    assert 0.1 < state.observations.std[2] < 3
    _, other = made(ppo.Config(shared=SMALL), ppo.PPO)
    pressure = 101_325.0 + 50.0 * still.observation  # moves, if by little of what it is
    other = WITH_SCALES(SMALL, other, still._replace(observation=pressure))
    np.testing.assert_allclose(other.observations.std, np.asarray(pressure, np.float64).std((0, 1)), rtol=1e-3)
    networks = on_policy.make_networks(SMALL, SPEC, optax.identity())
    rows = made_rows(1)._replace(goes_on=jnp.zeros((1, STEPS, ENVS)), continues=jnp.zeros((1, STEPS, ENVS)))
    for reward, seen in ((1.0, 1.0), (-50.0, -10.0)):
        recent = Recent(rows._replace(reward=jnp.full((1, STEPS, ENVS), reward)), jnp.asarray(0), jnp.asarray(True))
        _, data = PREPARED(SMALL, networks, jnp.ones(1), 1.0, state, recent)
        np.testing.assert_allclose(data.value_target, seen, rtol=1e-4)


def test_running_scales_are_those_of_all_numbers_and_of_discounted_sums():
    _, state = made(ppo.Config(shared=SMALL), ppo.PPO)
    batches = [Rows(*(leaf[0] for leaf in made_rows(1))) for _ in range(3)]
    for rows in batches:
        state = WITH_SCALES(SMALL, state, rows)
    seen = np.concatenate([np.asarray(rows.observation).reshape(-1, 3) for rows in batches])
    np.testing.assert_allclose(state.observations.mean, seen.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.observations.std, seen.std(0), rtol=1e-4)
    total, sums = np.zeros(ENVS), []
    for rows in batches:
        for reward, on in zip(np.asarray(rows.reward), np.asarray(rows.goes_on), strict=True):
            total = 0.995 * total + reward
            sums.append(total)
            total = total * on
    np.testing.assert_allclose(state.returns.std, np.std(sums), rtol=1e-4)
    np.testing.assert_allclose(state.discounted, total, rtol=1e-4)


def test_the_first_batch_only_sets_scales():
    updates, state = made(ppo.Config(shared=SMALL), ppo.PPO)
    rows, key = made_rows(1), jax.random.key(0)
    for is_policy in (False, True):
        after, metrics = jax.jit(updates.update)(state, Recent(rows, jnp.asarray(0), jnp.asarray(is_policy)), key, 0)
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.policy.params, state.policy.params)
        assert (max(jax.tree.leaves(moved)) > 0) is is_policy
        assert after.observations.seen == STEPS * ENVS
        assert (metrics["kl"] > 0) == is_policy


@pytest.mark.parametrize("limit", [1e-4, 0.01, 5.0])
def test_a_step_of_trpo_gains_and_stays_within_its_limit(limit: float):
    """Also where it is far too long for the second order, and is halved."""
    config = trpo.Config(kl_limit=limit, damping=1e-3, shared=SMALL)
    networks = on_policy.make_networks(SMALL, SPEC, optax.identity())
    params = jax.tree.map(lambda leaf: 3 * leaf, jax.jit(networks.policy.init)(jax.random.key(1)))
    observation = jnp.asarray(RNG.normal(size=(200, 3)), jnp.float32)
    mean, log_std = jax.jit(networks.policy.apply)(params, observation)
    pre_tanh = distributions.normal_sample(jnp.asarray(RNG.normal(size=(200, 2)), jnp.float32), mean, log_std)
    acted = LOG_PROB(networks, params, observation, pre_tanh)
    advantage = -jnp.sum(jnp.square(pre_tanh - 1.0), axis=1)
    ones = jnp.ones(200)
    data = on_policy.Data(observation, pre_tanh, acted, ones, advantage, ones, ones)
    stepped, metrics = jax.jit(partial(trpo.policy_step, config, networks))(params, data)
    kl_to = jax.jit(lambda it: jnp.mean(divergences.normal_kl(mean, log_std, *networks.policy.apply(it, observation))))
    moved = kl_to(stepped)
    np.testing.assert_allclose(metrics["kl"], moved, rtol=1e-3)
    share = float(metrics["step_share"])
    assert 0.2 * limit * share**2 < float(moved) <= limit
    assert metrics["gain"] > 0
    if limit == 5.0:
        assert share < 1
    if limit == 1e-4:  # the second order is all: the whole step ends at the limit, or is halved for being a hair beyond
        assert share in (1, 0.5)
        np.testing.assert_allclose(moved, share**2 * limit, rtol=0.1)


def test_the_file_of_a_policy_acts_as_the_policy():
    _, state = made(ppo.Config(shared=SMALL), ppo.PPO)
    state = WITH_SCALES(SMALL, state, Rows(*(leaf[0] for leaf in made_rows(1))))
    state = state._replace(
        policy=state.policy._replace(params=jax.tree.map(lambda leaf: leaf + 0.3, state.policy.params))
    )
    networks = on_policy.make_networks(SMALL, SPEC, optax.identity())
    observation, noise = (RNG.normal(size=(9, n)).astype(np.float32) for n in (3, 2))
    policy = rollout.acting_policy(on_policy.acting_arrays(state, None))
    actions, log_probs = rollout.act(policy, observation, noise)
    scaled = on_policy.standardised(state.observations, jnp.asarray(observation))
    mean, log_std = jax.jit(networks.policy.apply)(state.policy.params, scaled)
    np.testing.assert_allclose(actions, np.tanh(mean + np.exp(log_std) * noise), rtol=1e-4, atol=1e-5)
    pre_tanh = np.asarray(mean + np.exp(log_std) * noise, np.float64)
    jacobian = np.log(1 - np.square(np.tanh(pre_tanh))).sum(1)
    expected = np.asarray(LOG_PROB(networks, state.policy.params, scaled, jnp.asarray(pre_tanh))) - jacobian
    np.testing.assert_allclose(log_probs, expected, rtol=1e-3, atol=1e-3)


# --- runs ------------------------------------------------------------------------------------------------------------


class Reach(gymnasium.Env):
    """One step: observe x ~ U(-1, 1), reward -(a - x / 2)^2, so the best action is x / 2."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 1)
        return self.x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.x.copy(), -float(np.square(action - self.x / 2).sum()), True, False, {}


@pytest.fixture(scope="module", autouse=True)
def environments() -> Iterator[None]:
    gymnasium.register("Reach-v0", Reach)
    yield
    del gymnasium.registry["Reach-v0"]


QUICK = Shared(policy_hidden=(16, 16), value_hidden=(16, 16), value_learning_rate=3e-3, minibatches=4, epochs=4)
RUNS = {
    "ppo": PpoRun("Reach-v0", ppo=ppo.Config(policy_learning_rate=3e-3, shared=QUICK)),
    "geppo": GeppoRun("Reach-v0", geppo=replace(ppo.GEPPO_CONFIG, policy_learning_rate=3e-3, shared=QUICK)),
    "trpo": TrpoRun("Reach-v0", trpo=trpo.Config(shared=QUICK)),
}


@pytest.mark.parametrize("kind", ["ppo", *(pytest.param(it, marks=pytest.mark.slow) for it in ("geppo", "trpo"))])
def test_it_finds_the_best_actions(kind: str, tmp_path: Path):
    it = replace(RUNS[kind], steps=12_000, envs=4, steps_per_block=25 if kind == "geppo" else 50)
    it = replace(it, every=12_000, episodes=50)
    curve = online_run.run(it, tmp_path / "run", QUIET).curve
    last = curve[-1]
    assert last["mode_mean"] > -0.02 > -0.3 > curve[0]["sampled_mean"]
    assert last["pre_tanh_std"] < 0.7  # and with less noise
    assert last["sampled_mean"] > curve[0]["sampled_mean"] / 3
    if kind == "trpo":
        assert 0 < last["kl"] <= 0.01
    else:
        assert 0 < last["total_variation"] < 0.2 / (2 if kind == "geppo" else 1)
    policies = sorted((tmp_path / "run" / "policies").iterdir())
    x = np.linspace(-0.9, 0.9, 7, dtype=np.float32)[:, None]
    actions, _ = rollout.act(rollout.load_acting_policy(policies[-1]), x, np.zeros((7, 1), np.float32))
    assert np.abs(actions - x / 2).max() < 0.25


def test_a_run_of_geppo_is_the_same_however_it_is_cut(tmp_path: Path):
    """Extended in the middle of episodes, and while the older batches are still missing."""
    it = GeppoRun("Pendulum-v1", 600, envs=2, steps_per_block=30, every=180, episodes=1)
    it = replace(it, geppo=replace(ppo.GEPPO_CONFIG, shared=replace(SMALL, minibatches=4)))
    for steps in (120, 300, 600):
        online_run.run(replace(it, steps=steps), tmp_path / "cut", QUIET)
    online_run.run(it, tmp_path / "whole", QUIET)

    def files(name: str) -> dict[str, bytes]:
        folder = tmp_path / name
        paths = [folder / "rows.bin", *(folder / "policies").glob("*00[36]?0.safetensors")]
        paths += (folder / "checkpoints").glob("train_0000000600/*.safetensors")
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    cut, whole = files("cut"), files("whole")
    assert len(whole) >= 3
    assert [name for name in whole if cut.get(name) != whole[name]] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minibatches", "5000"], "minibatches: 5000 can't be made of the 2048 steps"),
        (["--policy-hidden", "8"], "policy_hidden must have 2 widths"),
        (["--capacity", "10"], "unknown flag --capacity"),
        (["--gae-lambda", "2"], "gae_lambda must be in [0, 1]"),
        (["--batches", "0"], "batches must be at least 1"),
    ],
)
def test_bad_input_is_one_message(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["ppo", "Reach-v0", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_runs_know_their_blocks():
    assert isinstance(RUNS["ppo"], OnPolicyRun)
    assert (online_run.updates_after(RUNS["ppo"], 2048), online_run.updates_after(RUNS["ppo"], 3 * 2048)) == (0, 2)
    assert (online_run.buffer_size(RUNS["ppo"]), online_run.buffer_size(RUNS["geppo"])) == (2048, 4 * 1024)
