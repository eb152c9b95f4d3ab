"""From a YAML plan to an ordered list of runs, with every mistake in it found before anything runs.

Datasets are outer, arms inner, seeds inside a run: a plan that is interrupted at a third has every arm on a third of
its datasets, and only arms on the same data can be compared. All arms of a dataset also share its file in memory and
the fit of pi_beta in the cache. The format: docs/sweeps.md.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from itrpo import registry
from itrpo.config import checked, leaves, shown
from itrpo.data import sources
from itrpo.data.load import dataset_names
from itrpo.data.minari_ids import PREFIX as MINARI
from itrpo.data.ogbench_names import PREFIX as OGBENCH
from itrpo.errors import InputError
from itrpo.evaluation.environments import is_allowed
from itrpo.options import SCALES, RunOptions, Scale
from itrpo.ranges import check_ranges
from itrpo.registry import nearest
from itrpo.training.configure import AlgorithmSetup, check_options, setup_from

SHIPPED = Path(__file__).parent / "plans"
PLAN = ("name", "title", "datasets", "arms", "options", "datasets_options", "scales")
ARM = ("algorithm", "title", "options", "fields", "grid")
BY_DATASET = ("options", "fields")
BY_SCALE = ("datasets", "arms")  # and the options
OPTIONS = {name: kind for name, kind, _ in leaves(RunOptions()) if name not in ("scale", "out")}
MOST_VALUES = 100_000  # of a plan
LABEL = re.compile(r"\w[\w.,=+-]*")
OWN_SCALE = "laptop"  # the one that a plan's `options` are of


class Arm(NamedTuple):
    """One column of a table: an algorithm and what is different about it."""

    label: str
    algorithm: str
    title: str
    options: dict[str, Any]
    fields: dict[str, Any]
    chosen: dict[str, Any]  # fields that a grid chose; stronger than those by dataset


class PlannedRun(NamedTuple):
    label: str
    dataset: str  # name or path, as `itrpo train` takes it
    folder: str  # DATASET/LABEL
    algorithm: str
    options: RunOptions
    fields: dict[str, Any]
    setup: AlgorithmSetup  # the constants that follow from these, before any data are read


class Plan(NamedTuple):
    name: str
    title: str
    scale: str
    arms: dict[str, Arm]  # by label, grids opened
    runs: tuple[PlannedRun, ...]


def shipped_plans() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def plan_file(plan: str) -> Path:
    """The file of a shipped plan, or of a path. Raises InputError."""
    if plan in shipped_plans():
        return SHIPPED / f"{plan}.yaml"
    path = Path(plan).expanduser()
    if path.is_file():
        return path
    known = shipped_plans()
    raise InputError(f"no plan {plan!r}{nearest(plan, known)}: give a YAML file, or one of {', '.join(known)}")


def read_plan(plan: str, scale: str = OWN_SCALE) -> Plan:
    """A shipped plan or a file, for a scale. Raises InputError naming the file and the field."""
    path = plan_file(plan)
    file = path.name if path.parent == SHIPPED else str(path)
    content = mapping(parsed(path, file), file, PLAN)
    scales = mapping(content.get("scales"), f"{file}: scales", SCALES)
    here = f"{file}: scales.{scale}"
    of_scale = mapping(scales.get(scale), here, (*BY_SCALE, *OPTIONS))
    datasets = folders(content | {name: of_scale[name] for name in ("datasets",) if name in of_scale}, file)
    replaced = options_of({name: value for name, value in of_scale.items() if name not in BY_SCALE}, here)
    dropped = Scale._fields if scale != OWN_SCALE and scale not in scales else ()
    listed = mapping(content.get("arms"), f"{file}: arms")
    if not listed:
        raise InputError(f"{file}: arms: a plan needs at least one, such as 'itrpo: {{}}'")
    entries = [(label, value, f"{file}: arms.{label}") for label, value in listed.items()]
    for label, value in mapping(of_scale.get("arms"), f"{here}.arms", listed).items():
        entries[list(listed).index(label)] = (label, value, f"{here}.arms.{label}")
    arms = dict[str, Arm]()
    for arm in itertools.chain.from_iterable(itertools.starmap(opened, entries)):
        if arm.label in arms:
            raise InputError(f"{file}: arms: two are called {arm.label!r}; a grid adds -FIELD=VALUE to its label")
        arms[arm.label] = arm
    shared = options_of(content.get("options"), f"{file}: options")
    by_dataset = patterns(content.get("datasets_options"), arms, f"{file}: datasets_options")
    runs: list[PlannedRun] = []
    for dataset, folder in datasets.items():
        special = [value for pattern, value in by_dataset.items() if fnmatchcase(folder, pattern)]
        by_algorithm = {
            name: merged(it["fields"].get(name, {}) for it in special) for name in registry.algorithm_names()
        }
        for arm in arms.values():
            options = shared | merged(it["options"] for it in special) | arm.options | replaced
            kept = {name: value for name, value in options.items() if name not in dropped}
            fields = (
                (by_algorithm[arm.algorithm] if arm.algorithm != arm.label else {})
                | arm.fields
                | merged(it["fields"].get(arm.label, {}) for it in special)
                | arm.chosen
            )
            with in_file(f"{file}: arms.{arm.label} on {dataset}"):
                runs.append(planned(arm, dataset, folder, RunOptions(scale=scale, **kept), fields, by_algorithm))  # pyright: ignore[reportArgumentType]
    name = checked(content.get("name", path.stem), str, f"{file}: name")
    if not LABEL.fullmatch(name):
        raise InputError(f"{file}: name: it names a folder: letters, digits and _ . , = + -, not {name!r}")
    title = checked(content.get("title", name), str, f"{file}: title")
    return Plan(name, title, scale, arms, tuple(runs))


def planned(
    arm: Arm, dataset: str, folder: str, options: RunOptions, fields: dict[str, Any], here: Mapping[str, dict[str, Any]]
) -> PlannedRun:
    options = check_options(options, dataset)
    fields = with_alpha(arm.algorithm, options, fields, here)
    setup = setup_from(arm.algorithm, options, fields)
    options = replace(options, preset=setup.preset)
    return PlannedRun(arm.label, dataset, f"{folder}/{arm.label}", arm.algorithm, options, fields, setup)


def with_alpha(
    algorithm: str, options: RunOptions, fields: dict[str, Any], here: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """`lambda` as alpha = lambda / (1 - tau), to twelve digits; tau is 0 where the algorithm has none.

    The name of an algorithm stands for that algorithm's lambda = alpha (1 - tau), with the same options and its fields
    on this dataset (`here`: algorithm -> fields); where its alpha adapts, for the D_KL that it holds as well.
    """
    if "lambda" not in fields:
        return fields
    others = {name: value for name, value in fields.items() if name != "lambda"}
    if "alpha" in others:
        raise InputError("lambda sets alpha = lambda / (1 - tau); give one of the two")

    def constants_of(name: str, own: dict[str, Any]) -> dict[str, Any]:
        return {field: value for field, _, value in leaves(setup_from(name, options, own).algorithm_config)}

    value = fields["lambda"]
    if isinstance(value, str):
        own = here.get(value, {})
        if isinstance(own.get("lambda"), str):
            raise InputError(f"lambda: {value} has that of {own['lambda']} here: give a number")
        theirs = constants_of(value, with_alpha(value, options, own, here))
        if "alpha" not in theirs:
            raise InputError(f"lambda: algorithm {value} has no alpha")
        value = theirs["alpha"] * (1 - theirs.get("tau", 0.0))
        same = ("alpha_scale", "divergence_target")
        others |= {name: theirs[name] for name in same if name in theirs and name not in others}
    known = constants_of(algorithm, others)
    tau = known.get("tau", 0.0)
    if "alpha" not in known:
        raise InputError(f"algorithm {algorithm} has no alpha, so it has no lambda = alpha (1 - tau)")
    if tau >= 1:
        raise InputError("lambda = alpha (1 - tau) is 0 for tau = 1; give alpha")
    return others | {"alpha": float(f"{checked(value, float, 'lambda') / (1 - tau):.12g}")}


# --- the parts of the file -----------------------------------------------------------------------------------------


def folders(content: Mapping[str, Any], file: str) -> dict[str, str]:
    """Dataset -> its folder's name, which is the dataset's."""
    names = checked(content.get("datasets", ()), tuple[str, ...], f"{file}: datasets")
    if not names:
        raise InputError(f"{file}: datasets: a plan needs at least one name or path (`itrpo datasets list`)")
    found = {name: folder_of(name, f"{file}: datasets") for name in names}
    if len(found) < len(names) or len(set(found.values())) < len(names):
        twice = next(it for it in names if [found[name] for name in names].count(found[it]) > 1)
        raise InputError(f"{file}: datasets: {twice!r} is there twice, or another has its name")
    return found


def folder_of(dataset: str, where: str) -> str:
    if dataset in dataset_names():
        return dataset
    if dataset.startswith(MINARI):
        return dataset.removeprefix(MINARI).replace("/", "-")
    if dataset.startswith(OGBENCH):
        return dataset.removeprefix(OGBENCH)
    path = Path(dataset).expanduser()
    if glob.has_magic(dataset) and not path.exists():
        with in_file(where):
            return sources.label(sources.matching(dataset))
    if not path.exists():
        raise InputError(
            f"{where}: {dataset!r} is neither a dataset's name{nearest(dataset, dataset_names())} nor a file that is "
            "there; `itrpo datasets list` shows all names"
        )
    return path.stem if path.is_file() else path.name


def opened(label: str, value: Any, where: str) -> Iterator[Arm]:
    """The arms that an entry stands for: one, or one per element of its grid's product."""
    entry = mapping(value, where, ARM)
    if not LABEL.fullmatch(label):
        raise InputError(f"{where}: a label names a folder: letters, digits and _ . , = + -, not {label!r}")
    algorithm = checked(entry.get("algorithm", label), str, f"{where}.algorithm")
    if ":" in algorithm:
        raise InputError(f"{where}.algorithm: a plan takes algorithms that go by name, not MODULE:ENTRY")
    with in_file(f"{where}.algorithm"):
        registry.algorithm(algorithm)
    title = checked(entry.get("title", label), str, f"{where}.title")
    options = options_of(entry.get("options"), f"{where}.options")
    fields = mapping(entry.get("fields"), f"{where}.fields")
    grid = mapping(entry.get("grid"), f"{where}.grid")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}.grid.{name} must be a list with at least one value, got {values!r}")
        if name in fields:
            raise InputError(f"{where}.grid.{name} is given as a field, too")
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        suffix = "".join(f"-{name}={shown(tuple(it) if isinstance(it, list) else it)}" for name, it in chosen.items())
        yield Arm(label + suffix, algorithm, title + suffix.replace("-", " ", 1), options, fields, chosen)


