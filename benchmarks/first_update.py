"""Runs an `itrpo` command until the algorithm's first update is done, and says when that was. Started by bench.py.

    python benchmarks/first_update.py STARTED train hopper-demo --steps 1000 --out FOLDER

STARTED is `time.time()` just before this process was started. The command is the real one; only the blocks of updates
that it makes are watched. Prints one line of JSON, in seconds since STARTED: when the command line's module was there,
when the first update of any network was done (pi_beta's, where it is fitted), and when the algorithm's first one was.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

started = float(sys.argv[1])
seen: dict[str, float] = {}


def watch(make_block: Callable[..., Any]) -> Callable[..., Any]:
    """Blocks that note when their first update is done."""
    import jax

    from itrpo.training import behavior_fit

    def make(update: Callable[..., Any], batch_size: int) -> Callable[..., Any]:
        block = make_block(update, batch_size)
        fits_behavior = getattr(update, "__module__", "") == behavior_fit.__name__

        def watched(carry: Any, data: Any, keys: Any, limits: Any, first: Any, last: Any) -> Any:
            carry = jax.block_until_ready(block(carry, data, keys, limits, first, last))
            if last > first:
                seen.setdefault("any_network", time.time() - started)
                if not fits_behavior:
                    say_and_leave(algorithm_seconds=time.time() - started)
            return carry

        return watched

    return make


def say_and_leave(**more: float) -> None:
    print(json.dumps(seen | more), flush=True)
    os._exit(0)


def main() -> None:
    from itrpo.cli import main as command

    seen["imported"] = time.time() - started
    from itrpo.training import loop

    loop.make_block = watch(loop.make_block)
    sys.argv = ["itrpo", *sys.argv[2:]]
    raise SystemExit(command())


if __name__ == "__main__":
    main()
