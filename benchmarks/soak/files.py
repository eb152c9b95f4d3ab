"""Malformed files of every format that itrpo reads: bytes, words and whole contents that nobody would write on purpose.

Each is read in a worker of its own with a limit on memory (that of an idle worker and `HEADROOM`) and on processor
time. What may happen: an error of `itrpo.errors` or of the policies' module, with one message; or a dataset whose parts
fit each other, and for NPZ files, which have checksums, the very rows that were written. Everything else is a failure:
another error, a crash, a hang, memory, a file that some other file asked for.

A case is drawn from (seed, format, number) alone: `--only FORMAT --seed SEED.NUMBER` reads that one again.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak.log import Log

CPU_SECONDS = 20.0  # for one small file
HEADROOM = 2**30  # bytes that a worker may take beyond what it has at its start
GROWTH = 300  # MB that reading a file of some kB may really use
ROWS = 60
COLUMNS = '{observations: ["x", "y", "w"]}'

# --- the worker ------------------------------------------------------------------------------------------------------

WORKER = """
import gc, resource, signal, sys
from pathlib import Path
from benchmarks.soak import reading
reading.warm()
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for line in sys.stdin:
    kind, path = line.rstrip("\\n").split("\\t")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))
    answer = reading.read(kind, Path(path))
    signal.setitimer(signal.ITIMER_PROF, 0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(f"{grown}\\t" + ascii(answer)[1:600], flush=True)
"""


@dataclass
class Worker:
    """Is started anew if a file ends it."""

    process: subprocess.Popen[str] | None = None

    def read(self, kind: str, path: Path) -> tuple[str, int]:
        """'read: ...', 'refused: ...', 'error: ...' or 'crash or hang: signal'; and the megabytes it took."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(CPU_SECONDS), str(HEADROOM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"},
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{kind}\t{path}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if answer:
            grown, _, said = answer.rstrip("\n").partition("\t")
            return said, int(grown)
        status = self.process.wait()
        self.process = None
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"crash or hang: {name}", 0

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


# --- good files ------------------------------------------------------------------------------------------------------


def rows() -> dict[str, Any]:
    random_ = np.random.default_rng(0)
    marks = np.arange(ROWS)
    return {
        "observations": random_.normal(size=(ROWS, 3)),
        "actions": random_.uniform(-0.9, 0.9, (ROWS, 2)),
        "rewards": random_.normal(size=ROWS),
        "terminals": marks == 29,
        "timeouts": marks % 20 == 19,
        "infos/action_log_probs": random_.normal(size=ROWS),
    }


def write_good(folder: Path) -> dict[str, list[Path]]:
    """Kind of reading -> files or folders that are good."""
    from itrpo.data import formats
    from itrpo.data.formats import FORMATS, MINARI
    from itrpo.results import checkpoint

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    np.savez(folder / "rows.npz", **rows(), env_id=np.array("Hopper-v4"))
    np.savez_compressed(folder / "small.npz", **rows())
    contents = formats.read_contents(folder / "rows.npz")
    for name in ("rows.hdf5", "rows.csv", "rows.parquet"):
        FORMATS[Path(name).suffix].write(contents, folder / name)
    write_hdf5(folder / "packed.hdf5")
    MINARI.write(contents, folder / "minari-v0")
    (folder / "map.toml").write_text(
        'observations = ["observations_0", "observations_1", "observations_2"]\n'
        'actions = ["actions_0", "actions_1"]\nrewards = "rewards"\nterminals = "terminals"\ntimeouts = "timeouts"\n'
        "action_low = [-1, -1.0]\naction_high = 1\n"
    )
    (folder / "plan.yaml").write_text(PLAN)
    write_policies(folder)
    checkpoint.save(folder / "checkpoints", "train", 20, {"state": {"w": np.ones((4, 3))}, "n": np.arange(5)}, {})
    write_run(folder / "run")
    return {
        "npz": [folder / "rows.npz", folder / "small.npz"],
        "hdf5": [folder / "rows.hdf5", folder / "packed.hdf5"],
        "parquet": [folder / "rows.parquet"],
        "csv": [folder / "rows.csv"],
        "minari rows": [folder / "minari-v0"],
        "minari metadata": [folder / "minari-v0"],
        "policy": sorted(folder.glob("policy*.npz")),
        "safetensors": [folder / "checkpoints" / "train_0000000020"],
        "yaml": [folder / "plan.yaml"],
        "toml": [folder / "map.toml"],
        "run": [folder / "run"],
    }


