"""Is the new policy better than the log? Without a simulator: on the episodes that `holdout=0.2` kept from training."""

from pathlib import Path

import itrpo
from itrpo.ope.judgement import Judgement


def main(run: Path = Path("runs/tank"), options: itrpo.JudgeOptions | None = None) -> Judgement:
    (judgement,) = itrpo.judge(run, options=options)  # a run of own_arrays_to_policy.py
    print(f"{judgement.episodes} unseen episodes, mean return {judgement.log_return:.1f}")
    for policy in judgement.policies:
        for it in policy.estimates:
            print(f"{policy.name} by {it.estimator}: {it.value:.2f}, 95% [{it.low:.2f}, {it.high:.2f}]")
            for reason in it.reasons:
                print("    do not believe it:", reason)
    return judgement


if __name__ == "__main__":
    main()
