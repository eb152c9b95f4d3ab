"""D4RL's protocol, on small sets of every recipe. Ends of rows in Hopper's replay sets follow from the rungs' names."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

from itrpo import cli
from itrpo.collection import recipes
from itrpo.collection.ladders import POLICY_FOLDER, Rung, expert, ladder, medium, policy_path, policy_sha256
from itrpo.collection.making import make
from itrpo.collection.rollout import LOG_STD_RANGE, load_acting_policy
from itrpo.data.behavior_policy import agreement, read_policy
from itrpo.data.formats import hdf5
from itrpo.data.load import load_dataset
from itrpo.errors import InputError
from itrpo.files import generated_path
from itrpo.registry import GENERATED_DATASETS

ROWS = {"hopper": 1_500, "walker2d": 2_000, "halfcheetah": 1_500}
SETS_MADE = [kind for kind in recipes.SETS if kind != "full-replay"]  # which is medium-replay with more rungs
INFOS = ("infos/action_log_probs", "infos/qpos", "infos/qvel")
COLUMNS = {"observations", "actions", "next_observations", "rewards", "terminals", "timeouts", *INFOS}
WEIGHTS = {
    f"metadata/policy/{layer}/{kind}"
    for layer in ("fc0", "fc1", "last_fc", "last_fc_log_std")
    for kind in ("weight", "bias")
}
TRAINING = {"metadata/algorithm", "metadata/iteration"}
SHAPE = ("nonlinearity", "output_distribution", "log_std_low", "log_std_high")
POLICY = WEIGHTS | TRAINING | {f"metadata/policy/{name}" for name in SHAPE}


class Made(NamedTuple):
    path: Path
    columns: dict[str, Any]
    recipe: dict[str, Any]

    @property
    def ends(self) -> np.ndarray:
        return self.columns["terminals"] | self.columns["timeouts"]


def read(path: Path) -> Made:
    columns: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: columns.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        recipe = json.loads(str(file.attrs["recipe"]))
        assert file.attrs["env_id"] == recipe["env_id"]
    return Made(path, columns, recipe)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder, sets = tmp_path_factory.mktemp("recipes"), {}
    for environment, rows in ROWS.items():
        for kind in SETS_MADE if environment == "hopper" else ("random", "medium", "expert"):
            path = folder / f"{environment}-{kind}.hdf5"
            make(recipes.plan(f"{environment}-{kind}", 2 * rows if kind == "medium-expert" else rows), path, workers=1)
            sets[path.stem] = read(path)
    return sets


def log_prob(weights: list[np.ndarray], observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """log pi(a|s) in float64 of a network of PyTorch's layout; -inf and worse where a is at the boundary."""
    fc0, b0, fc1, b1, mean, mean_b, log_std, log_std_b = (weight.astype(np.float64) for weight in weights)
    hidden = np.maximum(np.maximum(observations @ fc0.T + b0, 0) @ fc1.T + b1, 0)
    sigma = np.exp(np.clip(hidden @ log_std.T + log_std_b, -5, 2))
    u = np.arctanh(actions.astype(np.float64))
    z = (u - hidden @ mean.T - mean_b) / sigma
    return (-(z**2) / 2 - np.log(sigma) - np.log(2 * np.pi) / 2 - np.log(1 - np.tanh(u) ** 2)).sum(axis=1)


def weights_of(rung: Rung) -> list[np.ndarray]:
    policy = load_acting_policy(policy_path(rung.policy))
    layers = (*policy.hidden, policy.mean, policy.log_std)
    return [array for weight, bias in layers for array in (weight.T, bias)]


def inside(actions: np.ndarray) -> np.ndarray:
    """Rows whose float32 actions determine u = atanh(a) well enough."""
    return (np.abs(actions) < 0.999).all(axis=1)


def acted_by(rung: Rung | None, one: Made) -> np.ndarray:
    """Whether each row's log-probability is that of the rung (None: of uniform actions). [N] bool"""
    logged, actions = one.columns["infos/action_log_probs"], one.columns["actions"]
    if rung is None:
        return logged == np.float32(-actions.shape[1] * np.log(2))
    difference = log_prob(weights_of(rung), one.columns["observations"], actions) - logged
    return np.abs(difference) < 0.02


