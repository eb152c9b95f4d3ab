"""Plans: what runs they are, and what is said of a mistake in one."""

from __future__ import annotations

import pytest

from itrpo.cli import main
from itrpo.config import config_hash
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.sweep.plan import read_plan, shipped_plans
from itrpo.training.configure import complete


def test_datasets_are_outer_and_arms_inner(write_plan):
    assert [run.folder for run in read_plan(str(write_plan())).runs] == [
        "one/itrpo",
        "one/brac",
        "two/itrpo",
        "two/brac",
    ]


def test_a_grid_is_the_product_of_its_values_and_lambda_sets_alpha(write_plan):
    grid = "itrpo: {title: T, fields: {alpha_scale: absolute}, grid: {lambda: [0.3, 3], tau: [0.0, 0.9]}}"
    plan = read_plan(str(write_plan(("itrpo: {title: iTRPO}", grid))))
    found = {run.label: run.setup.algorithm_config for run in plan.runs}
    found = {label: (config.alpha, config.tau) for label, config in found.items() if "tau=" in label}
    assert found["itrpo-lambda=0.3-tau=0.9"] == (3.0, 0.9)  # 0.3 / (1 - 0.9) is 3.0000000000000004 otherwise
    assert found["itrpo-lambda=3-tau=0.9"] == (30.0, 0.9)
    assert found["itrpo-lambda=0.3-tau=0.0"] == (0.3, 0.0)
    assert plan.arms["itrpo-lambda=3-tau=0.9"].title == "T lambda=3-tau=0.9"


def test_lambda_of_another_algorithm_is_its_alpha_times_one_minus_tau(write_plan):
    runs = {run.label: run.setup.algorithm_config for run in read_plan(str(write_plan())).runs}
    assert runs["brac"].alpha == pytest.approx(runs["itrpo"].alpha * (1 - runs["itrpo"].tau), rel=1e-11)
    assert runs["brac"].alpha < runs["itrpo"].alpha
    assert runs["brac"].backbone.alpha_scale == runs["itrpo"].backbone.alpha_scale


def test_lambda_of_an_algorithm_that_has_it_of_another_is_refused(write_plan):
    special = "datasets_options:\n  one: {fields: {itrpo: {lambda: brac_p}}}\n"
    with pytest.raises(InputError, match="lambda: itrpo has that of brac_p here: give a number"):
        read_plan(str(write_plan(("datasets_options:\n", special))))


@pytest.mark.parametrize("given", ["alpha: 7.0, tau: 0.75", "lambda: 1.75, tau: 0.75"])
def test_lambda_of_another_algorithm_is_what_it_has_on_the_dataset(write_plan, given):
    special = "datasets_options:\n  one: {fields: {itrpo: {alpha_scale: absolute, " + given + "}}}\n"
    runs = {
        run.folder: run.setup.algorithm_config
        for run in read_plan(str(write_plan(("datasets_options:\n", special)))).runs
    }
    assert (runs["one/brac"].alpha, runs["one/brac"].backbone.alpha_scale) == (1.75, "absolute")
    usual = runs["two/itrpo"].alpha * (1 - runs["two/itrpo"].tau)
    assert runs["two/brac"].alpha == pytest.approx(usual, rel=1e-11)
    assert runs["two/brac"].backbone.alpha_scale == "relative"


def test_lambda_of_another_algorithm_holds_its_divergence(write_plan):
    adapts = "{alpha: 2.0, tau: 0.75, alpha_scale: absolute, divergence_target: 3.0}"
    special = "datasets_options:\n  one: {fields: {itrpo: " + adapts + "}}\n"
    runs = {
        run.folder: run.setup.algorithm_config
        for run in read_plan(str(write_plan(("datasets_options:\n", special)))).runs
    }
    assert (runs["one/brac"].alpha, runs["one/brac"].divergence_target) == (0.5, 3.0)
    assert runs["two/brac"].divergence_target is None


@pytest.mark.parametrize(
    ("change", "scale", "steps", "seeds"),
    [
        (("name: small", "name: small"), "laptop", 800, 2),
        (("title: iTRPO", "options: {steps: 2e4, seeds: 1}"), "laptop", 20_000, 1),  # an arm's over the plan's
        (("title: iTRPO", "options: {steps: 20000}"), "smoke", 300, 2),  # a scale without lengths here: the usual ones
        (("name: small", "scales: {smoke: {steps: 7, seeds: 3}}"), "smoke", 7, 3),
        (("title: iTRPO", "options: {steps: 20000}"), "paper", 1_000_000, 4),
        (('"*": {', '"*": {options: {steps: 90}, '), "laptop", 90, 2),
        (('"*": {', '"t*": {options: {steps: 90}, '), "laptop", 800, 2),
    ],
)
def test_what_is_more_particular_wins(write_plan, change, scale, steps, seeds):
    from itrpo.options import lengths

    run = read_plan(str(write_plan(change)), scale).runs[0]
    assert lengths(run.options, False)[:2] == (steps, seeds)


def test_fields_by_label_are_stronger_than_an_arms_and_by_algorithm_weaker(write_plan):
    change = ("brac_v: {", "brac: {batch_size: 5}, brac_v: {alpha: 0.9, ")
    without = ("fields: {lambda: itrpo}", "fields: {batch_size: 7}")
    run = read_plan(str(write_plan(change, without))).runs[1]
    assert (run.setup.algorithm_config.alpha, run.setup.algorithm_config.backbone.batch_size) == (0.9, 5)


