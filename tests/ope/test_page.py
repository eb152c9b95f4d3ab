"""The page of a judgement, in a real browser and by what it says."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from itrpo.ope import page as own
from itrpo.ope.estimate import make_estimate
from itrpo.ope.judgement import Against, Judged, Judgement, Support
from itrpo.ope.log import make_log
from itrpo.ope.page import Material, make_page, verdict
from itrpo.ope.reasons import ABOUT, Reason
from itrpo.ope.support import regions
from itrpo.types import Attributes, Dataset, DataSource, Transition
from tests.report.browser import BOTH_WAYS, Browser, check_figures, needs_browser, opened
from tests.report.canned_results import HOSTILE

EPISODES, LENGTH = 12, 30
ROWS = EPISODES * LENGTH
RNG = np.random.default_rng(0)
OBSERVATION = np.stack([RNG.uniform(15, 25, ROWS), np.full(ROWS, 1.8), RNG.normal(0, 5, ROWS)], axis=1).astype("f")
ACTION = RNG.uniform(-0.5, 0.5, (ROWS, 2)).astype("f")
KNOWN = OBSERVATION * np.array([0.9, 1, 1], "f")  # rooms beyond 22.5 are new
FEW = Reason("few", "there are only 12 episodes: an interval over so few says little")
REGION = Reason("region", "where observation 0 (room) is 20 to 22, 20% of the rows, 34% of its actions leave the log's")


def dataset(observation: np.ndarray) -> Dataset:
    ones = np.ones(ROWS, "f")
    rows = Transition(observation, ACTION, -ones, ones, observation, ACTION)
    names = Attributes(
        observation_names=("room", "pressure", HOSTILE),
        observation_units=("degC", "bar", ""),
        action_names=("valve", "pump"),
        action_units=("%", "rpm"),
    )
    source = DataSource("plant", "arrays")
    low, high, none = np.array([0.0, 100.0], "f"), np.array([100.0, 900.0], "f"), np.zeros(0)
    return Dataset("plant", rows, None, low, high, none, none, ROWS, 0, 0, source, attributes=names)


def judged(name: str, seed: int | None, *reasons: Reason, gain: float = 10.0, spread: float = 1.0) -> Judged:
    """Fitted Q over folds: `gain` over the log's, which is 50."""
    folds = 50 + gain + spread * np.array([0.0, 1.0, -1.0, 0.5, -0.5])
    near = np.clip(ACTION * 0, -1, 1) + (0.8 if seed == 1 else 0.0)
    support = Support(0.3, 0.2, 0.4, tuple(regions(OBSERVATION, near, ACTION)))
    estimates = [make_estimate("fqe", folds, None if name == "log" else np.full(5, 50.0), EPISODES, 0.9, reasons)]
    if seed is not None:
        estimates.append(make_estimate("dr", folds + 3, np.full(5, 50.0), EPISODES, 0.9, known=False))
    size = 3.25 if seed is not None else None
    return Judged(name, seed, tuple(estimates), {}, None if name == "log" else support, size, None, ())


def judgement(*policies: Judged, reasons: tuple[Reason, ...] = ()) -> Judgement:
    references = (judged("BC", None, gain=2.0, spread=3.0), judged("log", None, gain=0.0))
    settings = {"folds": 5, "seed": 0, "fqe": {"steps": 200}}
    about = (
        "abc123",
        "itrpo",
        "plant",
        100,
        0.9,
        EPISODES,
        ROWS,
        "ab12",
        1.0,
        -30.0,
        "--holdout 0.2 of plant",
        settings,
        1.0,
    )
    return Judgement(*about, (*policies, *references), reasons)


JUDGED = judgement(judged("seed 0", 0, REGION), judged("seed 1", 1, REGION, gain=12.0), reasons=(FEW,))


def material(**more: object) -> Material:
    data = dataset(OBSERVATION)
    log = make_log(data.transitions, np.arange(EPISODES) * LENGTH)
    room = (OBSERVATION[:, :1] - 20) / 5
    actions = {"seed 0": np.tanh(room * [1, 0]), "seed 1": np.full((ROWS, 2), [0.995, 0.8])}
    config = {"preset": "quick", "data": {"rules": {"period": 300.0}}, "train": {"seed": 7}}
    about = {"dataset_sha256": "f" * 64, "versions": {"jax": "1.2.3"}, "dataset": {"source": {"path": HOSTILE}}}
    return Material(log, actions, data, dataset(KNOWN), config, about)._replace(**more)


def text_of(page: str, anchor: str) -> str:
    section = re.search(f'<section id="{anchor}">(.*?)</section>', page, re.DOTALL)
    assert section is not None
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", section[1])).split())


@pytest.fixture(scope="module")
def page() -> str:
    return make_page(JUDGED, material())


