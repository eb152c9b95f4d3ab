"""Flips one sign at a time in a module, and says which flips no test notices.

    python tests/sign_flips.py itrpo/ops/td.py                                  # with the test of the same name
    python tests/sign_flips.py itrpo/algorithms/brac.py tests/learning/test_gaussian_bandit.py
    python tests/sign_flips.py itrpo/ops/td.py --list                           # only say what would be flipped

A flip is + for -, * for /, min for max, a minus sign taken away, or < for >, in a copy of the repository; strings,
subscripts, axes and what raises errors are left alone. The tests named are run with -x on each copy. The exit status is
the number of flips that passed them all (at most 100). Programs that a flip leaves as they were come from JAX's
compilation cache, so one flip costs seconds.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OPERATORS: dict[type[ast.operator], ast.operator] = {
    ast.Add: ast.Sub(),
    ast.Sub: ast.Add(),
    ast.Mult: ast.Div(),
    ast.Div: ast.Mult(),
}
COMPARISONS: dict[type[ast.cmpop], ast.cmpop] = {ast.Lt: ast.Gt(), ast.Gt: ast.Lt()}
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}
LEFT_ALONE = ("validate", "export")  # functions without equations: each has tests of its own


class Flips(ast.NodeTransformer):
    """Flips occurrence number `wanted`; with None only counts them. `flipped` describes what was done."""

    def __init__(self, wanted: int | None) -> None:
        self.wanted, self.seen, self.flipped = wanted, [], ""

    def here(self, node: ast.AST) -> bool:
        self.seen.append(node)
        return self.wanted == len(self.seen) - 1

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if any(name in node.name for name in LEFT_ALONE):
            return node
        node.body = [self.visit(it) for it in node.body]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node  # configurations and states: values, no equations

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        return node if node.arg == "axis" else self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        node.value = self.visit(node.value)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        node = ast.BinOp(self.visit(node.left), node.op, self.visit(node.right), lineno=node.lineno)
        if type(node.op) in OPERATORS and self.here(node):
            node.op = OPERATORS[type(node.op)]
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        node.operand = self.visit(node.operand)
        return node.operand if isinstance(node.op, ast.USub) and self.here(node) else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if type(node.ops[0]) in COMPARISONS and self.here(node):
            node.ops[0] = COMPARISONS[type(node.ops[0])]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr in NAMES and self.here(node):
            node.attr = NAMES[node.attr]
        return node


def flips(source: str) -> list[tuple[int, str, str]]:
    """(line, what stands there, the whole module with it flipped) for each flip."""
    counter = Flips(None)
    counter.visit(ast.parse(source))
    made = []
    for index, node in enumerate(counter.seen):
        before = ast.unparse(node)
        module = ast.fix_missing_locations(Flips(index).visit(ast.parse(source)))
        made.append((node.lineno, before, ast.unparse(module)))
    return made


def default_test(module: Path) -> str:
    return f"tests/{module.parts[1]}/test_{module.stem}.py"


def main(arguments: list[str]) -> int:
    listing = "--list" in arguments
    names = [it for it in arguments if it != "--list"]
    if not names or names[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    module = Path(names[0])
    tests = names[1:] or [default_test(module)]
    mutants = flips((ROOT / module).read_text())
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="itrpo-flips-") as temporary:
        copy = Path(temporary) / "itrpo"
        ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": f"{temporary}/compiled",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]

        def passes(text: str) -> bool:
            (copy / module).write_text(text)
            return subprocess.run(command + tests, cwd=copy, env=environment, capture_output=True).returncode == 0

        if not listing and not passes((ROOT / module).read_text()):
            print(f"{', '.join(tests)} fail before anything is flipped", file=sys.stderr)
            return 2
        for line, before, text in mutants:
            survived = not listing and passes(text)
            survivors += survived
            verdict = "listed  " if listing else "SURVIVED" if survived else "noticed "
            print(f"{verdict} {module}:{line}: {before}", flush=True)
    print(f"{module}: {len(mutants)} flips, {survivors} survived")
    return min(survivors, 100)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
