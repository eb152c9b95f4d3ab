"""Pages that name code or tests name what is there; links lead somewhere; commands and Python are such; the picture of
the house is the house."""

from __future__ import annotations

import ast
import importlib
import posixpath
import re
import shlex
from pathlib import Path

import pytest

from itrpo import cli
from itrpo.cli.flags import flags_of
from itrpo.sweep.plan import read_plan
from tests.test_imports import imports, modules

REPOSITORY = Path(__file__).parents[1]
DOTTED = re.compile(r"`([a-z_]\w*(?:\.\w+)+)`")
TEST = re.compile(r"`(tests/[\w/]+)(\.py)?(?:::(\w+))?(?:\.\.\.)?`")


def found(dotted: str) -> object | None:
    """What `part.module.name` names below `itrpo`, or None."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(["itrpo", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            value = getattr(value, name, None)
        return value
    return None


def unknown_names(page: str) -> list[str]:
    """Functions that a table's third column names and that aren't there; `a.f`, `g` is a.f and a.g."""
    missing = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("| ") or len(cells) != 4 or not DOTTED.search(cells[2]):
            continue
        module = ""
        for name in re.findall(r"`([\w.]+)`", cells[2]):
            if "." in name:
                module = name.rpartition(".")[0]
            dotted = name if "." in name else f"{module}.{name}"
            if found(dotted) is None:
                missing.append(dotted)
    return missing


def unknown_tests(page: str) -> list[str]:
    missing = []
    for path, ending, name in TEST.findall(page):
        file = REPOSITORY / f"{path}{ending}"
        if not file.exists() or (name and name not in file.read_text("utf-8")):
            missing.append(f"{path}{ending}::{name}")
    return missing


# --- links, commands, Python ------------------------------------------------------------------------------------------

PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text("utf-8")
    for folder in (REPOSITORY, REPOSITORY / "docs", REPOSITORY / "benchmarks")
    for path in (folder.glob("*.md") if folder == REPOSITORY else folder.rglob("*.md"))
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


def anchors(page: str) -> set[str]:
    """As hosts and the site make them from headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "]", heading)) for heading in headings]
    return {"#" + heading.strip().lower().replace(" ", "-") for heading in plain}


