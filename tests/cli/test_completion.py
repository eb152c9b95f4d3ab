"""What `itrpo completion bash` prints, asked by a real bash."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from itrpo import cli
from itrpo.cli.completion import script

SCRIPT = script({name: command.kind for name, command in cli.COMMANDS.items()})


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("itrpo tra", ["train"]),
        ("itrpo datasets ch", ["check"]),
        ("itrpo datasets check --dis", []),
        ("itrpo train --algorithm td3", ["td3_bc"]),
        ("itrpo train x --scale la", ["laptop"]),
        ("itrpo train hopper-de", ["hopper-demo"]),
        ("itrpo train x --holdo", ["--holdout"]),
        ("itrpo sac re", ["replay"]),
        ("itrpo sac replay --help", ["--help"]),
        ("itrpo runs sho", ["show"]),
    ],
)
def test_bash_completes(line, offered):
    words = line.split()
    ask = f'COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _itrpo; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-uc", f"{SCRIPT}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered


def test_every_command_is_offered(capsys):
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == SCRIPT + "\n"
    for name in cli.COMMANDS:
        assert f'"{name} "*)' in SCRIPT
    assert cli.main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("autoload -U +X bashcompinit")
