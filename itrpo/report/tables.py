"""Tables for a person, from run folders alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.text import Text

from itrpo.console import say
from itrpo.evaluation.environments import score_name
from itrpo.files import read_json
from itrpo.report.aggregate import FEW, Interval, final_score, mean_interval, over_seeds
from itrpo.results.schema import Evaluation
from itrpo.results.store import CONFIG, read_metrics, read_provenance, read_status

if TYPE_CHECKING:
    import polars
    from rich.console import Console

_NAMES = {
    "algae_dice": "AlgaeDICE",
    "bc_discrete": "BC, discrete",
    "bcq_discrete": "BCQ, discrete",
    "brac_discrete": "BRAC, discrete",
    "brac_dual_kl": "BRAC, dual KL",
    "brac_mmd": "BRAC, MMD",
    "brac_p": "BRAC-p",
    "brac_v": "BRAC-v",
    "brac_wasserstein": "BRAC, Wasserstein",
    "cql_discrete": "CQL, discrete",
    "emaq": "EMaQ",
    "fisher_brc": "Fisher-BRC",
    "iql_discrete": "IQL, discrete",
    "itrpo": "iTRPO",
    "itrpo_discrete": "iTRPO, discrete",
    "itrpo_insample": "iTRPO in-sample",
    "munchausen_dqn": "Munchausen DQN",
    "munchausen_iqn": "Munchausen IQN",
    "qr_dqn": "QR-DQN",
    "rebrac": "ReBRAC",
    "sac_n": "SAC-N",
    "td3_bc": "TD3+BC",
}


class SummaryRow(NamedTuple):
    """One line of the summary. Returns are undiscounted sums of rewards; scores are D4RL's, None where it has none."""

    policy: str
    returns: Interval
    score: Interval | None
    seeds: int | None  # None: not a matter of seeds (the dataset)
    mean_of: str


def algorithm_name(algorithm: str) -> str:
    """The name of a registered algorithm as people write it; what stands after a comma stays as it is."""
    name, comma, more = algorithm.partition(",")
    return _NAMES.get(name, name if ":" in name else name.upper()) + comma + more


def summarize_run(run_dir: Path) -> list[SummaryRow]:
    """The trained policy, BC (the mode of the fitted pi_beta) and the dataset; a line without numbers is left out."""
    metrics, status = read_metrics(run_dir), read_status(run_dir)
    rows = []
    final = final_score(metrics)
    if final is not None:
        mean_of = f"last {count(final.evaluations, 'evaluation')} x {count(status.episodes, 'episode')}"
        score = final_score(metrics, "score")
        score_interval = None if score is None else mean_interval(score.per_seed)
        returns = mean_interval(final.per_seed)
        rows.append(SummaryRow(algorithm_name(status.algorithm), returns, score_interval, len(final.seeds), mean_of))
    behavior = _first(metrics, "behavior_return")
    if behavior is not None:
        mean_of = f"1 evaluation x {count(status.episodes, 'episode')}"
        score_interval = _first(metrics, "behavior_score")
        rows.append(SummaryRow("BC (mode of pi_beta)", behavior, score_interval, status.seeds, mean_of))
    dataset = read_provenance(run_dir)["dataset"]
    if dataset.get("return_mean") is not None:
        known_score = dataset.get("score_mean")
        score_interval = None if known_score is None else Interval(known_score, None)
        mean_of = "the logged episodes"
        rows.append(SummaryRow("dataset", Interval(dataset["return_mean"], None), score_interval, None, mean_of))
    return rows


def print_run_summary(run_dir: Path, console: Console) -> None:
    """Print `summarize_run` as a table, and what its intervals are."""
    from rich.table import Table

    rows, status = summarize_run(run_dir), read_status(run_dir)
    title = f"{status.dataset}, {status.env_id or 'no environment'}, after {status.step:,} gradient steps"
    table = Table(title=title, title_justify="left")
    table.add_column("policy")
    table.add_column("return", justify="right")
    with_score = any(row.score for row in rows)
    if with_score:
        table.add_column(score_name(status.env_id, status.reference), justify="right")
    table.add_column("seeds", justify="right")
    table.add_column("mean of")
    for row in rows:
        score = [format_interval(row.score, 1)] if with_score else []
        table.add_row(row.policy, format_returns(row.returns), *score, str(row.seeds or ""), row.mean_of)
    console.print(table)
    path = run_dir / CONFIG
    data = read_json(path)["config"].get("data", {}) if path.exists() else {}
    if any(row.seeds for row in rows):
        more = data.get("parent") is None  # else it has as many as the run that it continues
        console.print(Text(spread_in_words(status.seeds, more)))
    elif status.env_id is None:
        held = data.get("holdout")
        on = f"the episodes that --holdout {held:g} set aside" if held else "episodes of another file (--data FILE)"
        say(console, f"No environment: `itrpo judge` estimates what it is worth, on {on}.")
    paths = [run_dir / f"seed{index}" / "policy.npz" for index in range(status.seeds)]
    paths = [path for path in paths if path.exists()]
    more = f", and of {count(len(paths) - 1, 'more seed')} beside it" if len(paths) > 1 else ""
    where = {"run folder": str(run_dir), "policy": f"{paths[0]}{more}" if paths else "", "picture": ""}
    if (run_dir / "learning_curve.png").exists():
        where["picture"] = str(run_dir / "learning_curve.png")
    for name, path in where.items():
        if path:
            say(console, f"{name:11}{path}")


