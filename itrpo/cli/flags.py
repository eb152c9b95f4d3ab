"""From a command's dataclass to flags, and with tyro from words to that dataclass.

A command's fields are its flags, or with `Word` words in their places; their comments are the help. `options` stands
for those of RunOptions, or `Only` some; `fields` takes those of an algorithm, that the command has found out itself.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Required,
    TypedDict,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro

from itrpo.config import alternatives, checked, descriptions, leaves, shown
from itrpo.errors import InputError
from itrpo.options import RunOptions, scales_in_words
from itrpo.ranges import check_ranges
from itrpo.registry import nearest

Command = TypeVar("Command")
SPELLINGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Word(NamedTuple):
    """A field that is a word in its place, not a flag."""

    metavar: str


class Only(NamedTuple):
    """The names of the options that a command takes."""

    names: tuple[str, ...]


class Flag(NamedTuple):
    name: str  # "batch_size", or "itrpo.batch_size"
    kind: Any
    meaning: str  # with what happens in brackets where it is not given
    many: bool = False  # its value may be several words
    metavar: str | None = None  # of a word; None: a flag
    required: bool = False
    switch: bool = False  # of a command: it may stand alone before any word

    @property
    def text(self) -> str:
        """As one types it."""
        return self.metavar or f"--{self.name.replace('_', '-')}"


class Refused(Exception):
    """A word that spells no value of its flag. (tyro draws boxes around ValueErrors.)"""


def allow_own(*names: str | None) -> None:
    """MODULE:NAME may lie in the current folder, which Python leaves out for an installed command."""
    if any(name and ":" in name for name in names) and "" not in sys.path:
        sys.path.append("")


# --- what flags there are ------------------------------------------------------------------------------------------


def flags_of(kind: type) -> list[Flag]:
    """The flags of a command's dataclass, in their order."""
    kinds, hints, meanings = get_type_hints(kind), get_type_hints(kind, include_extras=True), descriptions(kind)
    found: list[Flag] = []
    for field in dataclasses.fields(kind):
        name, marks = field.name, getattr(hints[field.name], "__metadata__", ())
        if name == "options":
            names = next((mark.names for mark in marks if isinstance(mark, Only)), None)
            found += [flag for flag in flags_of(kinds[name]) if names is None or flag.name in names]
        elif name != "fields":
            word = next((mark.metavar for mark in marks if isinstance(mark, Word)), None)
            required, meaning = field.default is dataclasses.MISSING, meanings[name]
            if not required and not meaning.endswith("]"):
                meaning += f" [{spelled(field.default)}]"
            many = any((get_origin(it) or it) in (tuple, Mapping) for it in alternatives(kinds[name]))
            found.append(Flag(name, kinds[name], meaning, many, word, required, kinds[name] is bool))
    return found


def field_flags(config: Any, prefix: str, source: str) -> list[Flag]:
    """Those of a config's fields. `source`: where the values come from that they have if not given."""
    meanings = descriptions(type(config))
    return [
        Flag(prefix + name, kind, f"{meanings[name]} [{source}{spelled(value)}]")
        for name, kind, value in leaves(config)
    ]


