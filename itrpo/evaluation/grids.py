"""Two games on a grid of 10 x 10 cells: Breakout and Asterix by the rules of MinAtar (Young and Tian 2019, arXiv
1903.03176), in plain NumPy.

The rules are facts of MinAtar 1.0.15 (its package is under the GPL); the code is our own. benchmarks/against_minatar.py
plays both side by side: from the same state, with the same actions and the same draws, they agree at every step. The
tasks differ from MinAtar's all the same, so scores are not comparable with published ones:

- no sticky actions: MinAtar repeats the last action with probability 0.1 unless it is told not to;
- a clock of 1,000 steps, where MinAtar has none in these games;
- only the actions that do something, 3 and 5 of its 6 (its own minimal sets, in their order).

An observation is MinAtar's, [10, 10, channels] of 0 and 1, flattened: the networks here are MLPs, which do not know
that cells are neighbours. Importing this module registers `itrpo/Breakout-v0` and `itrpo/Asterix-v0`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

Info = dict[str, Any]

SIDE = 10  # cells of a row and of a column
CLOCK = 1_000  # steps of an episode
DRAWN: Info = {"render_modes": ["rgb_array"], "render_fps": 10}
PIXELS = 24  # of a cell's side in a picture
COLOURS = np.array([[60, 200, 90], [240, 240, 240], [110, 110, 110], [220, 150, 40]], np.uint8)  # of the channels


class Breakout(gymnasium.Env[np.ndarray, np.integer[Any]]):
    """A paddle on the lowest row keeps a ball in play, which takes bricks away.

    Actions: stay, left, right. At every step the paddle moves by a cell, then the ball by one along its diagonal. At a
    side or at the top it turns. It turns at a brick as well, and stays in its row: the brick is gone and pays 1; a
    brick that it meets right after another is passed. Above the paddle it turns back up; where the paddle stands in
    the cell ahead, it goes back as it came; otherwise it falls on the lowest row, and the episode ends. If all three
    rows of bricks are gone when it reaches the lowest row, they are there again.

    Only the start is random: the ball is at the left or the right side of the fourth row and moves down and inwards.
    Channels: paddle, ball, where the ball was before, bricks. Missing in them: whether a brick was just hit, unless the
    ball and its trail are in one row.
    """

    metadata = DRAWN
    observation_space = gymnasium.spaces.Box(0, 1, (SIDE * SIDE * 4,), np.int8)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.paddle, self.struck = 4, False
        self.ball = self.before = (0, 3)  # column, row
        self.heading = (1, 1)  # columns and rows per step
        self.bricks = np.zeros((SIDE, SIDE), bool)  # [row, column]

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed)
        right = bool(self.np_random.integers(2))
        self.ball = self.before = (SIDE - 1 if right else 0, 3)
        self.heading = (-1 if right else 1, 1)
        self.paddle, self.struck = 4, False
        self.bricks = np.zeros((SIDE, SIDE), bool)
        self.bricks[1:4] = True
        return self.board().reshape(-1), {}

    def step(self, action: np.integer[Any] | int) -> tuple[np.ndarray, float, bool, bool, Info]:
        self.paddle = min(max(self.paddle + (0, -1, 1)[int(action)], 0), SIDE - 1)
        (column, row), (right, down) = self.ball, self.heading
        x, y = column + right, row + down
        if not 0 <= x < SIDE:
            x, right = column, -right
        reward, met, lost = 0.0, False, False
        if y < 0:
            y, down = row, -down
        elif self.bricks[y, x]:
            met = True
            if not self.struck:
                self.bricks[y, x] = False
                reward, y, down = 1.0, row, -down
        elif y == SIDE - 1:
            if not self.bricks.any():
                self.bricks[1:4] = True
            if column == self.paddle:
                y, down = row, -down
            elif x == self.paddle:
                y, right, down = row, -right, -down
            else:
                lost = True
        self.before, self.ball, self.heading, self.struck = self.ball, (x, y), (right, down), met
        return self.board().reshape(-1), reward, lost, False, {}

    def board(self) -> np.ndarray:
        """[10, 10, 4] int8: row, column, channel."""
        board = np.zeros((SIDE, SIDE, 4), np.int8)
        board[SIDE - 1, self.paddle, 0] = 1
        board[self.ball[1], self.ball[0], 1] = 1
        board[self.before[1], self.before[0], 2] = 1
        board[:, :, 3] = self.bricks
        return board

    def render(self) -> Any:
        return picture(self.board())


class Asterix(gymnasium.Env[np.ndarray, np.integer[Any]]):
    """A player among eight lanes, through which gold and enemies pass.

    Actions: stay, left, up, right, down; the player moves by a cell within rows 1 to 8, from the middle on. To touch
    gold pays 1 and takes it away, to touch an enemy ends the episode. Every tenth step something enters a lane that is
    empty, from the left or the right (1/2), gold (1/3) or an enemy; every fifth step all of them move by a cell,
    until they leave. After every 102 steps both become faster: the next one enters a step earlier, and every other
    time all move a step earlier, down to every step.

    Channels: player, enemies, the cell behind each of the things that pass, gold. Missing in them: how long until
    something enters or moves, and how fast all has become.
    """

    metadata = DRAWN
    observation_space = gymnasium.spaces.Box(0, 1, (SIDE * SIDE * 4,), np.int8)
    action_space = gymnasium.spaces.Discrete(5)
    MOVES = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))  # columns and rows

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._begin()

    def _begin(self) -> None:
        self.player = (5, 5)  # column, row
        self.columns = np.zeros(SIDE - 2, np.int64)  # of what is in each lane: row 1, 2, ...
        self.headings = np.zeros(SIDE - 2, np.int64)  # columns per move; 0: the lane is empty
        self.gold = np.zeros(SIDE - 2, bool)
        self.entry_every, self.move_every = 10, 5  # steps
        self.until_entry, self.until_move = self.entry_every, self.move_every
        self.until_faster, self.times_faster = 101, 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        super().reset(seed=seed)
        self._begin()
        return self.board().reshape(-1), {}

    def step(self, action: np.integer[Any] | int) -> tuple[np.ndarray, float, bool, bool, Info]:
        if self.until_entry == 0:
            self._enter()
            self.until_entry = self.entry_every
        (x, y), (right, down) = self.player, self.MOVES[int(action)]
        self.player = (min(max(x + right, 0), SIDE - 1), min(max(y + down, 1), SIDE - 2))
        reward, caught = self._touch()
        if self.until_move == 0:
            self.until_move = self.move_every
            self.columns += self.headings
            self.headings[(self.columns < 0) | (self.columns >= SIDE)] = 0
            more, also_caught = self._touch()
            reward, caught = reward + more, caught or also_caught
        self.until_entry -= 1
        self.until_move -= 1
        self._become_faster()
        return self.board().reshape(-1), reward, caught, False, {}

    def _enter(self) -> None:
        from_left, gold = self.np_random.random() < 1 / 2, self.np_random.random() < 1 / 3
        empty = np.flatnonzero(self.headings == 0)
        if len(empty):
            lane = empty[self.np_random.integers(len(empty))]
            self.columns[lane], self.headings[lane] = (0, 1) if from_left else (SIDE - 1, -1)
            self.gold[lane] = gold

    def _touch(self) -> tuple[float, bool]:
        """The reward of what is where the player is, and whether it ends the episode."""
        lane = self.player[1] - 1
        if self.headings[lane] == 0 or self.columns[lane] != self.player[0]:
            return 0.0, False
        if not self.gold[lane]:
            return 0.0, True
        self.headings[lane] = 0
        return 1.0, False

    def _become_faster(self) -> None:
        if self.entry_every == 1 and self.move_every == 1:
            return
        if self.until_faster > 0:
            self.until_faster -= 1
            return
        if self.times_faster % 2:
            self.move_every = max(self.move_every - 1, 1)
        self.entry_every = max(self.entry_every - 1, 1)
        self.until_faster, self.times_faster = 101, self.times_faster + 1

    def board(self) -> np.ndarray:
        """[10, 10, 4] int8: row, column, channel."""
        board = np.zeros((SIDE, SIDE, 4), np.int8)
        board[self.player[1], self.player[0], 0] = 1
        lanes = np.flatnonzero(self.headings)
        board[lanes + 1, self.columns[lanes], np.where(self.gold[lanes], 3, 1)] = 1
        behind = self.columns[lanes] - self.headings[lanes]
        seen = (behind >= 0) & (behind < SIDE)
        board[lanes[seen] + 1, behind[seen], 2] = 1
        return board

    def render(self) -> Any:
        return picture(self.board())


def picture(board: np.ndarray) -> np.ndarray:
    """[10, 10, 4] -> [240, 240, 3] uint8: of several channels in a cell the last one is seen, trails behind all."""
    cells = np.zeros((SIDE, SIDE, 3), np.uint8)
    for channel in (2, 3, 1, 0):
        cells[board[:, :, channel] == 1] = COLOURS[channel]
    return cells.repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)


for _name in ("Breakout", "Asterix"):
    gymnasium.register(
        f"itrpo/{_name}-v0",
        entry_point=f"itrpo.evaluation.grids:{_name}",
        max_episode_steps=CLOCK,
        disable_env_checker=True,
    )
