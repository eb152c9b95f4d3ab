"""What MkDocs asks while it builds the site: pages from outside of docs/, the generated reference, formulas as MathML.

Pages of the repository link each other by their places in it, as readers on a host's pages need. Here `../X` becomes
the page or the file that the site has of X.
"""

from __future__ import annotations

import ast
import contextlib
import html
import io
import json
import os
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
STARTS = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PARTS = (  # what an algorithm of one's own is made from
    "types", "ranges", "policy", "results.store", "results.frames", "nn.actors", "nn.critics", "nn.trainable", "ops.td",
    "ops.distributions", "ops.divergences", "ops.policy_losses", "ops.pessimism", "algorithms.td3",
    "algorithms.kl_actor_critic", "algorithms.soft_actor_critic",
)  # fmt: skip


# --- links ---------------------------------------------------------------------------------------------------------


def place(page: str) -> str:
    """Where a page of the site stands in the repository."""
    return page if (ROOT / page).exists() and not (ROOT / "docs" / page).exists() else f"docs/{page}"


def target(page: str, link: str) -> str | None:
    """The place in the repository that a relative link means; None for the web's."""
    if "://" in link or link.startswith("mailto:"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(place(page)), link))


def of_site(path: str) -> str:
    """A place in the repository -> the site's."""
    if (ROOT / path).is_dir():
        path += "/README.md"
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def on_page_markdown(markdown, page, config, files):
    here = posixpath.dirname(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        before, link, anchor, after = found.groups()
        aim = target(page.file.src_uri, link)
        return f"{before}{posixpath.relpath(of_site(aim), here or '.')}{anchor or ''}{after}" if aim else found[0]

    parts = re.split(r"(```.*?```)", markdown, flags=re.DOTALL)  # every other one is code
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def on_files(files, config):
    """Adds what pages link outside of docs/, as far as links lead, and the reference."""
    for name in ("site.css", "iframe-worker.js"):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / "docs" / "site" / name)))
    for name, text in reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    waiting = [
        *STARTS,
        *(file.src_uri for file in files.documentation_pages() if not file.src_uri.startswith("reference/")),
    ]
    seen = set[str]()
    while waiting:
        page = waiting.pop()
        path = ROOT / place(page)
        if page in seen or not path.is_file():
            continue
        seen.add(page)
        if files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, abs_src_path=str(path)))
        if page.endswith(".md"):
            aims = {target(page, link) for _, link, _, _ in LINK.findall(path.read_text("utf-8"))}
            waiting += [of_site(aim) for aim in aims if aim and not aim.startswith("docs/")]
    return files


# --- formulas ------------------------------------------------------------------------------------------------------


def on_page_content(content, page, config, files):
    return FORMULA.sub(formula, content)


def formula(found: re.Match[str]) -> str:
    text = html.unescape(found[2]).replace(r"\arg\m", r"\operatorname{arg}\,\m")  # what the converter does not know
    tag = re.search(r"\\tag\{(.*?)\}", text)
    drawn = convert(text.replace(tag[0], "") if tag else text, display="block" if found[1] == "div" else "inline")
    number = f'<span class="tag">({tag[1]})</span>' if tag else ""
    return f'<{found[1]} class="formula">{drawn}{number}</{found[1]}>'


# --- reference -----------------------------------------------------------------------------------------------------


def reference() -> dict[str, str]:
    return {"python": python(), "commands": commands(), "algorithms": algorithms(), "parts": parts()}


def public() -> dict[str, str]:
    """The public names of `itrpo`, and the module that each is defined in."""
    tree = ast.parse((ROOT / "itrpo" / "__init__.py").read_text("utf-8"))
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(values["_HOMES"])


def python() -> str:
    """Every public name of `itrpo`, from where it is defined."""
    homes = public()
    functions = sorted(homes, key=lambda name: (name[0].isupper(), name))
    lines = ["# Python", "", "The public names of `itrpo`. Shapes, units and errors stand in the texts.", ""]
    for name in functions:
        lines += [f"::: {homes[name]}.{name}", "    options: {heading_level: 2}", ""]
    return "\n".join(lines)


def parts() -> str:
    lines = ["# For algorithms of your own", "", "What [an algorithm of your own](../extending.md) is made from.", ""]
    for module in PARTS:
        shown = [name for name, home in public().items() if home == f"itrpo.{module}"]  # on the page of Python
        here = ["!^_", *(f"!^{name}$" for name in shown)]
        options = f"{{heading_level: 2, show_root_full_path: true, filters: {json.dumps(here)}}}"
        lines += [f"::: itrpo.{module}", f"    options: {options}", ""]
    return "\n".join(lines)


def commands() -> str:
    """What `--help` prints, of every command."""
    from itrpo import cli

    os.environ["COLUMNS"] = "100"
    lines = ["# Command line", "", "```text", cli.USAGE, "```", ""]
    for name in cli.COMMANDS:
        page = io.StringIO()
        with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
            cli.main([*name.split(), "--help"])
        lines += [f"## itrpo {name}", "", "```text", page.getvalue().strip(), "```", ""]
    return "\n".join(lines)


def algorithms() -> str:
    """Of every algorithm the page of its module, its presets and its fields with their comments."""
    from itrpo import registry
    from itrpo.config import descriptions, leaves, shown

    lines = ["# Algorithms", ""]
    for name, home in registry.ALGORITHMS.items():
        entry = registry.algorithm(name)
        module = home.partition(":")[0]
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8"))
        meanings = descriptions(entry.config)
        default = entry.presets[entry.default_preset].config
        lines += [f"## {name}", "", "```text", ast.get_docstring(tree) or "", "```", ""]
        lines += [
            f"Presets: {', '.join(f'`{it}`' for it in entry.presets)}. Values below are of `{entry.default_preset}`.",
            "",
        ]
        lines += ["| field | value | meaning |", "| --- | --- | --- |"]
        for field, _, value in leaves(default):
            lines.append(
                f"| `{field}` | `{shown(value)}` | {html.escape(meanings[field]).replace('|', chr(92) + '|')} |"
            )
        lines.append("")
    return "\n".join(lines)
