"""A step in pieces is the step; targets move by Polyak averaging alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from itrpo.nn import trainable as under_test
from itrpo.nn.trainable import cached_chunk, chunked_gradient_step, gradient_step, polyak, trainable

OPTIMIZER = optax.adam(0.1)


def loss(params, rows):
    x, y = rows
    error = jnp.tanh(x @ params["weight"]) - y
    return jnp.mean(error**2), {"error": jnp.mean(jnp.abs(error))}


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.normal(size=(12, 3)), jnp.float32), jnp.asarray(rng.normal(size=12), jnp.float32)
    return trainable(OPTIMIZER, {"weight": jnp.array([0.3, -0.2, 0.5])}, target=True), rows


@pytest.mark.parametrize("chunk", [1, 3, 4, 12])
def test_a_step_in_chunks_is_the_step(problem, chunk):
    it, rows = problem
    whole, whole_metrics = gradient_step(it, OPTIMIZER, lambda params: loss(params, rows))
    parts, parts_metrics = chunked_gradient_step(it, OPTIMIZER, loss, rows, chunk)
    np.testing.assert_allclose(parts_metrics["error"], whole_metrics["error"], rtol=1e-6)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(parts.params["weight"], it.params["weight"])
    np.testing.assert_array_equal(parts.target_params["weight"], it.params["weight"])


@pytest.mark.parametrize(
    ("batch_size", "rows_each", "expected"), [(256, 31, 16), (256, 1, 256), (256, 21, 16), (100, 31, 10), (7, 9999, 1)]
)
def test_chunks_divide_the_batch_and_fit_the_cache(monkeypatch, batch_size, rows_each, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    chunk = cached_chunk(batch_size, rows_each)
    assert chunk == expected
    assert batch_size % chunk == 0
    assert chunk == 1 or chunk * rows_each <= under_test.CACHED_ROWS


def test_accelerators_get_the_whole_batch(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cached_chunk(256, 31) == 256


def test_polyak_moves_the_target_towards_the_parameters(problem):
    it, rows = problem
    stepped, _ = gradient_step(it, OPTIMIZER, lambda params: loss(params, rows))
    moved = polyak(stepped, 0.25)
    expected = 0.75 * np.asarray(it.params["weight"]) + 0.25 * np.asarray(stepped.params["weight"])
    np.testing.assert_allclose(moved.target_params["weight"], expected, rtol=1e-6)
    np.testing.assert_array_equal(moved.params["weight"], stepped.params["weight"])