@pytest.mark.parametrize(
    ("environment", "kind"),
    [("hopper", kind) for kind in SETS_MADE] + [(environment, "expert") for environment in ROWS],
)
def test_keys_and_number_of_rows_are_d4rls(environment: str, kind: str, made: dict[str, Made]) -> None:
    one = made[f"{environment}-{kind}"]
    extra = {"medium": POLICY, "expert": POLICY, "medium-replay": TRAINING}.get(kind, set())
    assert set(one.columns) == COLUMNS | extra
    rows = ROWS[environment] * (2 if kind == "medium-expert" else 1)
    assert {len(one.columns[name]) for name in COLUMNS} == {rows}


def test_weights_have_d4rls_layout(made: dict[str, Made]) -> None:
    columns = made["walker2d-medium"].columns
    shapes = {name.removeprefix("metadata/policy/"): columns[name].shape for name in WEIGHTS}
    assert shapes == {
        "fc0/weight": (256, 17),
        "fc0/bias": (256,),
        "fc1/weight": (256, 256),
        "fc1/bias": (256,),
        "last_fc/weight": (6, 256),
        "last_fc/bias": (6,),
        "last_fc_log_std/weight": (6, 256),
        "last_fc_log_std/bias": (6,),
    }
    assert columns["metadata/policy/nonlinearity"] == b"relu"
    assert columns["metadata/policy/output_distribution"] == b"tanh_gaussian"
    assert (columns["metadata/algorithm"], columns["metadata/iteration"]) == (b"SAC", 240)


@pytest.mark.parametrize("name", [f"{environment}-{kind}" for environment in ROWS for kind in ("medium", "expert")])
def test_log_probs_follow_from_the_weights_in_the_file(name: str, made: dict[str, Made]) -> None:
    columns = made[name].columns
    weights = [
        columns[f"metadata/policy/{layer}/{kind}"]
        for layer in ("fc0", "fc1", "last_fc", "last_fc_log_std")
        for kind in ("weight", "bias")
    ]
    rows = inside(columns["actions"])
    assert rows.mean() > 0.1
    expected = log_prob(weights, columns["observations"][rows], columns["actions"][rows])
    np.testing.assert_allclose(columns["infos/action_log_probs"][rows], expected, atol=0.02)


def test_what_the_reader_takes_for_pi_beta_is_the_policy_that_acted(made: dict[str, Made]) -> None:
    policy, columns = read_policy(made["hopper-expert"].path), made["hopper-expert"].columns
    assert policy is not None
    assert (policy.log_std_low, policy.log_std_high) == LOG_STD_RANGE
    found = agreement(policy, columns["observations"], columns["actions"], columns["infos/action_log_probs"])
    assert found is not None
    assert found.mean < 0.01


def test_episodes_end_once_and_after_1000_steps_at_most(made: dict[str, Made]) -> None:
    for one in made.values():
        assert not (one.columns["terminals"] & one.columns["timeouts"]).any()
        ends = np.flatnonzero(one.ends)
        lengths = np.diff(ends, prepend=-1)
        assert lengths.max() <= 1000
        np.testing.assert_array_equal(one.columns["timeouts"][ends], lengths == 1000)
        starts = one.columns["infos/qpos"][[0, *(ends[ends < len(one.ends) - 1] + 1)], 0]
        assert np.abs(starts).max() < 0.11  # every episode starts at x = 0, give or take the reset's noise
    assert not any(made[f"halfcheetah-{kind}"].columns["terminals"].any() for kind in ("random", "medium", "expert"))


def test_next_observations_are_the_next_rows_within_episodes(made: dict[str, Made]) -> None:
    for one in made.values():
        within = ~one.ends[:-1]
        following, observations = one.columns["next_observations"], one.columns["observations"]
        np.testing.assert_array_equal(following[:-1][within], observations[1:][within])
        assert (following[:-1][~within] != observations[1:][~within]).any(axis=1).all()


@pytest.mark.parametrize("environment", ROWS)
def test_expert_beats_medium_beats_random(environment: str, made: dict[str, Made]) -> None:
    means = []
    for kind in ("random", "medium", "expert"):
        one = made[f"{environment}-{kind}"]
        episodes = np.split(one.columns["rewards"].astype(float), np.flatnonzero(one.ends) + 1)[:-1]
        means.append(np.mean([episode.sum() for episode in episodes]))
    assert means[0] + 100 < means[1]
    assert means[1] + 100 < means[2]


def test_medium_expert_is_the_medium_set_without_its_unfinished_episode_and_the_expert_set(
    made: dict[str, Made],
) -> None:
    both, first, second = (made[f"hopper-{kind}"] for kind in ("medium-expert", "medium", "expert"))
    whole = int(np.flatnonzero(first.ends)[-1]) + 1
    assert whole < ROWS["hopper"]  # there is an unfinished one
    for name in COLUMNS:
        np.testing.assert_array_equal(both.columns[name][:whole], first.columns[name][:whole])
        np.testing.assert_array_equal(both.columns[name][whole:][: ROWS["hopper"]], second.columns[name])


