"""From a dataset's name to a score. `hopper-demo` is made here without a network; a D4RL name is downloaded."""

from pathlib import Path

import itrpo
from itrpo.options import ScaleName


def main(out: Path = Path("runs/example"), scale: ScaleName = "laptop", episodes: int = 20) -> itrpo.RunOptions:
    options = itrpo.RunOptions(scale=scale, out=out)
    run = itrpo.train("hopper-demo", "itrpo", options)  # the same line again goes on, or has nothing left to do
    print("policies that act with NumPy alone:", *sorted(out.glob("seed*/policy.npz")))
    print(run.policy(itrpo.load_dataset("hopper-demo").transitions.observation[0]))
    played = itrpo.evaluate(out, episodes=episodes)  # more episodes, from starts that training never used
    print("return of each seed:", played.returns.mean(axis=1), "over", episodes, "episodes")
    return options


if __name__ == "__main__":
    main()
