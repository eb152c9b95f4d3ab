"""Every claim on runs in which it is planted, in which its reversal is, and in which nothing can be told."""

from __future__ import annotations

import polars
import pytest

from itrpo.report import claims
from itrpo.report.claims import LOCOMOTION, MAZES, TABLE2, TABLE3, kind_of
from tests.report.made_results import Arm, constant, joined, made_results

BASE = dict(zip(TABLE2, (10.0, 20.0, 60.0, 61.0, 66.0, 70.0), strict=True))


def table2(shift: float, tasks=LOCOMOTION, names=TABLE2, **options):
    """iTRPO stands `shift` above each other at its own level; alone, the others are as in the paper."""
    others = [Arm(name, constant(BASE[name])) for name in names]
    return made_results([Arm("itrpo", constant(70.0 + shift)), *others], tasks, **options)


def answer(claim: str, results) -> str:
    (judge,) = [it.judge for it in claims.CLAIMS if it.id == claim]
    return judge(results).answer


@pytest.mark.parametrize(
    ("claim", "shift", "expected"),
    [
        ("best-average", 5.0, "holds"),
        ("best-average", -5.0, "does not hold"),
        ("best-average", -0.1, "can't tell"),
        ("wins", 5.0, "holds"),
        ("wins", -5.0, "does not hold"),
        ("ten-points", 3.0, "holds"),  # 73 - 61
        ("ten-points", -3.0, "does not hold"),
        ("second-best", 0.0, "holds"),
        ("conservative-above-constraint", 0.0, "holds"),
    ],
)
def test_averages(claim, shift, expected):
    assert answer(claim, table2(shift)) == expected


def test_what_is_missing_keeps_a_claim_from_holding_but_a_method_can_refute_it():
    assert answer("best-average", table2(5.0, names=TABLE2[:5])) == "not enough runs"
    assert answer("best-average", table2(-15.0, names=TABLE2[:5])) == "does not hold"
    assert answer("best-average", table2(5.0, tasks=LOCOMOTION[:9])) == "not enough runs"
    assert answer("best-average", table2(-15.0, tasks=LOCOMOTION[:9])) == "not enough runs"
    assert answer("best-average", table2(5.0, seeds=1)) == "not enough runs"
    assert answer("best-average", table2(5.0, names=())) == "not enough runs"
    (judge,) = [it.judge for it in claims.CLAIMS if it.id == "best-average"]
    assert "missing: pbrl, 6 of 15 tasks" in judge(table2(5.0, tasks=LOCOMOTION[:9], names=TABLE2[:5])).evidence


def test_order_of_the_others():
    turned = [Arm(name, constant(80.0 - BASE[name])) for name in TABLE2]
    results = made_results([Arm("itrpo", constant(90.0)), *turned], LOCOMOTION)
    assert answer("second-best", results) == "does not hold"
    assert answer("conservative-above-constraint", results) == "does not hold"


@pytest.mark.parametrize(("gain", "expected"), [(8.0, "holds"), (-8.0, "does not hold")])
def test_gains_by_kind(gain, expected):
    def own(index, step):
        return {
            "score": 70.0 + (gain if kind_of(LOCOMOTION[index]) in ("random", "medium-replay", "medium-expert") else 0)
        }

    results = made_results([Arm("itrpo", own), *(Arm(name, constant(BASE[name])) for name in TABLE2)], LOCOMOTION)
    assert answer("gains-by-kind", results) == expected


@pytest.mark.parametrize(("shift", "expected"), [(5.0, "holds"), (-5.0, "does not hold")])
def test_mazes(shift, expected):
    large = made_results(
        [
            Arm("itrpo", lambda index, step: {"score": 50 + (shift if index > 3 else 0)}),
            *(Arm(n, constant(50.0)) for n in TABLE3),
        ],
        MAZES,
    )
    assert answer("large-mazes", large) == expected
    assert answer("mazes", large) == expected
    assert answer("best-average", large) == "not enough runs"