def test_a_planned_run_has_the_hash_of_its_configuration(write_plan):
    plan = read_plan(str(write_plan()))
    hashes = [
        config_hash(complete(run.setup, run.options, load_dataset(run.dataset, env=run.options.env)))
        for run in plan.runs
    ]
    assert len(set(hashes)) == 4


def test_a_pattern_of_paths_is_one_dataset(write_plan):
    plan = read_plan(str(write_plan(("one.npz", "*.npz"))))
    assert [run.folder for run in plan.runs] == ["one+1/itrpo", "one+1/brac", "two/itrpo", "two/brac"]


MISTAKES = [
    (("name: small", "name: ../small"), "small.yaml: name: it names a folder"),
    (("name: small", "nmae: small"), "small.yaml: unknown name 'nmae' (did you mean 'name'?)"),
    (
        ("algorithm: brac_v", "algorithm: brac_vv"),
        "arms.brac.algorithm: unknown algorithm 'brac_vv' (did you mean 'brac_v'?)",
    ),
    (("algorithm: brac_v", "algorithm: os:system"), "arms.brac.algorithm: a plan takes algorithms that go by name"),
    (("algorithm: brac_v", "algorthm: brac_v"), "arms.brac: unknown name 'algorthm' (did you mean 'algorithm'?)"),
    (("preset: quick", "preset: quik"), "did you mean 'quick'?"),
    (("fields: {lambda: itrpo}", "fields: {alhpa: 3.0}"), "brac_v has no field 'alhpa' (did you mean 'alpha'?)"),
    (("fields: {lambda: itrpo}", "fields: {lambda: 1.0, alpha: 3.0}"), "give one of the two"),
    (("fields: {lambda: itrpo}", "fields: {lambda: bc}"), "bc has no alpha"),
    (("fields: {lambda: itrpo}", "grid: {alpha: [1.0, big]}"), "alpha must be a number, got 'big'"),
    (("fields: {lambda: itrpo}", "grid: {alpha: []}"), "arms.brac.grid.alpha must be a list with at least one value"),
    (("fields: {lambda: itrpo}", "grid: {alpha: 3.0}"), "arms.brac.grid.alpha must be a list with at least one value"),
    (("fields: {lambda: itrpo}", "grid: {alpha: [0]}"), "alpha must be positive"),
    (("steps: 800", "stesp: 800"), "options: unknown name 'stesp' (did you mean 'steps'?)"),
    (("steps: 800", "steps: many"), "small.yaml: options.steps must be a whole number, got 'many'"),
    (("steps: 800", "steps: 0"), "small.yaml: options: steps must be at least 1"),
    (("steps: 800", "out: here"), "options: unknown name 'out'"),
    (("  brac: {", "  itrpo: {"), "line 5: 'itrpo' is there twice"),
    (("  brac: {", "  ../brac: {"), "a label names a folder"),
    (
        ("datasets: [", "datasets: [hopper-medum-v2, "),
        "neither a dataset's name (did you mean 'hopper-medium-v2'?) nor a file",
    ),
    (("one.npz", "none.npz"), "none.npz' is neither a dataset's name"),
    (("name: small", "scales: {huge: {}}"), "scales: unknown name 'huge'"),
    (("name: small", "name: [small"), "can't be read as YAML"),
    (("itrpo: {policy", "itrop: {policy"), "unknown name 'itrop' (did you mean 'itrpo'?)"),
]


@pytest.mark.parametrize(("change", "words"), MISTAKES)
def test_a_mistake_is_one_message_before_anything_runs(write_plan, change, words, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["sweep", str(write_plan(change)), "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "small.yaml" in message
    assert message.count("error:") == 1
    assert not out.exists()


def test_an_unknown_plan_and_an_unknown_run(write_plan, tmp_path, capsys):
    assert main(["sweep", "table4"]) == 2
    assert "(did you mean 'table3'?)" in capsys.readouterr().err
    assert main(["sweep", str(write_plan()), "--only", "one", "three", "--out", str(tmp_path / "out")]) == 2
    assert "--only three" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["smoke", "laptop", "paper"])
@pytest.mark.parametrize("name", shipped_plans())
def test_shipped_plans_are_whole(name, scale):
    plan = read_plan(name, scale)
    assert plan.name == name
    assert plan.title != name
    if name == "table2":
        assert len(plan.runs) == 150
        folders = {run.folder.split("/")[0] for run in plan.runs}
        assert len(folders) == 15
        assert all(it.endswith("-v2" if scale == "paper" else "-itrpo1") for it in folders)


def test_in_trust_region_lambda_is_what_the_label_says():
    for run in read_plan("trust_region").runs:
        config, labelled = run.setup.algorithm_config, float(run.label.split("lambda=")[1].split("-")[0])
        assert config.alpha * (1 - config.tau) == pytest.approx(labelled, rel=1e-10)


def test_reading_a_plan_runs_no_code(write_plan):
    path = write_plan(("name: small", "name: !!python/object/apply:os.system ['true']"))
    with pytest.raises(InputError, match="can't be read as YAML"):
        read_plan(str(path))


def test_names_that_stand_for_each_other_cannot_fill_the_memory(write_plan):
    """Ten lines of ten names each, 10^9 values written out; and a list that holds itself."""
    tower = "&a [x, x, x, x, x, x, x, x, x, x]"
    for name, below in zip("bcdefghi", "abcdefgh", strict=True):
        tower = f"&{name} [{tower}{f', *{below}' * 9}]"
    for value in (tower, "&a [*a]"):
        path = write_plan(("name: small", f"name: {value}"))
        with pytest.raises(InputError, match=r"written out it has more than 100,000 values"):
            read_plan(str(path))