PLAN = """
name: small
title: What a plan is
datasets: [hopper-demo, hopper-medium-v2]
arms:
  itrpo: {title: iTRPO, grid: {tau: [0.0, 0.5]}}
  brac: {algorithm: brac_v, fields: {lambda: itrpo}}
options: {steps: 800, seeds: 2, eval_every: 40, env: none, behavior_steps: 20, preset: quick}
datasets_options:
  "*": {fields: {itrpo: {batch_size: 16}, brac_v: {batch_size: 16}}}
"""


def write_hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        for name, values in rows().items():
            file.create_dataset(name, data=values, chunks=True, compression="gzip", fletcher32=True)
        file.attrs["env_id"] = "Hopper-v4"


def write_policies(folder: Path) -> None:
    from itrpo.policy import Guards, guards_json, save_policy

    draw = np.random.default_rng(0)
    layers = {"kind": "tanh_mlp", "weight_0": draw.normal(size=(8, 3)), "bias_0": np.zeros(8)}
    layers |= {"weight_1": draw.normal(size=(2, 8)), "bias_1": np.zeros(2)}
    names = {"observation_names": ["x", "y", "w"], "trained_low": [-1, -1, -1], "trained_high": [1, 1, 1]}
    ends = (np.zeros(3), np.ones(3), -np.ones(2), np.ones(2))
    save_policy(folder / "policy.npz", layers, *ends, names)
    far = np.full(3, np.inf, np.float32)
    guards = Guards(
        missing="hold",
        fallback=np.zeros(2, np.float32),
        constant=np.full(3, np.nan, np.float32),
        low=-far,
        high=far,
        clamp=True,
        action_low=-np.ones(2, np.float32),
        action_high=np.ones(2, np.float32),
        rate=np.full(2, 0.5, np.float32),
    )
    save_policy(folder / "policy_guarded.npz", layers, *ends, names | {"guards": guards_json(guards)})
    choice = {"kind": "argmax"}
    for name in ("", "q1_", "q2_"):
        choice |= {f"{name}weight_0": draw.normal(size=(4, 3)), f"{name}bias_0": np.zeros(4)}
    save_policy(folder / "policy_choices.npz", choice, np.zeros(3), np.ones(3), np.zeros(1), np.full(1, 3.0), {})


