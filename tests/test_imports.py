"""Who may import whom in itrpo, read from the syntax trees. The table is the architecture: a new part gets a line."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "itrpo"

# part of the package -> other parts it may import; CONTRACTS are open to all that come after them
CONTRACTS = {"errors", "types", "registry", "ranges", "files"}
LAYERS = {"ops", "nn", "behavior", "dynamics", "algorithms"}
MAY_IMPORT = {
    "errors": set(),
    "types": set(),
    "files": {"errors"},
    "ranges": {"errors"},
    "registry": {"errors", "types"},
    "options": {"ranges"},
    "signals": set(),
    "tasks": set(),
    "xla": {"files"},
    "ops": CONTRACTS,
    "nn": CONTRACTS | {"ops"},
    "behavior": CONTRACTS | {"ops", "nn"},
    "dynamics": CONTRACTS | {"ops", "nn"},
    "algorithms": CONTRACTS | {"ops", "nn", "behavior", "dynamics", "config"},
    "config": CONTRACTS,
    "console": CONTRACTS,
    "evaluation": CONTRACTS | {"policy"},
    "data": CONTRACTS | {"console", "evaluation"},  # reference scores
    "collection": CONTRACTS
    | {"ops", "nn", "config", "console", "data", "evaluation", "policy", "plotting", "results", "signals", "xla"},
    "results": CONTRACTS | {"config", "console"},
    "policy": set(),
    "report": CONTRACTS | {"config", "console", "data", "evaluation", "results", "tasks"},
    "plotting": CONTRACTS | {"data", "evaluation", "report", "results"},
    "theory": CONTRACTS | {"console", "plotting"},
    "training": CONTRACTS
    | LAYERS
    | {
        "config",
        "console",
        "data",
        "evaluation",
        "options",
        "policy",
        "plotting",
        "report",
        "results",
        "signals",
        "tasks",
        "xla",
    },
}

MAY_IMPORT["ope"] = MAY_IMPORT["training"] | {"training"}
MAY_IMPORT["shipping"] = CONTRACTS | {"config", "data", "options", "policy"}
MAY_IMPORT["sweep"] = MAY_IMPORT["training"] - LAYERS - {"tasks", "plotting", "policy"} | {"training"}
MAY_IMPORT["online"] = MAY_IMPORT["training"] | {"training", "collection"}

# package outside itrpo -> the only modules that may import it, and only inside a function
LAZY = {
    "gymnasium": ("evaluation", "collection"),
    "gymnasium_robotics": ("evaluation", "collection"),
    "mujoco": ("evaluation", "collection"),
    "imageio": ("evaluation.video",),
    "h5py": ("data.behavior_policy", "data.formats", "collection"),
    "matplotlib": ("plotting", "theory.figures"),
    "minari": ("data.minari_ids",),
    "ogbench": ("data.ogbench_names", "evaluation"),
    "onnx": ("shipping.onnx_file",),
    "onnxruntime": ("shipping.onnx_file",),
    "ray": ("sweep.on_ray",),
    "vl_convert": ("report.page.charts",),
}
# modules that define environments: gymnasium's class stands in the class statement, so these import it at the top,
# and every other module imports these inside a function
ENVIRONMENTS = (
    "evaluation.adroit",
    "evaluation.grids",
    "evaluation.kitchen",
    "evaluation.mazes",
    "evaluation.ogbench",
    "collection.goal_ant",
)
ONLY_IN = {"tyro": ("cli",), "yaml": ("sweep.plan",)}
SHARED_BY_ALGORITHMS = (
    "algorithms.kl_actor_critic",
    "algorithms.divergence_actor_critic",
    "algorithms.mmd_actor_critic",
    "algorithms.quick",
    "algorithms.soft_actor_critic",
    "algorithms.td3",
    "algorithms.action_values",
    "algorithms.exact_kl",
)
WITHOUT_JAX = ("errors", "files", "types", "registry", "ranges", "policy", "evaluation", "data", "report", "theory")


def imports(node: ast.AST, eager: bool = True) -> Iterator[tuple[str, bool]]:
    """Each imported dotted name below `node`, and whether importing the file imports it."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, eager) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (("." * node.level + f"{node.module or ''}.{alias.name}", eager) for alias in node.names)
    typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    inside = eager and not typing_only and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        yield from imports(child, inside)


