"""Names -> dotted paths, one line each. Nothing is imported until it is used, so this costs nothing at start-up."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import re
import traceback
from collections.abc import Iterable
from typing import Any

from itrpo.errors import InputError
from itrpo.types import AlgorithmEntry

# name -> AlgorithmEntry; those of installed packages are in the entry point group of this name
ENTRY_POINTS = "itrpo.algorithms"
ALGORITHMS = {
    "algae_dice": "itrpo.algorithms.algae_dice:ALGAE_DICE",
    "bc": "itrpo.algorithms.bc:BC",
    "bc_discrete": "itrpo.algorithms.bc_discrete:BC_DISCRETE",
    "bcq": "itrpo.algorithms.bcq:BCQ",
    "bcq_discrete": "itrpo.algorithms.bcq_discrete:BCQ_DISCRETE",
    "bear": "itrpo.algorithms.bear:BEAR",
    "bppo": "itrpo.algorithms.bppo:BPPO",
    "brac_discrete": "itrpo.algorithms.brac_discrete:BRAC_DISCRETE",
    "brac_dual_kl": "itrpo.algorithms.brac_dual:BRAC_DUAL_KL",
    "brac_mmd": "itrpo.algorithms.brac_mmd:BRAC_MMD",
    "brac_p": "itrpo.algorithms.brac:BRAC_P",
    "brac_v": "itrpo.algorithms.brac:BRAC_V",
    "brac_wasserstein": "itrpo.algorithms.brac_dual:BRAC_WASSERSTEIN",
    "combo": "itrpo.algorithms.combo:COMBO",
    "cql": "itrpo.algorithms.cql:CQL",
    "cql_discrete": "itrpo.algorithms.cql_discrete:CQL_DISCRETE",
    "dqn": "itrpo.algorithms.dqn:DQN",
    "edac": "itrpo.algorithms.edac:EDAC",
    "emaq": "itrpo.algorithms.emaq:EMAQ",
    "fisher_brc": "itrpo.algorithms.fisher_brc:FISHER_BRC",
    "iql": "itrpo.algorithms.iql:IQL",
    "iql_discrete": "itrpo.algorithms.iql_discrete:IQL_DISCRETE",
    "itrpo": "itrpo.algorithms.itrpo:ITRPO",
    "itrpo_discrete": "itrpo.algorithms.itrpo_discrete:ITRPO_DISCRETE",
    "itrpo_insample": "itrpo.algorithms.itrpo_insample:ITRPO_INSAMPLE",
    "munchausen_dqn": "itrpo.algorithms.munchausen_dqn:MUNCHAUSEN_DQN",
    "munchausen_iqn": "itrpo.algorithms.munchausen_iqn:MUNCHAUSEN_IQN",
    "pbrl": "itrpo.algorithms.pbrl:PBRL",
    "plas": "itrpo.algorithms.plas:PLAS",
    "qr_dqn": "itrpo.algorithms.qr_dqn:QR_DQN",
    "rebrac": "itrpo.algorithms.rebrac:REBRAC",
    "rem": "itrpo.algorithms.rem:REM",
    "sac_n": "itrpo.algorithms.sac_n:SAC_N",
    "spot": "itrpo.algorithms.spot:SPOT",
    "td3_bc": "itrpo.algorithms.td3_bc:TD3_BC",
    "uwac": "itrpo.algorithms.uwac:UWAC",
}

# name -> BehaviorEntry
BEHAVIOR_MODELS = {
    "categorical": "itrpo.behavior.categorical:CATEGORICAL",
    "cvae": "itrpo.behavior.cvae:CVAE_MODEL",
    "factored_mixture": "itrpo.behavior.factored_mixture:FACTORED_MIXTURE",
    "flow": "itrpo.behavior.flow:FLOW",
    "flow_matching": "itrpo.behavior.flow_matching:FLOW_MATCHING",
    "gaussian": "itrpo.behavior.gaussian:GAUSSIAN",
    "mixture": "itrpo.behavior.mixture:MIXTURE",
}

# datasets that are made from policies inside the package, and the function(name, *, console) that writes their files
MAKE_DATASET = "itrpo.collection.recipes:make_dataset"
GENERATED_DATASETS = (
    "hopper-demo",
    *(
        f"{environment}-{kind}-itrpo1"
        for environment in ("halfcheetah", "hopper", "walker2d")
        for kind in ("random", "medium", "medium-replay", "full-replay", "medium-expert", "expert")
    ),
    *(
        f"{environment}-{kind}-itrpo1"
        for environment in ("cartpole", "acrobot", "lunarlander", "breakout")
        for kind in ("random", "medium", "medium-replay", "expert")
    ),
    *(f"antmaze-{maze}-itrpo1" for maze in ("umaze", "umaze-diverse")),
    *(f"antmaze-{size}-{kind}-itrpo1" for size in ("medium", "large") for kind in ("play", "diverse")),
    *(f"pointmaze-{size}-itrpo1" for size in ("umaze", "medium", "large")),
)


def resolve(dotted: str) -> Any:
    """The module `a.b`, or the attribute `c` of it for `a.b:c`."""
    module, _, attribute = dotted.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """' (did you mean X?)' if some known name is close, else ''. For error messages. cutoff: difflib's."""
    names = list(known)
    match = [it for it in names if len(name) > 2 and it.startswith(name)]  # obs: observations
    match = match or difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f" (did you mean {match[0]!r}?)" if match else ""