@pytest.fixture(scope="module")
def browser(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = tmp_path_factory.mktemp("judged") / own.FILE
    path.write_text(page, "utf-8")
    with opened(path, tmp_path_factory.mktemp("profile")) as running:
        yield running


@needs_browser
@BOTH_WAYS
def test_every_figure_is_drawn_and_nothing_is_wider_than_the_window(browser: Browser, width: int, scheme: str):
    assert check_figures(browser, width, scheme) == 4  # estimates, two actions, the episode


@needs_browser
def test_tables_sort_and_unseen_text_is_no_markup(browser: Browser, page: str):
    header = "document.querySelector('#table-changes').tHead.rows[0].cells"
    names = browser.evaluate(f"[...{header}].map((it) => it.innerText.trim().split('\\n')[0])")
    column = names.index("difference")
    rows = "[...document.querySelector('#table-changes').tBodies[0].rows]"
    values = f"{rows}.map((it) => Number(it.cells[{column}].dataset.sort))"
    before = browser.evaluate(values)
    browser.evaluate(f"{header}[{column}].querySelector('button').click()")
    after = browser.evaluate(values)
    assert after == sorted(before, reverse=True) != before
    assert HOSTILE not in page
    assert html.escape(HOSTILE) in page
    assert browser.evaluate("document.title") == "iTRPO on plant, judged from the log"
    assert browser.problems() == []


def test_numbers_sort_as_numbers(page: str):
    values = re.findall(r'data-sort="([^"]*)"', page)
    assert len(values) > 100
    for value in filter(None, values):
        float(value)


def test_sections_stand_in_their_order_and_warnings_come_first(page: str):
    found = re.findall(r'<section id="(\w+)">', page)
    assert " ".join(found) == "warnings verdict estimates regions episode limits changes unseen provenance"
    text = text_of(page, "warnings")
    assert text.index(ABOUT["few"].plain) < text.index(ABOUT["region"].plain)
    assert text.count(REGION.text.removeprefix("where")) == 1  # of both seeds, once
    assert "Seed 0, seed 1: where observation 0 (room)" in text
    assert text.count("What to do:") == 2
    none = text_of(make_page(judgement(judged("seed 0", 0)), material(actions={"seed 0": ACTION})), "warnings")
    assert "That is no proof" in none


def test_numbers_in_the_users_units(page: str):
    limits = text_of(page, "limits")
    assert "valve (%) seed 1 0 0 100 100 % 0 100 %" in limits  # always at the upper limit, beyond all that was logged
    assert "pump (rpm) seed 1 100 0 900 0 0 100 %" in limits
    changes = text_of(page, "changes")
    room = OBSERVATION[:, 0] >= np.quantile(OBSERVATION[:, 0], 0.8)
    ours = 50 + 50 * (np.tanh((OBSERVATION[room, 0] - 20) / 5).mean() + 0.995) / 2
    logged = 50 + 50 * ACTION[room, 0].mean()
    assert f"there valve is {ours:.2f} % on average, and was {logged:.2f} %" in changes
    half = 3.182446 * np.std([1.0, -1.0, 0.5, -0.5], ddof=1) * np.sqrt(12 / 11)
    estimates = text_of(page, "estimates")
    assert f"seed 0 fitted Q 60.00 ({60 - half:.2f} to {60 + half:.2f})" in estimates
    assert "doubly robust 63.00 (no interval) 6.30 +13.00 (no interval) 3.25" in estimates
    ranges = text_of(page, "unseen")
    new = (OBSERVATION[:, 0] > KNOWN[:, 0].max()).mean() + (OBSERVATION[:, 0] < KNOWN[:, 0].min()).mean()
    assert f"{100 * new:.0f} %" in ranges[ranges.index("room (degC)", ranges.index("Sensors beyond")) :]
    assert "pressure (bar) 1.8 1.8 1.8 1.8 0 never varied" in ranges
    assert "hours since" in page  # thirty rows of five minutes


def test_against_the_copy_is_by_folds(page: str):
    """(gain 10 - 2) and folds that differ by (1 - 3) of the same numbers."""
    found = own.against_reference(JUDGED, JUDGED.policies[0])
    assert found is not None
    deviation = 2 * np.std([1.0, -1.0, 0.5, -0.5], ddof=1) * np.sqrt(12 / 11)
    assert found == pytest.approx((8.0, 8 - 3.182446 * deviation, 8 + 3.182446 * deviation), rel=1e-5)
    assert own.against_reference(JUDGED, JUDGED.policy("log")) is None


@pytest.mark.parametrize(
    ("gains", "reasons", "look", "said"),
    [
        ((10.0, 12.0), (), "holds", "Both policies are estimated to earn more than the log, by +1.0"),
        ((10.0, 12.0), (FEW,), "open", "the warning above makes that a reason for a careful trial at most"),
        ((-10.0,), (), "fails", "The policy is estimated to earn less"),
        ((1.0,), (), "open", "(the log itself is put at 5.00), which the noise of 12 episodes explains"),
        ((10.0, 1.0), (FEW,), "open", "Seed 0 is estimated to earn more than the log, by +1.0"),
        ((10.0, -10.0, 1.0), (), "open", "chance in training decides"),
        (
            (10.0,),
            (Reason("bias", "wrong"),),
            "open",
            "decide nothing yet, for the method is wrong about what is known",
        ),
    ],
)
def test_the_verdict(gains, reasons, look, said):
    policies = [judged(f"seed {seed}", seed, gain=gain) for seed, gain in enumerate(gains)]
    found = verdict(judgement(*policies, reasons=reasons))
    assert (found.look, said in found.sentence) == (look, True), found
    assert found.sentence.count(". ") == 0  # one sentence


def test_what_there_is_none_of_leaves_no_hole():
    """No names, no units, no data of the run, no intervals, a period that nobody gave."""
    bare = replace(dataset(OBSERVATION), attributes=Attributes())
    given = material(dataset=bare, known=None, config={}, about={})
    endless = judged("seed 0", 0)
    first = replace(endless.estimates[0], low=-np.inf, high=np.inf, against_log=Against(1.0, -np.inf, np.inf))
    page = make_page(judgement(replace(endless, estimates=(first,))), given._replace(actions={"seed 0": ACTION}))
    assert "observation 0" in page
    assert "action 1" in page
    assert "can’t be read" in text_of(page, "unseen")
    assert "rows since the episode" in page
    assert "nan" not in text_of(page, "estimates")
