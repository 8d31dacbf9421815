"""`benchmarks/cpu.py`: what `make bench` writes, with small scripts in place of the benchmarks."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SCRIPTS = {
    "good": 'row("list", "30 ms", "bare | 10 ms", 3.0, "<= 8")',
    "bad": 'row("half", "1 s")\nraise RuntimeError("made to fail")',
    "slow": "import subprocess\nsubprocess.run(['sleep', '600'])",
}


@pytest.fixture(scope="module")
def cpu() -> ModuleType:
    """The script as a module."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("cpu_script", FOLDER / "cpu.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def test_a_part_that_fails_or_hangs_is_told_and_leaves_the_others(
    cpu, tmp_path: Path, monkeypatch, capfd
):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    for name, text in SCRIPTS.items():
        (tmp_path / f"{name}.py").write_text(f"from shared.rows import row\n{text}\n")
    parts = [
        cpu.Planned(
            name, f"The {name} one", str(tmp_path / f"{name}.py"), 2.0 if name == "slow" else 60
        )
        for name, limit in (("slow", 2), ("bad", 60), ("good", 60))
    ]
    out = tmp_path / "out"
    assert cpu.main(["--out", str(out)], parts) == 1
    assert "failed: slow, bad" in capfd.readouterr().out
    found = json.loads((out / "performance.json").read_text())["parts"]
    states = {name: part["state"] for name, part in found.items()}
    assert states == {"slow": "out of time", "bad": "failed with exit code 1", "good": "done"}
    assert found["bad"]["rows"][0]["what"] == "half"  # found before it failed
    page = (out / "performance.md").read_text()
    assert "| list | 30 ms | bare \\| 10 ms | 3 | <= 8 |" in page
    assert "RuntimeError: made to fail" in page

    (tmp_path / "bad.py").write_text("")
    assert cpu.main(["--out", str(out), "--only", "bad"], parts) == 0
    again = json.loads((out / "performance.json").read_text())["parts"]
    assert again["bad"]["state"] == "done"
    assert {name: again[name] for name in ("slow", "good")} == {
        name: found[name] for name in ("slow", "good")
    }
    with pytest.raises(SystemExit):
        cpu.main(["--only", "nothing"], parts)


def test_every_benchmark_of_a_cpu_is_a_part_and_together_they_have_30_minutes(cpu):
    scripts = {path.name for path in FOLDER.glob("*.py")} - {"cpu.py", "gpu.py"}
    assert {part.arguments.split()[0] for part in cpu.PARTS} == scripts
    assert sum(part.seconds for part in cpu.PARTS) <= 30 * 60
    assert {name for name, _ in cpu.IN_README} <= {part.name for part in cpu.PARTS}


def test_the_page_and_the_readmes_table_are_those_of_the_json(cpu):
    path = ROOT / "docs" / "performance.json"
    found = json.loads(path.read_text()) if path.is_file() else None
    assert path.with_suffix(".md").read_text() == cpu.page(found)
    readme = (ROOT / "README.md").read_text()
    assert readme.count(cpu.BEGIN) == readme.count(cpu.END) == 1
    assert cpu.with_table(readme, found) == readme


def test_the_readmes_table_has_the_rows_that_it_names(cpu):
    row = {"found": "9 ms", "against": "bare 3 ms", "ratio": 3.0, "goal": ""}
    part = {"command": "python benchmarks/startup.py 5", "load": 0.1}
    rows = [{"what": what, **row} for what in ("simsiam-zoo --help", "simsiam-zoo list")]
    about = {"cores": "2", "processor": "CPU", "torch, torchvision, timm": "2.14, 0.29, 1.0"}
    found = {"machine": about, "parts": {"startup": {**part, "rows": rows}}}
    text = cpu.with_table(f"a\n{cpu.BEGIN}\nold\n{cpu.END}\nb\n", found)
    assert text.startswith("a\n")
    assert text.endswith(f"{cpu.END}\nb\n")
    assert (
        "| simsiam-zoo list | 9 ms | bare 3 ms | 3 |  | `python benchmarks/startup.py 5` |" in text
    )
    assert "--help" not in text
    assert "(2 cores of CPU, torch 2.14.)" in text
    found["parts"]["startup"]["load"] = 3.0
    assert "busy" in cpu.with_table(f"{cpu.BEGIN}{cpu.END}", found)