def broken_links(name: str, page: str) -> list[str]:
    broken = []
    for link, anchor in LINK.findall(BLOCK.sub("", page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        aim = posixpath.normpath(posixpath.join(posixpath.dirname(name), link)) if link else name
        there = (REPOSITORY / aim).exists()
        if not there or (anchor and aim.endswith(".md") and anchor not in anchors(PAGES.get(aim, page))):
            broken.append(link + anchor)
    return broken


def commands(page: str) -> list[str]:
    """The lines of blocks that call itrpo, continued ones joined, those of `srun` too, and the block's own $NAMES
    written out."""
    indented = INDENTED.findall(BLOCK.sub("", page))
    lines = [
        line for block in [it for _, it in BLOCK.findall(page)] + indented for line in written_out(block).split("\n")
    ]
    return [line[starts.end() :].strip() for line in lines if (starts := CALL.match(line))]


CALL = re.compile(r"\s*(?:srun .*)?(?=itrpo )")
INDENTED = re.compile(r"^ {4}itrpo (?:.*\\\n)*.*$", re.MULTILINE)  # no block between fences, but shown as one


def written_out(block: str) -> str:
    """Of a block of commands: continued lines joined, its own $NAMES written out."""
    for name, value in re.findall(r'^(\w+)="([^"$]*)"$', block, re.MULTILINE):
        block = re.sub(rf"\${name}\b", value, block)
    return block.replace("\\\n", " ")


def mentions(page: str) -> list[str]:
    """What the text calls by `itrpo COMMAND ...`, outside of blocks."""
    return [" ".join(it.split()) for it in re.findall(r"`(itrpo [^`]+)`", BLOCK.sub("", page))]


def unknown_flags(mention: str) -> list[str]:
    """Flags that the command of a mention lacks; of one that isn't there, its words. What values flags need, and which
    words are missing, is no matter: a mention need not be whole."""
    words = mention.split()[1:]
    if words[0].startswith("-"):
        return []
    try:
        name, rest = cli.find_command([word for word in words if word != "COMMAND"])
    except cli.ItrpoError:
        return words
    command = cli.COMMANDS[name]
    try:
        fields = command.fields(rest)
    except cli.ItrpoError:  # NAME, and flags without values
        fields = command.fields([])
    known = {flag.text for flag in (*flags_of(command.kind), *fields)} | {"--help"}
    return [word for word in rest if word.startswith("--") and word not in known]


def problem(line: str) -> str | None:
    """Why the command line would not take a line, or None. It does not run; of a line with `...`, $NAME or NAME, which
    stand for words, only the command is looked for."""
    words = shlex.split(line, comments=True)[1:]
    words = words[: next((index for index, word in enumerate(words) if word in ("|", ">", "&&", "&")), None)]
    if any(word == "..." or word.startswith("$") or (word.isupper() and word.isalpha()) for word in words):
        words = [*cli.find_command(words)[0].split(), "--help"]
    try:
        name, rest = cli.find_command(words)
        command = cli.read_command(name, rest)
    except SystemExit as stop:  # --help
        return None if stop.code == 0 else line
    except cli.ItrpoError as error:
        return str(error)
    return None if isinstance(command, cli.COMMANDS[name].kind) else line


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    assert broken_links(name, PAGES[name]) == []


@pytest.mark.parametrize("name", [name for name in PAGES if commands(PAGES[name])])
def test_commands_parse(name, monkeypatch, tmp_path):
    """In a folder with the files of the page that a command reads while it is parsed: its TOML, and a module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    columns = 'observations = ["temp"]\nactions = "valve"\nrewards = "cost"\nterminals = "none"\n'
    for file in re.findall(r"--columns (\S+\.toml)", PAGES[name]):
        (tmp_path / file).write_text(columns)
    for language, block in BLOCK.findall(PAGES[name]):
        if language == "python" and "AlgorithmEntry(" in block:
            (tmp_path / "crr.py").write_text(block)
    assert {line: why for line in commands(PAGES[name]) if (why := problem(line))} == {}


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])  # which may name what is gone
def test_commands_that_the_text_mentions_have_these_flags(name):
    assert {it: flags for it in mentions(PAGES[name]) if (flags := unknown_flags(it))} == {}


def test_targets_of_make_are_there():
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE))
    lines = [line for page in PAGES.values() for _, block in BLOCK.findall(page) for line in block.splitlines()]
    lines += [it for page in PAGES.values() for it in re.findall(r"`(make [^`]+)`", BLOCK.sub("", page))]
    named = {line.split()[1] for line in lines if re.match(r"make [a-z]", line)}
    assert len(named) > 5
    assert named - targets == set()


SCRIPT = re.compile(r"python (?:((?:benchmarks|tests|docs)/[\w/]+\.py)|-m ((?:benchmarks|tests)[\w.]+))")


def test_files_that_commands_name_are_there():
    """`python benchmarks/x.py`, `python -m benchmarks.x`."""
    missing = []
    for name, page in PAGES.items():
        if name == "CHANGELOG.md" or name.startswith("benchmarks/results/"):  # as it was when it was measured
            continue
        for file, module in re.findall(
            r"python (?:((?:benchmarks|tests|docs)/[\w/]+\.py)|-m ((?:benchmarks|tests)[\w.]+))", page
        ):
            path = REPOSITORY / (file or module.replace(".", "/"))
            if not (path.is_file() or path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
                missing.append((name, file or module))
    assert missing == []


def test_the_plan_in_sweeps_md_is_a_plan(tmp_path, monkeypatch):
    (block,) = (block for language, block in BLOCK.findall(PAGES["docs/sweeps.md"]) if language == "yaml")
    (tmp_path / "mine.yaml").write_text(block)
    (tmp_path / "mylog.npz").touch()
    monkeypatch.chdir(tmp_path)
    plan = read_plan(str(tmp_path / "mine.yaml"))
    assert set(plan.arms) == {
        "itrpo",
        "brac",
        "uwac",
        *(f"grid-lambda={it}-tau={t}" for it in (0.03, 0.1) for t in (0.0, 0.9)),
    }
    assert len(plan.runs) == 2 * 7
    for scale in ("smoke", "paper"):
        read_plan(str(tmp_path / "mine.yaml"), scale)


@pytest.mark.parametrize("name", PAGES)
def test_python_is_python(name):
    for language, block in BLOCK.findall(PAGES[name]):
        if language == "python":
            compile(block, name, "exec")


def test_what_leads_nowhere_is_noticed():
    assert broken_links("docs/theory.md", "[a](errate.md) [b](errata.md) [c](errata.md#no-such)") == [
        "errate.md",
        "errata.md#no-such",
    ]
    assert problem("itrpo trian x") is not None
    assert problem("itrpo train x --stepz 3") is not None
    assert problem("itrpo train x --steps 3 | tee log") is None
    assert unknown_flags("itrpo finetune --refit-ratez 1e-4") == ["--refit-ratez"]
    assert unknown_flags("itrpo datasets infos x") != []
    assert unknown_flags("itrpo finetune --refit-rate 1e-4") == []
    assert commands('```sh\nF="--stepz 3"\nsrun -n 1 \\\n  itrpo train x $F\n```\n') == ["itrpo train x --stepz 3"]


EQUATIONS = (REPOSITORY / "docs" / "equations.md").read_text("utf-8")
REPORTS = (REPOSITORY / "docs" / "decisions" / "0007-public-reports.md").read_text("utf-8")


def test_every_equation_names_a_function_and_a_test_that_are_there():
    assert unknown_names(EQUATIONS) == []
    assert unknown_tests(EQUATIONS) == []


def test_every_public_report_names_a_test_that_is_there():
    rows = [line for line in REPORTS.splitlines() if line.startswith("| ") and "#" in line]
    assert [line for line in rows if not TEST.search(line)] == []
    assert unknown_tests(REPORTS) == []


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("| Eq. 1 | target | `ops.td.bellman_goal` | x |", ["ops.td.bellman_goal"]),
        ("| Eq. 1 | target | `ops.td.bellman_target`, `bellman_goal` | x |", ["ops.td.bellman_goal"]),
        ("| Eq. 1 | target | `ops.tables.bellman` | x |", ["ops.tables.bellman"]),
        ("| Eq. 1 | target | `ops.td.bellman_target`, `regularised_value` | x |", []),
    ],
)
def test_a_name_that_is_not_there_is_noticed(line: str, missing: list[str]):
    assert unknown_names(line) == missing


def test_a_test_that_is_not_there_is_noticed():
    assert unknown_tests("`tests/ops/test_tables.py`") == ["tests/ops/test_tables.py::"]
    assert unknown_tests("`tests/ops/test_td.py::test_none_of_that`") == ["tests/ops/test_td.py::test_none_of_that"]


# --- architecture.md -----------------------------------------------------------------------------------------------

HOUSE = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")


def floors(page: str) -> dict[str, int]:
    """part -> floor, from the table; a part that stands there twice is an error."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE)
    found = [(part, int(floor)) for floor, parts in rows for part in re.findall(r"`(\w+)`", parts)]
    assert len(dict(found)) == len(found)
    return dict(found)


def imported() -> set[tuple[str, str]]:
    """(part, other part that it imports), of all of the package."""
    pairs = set[tuple[str, str]]()
    for module, source in modules().items():
        part = module.partition(".")[0]
        names = (name.split(".") for name, _ in imports(ast.parse(source)))
        pairs |= {(part, name[1]) for name in names if name[0] == "itrpo" and len(name) > 1 and name[1] != part}
    return {(part, other) for part, other in pairs if other in {name.partition(".")[0] for name in modules()}}


def arrows(page: str) -> set[tuple[str, str]]:
    """Of the picture: `a --> b & c`. Dotted ones are no imports."""
    lines = re.findall(r"^    (\w+) --> ([\w &]+)$", page, re.MULTILINE)
    return {(part, other) for part, others in lines for other in others.split(" & ")}


def test_every_part_stands_on_one_floor_and_imports_only_from_below():
    floor = floors(HOUSE)
    assert set(floor) == {name.partition(".")[0] for name in modules()}
    assert [(part, other) for part, other in imported() if floor[part] <= floor[other]] == []


def test_every_arrow_of_the_picture_is_an_import():
    assert len(arrows(HOUSE)) > 20
    assert arrows(HOUSE) - imported() == set()


def test_the_walks_name_functions_that_are_there_and_go_down():
    floor = floors(HOUSE)
    walks = [walk for walk in HOUSE.split("## Three walks")[1].split("## ")[0].split("\nA **")[1:] if walk]
    assert len(walks) == 3
    for walk in walks:
        stops = [re.findall(r"`([\w/]+\.py):(\w+)`", line) for line in walk.splitlines() if re.match(r"\d+\. ", line)]
        for file, name in [stop for line in stops for stop in line]:
            source = ast.parse((REPOSITORY / "itrpo" / file).read_text("utf-8"))
            assert name in {node.name for node in ast.walk(source) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        levels = [floor[line[0][0].partition("/")[0].removesuffix(".py")] for line in stops]
        assert levels == sorted(levels, reverse=True)
