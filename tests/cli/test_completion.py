"""What Tab does in bash, zsh and fish: each shell is started, and the line is typed."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config"],
}
FIRST = {"zsh": "autoload -Uz compinit; compinit -u -D\n"}
"""What a user's own start-up file has of it."""

TYPED = [
    ("eval", "evaluate"),
    ("train --predictor fix", "fixed-random"),
    ("train --preset mnist-5k-", "mnist-5k-resnet10t"),
    ("train --stop", "--stop-on-collapse"),
    ("ablate five", "five-parts"),
    ("show optim.clip", "optim.clip_norm"),
    ("look my", "my\\ run"),
    ("train --backbone timm:vgg11_", "timm:vgg11_bn"),
]
"""The line up to Tab, and the word that its last one becomes."""


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


def documented(shell: str) -> str:
    """The line of the reference that switches it on."""
    text = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()
    (line,) = re.findall(rf"^\| {shell} \| `` (.+?) `` \|", text, re.MULTILINE)
    return line.replace("\\|", "|")


@pytest.fixture
def home(install_plugins, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds the command, in a folder with one run in it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "simsiam-zoo"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m simsiam_zoo "$@"\n')
    command.chmod(0o755)
    (tmp_path / "my run").mkdir()
    env = install_plugins() | {"HOME": str(tmp_path), "TERM": "dumb", "PS1": "> "}
    return env | {"PATH": f"{programs}{os.pathsep}{env['PATH']}"}


def seen(screen: int, until: str, seconds: float = 60.0) -> str:
    """What a shell writes up to `until`, without control codes."""
    text, end = b"", time.monotonic() + seconds
    plain = ""
    while until not in plain and time.monotonic() < end:
        if select.select([screen], [], [], 0.2)[0]:
            text += os.read(screen, 65536)
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x07|\x1b[=>]", "", text.decode(errors="replace"))
        plain = plain.replace("\x08", "")
    return plain


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_completes_what_was_typed(shell: str, home, tmp_path: Path) -> None:
    needs(shell)
    parent, child = pty.openpty()
    keys = os.fdopen(os.dup(parent), "w")

    def type_in(text: str) -> None:
        keys.write(text)
        keys.flush()

    begin = {"cwd": tmp_path, "env": home, "start_new_session": True}
    with subprocess.Popen(SHELLS[shell], stdin=child, stdout=child, stderr=child, **begin) as run:
        os.close(child)
        try:
            type_in(f"{FIRST.get(shell, '')}{documented(shell)}; echo re''ady\n")
            assert "ready" in seen(parent, "ready")
            for line, word in TYPED:
                type_in(f"simsiam-zoo {line}\t")
                shown = seen(parent, f"{word} " if word != "my\\ run" else word)
                assert word in shown, (line, shown)
                type_in("\x15")  # clears the line
        finally:
            run.kill()
            keys.close()
            os.close(parent)


def test_fish_completes_what_was_typed(home, tmp_path: Path) -> None:
    needs("fish")
    for line, word in TYPED:
        asked = f"{documented('fish')}; complete -C 'simsiam-zoo {line}'"
        run = subprocess.run(
            [*SHELLS["fish"], "-c", asked], env=home, cwd=tmp_path, capture_output=True, text=True
        )
        offered = [each.split("\t")[0].rstrip("/") for each in run.stdout.splitlines()]
        assert word in offered or word.replace("\\ ", " ") in offered, (line, run)
