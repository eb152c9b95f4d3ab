"""The command that turns a trained policy into a file for where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from itrpo.cli.flags import Word
from itrpo.options import GuardOptions
from itrpo.ranges import Seed

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Export:
    """Write a trained policy as a file that acts without itrpo: ONNX, StableHLO, C99, or NPZ for itrpo/policy.py.

    The normaliser, the acting rule, the scale of actions and guards are in it. Before it is written, it is run on 10,000
    inputs beside the NumPy policy; one that differs is not written. docs/deploying.md has an example from CSV to C.
    """

    run: Annotated[Path, Word("RUN")]  # run folder, or a policy.npz
    format: Literal["onnx", "stablehlo", "c", "npz"] = "onnx"  # onnx needs the extra itrpo[onnx]
    out: Path | None = (
        None  # file to write; of c the source, its header lies beside it [export/policy.FORMAT, beside policy.npz]
    )
    seed: Seed = 0  # whose policy, of a run of several
    data: str | None = None  # what it was trained on, for guards and the check [what the run says]
    unverified: bool = False  # write c where there is no compiler to check it with
    options: GuardOptions = GuardOptions()


def export(command: Export, console: Console) -> None:
    from itrpo.report.exports import print_export
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
    print_export(done, console)
