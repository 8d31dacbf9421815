"""`--plugin FILE`: a local file as a plugin, recorded, found again, refused when it is another."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import simsiam_zoo as zoo
import simsiam_zoo.cli as cli
from simsiam_zoo.catalog import catalog, local, use_file
from simsiam_zoo.errors import DataError, InputError, PluginError
from simsiam_zoo.recipe.lock import identity, make_lock, refuse_missing, train_command
from simsiam_zoo.studies import job

PART = """
import os
from torch import nn
from simsiam_zoo.plugin import Component, hookimpl

os.environ["PARTS_IMPORTED"] = str(1 + int(os.environ.get("PARTS_IMPORTED", 0)))


@hookimpl
def zoo_components():
    yield Component("projector", "flat", "zoo_part:Flat", "One fc layer")


class Flat(nn.Linear):
    def __init__(self, *, in_dim):
        super().__init__(in_dim, 32)
        self.out_dim = 32
"""


@pytest.fixture(autouse=True)
def forget(monkeypatch, tmp_path):
    """`forget()` → the process is as one that has just begun; the cache is the test's own."""

    path = [*sys.path]

    def anew() -> None:
        sys.path[:] = path
        monkeypatch.setattr(local, "_FILES", {})
        monkeypatch.delitem(sys.modules, "zoo_part", raising=False)

    monkeypatch.setenv("SIMSIAM_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PARTS_IMPORTED", "0")
    anew()
    yield anew
    sys.path[:] = path
    sys.modules.pop("zoo_part", None)


@pytest.fixture
def part(tmp_path) -> Path:
    path = tmp_path / "zoo_part.py"
    path.write_text(PART)
    return path


def recorded(file: local.LocalFile) -> dict[str, str]:
    return {"file": str(file.path), "digest": file.digest}


def lock_of(recipe) -> dict:
    return make_lock(recipe, "digest", {"precision": "fp32"})


