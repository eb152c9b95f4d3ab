"""What bench.py found, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def markdown(results: dict[str, Any]) -> str:
    parts = [heading(results["about"])]
    for section, make in (
        ("ceiling", of_ceiling),
        ("start", of_start),
        ("algorithms", of_algorithms),
        ("growth", of_growth),
        ("peers", of_peers),
        ("million", of_million),
    ):
        if results.get(section):
            parts.append(make(results[section]))
    if results["skipped"]:
        parts.append("Not measured:\n\n" + "\n".join(f"- {line}" for line in results["skipped"]))
    return "\n\n".join(parts) + "\n"


def brief(row: dict[str, Any]) -> str:
    """One measurement in a line, for the terminal."""
    shown = {key: value for key, value in row.items() if not isinstance(value, list | tuple | dict)}
    return " ".join(f"{key}={number(value) if isinstance(value, float) else value}" for key, value in shown.items())


def heading(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items() if version)
    load = " and ".join(f"{about[name][0]:.1f}" for name in ("load_before", "load_after") if name in about)
    return (
        f"{', '.join(about.get('devices', []))}, {about['cores']} cores; Python {about.get('python')}, {versions}; data"
        f" {about['dataset']}; programs waiting for a core before and after: {load}\n\n`{' '.join(about['argv'])}`"
    )


# --- sections ------------------------------------------------------------------------------------------------------


def of_ceiling(rows: Rows) -> str:
    header = ["float32 product", "library", "cores", "GFLOP/s before", "after"]
    body = []
    for (product, library, cores), own in grouped(rows, "product", "library", "cores"):
        by_time = {row["when"]: number(row["gigaflops"]) for row in own}
        body.append([product, library, cores or own[0]["device"], by_time.get("before", ""), by_time.get("after", "")])
    return table(header, body)


def of_start(rows: Rows) -> str:
    header = ["command", "cache", "imported, s", "first update of any network, s", "first update of the algorithm, s"]
    body = []
    for (name, preset, cache), own in grouped(rows, "algorithm", "preset", "cache"):
        times = [spread([row[key] for row in own]) for key in ("imported", "any_network", "algorithm_seconds")]
        body.append([f"{name} {preset}", cache, *times])
    return "Seconds since the process was started.\n\n" + table(header, body)


def of_algorithms(rows: Rows) -> str:
    seeds = sorted({row["seeds"] for row in rows})
    header = ["algorithm", "MFLOP/update", *(f"updates/s, {counted(it)}" for it in seeds)]
    header += [f"share of the ceiling, {counted(seeds[-1])}", "init + compile, s", "MiB loaded, peak"]
    body = []
    for (name, preset), own in grouped(rows, "algorithm", "preset"):
        first, by_seeds = own[0], {number: [row for row in own if row["seeds"] == number] for number in seeds}
        rates = [spread([row["updates_per_second"] for row in by_seeds[it]]) for it in seeds]
        most = max(row["seeds"] for row in own)
        body.append(
            [
                f"{name} {preset}",
                f"{first['flops'] / 1e6:.0f}" + ("*" if first["guesses"] else ""),
                *rates,
                f"{np.median([row['share'] for row in by_seeds[most]]):.0%}",
                f"{first['init_seconds']:.1f} + {first['compile_seconds']:.1f}",
                f"{first['loaded_mebibytes']:.0f}, {max(row['peak_mebibytes'] for row in own):.0f}",
            ]
        )
    guesses = sorted({guess for row in rows for guess in row["guesses"]})
    return (
        "Updates of all seeds together. The ceiling: products of the widest layer, measured just before and after."
        + (f" * counts {', '.join(guesses)}." if guesses else "")
        + "\n\n"
        + table(header, body)
    )


def of_growth(rows: Rows) -> str:
    header = ["what grows", "to", "MFLOP/update", "updates/s", "share of the ceiling", "init + compile, s", "MiB peak"]
    body = [
        [
            row["axis"],
            row["value"][0] if isinstance(row["value"], list | tuple) else f"{row['value']:,}",
            f"{row['flops'] / 1e6:.0f}",
            number(row["updates_per_second"]),
            f"{row['share']:.0%}",
            f"{row['init_seconds']:.1f} + {row['compile_seconds']:.1f}",
            f"{row['peak_mebibytes']:.0f}",
        ]
        for row in rows
    ]
    return f"iTRPO quick, {counted(rows[0]['seeds'])}.\n\n" + table(header, body)


def of_peers(rows: Rows) -> str:
    header = ["algorithm", "seeds", "library", "updates/s: median (range)", "itrpo / library: median (range)"]
    body = []
    for (name, seeds), own in grouped(rows, "algorithm", "seeds"):
        ours = {row["round"]: row["updates_per_second"] for row in own if row["library"].startswith("itrpo")}
        for (library, version), theirs in grouped(own, "library", "version"):
            ratios = [ours[it["round"]] / it["updates_per_second"] for it in theirs if it["round"] in ours]
            rates = spread([row["updates_per_second"] for row in theirs])
            body.append([name, seeds, f"{library} {version}", rates, spread(ratios)])
    return "Updates of all seeds together, in rounds that took the libraries in turn.\n\n" + table(header, body)


def of_million(rows: Rows) -> str:
    return "\n\n".join(
        f"{row['algorithm']} {row['preset']}, {row['phase']}, {counted(row['seeds'])}: {row['steps']:,} steps of each"
        f" were measured, at {number(row['updates_per_second'] / row['seeds'])} a second; at that rate a million take"
        f" {row['seconds_of_a_million']:.0f} s, evaluations and compilation ({row['init_seconds']:.0f} +"
        f" {row['compile_seconds']:.0f} s) left out. {row['share']:.0%} of the ceiling, peak"
        f" {row['peak_mebibytes']:.0f} MiB."
        for row in rows
    )


# --- pieces --------------------------------------------------------------------------------------------------------


def table(header: Sequence[str], body: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def grouped(rows: Rows, *names: str) -> list[tuple[tuple[Any, ...], Rows]]:
    """Rows with the same values of some fields together, in the order in which they came first."""
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(groups.items())


def spread(values: Sequence[float]) -> str:
    """Median, and the range where there are several."""
    if not len(values):
        return ""
    middle = number(float(np.median(values)))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}-{number(max(values))})"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def counted(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"
