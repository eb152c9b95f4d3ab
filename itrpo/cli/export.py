"""The command that turns a trained policy into a file for where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from itrpo.cli.flags import Word
from itrpo.console import say
from itrpo.options import GuardOptions
from itrpo.ranges import Seed

if TYPE_CHECKING:
    from rich.console import Console

    from itrpo.shipping.export import Exported


@dataclass(frozen=True)
class Export:
    """Write a trained policy as a file that acts without itrpo: ONNX, StableHLO, C99, or NPZ for itrpo/policy.py.

    The normaliser, the acting rule, the scale of actions and guards are in it. It is first run on 10,000 inputs
    beside the NumPy policy; one that differs is not written. docs/deploying.md has an example from CSV to C.
    """

    run: Annotated[Path, Word("RUN")]  # run folder, or a policy.npz
    format: Literal["onnx", "stablehlo", "c", "npz"] = "onnx"  # onnx needs the extra itrpo[onnx]
    out: Path | None = None  # file to write; a C file's header lies beside it [seedK/export/policy.FORMAT]
    seed: Seed = 0  # whose policy, of a run of several
    data: str | None = None  # what it was trained on, for guards and the check [what the run says]
    unverified: bool = False  # write c where there is no compiler to check it with
    options: GuardOptions = GuardOptions()


def export(command: Export, console: Console) -> None:
    from itrpo.shipping.export import export

    done = export(
        command.run,
        command.format,
        command.out,
        seed=command.seed,
        data=command.data,
        guards=command.options,
        unverified=command.unverified,
        console=console,
    )
    for line in lines_of(done):
        say(console, line)


def lines_of(done: Exported) -> list[str]:
    """What was written, what guards it has, how well it was checked, and how long a call takes."""
    import numpy as np

    from itrpo.policy import column_name

    policy, guards, proof = done.policy, done.policy.guards, done.proof
    about = policy.metadata
    lines = [f"{about.get('algorithm')}, seed {about.get('seed')}, trained on {about.get('dataset')}: {policy.kind}"]
    if guards is None:
        lines.append("guards: none")
    else:
        many = f"{done.data_rows:,} rows of data" if done.data_rows else "the range in its file"
        lines.append(f"guards, from {many}:")
        what = {"error": "is an error", "hold": "holds the last action", "fallback": "gives the fallback"}
        lines.append(f"  missing: a number that is NaN or infinite {what[guards.missing]}")
        fixed, watched = np.isfinite(guards.constant), np.isfinite(guards.low) & np.isnan(guards.constant)
        each = "clamped to" if guards.clamp else "counted beyond"
        lines.append(f"  range: {watched.sum()} columns are {each} the range of training")
        if fixed.any():
            names = [column_name(about, "observation", i) or str(i) for i in np.flatnonzero(fixed)]
            lines.append(f"  constant: {', '.join(names[:8])}{', ...' * (len(names) > 8)}")
        for i in range(len(guards.action_low)):
            name, unit = (column_name(about, "action", i, it) for it in ("names", "units"))
            line = (
                f"  {name or f'action {i}'}: {guards.action_low[i]:.5g} to {guards.action_high[i]:.5g} {unit}".rstrip()
            )
            line += f" (trained for {policy.action_low[i]:.6g} to {policy.action_high[i]:.6g})"
            line += f", at most {guards.rate[i]:.6g} per step" if np.isfinite(guards.rate[i]) else ""
            lines.append(line + (f", fallback {guards.fallback[i]:.6g}" if guards.missing != "error" else ""))
    if proof is None:
        lines.append(
            "NOT VERIFIED: no C compiler is here; compile it, and compare it with the policy, before you use it"
        )
    else:
        ties = f", {proof.ties} rows that rounding decides left out" if proof.ties else ""
        lines.append(
            f"verified on {proof.inputs:,} inputs: largest difference {proof.largest:.2g} of an action's range"
            f" (allowed: {proof.allowed:.2g}){ties}"
        )
    own = "" if done.seconds is None else f", {1e6 * done.seconds:,.3g} us as written"
    lines.append(f"a call takes {1e6 * done.seconds_numpy:,.3g} us in NumPy{own}, on this machine")
    return [*lines, *(f"wrote {path} ({path.stat().st_size:,} bytes)" for path in done.paths)]
