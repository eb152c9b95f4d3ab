"""Writes rliable_numbers.json: public scores per seed, and what rliable 1.2.0 itself says of them.

    python -m venv RLIABLE && RLIABLE/bin/pip install rliable==1.2.0 'pandas<3'
    RLIABLE/bin/python tests/report/rliable_numbers.py rebrac_scores.json

Scores: final D4RL scores of 10 seeds from github.com/tinkoff-ai/ReBRAC at 694385b, eop/bin/profiles_data.pickle
(Apache-2.0), as JSON {"scores": {method: {task: [10 scores]}}}. rliable is no dependency of itrpo: it needs arch, whose
release of today can't be imported with pandas 3, and seaborn; and its bootstrap draws from NumPy's global generator.
"""

import json
import sys
from pathlib import Path

import numpy as np
from rliable import library, metrics

TASKS = [
    f"{environment}-{kind}-v2"
    for environment in ("halfcheetah", "hopper", "walker2d")
    for kind in ("random", "medium", "medium-replay", "medium-expert", "expert")
]
TAUS = [-5.0, 10.0, 50.0, 90.0, 105.0]


def both(values):
    """[estimate, low, high] of each number."""
    estimates, intervals = values
    return {name: np.vstack([estimates[name], intervals[name]]).T.tolist() for name in estimates}


def main(path):
    published = json.loads(Path(path).read_text())["scores"]
    scores = {name: np.round([table[task] for task in TASKS], 4).T for name, table in published.items()}
    np.random.seed(0)  # noqa: NPY002 (what rliable draws from)

    def aggregates(x):
        gap = metrics.aggregate_optimality_gap(x, gamma=100.0)
        return np.array([metrics.aggregate_mean(x), metrics.aggregate_median(x), metrics.aggregate_iqm(x), gap])

    def improvement(x, y):
        return np.array([metrics.probability_of_improvement(x, y)])

    pair = {"x": [scores["ReBRAC"], scores["TD3 + BC"]]}
    numbers = {
        "aggregates": both(library.get_interval_estimates(scores, aggregates, reps=20_000)),
        "improvement": both(library.get_interval_estimates(pair, improvement, reps=2_000))["x"],
        "profile": both(library.create_performance_profile(scores, TAUS, reps=2_000)),
        "mean_profile": both(
            library.create_performance_profile(scores, TAUS, use_score_distribution=False, reps=2_000)
        ),
    }
    listed = {name: values.tolist() for name, values in scores.items()}
    content = {"tasks": TASKS, "taus": TAUS, "scores": listed, "rliable": numbers}
    (Path(__file__).parent / "rliable_numbers.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
