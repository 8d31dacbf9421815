"""The gradient that DDP gives two processes is the one of the whole batch on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from sigreg_ranks import gradients


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    script, out = Path(__file__).with_name("sigreg_ranks.py"), tmp_path / "gradients.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command += [str(script), str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected, found = gradients(0, 1), torch.load(out, weights_only=True)
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(expected["0 projector.weight"], expected["1 projector.weight"])