def lookup(name: str, table: dict[str, str], what: str) -> Any:
    """The module or function registered under `name`. Raises InputError naming the nearest name."""
    if name not in table:
        raise InputError(f"unknown {what} {name!r}{nearest(name, table)}; known: {', '.join(sorted(table))}")
    return resolve(table[name])


def algorithm(name: str) -> AlgorithmEntry:
    """The entry of one of our algorithms, of an installed package's, or of MODULE:ENTRY.

    The last imports a module of any name, so `name` must be the user's own word, never one that a file holds.
    Raises InputError for an unknown name, naming the nearest, and for what can't be imported or is no AlgorithmEntry.
    """
    dotted = name if ":" in name else ALGORITHMS.get(name) or installed_algorithms().get(name)
    if dotted is None:
        return lookup(name, ALGORITHMS | installed_algorithms(), "algorithm")
    module, _, attribute = dotted.partition(":")
    loaded = import_own(module, f"algorithm {name!r}", "MODULE:ENTRY names an AlgorithmEntry in the module")
    entry = getattr(loaded, attribute, None)
    if not isinstance(entry, AlgorithmEntry):
        known = [key for key, value in vars(loaded).items() if isinstance(value, AlgorithmEntry)]
        raise InputError(
            f"algorithm {name!r}: {attribute!r} is no AlgorithmEntry of {module}; it has: {', '.join(known) or 'none'}"
        )
    return entry


def import_own(module: str, what: str, form: str) -> Any:
    """The user's own module, named by himself. Raises InputError that begins with `what` and explains the `form`."""
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # anything may go wrong in it
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, ImportError | ValueError) else f", {last.filename}:{last.lineno}"
        raise InputError(
            f"{what} can't be imported ({type(error).__name__}: {error}{where}); {form}, which lies in the current "
            "folder, in PYTHONPATH, or is installed"
        ) from error


def installed_algorithms() -> dict[str, str]:
    """Name -> MODULE:ENTRY of what installed packages add; a name of ours stays ours."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point.value for point in points if point.name not in ALGORITHMS}


def algorithm_names() -> list[str]:
    """All that go by name."""
    return sorted(ALGORITHMS | installed_algorithms())


def folder_name(algorithm: str) -> str:
    """'mymodule:ENTRY' -> 'mymodule-ENTRY'; our names as they are."""
    return re.sub(r"[^\w.-]", "-", algorithm)
