"""The proof of an exported file: it does at thousands of inputs what the NumPy policy does."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from itrpo import files
from itrpo.errors import InputError
from itrpo.policy import KINDS, ROWS_AT_ONCE, Policy, step
from itrpo.shipping.c_source import Source

INPUTS = 10_000
STREAMS = 100  # episodes that they are shared out to, so that the policy has something to remember
SPREAD = 0.5  # random inputs lie as much farther than the range of training, on both sides
ODD = 0.002  # share of numbers that become NaN or infinite
TOLERANCE = 1e-5  # of an action's range
ROUNDING = 8.0  # or so many times as much as float32's rounding changes the action of the NumPy policy there
TIE = 1e-4  # options whose values differ by less of the largest of them are as good as each other
TIES = 0.01  # share of rows in which another option may be chosen
SUSPECTS = 500  # rows at which float32's rounding is measured
AT_ONCE = 250  # rows: of a policy that chooses among candidates more would not fit into memory
CALLS = 100  # timed
FLAGS = ("-std=c99", "-O3", "-Wall", "-Wextra", "-pedantic", "-Werror")

Runner = Callable[[np.ndarray, np.ndarray], list[Any]]  # observations, states -> as `onnx_file.runner`


class Proof(NamedTuple):
    """What a check of an export has found."""

    inputs: int
    largest: float  # difference of an action, as a share of its range, ties left out
    allowed: float
    ties: int  # rows whose two best options have the same value up to rounding, and another one was chosen
    problem: str  # why it fails; empty: it does not


class Inputs(NamedTuple):
    """Inputs with what the NumPy policy remembers there."""

    observations: np.ndarray  # [N, O]
    states: np.ndarray  # [N, S]


def make_inputs(policy: Policy, data: np.ndarray | None) -> Inputs:
    """INPUTS observations, half of them random, half rows of `data` [N, O] in their order, if there are some; one in
    500 numbers is NaN or infinite, and all in one of ten first observations.
    """
    rng, size, steps = np.random.default_rng(0), policy.frame, INPUTS // STREAMS
    low, high = _range(policy, data)
    low, high = low - SPREAD * (high - low) - 1e-3, high + SPREAD * (high - low) + 1e-3
    observations = rng.uniform(low, high, (steps, STREAMS, size)).astype(np.float32)
    if data is not None:
        starts = rng.integers(0, len(data), STREAMS // 2)
        observations[:, ::2] = data[(np.arange(steps)[:, None] + starts) % len(data)]
    odd = rng.uniform(size=observations.shape) < ODD
    odd[0, ::10] = True  # where nothing was done yet
    largest = np.finfo(np.float32).max
    marks = [np.nan, np.inf, -np.inf, *([largest, -largest] if policy.guards else [])]
    observations[odd] = rng.choice(np.array(marks, np.float32), odd.sum())
    states = np.zeros((steps + 1, STREAMS, policy.memory), np.float32)
    if policy.memory:
        with np.errstate(all="ignore"):
            for i in range(steps):
                states[i + 1] = step(policy, observations[i], states[i]).state
                states[i + 1][~np.isfinite(states[i + 1]).all(axis=1)] = 0  # without guards: an episode ends there
    return Inputs(observations.reshape(-1, size), states[:-1].reshape(INPUTS, -1))


def _range(policy: Policy, data: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Of observations [O] in training, as far as it is known."""
    if data is not None:
        return data.min(axis=0), data.max(axis=0)
    if "trained_low" not in policy.metadata:
        mean, std = policy.observation_mean[: policy.frame], np.minimum(policy.observation_std[: policy.frame], 1e6)
        return mean - 3 * std, mean + 3 * std
    low, high = (np.asarray(policy.metadata[f"trained_{end}"], np.float32) for end in ("low", "high"))
    return low[: policy.frame], high[: policy.frame]


