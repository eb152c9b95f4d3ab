"""Several copies of a network as one: parameters stacked on a leading axis of `size` members."""

from __future__ import annotations

from typing import Any

import jax

from itrpo.nn.network import Network
from itrpo.types import Array, Params, PRNGKey


def ensemble(member: Network, size: int) -> Network:
    """A network whose outputs gain a leading axis [size]; members differ only in their initial parameters."""

    def init(key: PRNGKey) -> Params:
        return jax.vmap(member.init)(jax.random.split(key, size))

    def apply(params: Params, *inputs: Array) -> Any:
        return jax.vmap(lambda p: member.apply(p, *inputs))(params)

    return Network(init, apply)