@pytest.mark.parametrize(("own", "expected"), [(0.3, "holds"), (9.0, "does not hold")])
def test_variance(own, expected):
    quiet = made_results([Arm("itrpo", constant(70.0))], LOCOMOTION, noise=own)
    others = made_results([Arm(name, constant(60.0)) for name in TABLE2], LOCOMOTION, noise=3.0)
    assert answer("variance", joined(quiet, others)) == expected


@pytest.mark.parametrize(("sign", "expected"), [(1.0, "holds"), (-1.0, "does not hold")])
def test_over_time(sign, expected):
    """iTRPO overtakes TD3+BC between 90,000 and 100,000 steps, and is above IQL and CQL throughout; or the reverse."""

    def own(index, step):
        return {"score": 50.0 + sign * (8.0 if step >= 100_000 else -4.0)}

    def low(index, step):
        return {"score": 50.0 - sign * 9.0}

    arms_ = [Arm("itrpo", own), Arm("td3_bc", constant(50.0)), Arm("iql", low), Arm("cql", low)]
    steps = (30_000, 90_000, 100_000, 200_000)
    assert answer("td3-bc-early", made_results(arms_, LOCOMOTION, steps=steps)) == expected
    assert answer("efficiency", made_results(arms_, LOCOMOTION, steps=steps)) == expected
    assert answer("td3-bc-early", made_results(arms_, LOCOMOTION, steps=steps[:2])) == (
        "not enough runs" if sign > 0 else expected  # its first half refutes it
    )


@pytest.mark.parametrize(("sign", "expected"), [(1.0, "holds"), (-1.0, "does not hold")])
def test_tau(sign, expected):
    def measured(tau):
        return lambda index, step: {
            "probe_kl": 10 + sign * 5 * tau,
            "probe_shaping_reward": sign * (-3 * tau + step / 50 - 1),
        }

    grid = [Arm(f"itrpo-tau={tau}", measured(tau), "itrpo", 3.0, tau) for tau in (0.0, 0.5, 0.9)]
    other = Arm("itrpo-alpha=1", constant(0.0), "itrpo", 1.0, 0.0)
    results = made_results([*grid, other], LOCOMOTION[:3], noise=0.1)
    for claim in ("tau-kl", "tau-shaping", "shaping-negative", "shaping-rises"):
        assert answer(claim, results) == expected, claim
    alone = made_results(grid[:1], LOCOMOTION[:3])
    assert {answer(claim, alone) for claim in ("tau-kl", "shaping-rises")} == {"not enough runs"}


@pytest.mark.parametrize(("alpha_gain", "lambda_gain"), [(5.0, -5.0), (-5.0, 5.0)])
def test_each_ablation_has_its_own_control(alpha_gain, lambda_gain):
    """alpha 4, tau 0.75: the controls have alpha 4 and alpha 1; BRAC with alpha 2 is none."""

    def plain(gain):
        return lambda index, step: {"score": 60.0 - gain, "probe_kl_evaluations": 1.0 + gain / 10}

    results = made_results(
        [
            Arm("itrpo", plain(0.0), "itrpo", 4.0, 0.75),
            Arm("brac_v", plain(alpha_gain), "brac_v", 4.0),
            Arm("brac_lambda", plain(lambda_gain), "itrpo", 1.0, 0.0),
            Arm("far", plain(50.0), "brac_v", 2.0),
        ],
        LOCOMOTION,
        noise=0.05,
    )
    held = {5.0: "holds", -5.0: "does not hold"}
    assert answer("ablation", results) == held[alpha_gain]
    assert answer("ablation-lambda", results) == held[lambda_gain]
    assert answer("trust-region", results) == held[lambda_gain]
    assert answer("ablation", table2(5.0)) == "not enough runs"


def test_the_same_number_in_other_units_is_no_control():
    own = Arm("itrpo", constant(70.0), "itrpo", 0.03, 0.5, {"alpha_scale": "relative"})
    brac = Arm("brac_v", constant(60.0), "brac_v", 0.03, None, {"alpha_scale": "relative"})
    assert answer("ablation", made_results([own, brac], LOCOMOTION)) == "holds"
    other = brac._replace(fields={"alpha_scale": "absolute"})
    assert answer("ablation", made_results([own, other], LOCOMOTION)) == "not enough runs"