def write_run(folder: Path) -> None:
    """What those who read runs look at, of a run that was never trained."""
    from itrpo.config import DataConfig, EvalConfig, RunConfig, TrainConfig, to_json
    from itrpo.results.schema import Row, Status, row_to_json
    from itrpo.training.configure import choose

    setup = choose("td3_bc", next(iter(presets("td3_bc"))), None)
    config = RunConfig(
        data=DataConfig("hopper-demo", "Hopper-v4", None, True, 1.0, 0.0, (-1.0,) * 3, (1.0,) * 3),
        algorithm="td3_bc",
        preset=next(iter(presets("td3_bc"))),
        algorithm_config=setup.algorithm_config,
        behavior=None,
        behavior_config=None,
        train=TrainConfig(100, 1, 0, None),
        evaluation=EvalConfig(50, 10),
    )
    folder.mkdir(parents=True)
    about = {"config": to_json(config), "version": 4, "behavior_steps": 0, "begun_steps": 100}
    (folder / "config.json").write_text(json.dumps(about))
    status = Status("abc", "td3_bc", "hopper-demo", "Hopper-v4", 1, 10, 100, 100, "finished")
    (folder / "status.json").write_text(json.dumps(status._asdict()))
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    lines = [row_to_json(Row("abc", 0, step, "return", 1.5)) for step in (0, 50, 100)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    (folder / "timing.jsonl").write_text(json.dumps({"step": 50, "train_seconds": 1.0}) + "\n")


PROVENANCE = {
    "dataset_sha256": "0",
    "machine": {},
    "commands": [],
    "resumed_on": [],
    "dataset": {"name": "hopper-demo", "source": {"kind": "generated"}, "return_mean": 1.0},
}


def presets(name: str) -> Any:
    from itrpo import registry

    return registry.algorithm(name).presets


# --- damage ----------------------------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**40, 2**62, 2**63, 2**64 - 1)
WORDS = ("NaN", "nan", "Infinity", "-inf", "1e999", "-1", "0", "9" * 400, "1e-400", "null", "true", '""', "[]", "{}")
WORDS += ("\x00", "\ufeff", "é", "🤖", "'", '"', ",", ":", "\n", "\t", "#", "[[", "}}", "../../etc/passwd", "%s%s%n")
WORDS += ("x" * 100_000, "[" * 20_000, "{a: " * 3_000, "- " * 5_000, "1_000", "0x10", "2026-11-26", "*a", "&a [*a]")
WORDS += ("!!python/object/apply:os.system ['touch CANARY']", "!!binary aGk=", "__import__('os')", "=cmd|' /C calc'!A0")


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """One to four changes, half of them in the first 4 kB or the last, where headers and directories are."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        size = max(1, len(data))
        at = draw.choice(
            (draw.randrange(size), draw.randrange(min(size, 4096)), size - 1 - draw.randrange(min(size, 4096)))
        )
        length = draw.choice((1, 2, 4, 8, 64, 512))
        match draw.choice(("cut", "flip", "set", "fill", "number", "swap", "repeat", "drop")):
            case "cut":
                del data[at:]
            case "flip" if data:
                data[at] ^= 1 << draw.randrange(8)
            case "set" if data:
                data[at] = draw.randrange(256)
            case "fill":
                data[at : at + length] = bytes([draw.choice((0, 255))]) * len(data[at : at + length])
            case "number":
                width = draw.choice((4, 8))
                value = draw.choice(NUMBERS) % 2 ** (8 * width)
                data[at : at + width] = value.to_bytes(width, draw.choice(("little", "big")))
            case "swap":
                other = draw.randrange(size)
                one, two = data[at : at + length], data[other : other + length]
                data[other : other + length], data[at : at + length] = one, two
            case "repeat":
                data[at:at] = data[at : at + length] * draw.choice((1, 1, 50))
            case _:
                del data[at : at + length]
    return bytes(data)


def damaged_text(text: str, draw: random.Random, canary: Path) -> bytes:
    """One to three words, lines or signs are other ones; sometimes bytes are damaged, too."""
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(max(1, len(text)))
        word = draw.choice(WORDS).replace("CANARY", str(canary))
        parts = text.splitlines(keepends=True) or [""]
        line = draw.randrange(len(parts))
        match draw.choice(("word", "insert", "line", "twice", "drop", "cut", "swap")):
            case "word":
                ends = [i for i, it in enumerate(text) if not (it.isalnum() or it in "._-")] + [len(text)]
                place = draw.randrange(len(ends) - 1) if len(ends) > 1 else 0
                text = text[: ends[place] + 1] + word + text[ends[min(place + 1, len(ends) - 1)] :]
            case "insert":
                text = text[:at] + word + text[at:]
            case "line":
                parts[line] = word + "\n"
                text = "".join(parts)
            case "twice":
                parts.insert(draw.randrange(len(parts) + 1), parts[line])
                text = "".join(parts)
            case "drop":
                del parts[line]
                text = "".join(parts)
            case "cut":
                text = text[:at]
            case _:
                other = draw.randrange(len(parts))
                parts[line], parts[other] = parts[other], parts[line]
                text = "".join(parts)
    content = text.encode("utf-8", "surrogatepass")
    return damaged_bytes(content, draw) if draw.random() < 0.2 else content


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def other_array(array: np.ndarray, draw: random.Random, canary: Path) -> Any:
    """An array in its place that is of another type, shape or value."""
    array = np.asarray(array)
    match draw.randrange(12):
        case 0:
            return (
                array.astype(draw.choice(("<f2", ">f8", "i1", "u8", "c16", "S5", "U7", "?", "V3", "M8[s]")), copy=True)
                if array.dtype.kind in "fiub"
                else array
            )
        case 1:
            return array.reshape(-1)
        case 2:
            return array[..., None]
        case 3:
            return array[: draw.randrange(max(1, len(array)))] if array.ndim else array
        case 4 if array.dtype.kind == "f" and array.size:
            array = array.copy()
            array.flat[draw.randrange(array.size)] = draw.choice((np.nan, np.inf, -np.inf, 1e300, -1e30, 1e-300))
            return array
        case 5:
            return np.array([Touch(str(canary))], dtype=object)
        case 6:
            return np.array(draw.choice(("", "x" * 10_000, "NaN", "\x00", "[" * 50_000, '{"a":' * 20_000)))
        case 7:
            return np.zeros((0, *array.shape[1:]), array.dtype)
        case 8:
            return np.zeros(array.shape, [("a", np.float32), ("b", "S2")])
        case 9:
            return array.T
        case 10:
            return np.array(draw.choice((0, -1, 2**62, np.nan, True)))
        case _:
            return np.concatenate([array, array]) if array.ndim else array


def huge_npy(shape: str, dtype: str, stored: bytes = b"") -> bytes:
    """A header that declares what is not there."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + stored


HUGE = (
    "(1099511627776, 3)",
    "(2305843009213693952, 8)",
    "(-1, 3)",
    "(0, 99999999999)",
    "(1e9,)",
    "(2**62,)",
    "(())",
    "3",
)


def damaged_npz(content: bytes, draw: random.Random, canary: Path) -> bytes:
    """Other arrays under the same names, in a sound archive."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        own = dict(arrays)
    for _ in range(draw.randint(1, 2)):
        name = draw.choice(sorted(own))
        match draw.randrange(6):
            case 2 | 3 if "metadata" in own:
                own["metadata"] = np.array(damaged_text(str(own["metadata"]), draw, canary).decode("utf-8", "replace"))
            case 0:
                del own[name]
            case 1:
                own[
                    draw.choice(
                        ("../../x", "observations ", "weight_7", "next_observations", "", "a/b/c", "metadata/x")
                    )
                ] = own[name]
            case _:
                own[name] = other_array(own[name], draw, canary)
        if not own:
            break
    image = io.BytesIO()
    with zipfile.ZipFile(image, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, array in own.items():
            entry = io.BytesIO()
            if draw.random() < 0.05:
                entry.write(
                    huge_npy(
                        draw.choice(HUGE),
                        draw.choice(("<f8", "|O", "<U99999999", "|V0", "<f4")),
                        b"0" * draw.choice((0, 64)),
                    )
                )
            else:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=True)
            archive.writestr(f"{name}.npy", entry.getvalue())
            if draw.random() < 0.02:  # a bomb: zeros that would be a gigabyte and more
                with archive.open(f"{name}_.npy", "w", force_zip64=True) as bomb:
                    bomb.write(huge_npy("(4294967296,)", "<f8"))
                    bomb.write(bytes(2**22))
    return image.getvalue()


def damaged_hdf5(path: Path, draw: random.Random, canary: Path) -> None:
    """Other arrays, groups, links and types under the same names, in a sound file."""
    import h5py

    with h5py.File(path, "r+") as file:
        name = draw.choice([it for it in file if it != "infos"])
        values = np.asarray(file[name]) if isinstance(file[name], h5py.Dataset) else np.zeros(3)
        if draw.random() < 0.15:
            file.attrs[draw.choice(("env_id", "recipe", "num_actions", "action_low", "dimension_names"))] = draw.choice(
                (np.nan, 3, "x" * 60_000, np.zeros(2), "Hopper-v4:..", b"\xff\xfe", ["a", "b"], 2**62, "[" * 30_000)
            )
            return
        del file[name]
        match draw.randrange(9):
            case 0:
                file[name] = h5py.SoftLink(f"/{name}")
            case 1:
                file[name] = h5py.ExternalLink(str(canary), name)
            case 2:
                file.create_group(name)[name] = values
            case 3:
                file.create_dataset(name, (2**45,), np.float64, chunks=True)
            case 4:
                file[name] = h5py.Empty(np.float32)
            case 5:
                file[name] = file["/"]  # it holds itself
            case 6:
                file.create_dataset(name, (len(values),), h5py.string_dtype())
            case _:
                array = other_array(values, draw, canary)
                try:
                    file[name] = array
                except TypeError:  # HDF5 has no such type
                    file[name] = np.zeros(3, np.complex64)


def damaged_table(path: Path, draw: random.Random) -> None:
    """Other columns in a sound Parquet file."""
    import polars

    frame = polars.read_parquet(path)
    name = draw.choice(frame.columns)
    column = frame[name]
    match draw.randrange(9):
        case 0:
            frame = frame.drop(name)
        case 1:
            frame = frame.with_columns(polars.lit(None).alias(name))
        case 2:
            frame = frame.with_columns(polars.Series(name, [str(it) for it in column]))
        case 3:
            frame = frame.with_columns(polars.lit(draw.choice((float("nan"), float("inf"), 1e300))).alias(name))
        case 4:
            frame = frame.with_columns(polars.concat_list([column, column]).alias(name))
        case 5:
            frame = frame.head(draw.choice((0, 1, 2)))
        case 6:
            frame = frame.rename({name: draw.choice(("", "x" * 5000, "NaN", name.upper(), "a\nb", "../x"))})
        case 7:
            frame = frame.with_columns(polars.lit(draw.choice(("x", "true", "2026-01-01", ""))).alias(name))
        case _:
            frame = frame.with_columns(polars.struct(frame.columns).alias(name))
    frame.write_parquet(path)


# --- one case --------------------------------------------------------------------------------------------------------


def write_bad(kind: str, good: Path, target: Path, draw: random.Random, canary: Path) -> Path:
    """A copy of `good` that is malformed. -> the path to read."""
    if target.is_dir():
        shutil.rmtree(target)
    target.with_suffix(good.suffix).unlink(missing_ok=True)  # polars may have it mapped into its memory
    if good.is_dir():
        shutil.copytree(good, target)
        inside = {"minari rows": "data/main_data.hdf5", "minari metadata": "data/metadata.json"}
        names = sorted(str(it.relative_to(target)) for it in target.rglob("*") if it.is_file())
        victim = target / (inside[kind] if kind in inside else draw.choice(names))
        if draw.random() < 0.02:
            victim.unlink()
            victim.mkdir()
            return target
    else:
        target = target.with_suffix(good.suffix)
        shutil.copyfile(good, target)
        victim = target
    content, structured = victim.read_bytes(), draw.random() < 0.5
    anew = target.with_name("anew")
    anew.unlink(missing_ok=True)
    if victim.suffix in (".csv", ".toml", ".yaml", ".json", ".jsonl"):
        victim.write_bytes(damaged_text(content.decode(), draw, canary))
    elif victim.suffix == ".npz" and structured:
        victim.write_bytes(damaged_npz(content, draw, canary))
        anew.touch()
    elif victim.suffix == ".hdf5" and structured and "minari" not in kind:
        damaged_hdf5(victim, draw, canary)
    elif victim.suffix == ".parquet" and structured:
        damaged_table(victim, draw)
    else:
        victim.write_bytes(damaged_bytes(content, draw))
    return target


FIXED: dict[str, list[Callable[[Path, Path], bytes]]] = {
    # names that repeat themselves: 10^9 of them, if anybody wrote them out
    "yaml": [
        lambda good, canary: (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(9))
            + "arms: *j\ndatasets: *j\n"
        ).encode(),
        lambda good, canary: good.read_text().replace("[hopper-demo, hopper-medium-v2]", bomb_of_names()).encode(),
        lambda good, canary: ("arms: " + "[" * 100_000).encode(),
        lambda good, canary: f"name: !!python/object/apply:os.mkdir ['{canary}']\n".encode(),
        lambda good, canary: b"a: &a {b: *a}\narms: *a\n",
    ],
    "toml": [
        lambda good, canary: ("observations = " + "[" * 100_000).encode(),
        lambda good, canary: ("a" + ".a" * 50_000 + " = 1").encode(),
        lambda good, canary: b'observations = ["x"]\n' * 3,
    ],
    "csv": [
        lambda good, canary: b"\n".join([b"," * 100_000] * 3),
        lambda good, canary: good.read_bytes() + b'"' + b"x" * 1_000_000,
        lambda good, canary: b"\xff\xfe" + good.read_bytes(),
        lambda good, canary: b"",
    ],
    "policy": [lambda good, canary: policy_with_bomb(good)],
    "npz": [lambda good, canary: policy_with_bomb(good)],
}


def bomb_of_names() -> str:
    inner = "&a [x,x,x,x,x,x,x,x,x,x]"
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        inner = f"&{name} [{inner}, {', '.join([f'*{before}'] * 9)}]"
    return inner


def policy_with_bomb(good: Path) -> bytes:
    """An archive with 900 MB of zeros in a few kB, under a name that is expected."""
    image = io.BytesIO()
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(image, "w", zipfile.ZIP_DEFLATED) as archive:
        names = old.namelist()
        for name in names[1:]:
            archive.writestr(name, old.read(name))
        with archive.open(names[0], "w", force_zip64=True) as bomb:
            bomb.write(huge_npy("(900, 1048576)", "|i1"))
            for _ in range(900):
                bomb.write(bytes(2**20))
    return image.getvalue()


def run(log: Log, place: Path, number: int, only: str = "", one: int | None = None) -> None:
    """`number` inputs, shared out among the formats; with `one`, that one of each format alone."""
    good = write_good(place / "good")
    kinds = [kind for kind in good if only in kind]
    worker = Worker()
    for kind in kinds:
        with log.case("files", kind, log.seed) as done:
            failures = hammer(kind, good[kind], worker, place, log, -(-number // len(kinds)), one, done)
        for line in failures:
            print(f"  {line}", flush=True)
    worker.close()


def hammer(
    kind: str,
    good: list[Path],
    worker: Worker,
    place: Path,
    log: Log,
    number: int,
    one: int | None,
    done: Callable[..., None],
) -> list[str]:
    canary, failures = place / "canary", list[str]()
    shutil.rmtree(canary, ignore_errors=True)
    counts = {"read": 0, "refused": 0}
    for path in good:  # the good ones are read
        said, _ = worker.read(kind, path)
        if not said.startswith("read"):
            failures.append(f"the good file {path.name}: {said}")
    expected = {path: said_of(worker, kind, path) for path in good}
    for index, bad, source in cases(kind, good, place, log.seed, number, one, canary):
        said, grown = worker.read(kind, bad)
        what = said.split(":")[0]
        counts[what] = counts.get(what, 0) + 1
        # a crash or a hang of the HDF5 library: the guard process that real readings have must have seen it
        if what == "crash or hang" and kind in ("hdf5", "minari rows") and probe_refuses(kind, bad):
            continue
        wrong = what not in ("read", "refused") or grown > GROWTH or canary.exists()
        if what == "read" and kind == "npz" and not written_anew(bad) and said != expected[source]:
            wrong = True  # its checksums hold, and its rows are others
        if wrong:
            kept = place / "failures" / f"{kind.replace(' ', '-')}-{log.seed}.{index}{bad.suffix}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(bad, kept, dirs_exist_ok=True) if bad.is_dir() else shutil.copyfile(bad, kept)
            failures.append(
                f"{kind} {log.seed}.{index}: {said[:300]} (+{grown} MB){' EXECUTED' if canary.exists() else ''}"
            )
            shutil.rmtree(canary, ignore_errors=True)
    done(
        not failures,
        "; ".join(failures[:3]),
        inputs=sum(counts.values()),
        failures=len(failures),
        **{name.replace(" ", "_"): value for name, value in counts.items()},
    )
    return failures


def said_of(worker: Worker, kind: str, path: Path) -> str:
    return worker.read(kind, path)[0]


def written_anew(path: Path) -> bool:
    """Whether a case wrote other arrays on purpose, in a sound archive: `damaged_npz` leaves no times of day."""
    return path.with_name("anew").exists()


def cases(
    kind: str, good: list[Path], place: Path, seed: int, number: int, one: int | None, canary: Path
) -> Iterator[tuple[int, Path, Path]]:
    for place_, make in enumerate(FIXED.get(kind, [])):
        bad = (place / "bad").with_suffix(good[0].suffix)
        bad.unlink(missing_ok=True)
        bad.write_bytes(make(good[0], canary))
        if one is None or one == -1 - place_:
            yield -1 - place_, bad, good[0]
    for index in range(number) if one is None else [one] if one >= 0 else []:
        draw = random.Random(f"{seed} {kind} {index}")
        source = draw.choice(good)
        yield index, write_bad(kind, source, place / "bad", draw, canary), source


def probe_refuses(kind: str, path: Path) -> bool:
    from itrpo.data.formats import hdf5_probe

    return not hdf5_probe.survives(path / "data" / "main_data.hdf5" if path.is_dir() else path)


if __name__ == "__main__":
    began = time.monotonic()
    run(
        Log(Path("build/soak/files.jsonl"), int(sys.argv[2]) if len(sys.argv) > 2 else 0),
        Path("build/soak/files"),
        int(sys.argv[1]),
    )
    print(time.monotonic() - began)