def test_a_file_supplies_components_and_is_imported_once(part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` has the current folder
    cli.root.main(["list", "projectors", "--plugin", "./zoo_part.py", "--json"], "x", "", False)
    rows = {row["call"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["flat"]["distribution"], rows["flat"]["version"]) == ("zoo-part", "local")
    cli.root.main(["show", "projector", "flat", "--plugin", str(part)], "x", "", False)
    shown = capsys.readouterr().out
    assert f"file         {part}" in shown
    assert f"simsiam-zoo train --projector flat --plugin {part}" in shown
    assert catalog().resolve("projector", "flat").create(in_dim=3).out_dim == 32
    assert os.environ["PARTS_IMPORTED"] == "1"


def test_a_run_records_the_file_and_goes_on_with_it_in_another_process(
    part, digit_shards, forget, tmp_path
):
    from tiny_runs import tiny_recipe

    from simsiam_zoo.cli.train import _resumed
    from simsiam_zoo.runtime.progress import Progress
    from simsiam_zoo.training.train import train

    use_file(part)
    recipe = tiny_recipe(digit_shards, {"projector": "flat", "training.epochs": 1})
    train(recipe, tmp_path / "run", progress=Progress())
    lock = tomllib.loads((tmp_path / "run" / "lock.toml").read_text())
    (file,) = local.local_files()
    assert lock["plugins"] == [{"file": str(part), "digest": file.digest}]
    assert lock["code"]["zoo-part"] == f"source {file.digest[:16]}"

    forget()
    assert _resumed(tmp_path / "run", {}, {}) == recipe
    refuse_missing(lock)  # --locked
    assert os.environ["PARTS_IMPORTED"] == "2"

    part.write_text(PART + "# changed\n")
    for change in (lambda: None, part.unlink):
        change()
        forget()
        assert _resumed(tmp_path / "run", {}, {}) == recipe
        (again,) = local.local_files()
        assert (again.path, again.digest, again.cached.read_text()) == (part, file.digest, PART)


def test_what_is_in_the_file_is_in_the_identity_and_where_it_lies_is_not(
    part, digit_shards, forget, tmp_path
):
    from tiny_runs import tiny_recipe

    def identity_with(path: Path) -> str:
        forget()
        use_file(path)
        return identity(lock_of(tiny_recipe(digit_shards, {"projector": "flat"})))

    before = identity_with(part)
    (tmp_path / "moved").mkdir()
    assert identity_with(Path(shutil.copy(part, tmp_path / "moved"))) == before
    part.write_text(PART + "# changed\n")
    assert identity_with(part) != before


def test_a_runs_record_alone_gets_no_file_executed(part, forget, tmp_path):
    record = recorded(use_file(part))
    forget()
    shutil.rmtree(tmp_path / "cache")  # as for a user who got the run from somebody
    with pytest.raises(PluginError, match=f"say --plugin {part}"):
        refuse_missing({"plugins": [record]})
    assert os.environ["PARTS_IMPORTED"] == "1"
    use_file(part)
    refuse_missing({"plugins": [record]})


def test_a_file_given_in_place_of_the_recorded_one_must_be_the_same(part, forget, tmp_path):
    record = recorded(use_file(part))
    forget()
    other = tmp_path / "elsewhere" / "zoo_part.py"
    other.parent.mkdir()
    other.write_text(PART + "# changed\n")
    use_file(other)
    with pytest.raises(PluginError, match=r"elsewhere/zoo_part\.py is another file now"):
        refuse_missing({"plugins": [record]})
    for damaged in ([3], [{}], ["x"]):
        with pytest.raises(DataError):
            refuse_missing({"plugins": damaged})


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("gone.py", None, InputError, "cannot be read: No such file"),
        ("my-part.py", "", InputError, "letters, digits and _"),
        ("part.txt", "", InputError, "letters, digits and _"),
        ("json.py", "", InputError, "would hide the module json"),
        ("torch.py", "", InputError, "would hide the module torch"),
        ("zoo_part.py", "x = 1", PluginError, "marked with simsiam_zoo.plugin.hookimpl"),
        ("zoo_part.py", "1 / 0", PluginError, "ZeroDivisionError"),
        ("zoo_part.py", "raise SystemExit(3)", PluginError, "SystemExit: 3"),
        ("zoo_part.py", "x =", PluginError, "SyntaxError"),
    ],
)
def test_what_is_no_plugin_is_refused_by_its_path(tmp_path, name, text, error, said):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(error) as caught:
        use_file(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert local.local_files() == ()


def test_two_files_or_a_distribution_of_one_name_are_refused(
    part, tmp_path, monkeypatch, install_plugins
):
    monkeypatch.syspath_prepend(tmp_path / "installed")
    use_file(part)
    part.write_text(PART + "# changed\n")  # as the cell of a notebook that is run again
    with pytest.raises(InputError, match=r"has changed since .*\n.*kernel, anew"):
        use_file(part)
    other = tmp_path / "more" / "zoo_part.py"
    other.parent.mkdir()
    other.write_text(PART + "# changed\n")
    with pytest.raises(InputError, match="Rename one"):
        use_file(other)
    place = tmp_path / "installed" / "zoo_part-1.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-part\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text("[simsiam_zoo.v1]\np = nowhere\n")
    monkeypatch.setenv("SIMSIAM_ZOO_PLUGINS", "none")
    with pytest.raises(InputError, match="name of an installed distribution"):
        catalog()


def test_a_worker_process_finds_what_is_pickled_by_name(tmp_path):
    """multiprocessing gives its children this process's sys.path, and no more."""
    path = tmp_path / "zoo_part.py"
    path.write_text(PART.replace("from torch import nn", "class nn: Linear = object"))
    use_file(path)
    text = pickle.dumps(sys.modules["zoo_part"].Flat)
    path.unlink()
    code = f"import pickle; print(pickle.loads({text!r}).__module__)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.stdout == "zoo_part\n", run.stderr


def test_a_studys_jobs_are_given_the_file(part, tmp_path, capsys, forget):
    use_file(part)
    words = job.command(tmp_path, ("knn",))
    file = str(local.local_files()[0].cached)
    assert words[1:4] == ["-P", "-m", "simsiam_zoo.studies.job"]
    assert words[4:] == ["--plugin", file, str(tmp_path), "knn"]
    part.write_text("1 / 0")  # edited while the study runs: its jobs go on with what it was
    forget()
    assert job.start_job([*words[4:6], str(tmp_path / "none")]) == 2  # there is no such job,
    assert [file.path.read_text() for file in local.local_files()] == [PART]  # but it is in use
    assert job.start_job(["--plugin", str(tmp_path / "gone.py"), str(tmp_path)]) == 2
    assert "gone.py cannot be read" in capsys.readouterr().err


def test_the_command_line_ends_with_2_or_3_and_no_traceback(tmp_path, capsys):
    (tmp_path / "zoo_part.py").write_text("1 / 0")
    for name, code in (("gone.py", 2), ("zoo_part.py", 3)):
        with pytest.raises(SystemExit) as caught:
            cli.main(["train", "--plugin", str(tmp_path / name), "--dry-run"])
        assert caught.value.code == code
        assert "Traceback" not in capsys.readouterr().err


def test_an_error_in_a_parts_code_is_told_as_the_plugins(tmp_path, capsys, monkeypatch):
    """Also one that shows itself in training alone; --debug has the traceback."""
    monkeypatch.chdir(tmp_path)
    fails = """
    def forward(self, x):
        if self.training:
            return {}["a"]
        return super().forward(x)
"""
    Path("zoo_part.py").write_text(PART + fails)
    small = ["--preset", "digits", "--set", "data.workers=0", "--set", "training.threads=1"]
    words = ["train", *small, "--plugin", "zoo_part.py", "--projector", "flat", "--out"]
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "one"])
    said = capsys.readouterr().err
    assert caught.value.code == 3
    assert "Traceback" not in said
    line = 1 + (PART + fails)[: (PART + fails).index("{}[")].count("\n")
    where = f"Error: the plugin {tmp_path / 'zoo_part.py'} failed: KeyError: 'a'"
    assert f"{where} (zoo_part.py:{line})\n" in said
    with pytest.raises(KeyError):
        cli.main([*words, "two", "--debug"])


def test_a_lock_without_local_files_has_no_word_of_them(digit_shards):
    from tiny_runs import tiny_recipe

    assert "plugins" not in lock_of(tiny_recipe(digit_shards))


def test_a_recorded_path_cannot_be_read_or_is_no_path(part, forget):
    record = recorded(use_file(part))
    forget()
    for path in ("/proc/self/mem", "a\0b", ""):
        with pytest.raises(PluginError):
            refuse_missing({"plugins": [record | {"file": path}]})


def test_other_readers_of_a_run_find_the_file_too(part, forget, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("")
    record = recorded(use_file(part))
    lines = "".join(f'{key} = "{value}"\n' for key, value in record.items())
    (tmp_path / "run" / "lock.toml").write_text(f"[[plugins]]\n{lines}")
    forget()
    way = train_command(tmp_path / "run" / "recipe.toml", "--lr 1")
    assert way == f"simsiam-zoo train --recipe {tmp_path}/run/recipe.toml --plugin {part} --lr 1"
    with pytest.raises(InputError, match="names no"):  # the plugin is here: the next fault is told
        zoo.tune(tmp_path / "run")
    assert catalog().resolve("projector", "flat").id == "zoo-part/flat"


def test_the_part_that_the_docs_show_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "using-plugins.md").read_text()
    code = page.partition("```python file=leaky_part.py\n")[2].partition("```")[0]
    (tmp_path / "leaky_part.py").write_text(code)
    use_file(tmp_path / "leaky_part.py")
    made = catalog().resolve("projector", "leaky-relu:slope=0.2").create(in_dim=3)
    sys.modules.pop("leaky_part")
    assert (made.out_dim, made[1].negative_slope) == (512, 0.2)