def test_replay_has_every_rung_in_turn_for_the_steps_it_is_nearest_to(made: dict[str, Made]) -> None:
    """Who acted in a row shows in its log-probability. Parts end with an episode, so up to one episode early."""
    one, start = made["hopper-medium-replay"], 0
    rungs = {rung.policy: rung for rung in ladder("Hopper-v4")}
    turns = [("uniform", 10), ("hopper_sac_020k", 30), ("hopper_sac_040k", 50), ("hopper_sac_060k", 70)]
    turns.append(("hopper_sac_080k", 80))
    clear = inside(one.columns["actions"])
    for policy, thousands in turns:
        limit = round(thousands / 80 * ROWS["hopper"])
        end = limit if thousands == 80 else int(np.flatnonzero(one.ends[:limit])[-1]) + 1
        assert limit - 500 < end
        acted = acted_by(rungs.get(policy), one)
        assert acted[start:end][clear[start:end]].all()
        others = np.concatenate([acted[:start][clear[:start]], acted[end:][clear[end:]]])
        assert others.mean() < 0.1  # by chance
        start = end
    assert [part["policy"] for part in one.recipe["parts"]] == [policy for policy, _ in turns]
    assert "D4RL's replay sets are the buffer of the training run itself" in one.recipe["note"]


def test_full_replay_goes_on_to_the_last_rung() -> None:
    first, full = (recipes.plan(f"halfcheetah-{kind}").recipe["parts"] for kind in ("medium-replay", "full-replay"))
    assert [(part["policy"][-4:], part["up_to_row"] // 1000) for part in first] == [
        ("form", 20),
        ("040k", 60),
        ("080k", 80),
    ]
    assert [(part["policy"][-4:], part["up_to_row"] // 1000) for part in full] == [
        ("form", 20), ("040k", 60), ("080k", 100), ("120k", 140), ("160k", 180), ("200k", 240), ("280k", 320),
        ("360k", 400), ("440k", 480), ("520k", 560), ("600k", 640), ("680k", 680),
    ]  # fmt: skip


def test_random_actions_are_uniform(made: dict[str, Made]) -> None:
    for environment in ROWS:
        one = made[f"{environment}-random"]
        assert acted_by(None, one).all()
        np.testing.assert_allclose(np.quantile(one.columns["actions"], [0.25, 0.75]), [-0.5, 0.5], atol=0.05)


def test_sets_of_one_environment_share_no_episode(made: dict[str, Made]) -> None:
    starts = {}
    for kind in ("random", "medium", "medium-replay", "expert"):
        starts[kind] = {row.tobytes() for row in made[f"hopper-{kind}"].columns["observations"]}
    assert sum(map(len, starts.values())) == len(set.union(*starts.values())) == 4 * ROWS["hopper"]


def test_the_medium_policy_is_the_first_with_a_third_of_the_experts_return() -> None:
    for env_id in recipes.ENV_IDS.values():
        rungs = ladder(env_id)
        assert [rung.environment_steps for rung in rungs] == sorted(rung.environment_steps for rung in rungs)
        returns = [rung.sampled[0] for rung in rungs]
        assert expert(env_id).sampled[0] == max(returns)
        first = rungs.index(medium(env_id))
        assert returns[first] >= max(returns) / 3
        assert max(returns[:first]) < max(returns) / 3
    chosen = {env_id: (medium(env_id).policy, expert(env_id).policy) for env_id in recipes.ENV_IDS.values()}
    assert chosen == {
        "Hopper-v4": ("hopper_sac_080k", "hopper_sac_360k"),
        "Walker2d-v4": ("walker2d_sac_240k", "walker2d_sac_440k"),
        "HalfCheetah-v4": ("halfcheetah_sac_080k", "halfcheetah_sac_680k"),
    }


def test_the_ladders_name_every_policy_once_and_ship_under_10_megabytes() -> None:
    files = list(POLICY_FOLDER.glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 10e6
    named = [rung.policy for env_id in recipes.ENV_IDS.values() for rung in ladder(env_id)]
    assert sorted(named) == sorted(file.stem for file in files if file.stem.startswith(tuple(recipes.ENV_IDS)))
    for env_id in recipes.ENV_IDS.values():
        for rung in ladder(env_id):
            assert rung.policy.endswith(f"_{rung.environment_steps // 1000:03}k")


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_set(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.hdf5" for name in ("one", "again", "other")]
    for file, seed, workers in zip(files, (0, 0, 1), (1, 2, 1), strict=True):
        make(recipes.plan("hopper-medium-expert", 600, seed), file, workers)
    assert files[0].read_bytes() == files[1].read_bytes()
    one, other = read(files[0]), read(files[2])
    assert other.recipe["seed"] == 1
    starts = [{row.tobytes() for row in made.columns["observations"]} for made in (one, other)]
    assert not starts[0] & starts[1]


def test_a_slot_more_does_not_change_the_rows_before_it() -> None:
    """More than one slot, more than one task: the seeds of the slots of a longer set begin with those of a shorter."""

    def slots(steps: int) -> list[Any]:
        return [seed for task in recipes.plan("hopper-expert", steps).parts[0].tasks for seed in task.seeds]

    assert slots(125_000)[:7] == slots(70_000) == slots(65_000)
    for steps in (5, 70_000, 125_001):
        assert recipes.plan("hopper-expert", steps).steps == steps


def test_default_sizes() -> None:
    def rows(name: str) -> int | None:
        return recipes.plan(name).parts[-1].end

    assert rows("hopper-medium") == rows("walker2d-random") == rows("halfcheetah-expert") == 1_000_000
    assert rows("hopper-medium-expert") == 2_000_000
    assert (rows("hopper-medium-replay"), rows("walker2d-medium-replay")) == (80_000, 240_000)
    assert (rows("hopper-full-replay"), rows("halfcheetah-full-replay")) == (500_000, 680_000)


def test_provenance_says_which_set_it_is(made: dict[str, Made]) -> None:
    recipe = made["hopper-medium"].recipe
    assert (recipe["name"], recipe["rows"], recipe["seed"]) == ("hopper-medium-itrpo1", ROWS["hopper"], 0)
    assert recipe["parts"][0]["sha256"] == policy_sha256("hopper_sac_080k")
    assert set(recipe["versions"]) == {"itrpo", "gymnasium", "mujoco", "numpy"}
    assert hdf5.read(made["hopper-medium"].path).source.recipe["name"] == "hopper-medium-itrpo1"


def test_every_made_set_goes_by_name() -> None:
    names = {f"{environment}-{kind}-itrpo1" for environment in recipes.ENV_IDS for kind in recipes.SETS}
    assert names < set(GENERATED_DATASETS)
    assert len(names) == 18


def test_training_finds_a_set_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ITRPO_CACHE", str(tmp_path))
    short = functools.partial(recipes.plan, steps=300)
    monkeypatch.setattr(recipes, "plan", lambda name, steps, seed: short(name, seed=seed))
    dataset = load_dataset("hopper-medium-itrpo1")
    assert (dataset.name, dataset.source.kind) == ("hopper-medium-itrpo1", "generated")
    assert (dataset.env_id, dataset.num_rows) == ("Hopper-v4", 300)
    assert dataset.source.path == str(generated_path("hopper-medium-itrpo1"))


def test_the_command_says_what_the_short_name_stands_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set.hdf5"
    assert cli.main(["datasets", "make", "hopper-random", "--out", str(out), "--steps", "200", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "hopper-random: making hopper-random-itrpo1, this project's own (hopper-random-v2 is D4RL's file)" in (
        " ".join(printed.split())
    )
    assert str(out) in printed.replace("\n", "")
    assert read(out).recipe["name"] == "hopper-random-itrpo1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hopper-medium-v2"], "D4RL's file, which is downloaded and not made; ours is hopper-medium-itrpo1"),
        (["hoper-medium"], "did you mean 'hopper-medium-itrpo1'"),
        (["hopper-medium", "--steps", "200000"], "name a file with --out"),
        (["hopper-medium", "--seed", "1"], "name a file with --out"),
        (["hopper-demo", "--out", "a.hdf5", "--steps", "9"], "takes no --steps"),
        (["hopper-medium", "--out", "a.npz"], "must end in .hdf5 or .h5"),
        (["hopper-medium", "--out", "hopper-medium-v2.hdf5"], "what D4RL's own file is called"),
        (["hopper-medium", "--out", "sets/hopper_medium-v2.hdf5"], "what D4RL's own file is called"),
        (["hopper-medium", "--out", "a.h5", "--steps", "1"], "--steps must be at least 2"),
        (["hopper-medium", "--out", "a.h5", "--workers", "-1"], "--workers must be 0"),
    ],
)
def test_impossible_requests_are_input_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["datasets", "make", *arguments]) == InputError.exit_status
    assert message in capsys.readouterr().err