@pytest.mark.parametrize(("sign", "expected"), [(1.0, "holds"), (-1.0, "does not hold")])
def test_ablation_by_kind(sign, expected):
    def own(index, step):
        return {"score": 60.0 + (6.0 * sign if kind_of(LOCOMOTION[index]) in ("random", "medium") else 0.0)}

    pair = [Arm("itrpo", own, "itrpo", 4.0, 0.5), Arm("brac_v", constant(60.0), "brac_v", 4.0)]
    assert answer("ablation-by-kind", made_results(pair, LOCOMOTION)) == expected


def test_kinds_of_data_are_judged_apart():
    mixed = joined(table2(5.0, kind="d4rl"), table2(-5.0, kind="generated"))
    found = claims.verdicts(mixed)
    assert found["best-average"]["d4rl"].answer == "holds"
    assert found["best-average"]["generated"].answer == "does not hold"
    assert found["best-average"]["d4rl"].n == "15 tasks, 4 seeds"
    assert set(found) == {it.id for it in claims.CLAIMS}
    unfinished = mixed._replace(runs=mixed.runs.with_columns(state=polars.lit("unfinished")))
    assert {it.answer for own in claims.verdicts(unfinished).values() for it in own.values()} == {"not enough runs"}


def test_a_run_of_two_plans_is_one():
    """Two sweeps that share an arm, as table2 and figure2 do: `read_results` has its run in both."""
    grid = [
        Arm(f"tau={tau}", lambda index, step: {"score": 60.0, "probe_kl": 1.0}, "itrpo", 3.0, tau) for tau in (0, 0.5)
    ]
    one = made_results(grid, LOCOMOTION[:3])
    both = one._replace(runs=polars.concat([one.runs, one.runs.with_columns(plan=polars.lit("figure2"))]))
    for claim in ("tau-kl", "shaping-negative", "ablation", "ablation-lambda", "trust-region"):
        assert answer(claim, both) == answer(claim, one), claim


def test_the_kind_of_data_is_its_task_s_whatever_the_file_is_called():
    def own(index, step):
        kind = kind_of(LOCOMOTION[index])
        return {"score": 70.0 + (8.0 if kind in ("random", "medium-replay", "medium-expert") else 0)}

    made = made_results([Arm("itrpo", own), *(Arm(name, constant(BASE[name])) for name in TABLE2)], LOCOMOTION)
    renamed = polars.col("task").str.replace_all("-", "_") + "-v2"
    assert answer("gains-by-kind", made._replace(runs=made.runs.with_columns(dataset=renamed))) == "holds"


@pytest.mark.parametrize("changed", [{"kl_only_steps": 20_000}, {"policy_hidden": [200, 200]}])
def test_another_code_s_constants_make_no_control(changed):
    """The preset source of brac_v is BRAC's own code, that of iTRPO its author's."""
    same = {"kl_only_steps": 0, "policy_hidden": [256, 256], "log_ratio_low": -1.0}
    ours = Arm("itrpo", constant(70.0), "itrpo", 4.0, 0.5, same)
    brac = Arm("brac", constant(60.0), "brac_v", 4.0, None, {it: same[it] for it in ("kl_only_steps", "policy_hidden")})
    assert answer("ablation", made_results([ours, brac], LOCOMOTION)) == "holds"
    other = brac._replace(fields={**(brac.fields or {}), **changed})
    assert answer("ablation", made_results([ours, other], LOCOMOTION)) == "not enough runs"


def test_policies_of_successive_evaluations_are_compared_where_these_are_as_far_apart():
    def moved(index, step):
        return {"score": 60.0, "probe_kl_evaluations": 1.0}

    pair = [Arm("itrpo", moved, "itrpo", 4.0, 0.5), Arm("brac", moved, "brac_v", 2.0)]
    made = made_results(pair, LOCOMOTION, noise=0.01)
    assert answer("trust-region", made) == "can't tell"
    apart = polars.when(polars.col("label") == "brac").then(5).otherwise(25).cast(made.runs.schema["eval_every"])
    assert answer("trust-region", made._replace(runs=made.runs.with_columns(eval_every=apart))) == "not enough runs"
