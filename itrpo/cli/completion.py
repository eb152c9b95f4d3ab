"""The command that prints a shell's completion: commands, flags, and the values that a flag chooses from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin

from itrpo import registry
from itrpo.cli.flags import Word, flags_of
from itrpo.config import alternatives

if TYPE_CHECKING:
    from rich.console import Console

SCRIPT = """\
_itrpo() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" offered=""
    case "${{COMP_WORDS[*]:1:$((COMP_CWORD-1))}} " in
{cases}
    esac
    case "$before" in
{values}
    esac
    COMPREPLY=($(compgen -W "$offered" -- "$word"))
}}
complete -o default -F _itrpo itrpo"""

ZSH = """\
(( $+functions[compdef] )) || { autoload -U compinit && compinit; }
autoload -U +X bashcompinit && bashcompinit
"""


@dataclass(frozen=True)
class Completion:
    """Print what completes `itrpo` in a shell. In ~/.bashrc: eval "$(itrpo completion bash)". Fields of algorithms are
    not completed: `itrpo algorithms NAME` lists them.
    """

    shell: Annotated[Literal["bash", "zsh"], Word("SHELL")]  # which one


def completion(command: Completion, console: Console) -> None:
    from itrpo.cli import COMMANDS

    print((ZSH if command.shell == "zsh" else "") + script({name: entry.kind for name, entry in COMMANDS.items()}))


def script(commands: dict[str, type]) -> str:
    """The function of bash. Of several commands that fit, the one with most words comes first."""
    cases, values = list[str](), {"--algorithm": set(registry.ALGORITHMS)}
    for name in sorted(commands, key=lambda name: -len(name.split())):
        flags = [flag for flag in flags_of(commands[name]) if flag.metavar is None]
        names = registry.GENERATED_DATASETS if name in ("train", "compare", "datasets info", "datasets make") else ()
        below = [other.split()[1] for other in commands if other.startswith(f"{name} ")]
        words = [*below, *names, *(flag.text for flag in flags), "--help"]
        cases.append(f'        "{name} "*) offered="{" ".join(words)}" ;;')
        for flag in flags:
            for kind in alternatives(flag.kind):
                chosen = get_args(kind) if get_origin(kind) is Literal else ()
                values.setdefault(flag.text, set()).update(map(str, chosen))
    groups = {name.split()[0] for name in commands if " " in name} - set(commands)
    for group in sorted(groups):
        words = [name.split()[1] for name in commands if name.startswith(f"{group} ")]
        cases.append(f'        "{group} ") offered="{" ".join(words)}" ;;')
    cases.append(f'        " ") offered="{" ".join(sorted({name.split()[0] for name in commands}))}" ;;')
    chosen = [f'        {flag}) offered="{" ".join(sorted(words))}" ;;' for flag, words in values.items() if words]
    return SCRIPT.format(cases="\n".join(cases), values="\n".join(chosen))
