"""Measures one program's training, in a process of its own, and prints lines of JSON. Started by bench.py.

    python benchmarks/measure_training.py '{"algorithm": "itrpo", "preset": "quick", "seeds": [1, 4], "seconds": 2}'

The keys are the fields of `Case`. The first line says what is trained; each line after it is one measurement. The
program is compiled afresh, whatever the cache of compiled programs holds, unless `cached` is true.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass, field
from typing import Any

import ceiling
import jax
import training_program
from training_program import Training

from itrpo import xla
from itrpo.training import loop


@dataclass(frozen=True)
class Case:
    algorithm: str = "itrpo"
    preset: str | None = None  # None: the algorithm's default
    fields: dict[str, Any] = field(default_factory=dict)  # of the algorithm's config, in place of the preset's
    dataset: str = "hopper-demo"
    rows: int | None = None  # that many random rows in place of the dataset
    seeds: tuple[int, ...] = (1, 4)
    seconds: float = 2.0  # of training in each measurement, about
    rounds: int = 2  # of measurements, each over all numbers of seeds in turn
    steps: int | None = None  # of each seed in a measurement, in place of `seconds`
    behavior_fit: bool = False  # measure the fit of pi_beta, not the algorithm after it
    cached: bool = False


def mebibytes() -> float:
    """Most memory so far: the device's where that is no CPU, else the process's."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.memory_stats()["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def main(case: Case) -> None:
    xla.prepare()
    if not case.cached:
        jax.config.update("jax_enable_compilation_cache", False)
    transitions, spec = training_program.load(case.dataset, case.rows)
    if case.behavior_fit:
        program = training_program.of_behavior_fit(case.algorithm, case.preset, spec)
    else:
        program = training_program.of_algorithm(case.algorithm, case.preset, spec, case.fields)
    data = training_program.on_device(program, transitions)
    loaded = mebibytes()
    counted = training_program.update_flops(program, data)
    say(
        flops=counted.flops,
        guesses=sorted(counted.guesses),
        width=program.width,
        batch=program.batch_size,
        rows=len(data.reward),
        device=jax.devices()[0].device_kind,
        loaded_mebibytes=loaded,
    )
    block = loop.make_block(program.update, program.batch_size)
    trainings: dict[int, Training] = {}
    for turn in range(case.rounds):
        for seeds in case.seeds:
            if seeds not in trainings:
                trainings[seeds] = training_program.begin(program, block, data, seeds)
                training_program.warm_up(trainings[seeds])
            measure(trainings[seeds], case, turn, counted.flops)


def measure(training: Training, case: Case, turn: int, flops: float) -> None:
    """One line: between two looks at what the machine can do."""
    before = ceiling.for_training(training.program.width, training.seeds, 0.2)
    if case.steps is None:
        rate = training_program.updates_per_second(training, case.seconds)
    else:
        rate = case.steps * training.seeds / training_program.advance(training, case.steps)
    limit = (before + ceiling.for_training(training.program.width, training.seeds, 0.2)) / 2
    say(
        seeds=training.seeds,
        round=turn,
        updates_per_second=rate,  # of all seeds together
        gigaflops=rate * flops / 1e9,
        ceiling_gigaflops=limit,
        share=rate * flops / 1e9 / limit,
        init_seconds=training.init_seconds,
        compile_seconds=training.compile_seconds,
        peak_mebibytes=mebibytes(),
    )


if __name__ == "__main__":
    values = json.loads(sys.argv[1])
    main(Case(**values | {"seeds": tuple(values.get("seeds", Case.seeds))}))