def check(policy: Policy, run: Runner, inputs: Inputs) -> Proof:
    """Compares an export, as `run` runs it, with the NumPy policy in actions, what is remembered and what guards do.

    The largest difference that passes is TOLERANCE, or what float32 leaves open: ROUNDING times the difference of the
    NumPy policy's actions to its own in float64, at rows that are farther apart. Where it chooses among options and the
    best two are as good as each other, another choice is a tie.
    """
    theirs = _in_parts(run, inputs)
    with np.errstate(all="ignore"):
        ours = step(policy, *inputs)
    expected = (ours.action, ours.state, ours.on_observation, ours.on_action)
    names = ("actions", "what it remembers", "guards of observations", "guards of actions")
    for name, mine, their in zip(names, expected, theirs, strict=True):
        if their is None and (mine is None or not mine.size):
            continue
        if mine is None or their is None or mine.shape != their.shape:
            return Proof(len(ours.action), np.inf, 0.0, 0, f"{name} are not there, or of another shape")
    ranges = policy.action_high - policy.action_low
    with np.errstate(all="ignore"):
        apart = (_apart(theirs[0], ours.action) / ranges).max(axis=1)
        suspects = np.flatnonzero(apart > TOLERANCE)
        tied = np.zeros(len(apart), bool)
        tied[suspects] = _tied(policy, ours.rows[suspects])
        some = suspects[~tied[suspects]][:SUSPECTS]
        exact = step(_wide(policy), *(it[some].astype(np.float64) for it in inputs)).action.astype(np.float32)
        rounding = _apart(exact, ours.action[some]) / ranges
        allowed = max(TOLERANCE, ROUNDING * float(rounding.max(initial=0)))
        far = apart > allowed
        proof = Proof(len(apart), float(apart[~(far & tied)].max(initial=0)), allowed, int((far & tied).sum()), "")
        if (far & ~tied).any():
            row = int(np.flatnonzero(far & ~tied)[0])
            at, mine, their = inputs.observations[row].tolist(), ours.action[row].tolist(), theirs[0][row].tolist()
            return proof._replace(problem=f"at {at} its action is {their}, and that of the NumPy policy {mine}")
        if proof.ties > TIES * len(apart):
            return proof._replace(problem=f"{proof.ties} of {len(apart)} rows are decided by rounding")
        if ours.state.size:
            scale = np.maximum(np.maximum(1, np.abs(ours.state)), ranges.max())
            off = (_apart(theirs[1], ours.state) > 4 * allowed * scale).any(axis=1) & ~(far & tied)
            if off.any():
                return proof._replace(problem=f"in {off.sum()} of {len(off)} rows it remembers something else")
        if ours.on_observation is not None:
            if not np.array_equal(theirs[2], ours.on_observation):
                return proof._replace(problem="its guards see other observations")
            # whether an action has reached its bounds or its rate may be a matter of rounding
            other = ((theirs[3] != ours.on_action).any(axis=1) & ~far).mean()
            if other > TIES:
                return proof._replace(problem=f"in {100 * other:.2g} % of rows its guards do something else to actions")
    return proof


def _in_parts(run: Runner, inputs: Inputs) -> list[Any]:
    """What `run` gives for all rows, a few at a time."""
    parts = [
        run(*(it[start : start + AT_ONCE] for it in inputs)) for start in range(0, len(inputs.observations), AT_ONCE)
    ]
    return [None if it[0] is None else np.concatenate(it) for it in zip(*parts, strict=True)]


def _apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """|first - second|, 0 where both are NaN or the same infinity, and infinite where one alone is NaN."""
    apart = np.where((first == second) | (np.isnan(first) & np.isnan(second)), 0, np.abs(first - second))
    return np.where(np.isnan(apart), np.inf, apart)


