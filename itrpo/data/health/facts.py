"""What `itrpo datasets check` says of every dataset, sound or not."""

from __future__ import annotations

import numpy as np

from itrpo.data.episodes import left_out_rows, transition_rows
from itrpo.data.health.rows import Rows


def facts(rows: Rows, env_id: str | None) -> dict[str, str]:
    """Label -> text, in the order in which they are printed."""
    episodes, horizon, noise, spectrum = rows.episodes, rows.horizon, rows.noise, rows.spectrum
    kept = transition_rows(episodes)
    found = {
        "rows": f"{len(rows.ends):,}, of which {len(rows.ends) if kept is None else len(kept):,} are transitions",
        "observations, actions": f"{episodes.observations.shape[1]}, {episodes.actions.shape[1]} dimensions"
        if rows.counts is None
        else f"{episodes.observations.shape[1]} dimensions, {len(rows.counts)} choices",
        "environment": (env_id or "none known") + (f", {horizon:,} steps" if horizon is not None else ""),
        "completed episodes": f"{len(rows.returns):,}: {episodes.terminals.sum():,} terminals,"
        f" {episodes.timeouts.sum():,} timeouts",
    }
    lost = left_out_rows(episodes)
    if lost is not None:
        found["left out"] = lost
    if len(rows.returns):
        found["returns"] = f"{rows.returns.mean():,.1f} ± {rows.returns.std():,.1f}, max {rows.returns.max():,.1f}"
        found["lengths"] = f"{rows.lengths.mean():,.0f}, from {rows.lengths.min():,} to {rows.lengths.max():,}"
    if spectrum.sum() > 0:
        effective = spectrum.sum() ** 2 / (spectrum**2).sum()
        found["effective dimension"] = f"{effective:.1f} of {episodes.observations.shape[1]} observations"
    if rows.counts is not None:
        named = (f"{rows.first + it}: {count:,}" for it, count in enumerate(rows.counts))
        found["how often chosen"] = ", ".join(named)
    elif rows.sound.any():
        spread = episodes.actions[rows.sound].std(axis=0)
        found["spread of actions"] = f"{_range(spread)} (standard deviation over all rows, by dimension)"
    if noise is not None:
        known = (
            "recorded densities" if episodes.behavior_log_probs is not None and not rows.scaled else "similar states"
        )
        found["noise of actions"] = f"{np.median(noise):.2g} (standard deviation in one state, from {known})"
    return found


def _range(values: np.ndarray) -> str:
    low, high = f"{values.min():.2g}", f"{values.max():.2g}"
    return low if low == high else f"{low} to {high}"
