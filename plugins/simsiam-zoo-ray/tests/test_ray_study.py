"""A study of digits for real: on a cluster of its own, and on a worker of one over loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray
from click.testing import CliRunner
from ray.cluster_utils import Cluster
from ray_jobs import STORE

from simsiam_zoo.cli.ablate import ablate

STUDY = """
base = { preset = "digits", backbone = "test_resnet", data.image_size = 12, training.epochs = 1, \
data.workers = 0, evaluation.baselines = false, evaluation.rank_samples = 64, \
evaluation.protocols = ["knn:k=5"] }

[[ablation]]
part = "gradient"
action = "remove"
"""


def run(folder: Path, launcher: str, *flags: str) -> dict[str, list[str]]:
    """States of the arms' runs."""
    (folder / "small.toml").write_text(STUDY)
    words = [str(folder / "small.toml"), "--out", str(folder / "study"), "--jobs", "2", *flags]
    done = CliRunner().invoke(
        ablate, [*words, "--launcher", launcher, "--json", "--quiet"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    arms = json.loads((folder / "study" / "results.json").read_text())["arms"]
    return {arm["name"]: [each["state"] for each in arm["runs"]] for arm in arms}


def test_a_study_runs_on_a_cluster_of_its_own(tmp_path: Path) -> None:
    states = run(tmp_path, "ray:address=local,cpus=2")
    assert states == {"base": ["done"], "gradient-none": ["done"]}
    assert not ray.is_initialized()


def test_a_study_runs_on_the_worker_of_a_cluster(tmp_path: Path) -> None:
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=2, object_store_memory=STORE)
        states = run(tmp_path, f"ray:address={cluster.address}", "--only", "base")
        assert states["base"] == ["done"]
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_more_cores_than_the_cluster_has_are_refused(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    words = [str(tmp_path / "small.toml"), "--out", str(tmp_path / "study"), "--threads", "8"]
    with pytest.raises(Exception, match="8"):
        CliRunner().invoke(
            ablate,
            [*words, "--launcher", "ray:address=local,cpus=2", "--quiet"],
            catch_exceptions=False,
        )
    assert not ray.is_initialized()
