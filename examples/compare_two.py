"""Two algorithms on one dataset with the same seeds: one table, and every seed's scores for statistics of your own."""

from pathlib import Path

import polars as pl

import itrpo
from itrpo.options import ScaleName
from itrpo.results.store import read_metrics


def main(out: Path = Path("runs/two"), scale: ScaleName = "laptop") -> pl.DataFrame:
    table = itrpo.compare("hopper-demo", ["td3_bc", "itrpo"], itrpo.RunOptions(scale=scale, out=out))
    print(table.read_text())
    rows = [
        read_metrics(out / name).filter(metric="score").group_by("seed").last().with_columns(algorithm=pl.lit(name))
        for name in ("td3_bc", "itrpo")
    ]
    scores = pl.concat(rows).sort("algorithm", "seed")
    print(scores)
    return scores


if __name__ == "__main__":
    main()
