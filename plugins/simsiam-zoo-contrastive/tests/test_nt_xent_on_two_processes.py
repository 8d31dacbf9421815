"""The gradient that DDP gives two processes is the one of the whole batch on one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from nt_xent_ranks import gradients


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script, out = Path(__file__).with_name("nt_xent_ranks.py"), tmp_path / "gradients.pt"
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(out)],
            env={**os.environ, **common, "OMP_NUM_THREADS": "1", "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ends = [(rank.communicate(timeout=120)[1], rank.returncode) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(code == 0 for _, code in ends), ends
    expected = {**gradients(0, 1, stop=False), **gradients(0, 1, stop=True)}
    found = torch.load(out, weights_only=True)
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
