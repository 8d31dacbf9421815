from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import PROGRAM, Chromium

FIXTURES = Path(__file__).parent / "fixtures"

# These tests are about the built-in components, whatever else is installed beside them.
os.environ["SIMSIAM_ZOO_PLUGINS"] = ""

# A shell starts what it puts into the background with SIGINT ignored, which would be inherited by
# the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def install_plugins(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """`install_plugins("swish-zoo", ...)` → the environment of a subprocess that has them.

    Each is built as a wheel and installed by pip, so that its metadata are real, but into a folder
    of its own: the environment that runs the tests stays as it is.
    """
    from hatchling.builders.wheel import WheelBuilder  # here: few tests need it

    wheels = tmp_path_factory.mktemp("wheels")

    @functools.cache
    def installed(name: str) -> Path:
        (wheel,) = WheelBuilder(str(FIXTURES / name)).build(directory=str(wheels))
        target = wheels / name
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--no-index", "--no-compile", "--target", str(target)]
        subprocess.run([*pip, *options, wheel], check=True)
        return target

    def install(*names: str) -> dict[str, str]:
        env = dict(os.environ)
        for variable in ("COLUMNS", "NO_COLOR"):
            env.pop(variable, None)
        paths = [*(str(installed(name)) for name in names), env.get("PYTHONPATH")]
        env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return env | {"OMP_NUM_THREADS": "1", "SIMSIAM_ZOO_PLUGINS": ",".join(names)}

    return install


Zoo = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def zoo(install_plugins: Callable[..., dict[str, str]], tmp_path: Path) -> Zoo:
    """`zoo("list", "--json", plugins=["swish-zoo"], SOME_VARIABLE="...")` in a real subprocess."""

    def run(
        *arguments: str, plugins: tuple[str, ...] | list[str] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "simsiam_zoo", *arguments],
            env=install_plugins(*plugins) | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def zoo_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Zoo:
    """`zoo` in this process, for what needs no other one: it saves the import of torch."""
    from simsiam_zoo import cli

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("COLUMNS", raising=False)
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(end.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One Chromium for all tests: it takes seconds to start."""
    if PROGRAM is None:
        pytest.skip("needs Chromium")
    with Chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="session")
def digit_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 digits to train on in 3 shards, 64 to test on, labelled."""
    from tiny_runs import pack_digits

    return pack_digits(tmp_path_factory.mktemp("digit-shards"), tuple("0123456789"))


@pytest.fixture(scope="session")
def tiny_run(digit_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete run on them; nobody may write there."""
    from tiny_runs import tiny_recipe

    from simsiam_zoo.runtime.progress import Progress
    from simsiam_zoo.training.train import train

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(tiny_recipe(digit_shards), folder, progress=Progress())
    return folder