def _wide(policy: Policy) -> Policy:
    """The same in float64."""
    networks = {
        name: tuple((weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in layers)
        for name, layers in policy.networks.items()
    }
    arrays = ("observation_mean", "observation_std", "action_low", "action_high")
    wide = {name: getattr(policy, name).astype(np.float64) for name in arrays}
    constants = {name: it.astype(np.float64) for name, it in policy.constants.items()}
    return replace(policy, networks=networks, constants=constants, **wide)


def _tied(policy: Policy, rows: np.ndarray) -> np.ndarray:
    """bool [N]: rows [N, O] in which the policy chooses among options, and the two best are as good as each other."""
    tied = np.zeros(len(rows), bool)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        with np.errstate(all="ignore"):
            _, values = KINDS[policy.kind](policy, some, np)
            if values is None or values.shape[1] == 1:
                return tied
            best = np.sort(values, axis=1)[:, -2:]
            apart = best[:, 1] - best[:, 0] > TIE * np.abs(values).max(axis=1)
        tied[start : start + len(some)] = ~apart.reshape(len(some), -1).all(axis=1)
    return tied


# --- C, compiled -----------------------------------------------------------------------------------------------------

HARNESS = """#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "NAME.h"

/* Reads states and observations, writes actions, states and what guards did; then times COUNT calls. */
int main(int argc, char **argv)
{
    static struct NAME self;
    static float observation[UPPER_OBSERVATION], action[UPPER_ACTION];
    const unsigned char nan[4] = {0, 0, 192, 127};
    long count = argc > 1 ? atol(argv[1]) : 0;
    NAME_init(&self);
    while (fread(observation, sizeof observation, 1, stdin) == 1) {
        NAME_reset(&self, NULL);
        if (UPPER_STATE > 0 && fread(self.state, sizeof(float), UPPER_STATE, stdin) != UPPER_STATE)
            return 1;
        for (int i = 0; i < UPPER_ACTION; i++)
            memcpy(&action[i], nan, 4);
        (void)NAME_act(&self, observation, action);
        fwrite(action, sizeof action, 1, stdout);
        fwrite(self.state, sizeof(float), UPPER_STATE, stdout);
#if UPPER_GUARDED
        fwrite(self.on_observation, sizeof self.on_observation, 1, stdout);
        fwrite(self.on_action, sizeof self.on_action, 1, stdout);
#endif
    }
    const clock_t begun = clock();
    for (long i = 0; i < count; i++)
        (void)NAME_act(&self, observation, action);
    if (count > 0)
        fprintf(stderr, "%.9g\\n", (double)(clock() - begun) / CLOCKS_PER_SEC / (double)count);
    return 0;
}
"""


def compiler() -> str | None:
    """$CC, or the first of cc, gcc, clang that is there."""
    return next(
        (path for it in (os.environ.get("CC", ""), "cc", "gcc", "clang") if it and (path := shutil.which(it))), None
    )


class Compiled(NamedTuple):
    """A program around an export to C."""

    program: Path
    policy: Policy

    def __call__(self, observations: np.ndarray, states: np.ndarray) -> list[Any]:
        policy, guarded = self.policy, self.policy.guards is not None
        given = np.concatenate([observations, states], axis=1).astype(np.float32).tobytes()
        done = subprocess.run([self.program], input=given, capture_output=True, check=True)
        actions, bits = len(policy.action_low), policy.frame + len(policy.action_low)
        floats = 4 * (actions + policy.memory)
        table = np.frombuffer(done.stdout, np.uint8).reshape(len(observations), floats + guarded * bits)
        numbers = np.ascontiguousarray(table[:, :floats]).view(np.float32)
        flags = table[:, floats:].astype(np.int32)
        found = [numbers[:, :actions], numbers[:, actions:]]
        return [*found, *([flags[:, : policy.frame], flags[:, policy.frame :]] if guarded else [None, None])]

    def seconds(self, observation: np.ndarray) -> float:
        """Of one call."""
        zeros = np.zeros((1, self.policy.memory))
        given = np.concatenate([observation[None], zeros], axis=1).astype(np.float32).tobytes()
        done = subprocess.run([self.program, str(CALLS)], input=given, capture_output=True, check=True)
        return float(done.stderr)


def compile_c(policy: Policy, content: Source, name: str, folder: Path, flags: Sequence[str] = FLAGS) -> Compiled:
    """Compiles an export to C within `folder`. Raises InputError with the compiler's words, or where there is none."""
    found = compiler()
    if found is None:
        raise InputError("no C compiler (cc, gcc, clang or $CC) is there")
    harness = HARNESS.replace("NAME", name).replace("UPPER", name.upper()).encode()
    sources = {f"{name}.h": content.header.encode(), f"{name}.c": content.source.encode(), "main_.c": harness}
    for file, text in sources.items():
        files.write(folder / file, text)
    command = [found, *flags, f"{name}.c", "main_.c", "-lm", "-o", "program_"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{' '.join(command)} failed: {done.stderr[:1000].strip() or done.returncode}")
    return Compiled(folder / "program_", policy)


def seconds_per_call(run: Runner, inputs: Inputs) -> float:
    """Of one observation at a time, the median."""
    first = [it[:1] for it in inputs]
    run(*first)
    taken: list[float] = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        run(*first)
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))
