"""What a command does with arguments and streams that are not as one expects them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import simsiam_zoo.cli as cli
from simsiam_zoo.cli.text import columns, print_heading, print_line
from simsiam_zoo.errors import InputError

Environment = Callable[..., dict[str, str]]


def shell(line: str, env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    command = line.replace("simsiam-zoo", f"{sys.executable} -m simsiam_zoo")
    return subprocess.run(["bash", "-c", command], env=env, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("simsiam-zoo list losses >&-", 0),
        ("simsiam-zoo list losses >&- 2>&-", 0),
        ("simsiam-zoo show loss cosin 2>&-", 2),
        ("simsiam-zoo show losss 2>&-", 2),
    ],
)
def test_a_closed_stream_changes_no_exit_code(
    install_plugins: Environment, line: str, code: int
) -> None:
    done = shell(line, install_plugins())
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_a_full_disk_is_told_without_a_traceback(install_plugins: Environment) -> None:
    done = shell("simsiam-zoo list losses >/dev/full", install_plugins())
    said = b"Error: the output cannot be written: the disk is full\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("word", ["cosin", "cosine --jsn"])
def test_an_error_that_nobody_reads_keeps_its_exit_code(
    install_plugins: Environment, word: str
) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "simsiam_zoo", "show", "loss", *word.split()]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=write, env=install_plugins())
    os.close(write)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_terminal_that_cannot_show_a_sign_gets_it_as_an_escape(
    install_plugins: Environment,
) -> None:
    code = (
        "import simsiam_zoo.cli as cli\n"
        "cli.COMMANDS['say'] = ('simsiam_zoo.cli.list:list_', '→')\n"
        "cli.main(['--help'])"
    )
    env = install_plugins() | {"PYTHONIOENCODING": "latin-1", "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"\\u2192" in done.stdout


def test_an_argument_that_is_no_utf_8_is_refused_by_name(install_plugins: Environment) -> None:
    for words in ([b"inspect", b"./caf\xe9"], [b"train", b"--data", b"./caf\xe9"]):
        command = [sys.executable.encode(), b"-m", b"simsiam_zoo", *words]
        done = subprocess.run(command, env=install_plugins(), capture_output=True)
        assert done.returncode == 2
        assert "the argument './caf\N{REPLACEMENT CHARACTER}' is not UTF-8" in done.stderr.decode()


@pytest.mark.parametrize(
    "words",
    [
        ["export", "n" * 300, "--to", "timm"],
        ["import", "a.pth", "--out", "n" * 300],
        ["train", "--preset", "digits", "--out", "n" * 300],
        ["train", "--preset", "digits", "--recipe", "n" * 300],
        ["show", "loss", "n" * 300],
    ],
)
def test_a_name_of_300_characters_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 2
    told = capsys.readouterr().err.splitlines()
    if told[0].startswith(f"{'n' * 300}: preset digits"):  # `train` first says what it trains
        del told[0]
    assert told[0].startswith("Error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_control_codes_in_texts_of_others_reach_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    title = "a\x1b]0;title\x07b\x9bc\rd"
    print_line(title)
    print_heading(title)
    print_line(columns([[title, "e"]], wrap=1)[0])
    cli._tell(InputError(title, title))
    text = "".join(capsys.readouterr())
    assert "title" in text
    assert text.isprintable() or {*text} - {char for char in text if char.isprintable()} == {"\n"}


@pytest.mark.parametrize(
    ("line", "says", "never"),
    [
        ("train --weight-decay 0", "recipe are given by --set KEY=VALUE", "Did you mean"),
        ("ablate predictor --data ./x", "This one is --set dataset=VALUE here", "Did you mean"),
        ("train --epoch 3", "Did you mean '--epochs'?", "Traceback"),
        ("list --foo", "No such option '--foo'.\n", "--set"),
    ],
)
def test_an_unknown_option_is_told_with_the_way_out(
    line: str, says: str, never: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(line.split())
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert says in told
    assert never not in told
