"""`itrpo compare` through the command line, on a small real problem."""

from __future__ import annotations

import pytest

from itrpo.cli import main
from itrpo.files import read_json
from itrpo.results.store import read_metrics, read_status
from tests.training.test_environment import OWN, write_log

SIZES = ["--seeds", "2", "--steps", "20", "--eval-every", "20", "--eval-episodes", "1"]
BOUNDS = ["--action-low", "-2", "--action-high", "2"]
TINY = [
    word
    for name in ("brac_v", "itrpo")
    for field in ("policy-hidden", "critic-hidden", "behavior-hidden")
    for word in (f"--{name}.{field}", "8,8")
]


@pytest.fixture(scope="module")
def compared(pendulum, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    words = ["compare", str(pendulum), "--algorithms", "brac_v,itrpo", "--scale", "laptop", *BOUNDS, *SIZES, *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ITRPO_CACHE", str(folder / "cache"))
        assert main([*words, "--out", str(folder)]) == 0
    return folder, words


def test_runs_and_table_are_there(compared):
    folder, _ = compared
    assert all(read_status(folder / name).state == "finished" for name in ("brac_v", "itrpo"))
    table = (folder / "comparison.md").read_text()
    assert all(f"| {name} |" in table for name in ("BRAC-v", "iTRPO", "dataset"))


def test_algorithms_with_the_same_model_of_pi_beta_share_its_fit(compared):
    folder, _ = compared
    assert len(list((folder / "cache" / "behavior").glob("*.safetensors"))) == 2  # one for each seed


def test_the_same_command_again_trains_nothing(compared, capsys):
    folder, words = compared
    before = {path: path.read_bytes() for name in ("metrics", "timing") for path in folder.glob(f"*/{name}.jsonl")}
    assert len(before) == 4
    assert main([*words, "--out", str(folder)]) == 0
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_one_algorithm_can_have_a_preset_of_its_own(tmp_path):
    """And the environment may be one's own."""
    log, out = write_log(tmp_path / "log.npz"), tmp_path / "out"
    words = ["compare", str(log), "--algorithms", "bc,td3_bc", *BOUNDS, *SIZES, "--env", OWN]
    assert main([*words, "--td3_bc.preset", "matched", "--out", str(out)]) == 0
    presets = [read_json(out / name / "config.json")["config"]["preset"] for name in ("bc", "td3_bc")]
    assert presets == ["source", "matched"]
    for name in ("bc", "td3_bc"):
        assert read_status(out / name).env_id == OWN
        assert "return" in set(read_metrics(out / name)["metric"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--itrpo.preset", "quik"], "did you mean 'quick'?"),
        (["--algorithms", "itrpo,brac_vv"], "did you mean 'brac_v'?"),
        (["--preset", "mached"], "did you mean 'matched'?"),
        (["--itrpo.alhpa", "3"], "did you mean '--itrpo.alpha'?"),
        (["--alpha", "3"], "--ALGORITHM.FIELD"),
        (["--algorithms", "bc", "--itrpo.alpha", "3"], "not compared"),
    ],
)
def test_mistakes_end_before_any_work(pendulum, tmp_path, capsys, words, message):
    out = tmp_path / "out"
    assert main(["compare", str(pendulum), *BOUNDS, *SIZES, *words, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()
