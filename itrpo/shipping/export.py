"""`itrpo.export`: a trained policy as a file that acts without itrpo, with guards, proven before it is written."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import itrpo
from itrpo import files
from itrpo.config import checked, checked_options
from itrpo.data.again import load_again, source_again
from itrpo.errors import InputError, ItrpoError, StorageError
from itrpo.options import GuardOptions
from itrpo.policy import BITS, FLOWS, Policy, PolicyFileError, guards_json, load_policy, save_policy, step
from itrpo.shipping import c_source, onnx_file, stablehlo, verify
from itrpo.shipping.guards import make_guards
from itrpo.types import Dataset

if TYPE_CHECKING:
    from rich.console import Console

Format = Literal["onnx", "stablehlo", "c", "npz"]


class Exported(NamedTuple):
    """What `export` has written."""

    paths: tuple[Path, ...]
    policy: Policy  # with its guards: what the files do
    proof: verify.Proof | None  # None: nobody has checked it, as the user wished
    data_rows: int  # rows of the data that guards and proof know; 0: none
    seconds_numpy: float  # per call, one observation at a time, on this machine
    seconds: float | None  # the same of the export


def export(
    source: str | os.PathLike[str],
    format: Format = "onnx",  # noqa: A002 (as the flag is called)
    out: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    data: Any = None,
    guards: GuardOptions | None = None,
    unverified: bool = False,
    console: Console | None = None,
) -> Exported:
    """Writes the policy of one seed of a run, or that of a policy.npz, in another format, and with guards.

    `out` is a path with the format's ending (for "c" that of the source: the header lies beside it, and functions have
    its name) [policy.ENDING in the folder `export` beside policy.npz]. `data` is what the policy was trained
    on, for guards and for the proof, as `load_dataset` takes it [the run's own]. `seed` is the index of the policy in a
    run of several; `guards` None: the usual ones. Without a `console` nothing is printed.
    What is written does, at `verify.INPUTS` inputs, what the NumPy policy with these guards does: a file that does not
    is not written. `unverified` writes C where there is no compiler to check it with.
    Raises InputError for what is not there or does not fit, ItrpoError for an export that fails its check, StorageError
    if the disk refuses.
    """
    format = checked(format, Format, "format")  # noqa: A001
    guards = checked_options(GuardOptions() if guards is None else guards, GuardOptions, "guards")
    path = find_policy(Path(source), checked(seed, int, "seed"))
    target = _target(path, format, out)
    if format == "onnx":
        onnx_file.import_onnx()
    if format == "c" and verify.compiler() is None and not unverified:
        raise InputError(
            "export to c is checked by compiling and running it, and no C compiler (cc, gcc, clang or $CC) is there;"
            " install one, or give --unverified true to write what nobody has checked"
        )
    try:
        bare = load_policy(path)
    except PolicyFileError as error:
        raise StorageError(str(error)) from error
    if format != "npz" and bare.kind in FLOWS:
        raise InputError(
            f"{path} takes its actions from a flow (EMaQ, or pi_beta itself with --behavior flow or flow_matching),"
            f" which acts with NumPy alone: give --format npz, not {format}"
        )
    if bare.guards is not None:
        raise InputError(f"{path} has guards already; export the run's own policy.npz")
    dataset = _data(path, bare, data, console)
    chosen = make_guards(bare, guards, dataset)
    rows = None if dataset is None else dataset.transitions.observation[:, : bare.frame]
    with files.scratch_folder(files.cache_dir(), "export-") as scratch:
        return _export(bare, chosen, rows, path, target, format, scratch)


def _export(
    bare: Policy,
    guards: Any,
    rows: np.ndarray | None,
    path: Path,
    target: Path,
    format: Format,  # noqa: A002
    scratch: Path,
) -> Exported:
    metadata = {**bare.metadata, "source_sha256": files.file_sha256(path)}
    metadata |= {} if guards is None else {"guards": guards_json(guards)}
    npz = scratch / "policy.npz"
    save_policy(
        npz, arrays_of(bare), bare.observation_mean, bare.observation_std, bare.action_low, bare.action_high, metadata
    )
    policy = load_policy(npz)
    about = describe(policy)
    inputs, proof, seconds = verify.make_inputs(policy, rows), None, None
    first = inputs.observations[0]
    if format == "c":
        source = c_source.to_c(policy, about, target.stem)
        contents = {target.with_suffix(".h"): source.header.encode(), target: source.source.encode()}
        if verify.compiler() is not None:
            compiled = verify.compile_c(policy, source, target.stem, scratch)
            proof, seconds = verify.check(policy, compiled, inputs), compiled.seconds(first)
    else:
        beside: dict[Path, bytes] = {}
        if format == "npz":
            content, run = npz.read_bytes(), _run_numpy(load_policy(npz))
        elif format == "onnx":
            content = onnx_file.to_onnx(policy, about)
            run = onnx_file.runner(content, policy)
        else:
            content = stablehlo.to_stablehlo(policy)
            run = stablehlo.runner(content)
            beside[target.with_suffix(".json")] = (json.dumps(about, indent=2, allow_nan=False) + "\n").encode()
        contents = {**beside, target: content}
        proof, seconds = verify.check(policy, run, inputs), verify.seconds_per_call(run, inputs)
    if proof is not None and proof.problem:
        raise ItrpoError(f"the export of {path} to {format} fails its check, and is not written: {proof.problem}")
    files.make_folder(target.parent)
    for place, content in contents.items():
        files.write(place, content)
    return Exported(
        tuple(contents),
        policy,
        proof,
        0 if rows is None else len(rows),
        verify.seconds_per_call(_run_numpy(policy), inputs),
        seconds,
    )


def _run_numpy(policy: Policy) -> verify.Runner:
    def run(observations: np.ndarray, states: np.ndarray) -> list[Any]:
        with np.errstate(all="ignore"):
            done = step(policy, observations, states)
        return [done.action, done.state, done.on_observation, done.on_action]

    return run


def find_policy(source: Path, seed: int) -> Path:
    """A policy.npz: itself, or that of a seed in a run's folder. Raises InputError."""
    if source.is_file():
        return source
    path = source / f"seed{seed}" / "policy.npz"
    if not path.exists():
        there = sorted(it.parent.name for it in source.glob("seed*/policy.npz"))
        raise InputError(
            f"{source} has no seed {seed}; it has {', '.join(there)}"
            if there
            else f"{source} holds no trained policy (seedK/policy.npz); `itrpo runs list` shows the runs"
        )
    return path


def _target(path: Path, format: str, out: str | os.PathLike[str] | None) -> Path:  # noqa: A002
    target = path.parent / "export" / f"policy.{format}" if out is None else Path(out)
    if target.suffix != f".{format}":
        raise InputError(f"--out {target}: the name of a file of --format {format} ends in .{format}")
    if format == "c" and not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", target.stem):
        raise InputError(
            f"--out {target}: names in the C file begin with {target.stem!r}, so it must be lower-case letters, digits"
            " and _, beginning with a letter"
        )
    seeds = target.name == "policy.npz" and re.fullmatch(r"seed\d+", target.parent.name)
    if seeds or (target.exists() and target.samefile(path)):
        raise InputError(f"--out {target} is a policy as it was trained; choose another name")
    return target


def _data(path: Path, policy: Policy, data: Any, console: Console | None) -> Dataset | None:
    """What the policy was trained on; None where nothing says what that was."""
    folder = path.parent.parent
    config, about = (_recorded(folder / name) for name in ("config.json", "provenance.json"))
    chosen: Any = source_again(about) if data is None and about else data
    if chosen is None:
        return None
    dataset: Any = chosen
    if not isinstance(chosen, Dataset):
        bounds = {"action_low": policy.action_low, "action_high": policy.action_high, "stack": policy.stack}
        own = (config["config"]["data"] if "config" in config else about.get("data", {})) | bounds
        holdout = own.get("holdout") or 0.0 if data is None else 0.0  # guards know what the policy knew
        try:
            dataset = load_again(chosen, own, holdout, console)
        except InputError as error:
            if data is not None:
                raise
            raise InputError(
                f"{folder} was trained on {chosen}, which can't be read: {error}; or give --data"
            ) from error
    if (*dataset.spec, dataset.num_actions) != (
        len(policy.observation_mean),
        policy.num_actions or len(policy.action_low),
        policy.num_actions,
    ):
        raise InputError(
            f"{dataset.name}: {dataset.frame.observation_dim} observations and {dataset.frame[1]} actions, but"
            f" the policy has {policy.frame} and {policy.num_actions or len(policy.action_low)}; give what it was"
            " trained on with --data"
        )
    if data is None and about.get("dataset_sha256") not in (None, dataset.source.sha256):
        raise InputError(
            f"{chosen} is not what {folder} was trained on (SHA-256 differs); give --data FILE to take it nevertheless"
        )
    return dataset


def _recorded(path: Path) -> dict[str, Any]:
    """A JSON object of a run; empty where there is none."""
    found = files.read_json(path) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def arrays_of(policy: Policy) -> dict[str, Any]:
    """What `save_policy` takes as `export`."""
    arrays: dict[str, Any] = {"kind": policy.kind, **policy.constants}
    for prefix, layers in policy.networks.items():
        for i, (weight, bias) in enumerate(layers):
            arrays[f"{prefix}weight_{i}"], arrays[f"{prefix}bias_{i}"] = weight, bias
    return arrays


def describe(policy: Policy) -> dict[str, Any]:
    """What a file says of itself, as JSON: the metadata of policy.npz (names, units, run, guards, ...), the normaliser,
    bounds, and how the state and the guards' bits are to be read.
    """
    about = {"itrpo": itrpo.__version__, **policy.metadata, "kind": policy.kind, "stack": policy.stack}
    for name in ("observation_mean", "observation_std", "action_low", "action_high"):
        about[name] = getattr(policy, name).tolist()
    if policy.memory:
        seen = f"1 once it has begun, {policy.stack} observations, {policy.stack - 1} actions in [-1, 1], newest first"
        parts = [seen] if policy.history else []
        parts += ["1 once it has acted, the last action"] if policy.memory > policy.history else []
        about["state"] = f"{policy.memory} numbers, zeros after a reset: {'; '.join(parts)}"
    return about | ({"bits": BITS} if policy.guards is not None else {})
