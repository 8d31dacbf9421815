"""`ablate --dry-run --detect`: seeds from the spread in results that are written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from scipy.stats import nct, t

from simsiam_zoo.cli.ablate import ablate
from simsiam_zoo.errors import DataError, InputError

SMALL = """
base = { preset = "digits", backbone = "test_resnet", data.image_size = 12, training.epochs = 1 }
metrics = ["knn"]
[[ablation]]
part = "training.batch_size"
action = "replace"
with = [32, 128]
"""
BASE = {0: 0.90, 1: 0.92, 2: 0.91}
STEADY = {0: 0.89, 1: 0.92, 2: 0.905}  # gaps -1, 0 and -0.5 points: a deviation of 0.5
WILD = {0: 0.80, 1: 0.90, 2: 0.85}  # gaps -10, -2 and -6 points: a deviation of 4


def asked(folder: Path, *words: str) -> Result:
    file = folder / "small.toml"
    file.write_text(SMALL)
    given = [str(file), "--out", str(folder / "study"), "--dry-run", *words]
    return CliRunner().invoke(ablate, given, catch_exceptions=False)


def earlier(folder: Path, arms: dict[str, dict[int, float]], metric: str = "knn (k=20)") -> Path:
    folder.mkdir()
    written = [
        {
            "name": name,
            "is_base": name == "base",
            "runs": [
                {"seed": seed, "state": "done", "metrics": {metric: {"top1": share}}}
                for seed, share in shares.items()
            ],
        }
        for name, shares in arms.items()
    ]
    (folder / "results.json").write_text(json.dumps({"format": 1, "arms": written}))
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simsiam_zoo.studies.estimate.seconds_per_step", lambda recipe: 0.01)


def least(difference: float, std: float) -> int:
    """Seeds, counted up from two by the noncentral t alone."""

    def found(n: int) -> float:
        return float(nct.sf(t.ppf(0.975, n - 1), n - 1, difference / std * n**0.5))

    return next(n for n in range(2, 10_000) if found(n) >= 0.8)


def test_the_study_s_own_spread_plans_its_seeds_arm_by_arm(tmp_path: Path) -> None:
    arms = {"base": BASE, "batch_size-32": STEADY, "batch_size-128": WILD}
    earlier(tmp_path / "study", arms)
    found = json.loads(asked(tmp_path, "--detect", "2", "--json").output)["detect"]
    steady, wild = found["arms"]
    assert (steady["std"], wild["std"]) == (pytest.approx(0.005), pytest.approx(0.04))
    assert (steady["seeds"], wild["seeds"]) == (least(0.02, 0.005), least(0.02, 0.04))
    assert (found["seeds"], found["most_demanding"]) == (wild["seeds"], "batch_size-128")
    assert found["runs"] == 3 * wild["seeds"]
    assert found["metric"] == "knn (k=20)"
    text = asked(tmp_path, "--detect", "10").output
    assert "Seeds that tell 10 points by knn (k=20)" in text
    assert "batch size 128 needs most: 4 seeds, 12 runs in all" in text
    assert "--seeds 0,1,2,3" in text
    assert max(map(len, text.splitlines())) <= 80 + len(str(tmp_path))


def test_another_study_may_lack_an_arm_and_a_spread_may_be_0(tmp_path: Path) -> None:
    other = earlier(tmp_path / "other", {"base": BASE, "batch_size-32": STEADY})
    found = json.loads(asked(tmp_path, "--detect", "2", "--json", "--from", str(other)).output)
    assert [arm["why"] for arm in found["detect"]["arms"]] == [None, "it has no figures there"]
    even = {seed: share - 0.1 for seed, share in BASE.items()}
    flat = earlier(tmp_path / "flat", {"base": BASE, "batch_size-32": even})
    with pytest.raises(InputError, match="a spread of 0; it has no figures there"):
        asked(tmp_path, "--detect", "2", "--from", str(flat))


def test_what_gives_no_spread_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results of an earlier study") as told:
        asked(tmp_path, "--detect", "2")
    assert "--from" in str(told.value.hint)
    single = {"base": {0: 0.9}, "batch_size-32": {0: 0.8}}
    one = earlier(tmp_path / "one", single)
    with pytest.raises(InputError, match="one seed alone"):
        asked(tmp_path, "--detect", "2", "--from", str(one))
    probe = earlier(tmp_path / "probe", {"base": BASE, "batch_size-32": WILD}, "logistic (C=1)")
    with pytest.raises(InputError, match="has no figures by knn"):
        asked(tmp_path, "--detect", "2", "--from", str(probe))
    for text in ("{", '{"format": 7}', '{"format": 1, "arms": [{}]}'):
        (one / "results.json").write_text(text)
        with pytest.raises(DataError, match="results"):
            asked(tmp_path, "--detect", "2", "--from", str(one))


def test_the_flags_stand_together(tmp_path: Path) -> None:
    run = CliRunner()
    with pytest.raises(InputError, match="runs nothing"):
        run.invoke(ablate, ["five-parts", "--detect", "2"], catch_exceptions=False)
    with pytest.raises(InputError, match="--from is of --detect"):
        asked(tmp_path, "--from", "x")


def test_a_study_without_metrics_is_planned_by_what_its_base_is_measured_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SMALL", SMALL.replace('metrics = ["knn"]\n', ""))
    earlier(tmp_path / "study", {"base": BASE, "batch_size-32": STEADY})
    found = json.loads(asked(tmp_path, "--detect", "2", "--json").output)["detect"]
    assert found["metric"] == "knn (k=20)"
    with pytest.raises(InputError, match="by no protocol"):
        asked(tmp_path, "--detect", "2", "--set", "evaluation.protocols=[]")
