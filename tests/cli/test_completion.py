"""What `itrpo completion` prints, asked by a real bash, and typed into a real zsh."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from itrpo import cli
from itrpo.cli.completion import ZSH, script

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


class Zsh:
    """An interactive zsh without start-up files, on a terminal of its own."""

    def __init__(self, home: Path) -> None:
        terminal, self.keys = pty.openpty()
        self.process = subprocess.Popen(
            ["zsh", "-f", "-i"],
            stdin=self.keys,
            stdout=self.keys,
            stderr=self.keys,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "PS1": "% "},
            start_new_session=True,
        )
        self.terminal = terminal

    def type(self, keys: str, until: str, seconds: float = 20.0) -> str:
        """What it shows after these keys, up to `until`, or until the time is over."""
        os.write(self.terminal, keys.encode())
        shown, deadline = "", time.monotonic() + seconds
        while until not in shown and time.monotonic() < deadline:
            if select.select([self.terminal], [], [], 0.1)[0]:
                shown += os.read(self.terminal, 65536).decode(errors="replace")
        return shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)
        os.close(self.keys)


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_completes(tmp_path):
    (tmp_path / "completion").write_text(ZSH + SCRIPT)
    zsh = Zsh(tmp_path)
    try:
        assert "ready-1" in zsh.type("source ~/completion; echo ready-$((0+1))\n", "ready-1")
        for typed, rest in (("itrpo train x --holdo", "ut "), ("itrpo train --algorithm td3_b", "c ")):
            assert typed + rest in zsh.type(f"{typed}\t", typed + rest)
            zsh.type("\x15", "\r", 0.5)  # Ctrl-U: an empty line again
    finally:
        zsh.close()


def test_every_command_is_offered(capsys):
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == SCRIPT + "\n"
    for name in cli.COMMANDS:
        assert f'"{name} "*)' in SCRIPT
    assert cli.main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out == ZSH + SCRIPT + "\n"
