"""A house with one heating valve: its operator's log, and what a policy does in it. Needs numpy and polars.

python heating.py log                   # 40 days, one row a minute, into logs/, with the gaps of a real recorder
python heating.py truth POLICY.npz ...  # plays policies and the operator in the same 20 days of weather
"""

import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars

DAY = 1440  # minutes
HOLD = 5  # minutes between two decisions of a policy


class House:
    """Water follows the valve within a quarter of an hour, the room follows water and weather within hours."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.minute = rng, 0
        self.room, self.water, self.front = 20.0, 40.0, 0.0

    @property
    def outside(self) -> float:
        return 4.0 - 6.0 * np.cos(2 * np.pi * (self.minute / DAY - 0.15)) + self.front

    def sensors(self) -> list[float]:
        return [self.room + self.rng.normal(0, 0.03), self.water + self.rng.normal(0, 0.2), self.outside, 1.8]

    def step(self, valve: float) -> float:
        """One minute. -> its cost: discomfort in K^2, and a little for the heat."""
        self.front = 0.9995 * self.front + self.rng.normal(0, 0.12)
        self.water += (20 + 0.5 * valve - self.water) / 15
        self.room += (self.water - self.room) / 300 - (self.room - self.outside) / 500
        self.minute += 1
        return (self.room - 21) ** 2 + 0.002 * valve


class Operator:
    """Turns the valve by the room's temperature alone, every ten minutes, and by hand now and then."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.valve, self.hand = rng, 35.0, 0.0

    def __call__(self, minute: int, sensors: list[float]) -> float:
        if minute % 30 == 0:
            self.hand = self.rng.normal(0, 10)
        if minute % 10 == 0:
            self.valve = float(np.clip(round(35 + 10 * (21 - sensors[0]) + self.hand), 0, 100))
        return self.valve


def log(days: int = 40) -> None:
    rng = np.random.default_rng(0)
    house, operator = House(rng), Operator(rng)
    Path("logs").mkdir(exist_ok=True)
    for day in range(days):
        rows = []
        for minute in range(DAY):
            sensors = house.sensors()
            valve = operator(minute, sensors)
            rows.append([*sensors, valve, -house.step(valve)])
        columns = np.array(rows)
        columns[rng.random(DAY) < 0.002, 1] = np.nan  # a value lost here and there
        if day % 7 == 3:
            columns[600:612, 2] = np.nan  # the outer sensor fails for 12 minutes
        stamps = [datetime(2026, 1, 1) + timedelta(days=day, minutes=minute) for minute in range(DAY)]
        frame = polars.DataFrame(columns, ["room", "water", "outside", "pressure", "valve", "reward"], orient="row")
        frame = frame.with_columns(polars.Series("stamp", stamps), polars.all().fill_nan(None))
        kept = polars.concat([frame[:900], frame[960:]]) if day % 5 == 2 else frame  # an hour without the recorder
        kept.write_parquet(f"logs/day_{day + 1:02d}.parquet")


def played(decide, days: int, seed: int) -> np.ndarray:
    """Cost of each day."""
    house, costs = House(np.random.default_rng(seed)), []
    for minute in range(days * DAY):
        sensors = house.sensors()
        valve = decide(minute, sensors)
        costs.append(house.step(valve))
    return np.reshape(costs, (days, DAY)).mean(axis=1)


def truth(paths: list[str], days: int = 20) -> None:
    from itrpo.policy import load_policy

    for name in ["operator", *paths]:
        if name == "operator":
            decide = Operator(np.random.default_rng(1))
        else:
            policy, held = load_policy(name), [0.0]

            def decide(minute, sensors, policy=policy, held=held):
                if minute % HOLD == 0:
                    held[0] = float(policy.act(np.array(sensors, np.float32))[0])
                return held[0]

        costs = played(decide, days, seed=7)
        print(f"{name}: mean cost per minute {costs.mean():.3f}")


if __name__ == "__main__":
    log() if sys.argv[1] == "log" else truth(sys.argv[2:])