def patterns(value: Any, arms: Mapping[str, Arm], where: str) -> dict[str, dict[str, Any]]:
    """Pattern of datasets' names -> options, and fields by algorithm or label."""
    found = dict[str, dict[str, Any]]()
    known = {*arms, *(arm.algorithm for arm in arms.values())}
    for pattern, entry in mapping(value, where).items():
        here = mapping(entry, f"{where}.{pattern}", BY_DATASET)
        fields = mapping(here.get("fields"), f"{where}.{pattern}.fields", known)
        found[pattern] = {
            "options": options_of(here.get("options"), f"{where}.{pattern}.options"),
            "fields": {name: mapping(it, f"{where}.{pattern}.fields.{name}") for name, it in fields.items()},
        }
    return found


def options_of(value: Any, where: str) -> dict[str, Any]:
    given = {
        name: checked(hinted(it), OPTIONS[name], f"{where}.{name}")
        for name, it in mapping(value, where, OPTIONS).items()
    }
    with in_file(where):
        check_ranges(RunOptions(**given))
    env = given.get("env")
    if env and not is_allowed(env):
        raise InputError(
            f"{where}.env: a plan is a file, and a module is imported only if you name it yourself: if you trust it, "
            f"give itrpo sweep ... --env {env}"
        )
    return given


