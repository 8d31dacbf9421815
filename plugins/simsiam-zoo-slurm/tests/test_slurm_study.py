"""A study of digits for real, through submitit's local executor."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from simsiam_zoo.cli.ablate import ablate

STUDY = """
base = { preset = "digits", backbone = "test_resnet", data.image_size = 12, training.epochs = 1, \
data.workers = 0, evaluation.baselines = false, evaluation.rank_samples = 64, \
evaluation.protocols = ["knn:k=5"] }

[[ablation]]
part = "gradient"
action = "remove"
"""


def test_a_study_runs_through_submitit(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    words = [str(tmp_path / "small.toml"), "--out", str(tmp_path / "study"), "--jobs", "2"]
    done = CliRunner().invoke(
        ablate,
        [*words, "--launcher", "slurm:cluster=local", "--json", "--quiet"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    arms = json.loads((tmp_path / "study" / "results.json").read_text())["arms"]
    states = {arm["name"]: [each["state"] for each in arm["runs"]] for arm in arms}
    assert states == {"base": ["done"], "gradient-none": ["done"]}
