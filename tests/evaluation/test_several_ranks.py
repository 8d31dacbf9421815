"""`evaluate` on two processes of a group, against one alone; a rank that is killed on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ranks import start_ranks

from simsiam_zoo.cli import root

PAPER = "linear-paper:lr=10,epochs=4,batch=32"  # of 96 images: three steps an epoch


def words(run: Path, out: Path, *protocols: str) -> list[str]:
    asked = [word for protocol in protocols for word in ("--protocol", protocol)]
    return ["evaluate", str(run), *asked, "--batch-size", "16", "--quiet", "--out", str(out)]


def alone(run: Path, out: Path, *protocols: str) -> dict[str, Any]:
    CliRunner().invoke(root, words(run, out, *protocols), catch_exceptions=False)
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_two_ranks_find_what_one_does_also_after_one_was_killed(tiny_run, tmp_path) -> None:
    """kNN to the bit; the paper's classifier but for the order in which gradients are added."""
    one, two, torn = (tmp_path / name for name in ("one", "two", "torn"))
    for copy in (one, two, torn):
        shutil.copytree(tiny_run, copy, symlinks=True)
    expected = alone(one, tmp_path / "one.json", "knn", PAPER)

    # rank 1 is killed in the third epoch of the second evaluation
    whole_words = words(two, tmp_path / "two.json", "knn", PAPER)
    torn_words = words(torn, tmp_path / "torn.json", PAPER)
    assert start_ranks(tmp_path, whole_words, torn_words, killed_in_epoch=2) == [1, -9]
    found = json.loads((tmp_path / "two.json").read_text())
    assert found["machine"]["world_size"] == 2
    assert found["figures"][:2] == expected["figures"][:2]  # knn, k 20 and all
    paper, expected_paper = found["figures"][2], expected["figures"][2]
    assert paper["protocol"] == expected_paper["protocol"]
    assert paper["last_loss"] == pytest.approx(expected_paper["last_loss"], rel=1e-4)
    assert paper["top1"] == pytest.approx(expected_paper["top1"], abs=1.5 / 64)  # one image

    # each image on one rank, once; 96 to train on and 64 to test on, in batches of 16
    shares = [json.loads((tmp_path / f"ids-{rank}.json").read_text()) for rank in (0, 1)]
    assert [[len(batch) for batch in share] for share in shares] == [[16] * 5] * 2
    taken = sorted(id for share in shares for batch in share for id in batch)
    assert taken == sorted([*range(96), *range(64)])
    assert features(two) == features(one)

    # what two began, two end to the same bits, and one alone
    assert "another process of the run is gone" in (tmp_path / "err-0.txt").read_text()
    assert not (tmp_path / "torn.json").exists()
    assert checkpoints(torn) == [1, 2]
    shutil.copytree(torn, tmp_path / "alone", symlinks=True)
    assert start_ranks(tmp_path, torn_words) == [0, 0]
    assert json.loads((tmp_path / "torn.json").read_text())["figures"] == [paper]
    (ended,) = alone(tmp_path / "alone", tmp_path / "alone.json", PAPER)["figures"]
    assert ended["last_loss"] == pytest.approx(paper["last_loss"], rel=1e-4)


def features(run: Path) -> dict[str, bytes]:
    """The cached features by their keys, which name network, images and arithmetic."""
    return {path.parent.name: path.read_bytes() for path in run.glob("features/*/x.f32")}


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.stem[5:]) for path in run.glob("features/state/*/*/*/step-*.pt"))
