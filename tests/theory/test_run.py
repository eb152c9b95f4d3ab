"""The command: what it prints, its status, its seed, its figures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from itrpo.errors import InputError, StorageError
from itrpo.theory import corollary1, lemma1, run, theorem1
from itrpo.theory.figures import write_figures
from itrpo.theory.instances import draw, draw_batches


@pytest.fixture(scope="module")
def rows():
    batches = draw_batches(0, 64)
    return {name: check(batches, 0) for name, (_, check) in run.STATEMENTS.items()}


def _print(**arguments) -> tuple[int, str]:
    stream = io.StringIO()
    status = run.run_theory(console=Console(file=stream, width=140), **arguments)
    return status, stream.getvalue()


@pytest.mark.parametrize("name", run.STATEMENTS)
def test_every_statement_does_what_is_proven(rows, name):
    assert [row for row in rows[name] if not row.as_expected] == []


def test_the_worst_instance_can_be_drawn_again(rows):
    row = next(row for row in rows["corollary1"] if "random instances" in row.claim)
    again = draw(0, row.instance)
    found = corollary1.terms(again.mdp, again.policy, again.previous, again.behavior)
    assert found.loss / found.bound == pytest.approx(row.worst, rel=1e-9)


def test_residuals_repeat_with_the_seed_and_change_with_it():
    def worst(seed):
        return [row.worst for row in lemma1.check(draw_batches(seed, 16), seed)]

    assert worst(3) == worst(3)
    assert worst(3)[:2] != worst(4)[:2]


def test_a_statement_that_fails_sets_the_exit_status(monkeypatch):
    """Break the mathematics (shaping off by a hundredth) and the command must say so."""
    true_scheme = theorem1.itrpo_vi

    def broken(mdp, behavior, alpha, tau, *rest, **named):
        return true_scheme(mdp, behavior, alpha, 0.99 * np.asarray(tau), *rest, **named)

    monkeypatch.setattr(theorem1, "itrpo_vi", broken)
    status, text = _print(statement="theorem1", instances=8)
    assert status == 1
    assert "(!)" in text
    assert "not as proven" in text


def test_one_statement_prints_its_table_alone():
    status, text = _print(statement="fixed_point", instances=8, seed=5)
    assert status == 0
    assert "fixed_point" in text
    assert "theorem1" not in text
    assert "seed 5, 8 instances" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"statement": "theorem3"}, "did you mean 'theorem"),
        ({"statement": "lemma1", "instances": 0}, "instances must be at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        run.run_theory(**arguments)


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't make the folder"):
        write_figures(tmp_path / "file" / "figures")


def test_a_file_as_out_is_refused_before_any_work(tmp_path):
    file = tmp_path / "figures"
    file.write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        run.run_theory("lemma1", 4, out=file)
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_figures_are_written_whole(tmp_path):
    paths = write_figures(tmp_path / "new", seed=1)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    assert len(paths) == 6
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content.endswith(b"IEND\xaeB`\x82")
