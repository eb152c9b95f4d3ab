"""Plays MinAtar's Breakout and Asterix beside ours (itrpo/evaluation/grids.py), and stops at the first step at which
observations, rewards or ends differ. Needs MinAtar (`pip install minatar`), which nothing else here does.

python benchmarks/against_minatar.py --steps 200000

Both draw from one list of uniform numbers. Actions are uniform in every other episode; in the others a player that
knows the game has most of them, as chance alone sees neither the second wall nor the fast half of Asterix. Sticky
actions are off, and MinAtar's episodes end with our clock.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from minatar import Environment

from itrpo.evaluation.grids import CLOCK, SIDE, Asterix, Breakout

OURS = {"breakout": Breakout, "asterix": Asterix}


class Draws:
    """The same uniform numbers for both: MinAtar asks for rand and randint, ours for random and integers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def random(self) -> float:
        return float(self.rng.random())

    def integers(self, number: int) -> int:
        return int(self.random() * number)

    rand, randint = random, integers


def play(game: Breakout | Asterix, rng: np.random.Generator) -> int:
    """The paddle keeps below the ball, or ahead of it; the player goes where no enemy comes near."""
    if isinstance(game, Breakout):
        ahead = game.heading[0] * (game.ball[1] == SIDE - 2 and rng.random() < 0.5)
        return (0, 2, 1)[int(np.sign(np.clip(game.ball[0] + ahead, 0, SIDE - 1) - game.paddle))]
    room = []
    for right, down in game.MOVES:
        x, y = np.clip(game.player[0] + right, 0, SIDE - 1), np.clip(game.player[1] + down, 1, SIDE - 2)
        gap = (x - game.columns[y - 1]) * game.headings[y - 1]  # columns that its enemy is away, if it comes nearer
        harmless = game.headings[y - 1] == 0 or game.gold[y - 1] or gap < 0
        room.append((SIDE if harmless else gap) + rng.random())
    return int(np.argmax(room))


def compare(name: str, steps: int, seed: int) -> None:
    theirs, ours, rng = Environment(name, sticky_action_prob=0.0), OURS[name](), np.random.default_rng(seed)
    allowed, done, episodes, total, best, begun = theirs.minimal_action_set(), 0, 0, 0.0, 0.0, time.monotonic()
    while done < steps:
        theirs.env.random, ours._np_random = Draws(seed + episodes), Draws(seed + episodes)
        theirs.reset()
        observation, ended, played, collected = ours.reset()[0], False, 0, 0.0
        np.testing.assert_array_equal(observation, theirs.state().reshape(-1))
        while not ended and played < CLOCK:
            chance = episodes % 2 == 0 or rng.random() < (0.05 if name == "asterix" else 0.002)
            action = int(rng.integers(len(allowed))) if chance else play(ours, rng)
            expected = theirs.act(allowed[action])
            observation, reward, ended, _, _ = ours.step(action)
            assert (reward, ended) == expected, (name, episodes, played)
            np.testing.assert_array_equal(observation, theirs.state().reshape(-1), f"{name} {episodes} {played}")
            played, collected = played + 1, collected + reward
        done, episodes, total, best = done + played, episodes + 1, total + collected, max(best, collected)
    each = f"mean return {total / episodes:.1f}, largest {best:.0f}"
    print(f"{name}: {done:,} steps, {episodes:,} episodes agree ({each}; {time.monotonic() - begun:.0f} s)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for game in OURS:
        compare(game, given.steps, given.seed)