def spread_in_words(seeds: int, may_be_more: bool = True) -> str:
    """What stands behind a mean."""
    if seeds == 1:
        return "One seed gives no interval" + ("; train with --seeds 4 for one." if may_be_more else ".")
    if seeds < FEW:
        more = f"; --seeds {FEW} trains more." if may_be_more else "."
        return f"In brackets: each seed's own. So few have no interval worth the name{more}"
    return f"± is the half-width of the 95% interval (Student-t) over the {seeds} seeds."


def print_evaluation(result: Evaluation, console: Console) -> None:
    """Print the returns of `itrpo.evaluate`: a line per seed, the mean over seeds with its interval."""
    from rich.table import Table

    episodes = result.returns.shape[1]
    title = f"{result.env_id}, policies after {result.step:,} gradient steps, {count(episodes, 'episode')} per seed"
    table = Table("seed", "return", "std over episodes", "episode length", title=title, title_justify="left")
    if result.scores is not None:
        table.add_column(score_name(result.env_id, result.reference))
    for column in table.columns[1:]:
        column.justify = "right"
    for seed, (returns, lengths) in enumerate(zip(result.returns, result.lengths, strict=True)):
        score = [] if result.scores is None else [f"{result.scores[seed].mean():.1f}"]
        digits = return_digits(returns.mean())
        spread = f"{returns.std():,.{digits}f}"
        table.add_row(str(seed), f"{returns.mean():,.{digits}f}", spread, f"{lengths.mean():,.0f}", *score)
    means = [mean_interval(result.returns.mean(axis=1))]
    scores = [] if result.scores is None else [format_interval(mean_interval(result.scores.mean(axis=1)), 1)]
    table.add_section()
    table.add_row("all", format_returns(means[0]), "", f"{result.lengths.mean():,.0f}", *scores)
    console.print(table)
    if len(result.returns) >= FEW:
        console.print(Text(spread_in_words(len(result.returns))))


def evaluation_json(result: Evaluation, seed: int) -> dict[str, Any]:
    """`itrpo.evaluate`'s result as JSON's types, with its statistics over seeds."""
    measured = {"return": result.returns} | ({} if result.scores is None else {"score": result.scores})
    about: dict[str, Any] = {
        "env_id": result.env_id,
        "step": result.step,
        "seed": seed,
        "episodes": result.returns.shape[1],
    }
    for name, values in measured.items():
        interval = mean_interval(values.mean(axis=1))
        per_seed = values.mean(axis=1).tolist()
        about[name] = {"mean": interval.mean, "half_width": interval.half_width, "per_seed": per_seed}
    return about | {"returns": result.returns.tolist(), "lengths": result.lengths.tolist()}


def _first(metrics: polars.DataFrame, metric: str) -> Interval | None:
    """The metric at the first step that has it, over seeds."""
    _, values, seeds = over_seeds(metrics, metric)
    return mean_interval(values[:, 0]) if seeds else None


def format_interval(interval: Interval | None, digits: int) -> str:
    """'71.9 ± 32.9', of few seeds '71.9 (66.0 / 77.8)', or '-' for None."""
    if interval is None:
        return "-"
    if interval.each:
        return f"{interval.mean:,.{digits}f} ({' / '.join(f'{it:,.{digits}f}' for it in interval.each)})"
    spread = "" if interval.half_width is None else f" ± {interval.half_width:,.{digits}f}"
    return f"{interval.mean:,.{digits}f}{spread}"


def format_returns(interval: Interval | None) -> str:
    """'2,743 ± 368', or '0.78 ± 0.08' where rewards are sparse."""
    return format_interval(interval, 0 if interval is None else return_digits(interval.mean))


def return_digits(value: float) -> int:
    """Decimals with which a return is printed."""
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("cy") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
