"""Whether a change moved any number: short runs of every algorithm, with every preset, and the bits of their metrics.

    python benchmarks/same_bits.py record before.json --package ../other-checkout
    python benchmarks/same_bits.py record after.json
    python benchmarks/same_bits.py compare before.json after.json

`record` trains on `hopper-demo` (two seeds, small networks) with the itrpo in the folder `--package`, and keeps all
metrics; `--only NAME,NAME` limits it to some algorithms. `compare` says of each run whether the metrics are the same
bits, and if not, since which step and by how much at most. Runs that stand in the file already are not run again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import tyro

SIZES = ["--seeds", "2", "--steps", "60", "--eval-every", "20", "--eval-episodes", "1", "--behavior-steps", "60"]
SMALL = {"hidden": "32,32", "batch_size": "32", "masks": "5"}


def flags(name: str, preset: str, folder: Path) -> list[str]:
    """Small networks for whatever fields this algorithm has."""
    code = (
        "import json, sys; from itrpo import registry; from itrpo.config import leaves;"
        "entry = registry.lookup(sys.argv[1], registry.ALGORITHMS, 'algorithm'); preset = entry.presets[sys.argv[2]];"
        "model = preset.behavior and registry.lookup(preset.behavior, registry.BEHAVIOR_MODELS, 'behaviour model');"
        "names = [it[0] for it in leaves(preset.config)];"
        "names += ['behavior_' + it[0] for it in leaves(preset.behavior_config or model.config())] if model else [];"
        "print(json.dumps(names))"
    )
    words = []
    for field in json.loads(run(folder, "-c", code, name, preset)):
        for ending, value in SMALL.items():
            if field.endswith(ending):
                words += [f"--{field.replace('_', '-')}", value]
    return words


def run(folder: Path, *words: str) -> str:
    """Standard output of Python with the itrpo in `folder`, on one thread."""
    settings = {**os.environ, "PYTHONPATH": str(folder.resolve()), "PJRT_NPROC": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=settings, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def record(
    file: Annotated[Path, tyro.conf.Positional], package: Path = Path(__file__).parents[1], only: str = ""
) -> None:
    """Train, and keep the metrics in FILE."""
    found = json.loads(file.read_text()) if file.exists() else {}
    code = (
        "import sys; from itrpo import registry\n"
        "for name in sys.argv[1:] or sorted(registry.ALGORITHMS):\n"
        "    for preset in registry.lookup(name, registry.ALGORITHMS, 'algorithm').presets: print(name, preset)"
    )
    for line in run(package, "-c", code, *filter(None, only.split(","))).splitlines():
        name, preset = line.split()
        if line in found:
            continue
        with tempfile.TemporaryDirectory() as folder:
            words = ["--algorithm", name, "--preset", preset, *SIZES, *flags(name, preset, package)]
            run(package, "-m", "itrpo.cli", "train", "hopper-demo", *words, "--out", f"{folder}/run")
            rows = [json.loads(row) for row in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
        found[line] = [[row["step"], row["seed"], row["metric"], row["value"]] for row in rows]
        file.write_text(json.dumps(found))
        print(line, flush=True)


def compare(one: Annotated[Path, tyro.conf.Positional], other: Annotated[Path, tyro.conf.Positional]) -> None:
    """Say of each run in both files whether its metrics are the same bits."""
    before, after = (json.loads(it.read_text()) for it in (one, other))
    for line in sorted(before.keys() & after.keys()):
        old, new = ({tuple(row[:3]): row[3] for row in it[line]} for it in (before, after))
        moved = {key: (old[key], new[key]) for key in old.keys() & new.keys() if old[key] != new[key]}
        renamed = sorted({key[2] for key in old.keys() ^ new.keys()})
        words = "same bits"
        if moved:
            first = min(key[0] for key in moved)
            size, key = max(
                (abs(left - right) / max(abs(left), 1e-3), key)
                for key, (left, right) in moved.items()
                if key[0] == first
            )
            words = f"moved from step {first} on, there by {size:.1e} at most ({key[2]})"
        print(f"{line:32} {words}{f'; only in one: {renamed}' if renamed else ''}")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"record": record, "compare": compare})