def hinted(value: Any) -> Any:
    """YAML takes 1e6 for text, and only 1.0e+6 for a number: here both are one."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return [hinted(it) for it in value] if isinstance(value, list) else value


def mapping(value: Any, where: str, known: Iterable[str] | None = None) -> dict[str, Any]:
    """`value` as a mapping from names, of `known` ones; nothing is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{where} must be a mapping from names, got {value!r}")
    names = None if known is None else list(known)
    for name in value:
        if names is not None and name not in names:
            raise InputError(f"{where}: unknown name {name!r}{nearest(name, names)}; known: {', '.join(names)}")
    return {name: hinted(it) for name, it in value.items()}


def merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


@contextmanager
def in_file(where: str) -> Generator[None]:
    """An InputError in the block names where it comes from."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def parsed(path: Path, file: str) -> Any:
    """The file's content. YAML lets a later key replace an earlier one without a word: here that is an error."""
    try:
        text = path.read_text("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if written_out(node, {}) > MOST_VALUES:
            raise InputError(
                f"{file}: with each *name written out it has more than {MOST_VALUES:,} values; no plan does"
            )
        refuse_doubles(node, file, set())
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{file}: can't be read as YAML: {error}") from error


def written_out(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many values it has where each *name stands for all that it names; too many in a node that holds itself."""
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [it for pair in node.value for it in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[id(node)] = 1 + sum(written_out(it, known) for it in inner)
    return known[id(node)]


def refuse_doubles(node: yaml.Node | None, file: str, seen: set[int]) -> None:
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, inner in node.value:
            if isinstance(key, yaml.ScalarNode) and keys.count(key.value) > 1:
                raise InputError(f"{file}, line {key.start_mark.line + 1}: {key.value!r} is there twice in one mapping")
            refuse_doubles(inner, file, seen)
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            refuse_doubles(inner, file, seen)
