"""`simsiam-zoo plugin new`: what it writes is a package, for every kind, unedited."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from installed import installed

from simsiam_zoo.catalog import KINDS
from simsiam_zoo.cli import main
from simsiam_zoo.errors import InputError
from simsiam_zoo.testing.checks import checks_of, components_of
from simsiam_zoo.testing.scaffold import names_of, write_package


class Outcomes:
    """A pytest plugin: what came of each test, by its name."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.of.setdefault(report.outcome, []).append(f"{report.nodeid}\n{report.longrepr}")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_builds_and_passes_its_tests_and_the_kit(kind: str, tmp_path: Path) -> None:
    """All that its author's first `pytest` runs, torch.compile aside, which takes seconds."""
    package = tmp_path / f"tried-{kind}-zoo"
    write_package(package.name, kind)
    with installed(package, tmp_path / "wheel"):
        outcomes = Outcomes()
        words = ["-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts="]
        kit = ["-p", "simsiam_zoo.testing", "--zoo-plugin", package.name]
        options = tomllib.loads((package / "pyproject.toml").read_text())["tool"]["pytest"]
        assert options["ini_options"]["addopts"].split() == kit
        code = pytest.main([*words, *kit, "--zoo-fast", str(package)], plugins=[outcomes])
        for slow in checks_of(kind):
            if slow.slow and slow.name != "compile":
                # trains on digits; of a launcher, runs
                slow.on(list(components_of(package.name))[1])
    assert code == 0, "\n".join(outcomes.of["failed"])
    assert outcomes.of.keys() <= {"passed", "skipped"}
    passed = " ".join(outcomes.of["passed"])
    assert f"tests/test_tried_{kind}_zoo.py" in passed
    assert f"{kind} tried-{kind}::" in passed


def test_a_new_package_installs_and_trains(zoo, tmp_path: Path) -> None:
    written = zoo("plugin", "new", "Leaky.Zoo", "--kind", "predictors")
    assert written.returncode == 0, written.stderr
    assert "simsiam-zoo plugin check leaky-zoo" in written.stdout
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    target = tmp_path / "site"
    subprocess.run([*pip, "--target", str(target), str(tmp_path / "leaky-zoo")], check=True)
    leaky = {"PYTHONPATH": f"{target}:{Path(__file__).parents[2]}"}
    leaky["SIMSIAM_ZOO_PLUGINS"] = "leaky-zoo"
    small = ["--epochs", "1", "--backbone", "test_resnet"]
    for setting in ("training.threads=1", "data.image_size=16", "evaluation.baselines=false"):
        small += ["--set", setting]
    done = zoo("train", "--preset", "digits", *small, "--predictor", "leaky", "--out", "r", **leaky)
    assert done.returncode == 0, done.stderr
    assert 'id = "leaky-zoo/leaky"' in (tmp_path / "r" / "lock.toml").read_text()


def test_a_package_is_written_without_pytest_and_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import simsiam_zoo.cli.plugin\n"
        "from simsiam_zoo.testing.scaffold import write_package\n"
        "write_package('plain-zoo', 'loss'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
    assert (tmp_path / "plain-zoo" / "plain_zoo" / "loss.py").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.py").write_text("mine")
    with pytest.raises(SystemExit) as left:
        main(["plugin", "new", "leaky-zoo", "--kind", "loss", "--out", "there"])
    assert left.value.code == 2
    assert "there is there already, and nothing is overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.py"]
    with pytest.raises(InputError, match="nothing is overwritten"):
        write_package("leaky-zoo", "loss", tmp_path / "there" / "mine.py")
    (tmp_path / "empty").mkdir()
    assert write_package("leaky-zoo", "loss", tmp_path / "empty")
    assert (tmp_path / "empty" / "leaky_zoo" / "loss.py").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("-leaky", "cannot name a distribution"),
        ("leaky zoo", "cannot name a distribution"),
        ("../leaky", "cannot name a distribution"),
        ("3d-zoo", "3d_zoo is no Python identifier"),
        ("class", "class is no Python identifier"),
        ("json", "there is a module json already"),
        ("torch", "there is a module torch already"),
        ("simsiam-zoo", "there is a module simsiam_zoo already"),
        ("mlp-zoo", "the projector mlp, and that name is built in"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        names_of(name, "projector")


def test_module_and_component_are_named_after_the_distribution() -> None:
    assert names_of("Leaky.Zoo", "loss") == ("leaky_zoo", "leaky")
    assert names_of("simsiam-zoo-soft-rank", "loss") == ("simsiam_zoo_soft_rank", "soft-rank")
    assert names_of("mlp-zoo", "loss") == ("mlp_zoo", "mlp")


@pytest.mark.parametrize("words", [["--kind", "projektor"], []])
def test_a_kind_that_is_none_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["plugin", "new", "leaky-zoo", *words])
    assert left.value.code == 2
    assert "projector" in capsys.readouterr().err