def spelled(value: Any) -> str:
    """A default as help texts show it."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else shown(value)


# --- reading words -------------------------------------------------------------------------------------------------


def read(
    command: type[Command], words: Sequence[str], prog: str, fields: Sequence[Flag] = (), hint: str = ""
) -> Command:
    """`command` with what the words say. `hint` ends the message about an unknown flag.

    Raises InputError with one sentence for words that don't fit; SystemExit where they ask for help, which is printed.
    """
    own = flags_of(command)
    names = {flag.name for flag in own}
    fields = [flag for flag in fields if flag.name not in names]
    about = inspect.getdoc(command) or ""
    if {flag.name for flag in flags_of(RunOptions)} <= names:
        about += f"\n\n{scales_in_words()}"
    given, unknown = parse([*own, *fields], words, prog, about, hint)
    if unknown:
        word = next((it for it in unknown if it.startswith("-")), unknown[0])
        if not word.startswith("-"):
            raise InputError(f"unexpected argument {word!r}; options are given as --NAME VALUE{hint}")
        raise unknown_flag(word, [*own, *fields], hint)
    members = {field.name for field in dataclasses.fields(command)}  # pyright: ignore[reportArgumentType]
    values = {name: given[name] for name in given if name in members}
    if "options" in members:
        values["options"] = get_type_hints(command)["options"](
            **{name: given[name] for name in given if name in names - members}
        )
    if "fields" in members:
        values["fields"] = {flag.name: given[flag.name] for flag in fields if flag.name in given}
    if missing := [flag for flag in own if flag.required and flag.name not in given]:
        raise InputError(needs(prog, missing))
    filled = command(**values)
    check_ranges(filled)
    return filled


def spelled_out(words: Sequence[str], flags: Sequence[Flag]) -> list[str]:
    """The words, with `true` after each flag of a truth value that stands alone."""
    truths = {flag.text: flag.switch for flag in flags if bool in alternatives(flag.kind)}
    spelled: list[str] = []
    for word, following in zip(words, [*words, "--"][1:], strict=True):
        alone = following.startswith("--") or (truths.get(word, False) and following.lower() not in SPELLINGS)
        spelled += [word, "true"] if word in truths and alone else [word]
    return spelled


def look(flags: Sequence[Flag], words: Sequence[str]) -> dict[str, Any]:
    """Name -> value of those of some flags that the words give, whatever else they say."""
    return parse([flag for flag in flags if flag.metavar is None], words, "itrpo", "", looking=True)[0]


def parse(
    flags: Sequence[Flag], words: Sequence[str], prog: str, about: str, hint: str = "", looking: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """(name -> value of the flags that are given, words that are none of them). Raises as `read` does."""
    members = {f"flag{index}": argument(flag, prog) for index, flag in enumerate(flags)}
    form = TypedDict("form", members, total=False)  # pyright: ignore[reportArgumentType]
    errors, help_page = io.StringIO(), io.StringIO()
    try:
        with redirect_stderr(errors), redirect_stdout(help_page):
            given, unknown = tyro.cli(
                form,
                prog=prog,
                description="",
                args=spelled_out(words, flags),
                return_unknown_args=True,
                add_help=not looking,
            )
    except Refused as refused:
        if not looking:
            check_known(words, flags, hint)
        raise InputError(str(refused)) from None
    except SystemExit as stop:
        if stop.code == 0:
            usage, _, rest = help_page.getvalue().partition("\n")
            flag_lines = map(str.rstrip, rest.strip().splitlines())
            print(wrapped(usage), "", *map(wrapped, paragraphs(about)), "", *flag_lines, sep="\n")
            raise
        flag = re.search(r"'(--[^']+)'", errors.getvalue())
        if flag is not None:
            raise InputError(f"{flag[1]} needs a value") from None
        wanted = [flag for flag in flags if flag.required]
        if wanted:
            check_known(words, flags, hint)
            raise InputError(needs(prog, wanted)) from None
        raise InputError(f"{prog} does not understand {' '.join(words)!r}; `{prog} --help` explains it") from None
    return {flag.name: given[f"flag{index}"] for index, flag in enumerate(flags) if f"flag{index}" in given}, unknown


def check_known(words: Sequence[str], flags: Sequence[Flag], hint: str) -> None:
    """Raises InputError for a flag that is not there, which may be why a word is missing."""
    known = {"--help", *(flag.text for flag in flags)}
    for word in words:
        if word.startswith("--") and word.partition("=")[0].replace("_", "-") not in known:
            raise unknown_flag(word, flags, hint)


def unknown_flag(word: str, flags: Sequence[Flag], hint: str) -> InputError:
    name = word.partition("=")[0]
    known = [flag.text.lstrip("-") for flag in flags if flag.metavar is None]
    close = nearest(name.lstrip("-").replace("_", "-"), known).replace("'", "'--", 1)
    return InputError(f"unknown flag {name}{close}{hint}")


def needs(prog: str, wanted: Sequence[Flag]) -> str:
    """What to give, with what it is."""
    each = " and ".join(f"{it.metavar or it.text} ({it.meaning})" for it in wanted)
    return f"{prog} needs {each}; `{prog} --help` explains it"


def paragraphs(text: str) -> list[str]:
    """Lines that belong together joined; those that begin with a flag, and empty ones, stand alone."""
    return re.sub(r"(?<=\S)\n(?=[^-\s])", " ", text).split("\n")


def wrapped(text: str) -> str:
    """As wide as the terminal, at most 120. (tyro leaves descriptions as they are.)"""
    width = min(shutil.get_terminal_size().columns, 120)
    return textwrap.fill(text, width, subsequent_indent="  " if text.startswith(("usage", "--")) else "")


def argument(flag: Flag, prog: str) -> Any:
    """What tyro calls a member of a form."""
    spec = tyro.constructors.PrimitiveConstructorSpec[Any](
        nargs="*" if flag.many else 1,
        metavar=flag.metavar or metavar(flag.kind, flag.many),
        instance_from_str=lambda words: value_of(words, flag, prog),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )
    help_text = tyro.conf.arg(
        name=None if flag.metavar else flag.name, metavar=spec.metavar, help=flag.meaning, help_behavior_hint=""
    )
    if flag.metavar is None:
        return Annotated[Any, spec, help_text]
    word = Annotated[Any, spec, tyro.conf.Positional, help_text]
    return Required[word] if flag.required else word


def metavar(kind: Any, many: bool = False) -> str:
    """INT, {true,false}, FLOAT [FLOAT ...]"""
    first = alternatives(kind)[0]
    if get_origin(first) is tuple:
        one = metavar(get_args(first)[0])
        return f"{one} [{one} ...]" if many else f"{one},..."
    if get_origin(first) is Literal:
        return f"{{{','.join(get_args(first))}}}"
    return {bool: "{true,false}", Path: "PATH", str: "TEXT", Mapping: "FIELD=COLUMN ..."}.get(
        get_origin(first) or first, getattr(first, "__name__", "").upper()
    )


def value_of(words: Sequence[str], flag: Flag, prog: str) -> Any:
    """The value that a flag's words spell. Raises Refused."""
    try:
        if not words:
            raise InputError(needs(prog, [flag]) if flag.metavar else f"{flag.text} needs a value")
        if Mapping in [get_origin(it) for it in alternatives(flag.kind)]:
            from itrpo.data.column_map import parse_columns

            return parse_columns(words)
        return checked(spelling(",".join(words), flag.kind), flag.kind, flag.text)
    except InputError as error:
        raise Refused(str(error)) from None


def spelling(text: str, kind: Any) -> Any:
    """The value that a text spells as one of type `kind`; the text itself if it spells none."""
    kinds = alternatives(kind)
    first = kinds[0]
    if get_origin(first) is tuple:
        return tuple(spelling(it.strip(), get_args(first)[0]) for it in text.strip("()[] ").split(",") if it.strip())
    if type(None) in kinds and str not in kinds and text.lower() == "none":
        return None
    if first is bool:
        return SPELLINGS.get(text.lower(), text)
    if first in (int, float):
        for number in (int, float):
            try:
                value = number(text)
            except ValueError:
                continue
            return value if first is float or value == value // 1 else text
    return text
