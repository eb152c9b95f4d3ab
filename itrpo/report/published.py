"""The scores printed in the paper's Tables 2 and 3, to stand beside ours: `paper_table2.csv`, `paper_table3.csv`.

std is over 4 seeds (Table 2: and the last 10 evaluations), missing where the paper prints none. What the text says of
where cells come from (section "Experimental Setup"): of Table 2, CQL, IQL and TD3+BC were retrained; "the other
algorithms", BEAR, UWAC and PBRL, are as "reported in previous papers (Bai et al. 2022)", the PBRL paper. Of Table 3 it
says nothing ("all the details on these reimplementations" are in an appendix that was not at hand); that BEAR's cells
have no deviation suggests that they were copied, and whose the other columns are is not known.
"""

from __future__ import annotations

import csv
from pathlib import Path


def _scores(file: str) -> dict[str, dict[str, tuple[float, float | None]]]:
    lines = (Path(__file__).parent / file).read_text("utf-8").splitlines()
    return {
        row.pop("task"): {algorithm: _mean_and_std(cell) for algorithm, cell in row.items()}
        for row in csv.DictReader(lines)
    }


def _mean_and_std(cell: str) -> tuple[float, float | None]:
    mean, _, std = cell.partition(" ± ")
    return float(mean), float(std) if std else None


# task -> algorithm -> (mean, std)
TABLES = _scores("paper_table2.csv") | _scores("paper_table3.csv")

LOCOMOTION = tuple(task for task in TABLES if not task.startswith("antmaze"))
MAZES = tuple(task for task in TABLES if task.startswith("antmaze"))