def is_in(module: str, parts: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{part}.") for part in parts)


def violations(module: str, source: str) -> list[str]:
    """What the file of `itrpo.MODULE` imports against the rules. The command line may import every part."""
    part, found = module.partition(".")[0], []
    for name, eager in imports(ast.parse(source)):
        package, _, rest = name.partition(".")
        if package == "":
            found.append(f"{module}: relative import {name}")
        elif package == "itrpo" and rest:
            other = rest.partition(".")[0]
            if other != "__version__" and other != part and part != "cli" and other not in MAY_IMPORT.get(part, set()):
                found.append(f"{module}: {part} may not import {other}")
            if part == other == "algorithms" and not is_in(rest, SHARED_BY_ALGORITHMS):
                found.append(f"{module}: algorithms share through {' and '.join(SHARED_BY_ALGORITHMS)}, not {rest}")
            if is_in(rest, ENVIRONMENTS) and eager and not is_in(module, ENVIRONMENTS):
                found.append(f"{module}: {rest} imports gymnasium, so it must be imported inside a function")
        elif package in LAZY and not is_in(module, LAZY[package]):
            found.append(f"{module}: {package} belongs to {LAZY[package]}")
        elif package in LAZY and eager and not is_in(module, ENVIRONMENTS):
            found.append(f"{module}: {package} must be imported inside a function")
        elif package in ONLY_IN and not is_in(module, ONLY_IN[package]):
            found.append(f"{module}: {package} belongs to {ONLY_IN[package]}")
        elif package in ("jax", "equinox", "optax") and is_in(module, WITHOUT_JAX) and (eager or module != "types"):
            found.append(f"{module}: works without {package}")
        elif module == "policy" and package not in {*sys.stdlib_module_names, "numpy"}:
            found.append(f"{module}: needs NumPy alone, not {package}")
    return found


def modules() -> dict[str, str]:
    """Dotted name below itrpo -> source. Without `itrpo` itself, whose public names come from everywhere."""
    files = (path for path in PACKAGE.rglob("*.py") if path not in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"))
    named = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}
    return {name.removesuffix(".__init__"): path.read_text(encoding="utf-8") for name, path in named.items()}


def test_every_part_is_in_the_table():
    assert {name.partition(".")[0] for name in modules()} - {"cli"} <= set(MAY_IMPORT)


def test_imports_go_one_way():
    assert [line for name, source in modules().items() for line in violations(name, source)] == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("ops.td", "from itrpo.nn.network import Network", "ops may not import nn"),
        ("nn.heads", "import itrpo.behavior.gaussian", "nn may not import behavior"),
        ("data.load", "def f():\n    from itrpo import collection", "data may not import collection"),
        ("training.run", "from itrpo.cli import main", "training may not import cli"),
        ("theory.mdp", "from itrpo.algorithms import itrpo", "theory may not import algorithms"),
        ("algorithms.itrpo", "from itrpo.algorithms.brac import make", "share through algorithms.kl_actor_critic"),
        ("algorithms.itrpo", "from itrpo.algorithms import bc", "share through algorithms.kl_actor_critic"),
        ("training.loop", "def f():\n    import gymnasium", "gymnasium belongs to"),
        ("data.d4rl_files", "import h5py", "h5py belongs to"),
        ("report.curves", "import matplotlib.pyplot as plt", "matplotlib belongs to"),
        ("evaluation.rollout", "import gymnasium", "inside a function"),
        ("collection.mazes", "from itrpo.evaluation.mazes import AntMaze", "inside a function"),
        ("evaluation.environments", "from itrpo.evaluation import mazes", "inside a function"),
        ("training.run", "import tyro", "tyro belongs to"),
        ("config", "import yaml", "yaml belongs to"),
        ("training.run", "from itrpo.sweep import plan", "training may not import sweep"),
        ("policy", "import jax.numpy as jnp", "works without jax"),
        ("policy", "import safetensors", "NumPy alone"),
        ("ops.td", "from . import distributions", "relative import"),
    ],
)
def test_each_rule_can_fail(module: str, source: str, message: str):
    assert any(message in line for line in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("algorithms.itrpo", "from itrpo.algorithms import kl_actor_critic\nfrom itrpo.ops import td"),
        ("algorithms.itrpo", "from itrpo.algorithms.kl_actor_critic import Backbone"),
        ("evaluation.rollout", "if TYPE_CHECKING:\n    import gymnasium\ndef f():\n    import gymnasium"),
        ("cli", "import tyro\nfrom itrpo.training import run"),
        ("results.provenance", "import itrpo\nfrom itrpo import __version__"),
    ],
)
def test_what_the_rules_allow(module: str, source: str):
    assert violations(module, source) == []
