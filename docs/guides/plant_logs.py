"""Twelve days of a heater's log in logs/, with gaps: docs/datasets.md reads them. Needs numpy and polars."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars

rng, rows = np.random.default_rng(0), 8640  # one every 10 seconds
Path("logs").mkdir(exist_ok=True)
for day in range(1, 13):
    temp, valve = np.full(rows, 60.0), np.full(rows, 60.0)
    for row in range(1, rows):
        temp[row] = 0.98 * temp[row - 1] + 0.02 * valve[row - 1] + rng.normal(0, 0.2)
        valve[row] = np.clip(70 + 2 * (70 - temp[row]) + rng.normal(0, 5), 0, 100)
    pressure = 1 + temp / 100 + rng.normal(0, 0.01, rows)
    pressure[rng.random(rows) < 0.001] = np.nan  # a value lost here and there
    pressure[3000:3100] = np.nan  # the sensor fails for 17 minutes
    log = polars.DataFrame(
        {
            "stamp": [datetime(2026, 3, day) + timedelta(seconds=10 * row) for row in range(rows)],
            "temp": temp,
            "pressure": pressure,
            "valve": valve,
            "cost": -(((temp - 70) / 10) ** 2),
        }
    ).with_columns(polars.col("pressure").fill_nan(None))
    polars.concat([log[:5000], log[5500:]]).write_parquet(f"logs/day_{day}.parquet")  # the recorder fails for 83
