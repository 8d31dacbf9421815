from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_weights import stir
from safetensors.torch import save_file

from simsiam_zoo.catalog import catalog
from simsiam_zoo.exchange.importing import import_checkpoint
from simsiam_zoo.training.run import Run

NARROW: dict[str, object] = {
    "data.image_size": 32,
    "data.mean": [0.1, 0.2, 0.3],
    "training.threads": 1,
    "training.precision": "fp32",
    "projector": "mlp:layers=1,out_dim=8",
    "predictor": "mlp:hidden_dim=4",
}


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """`run_of("densenet121")` → a run with such a backbone, of stirred random weights.

    No step is trained; each is made once, from its own weights, without data.
    """
    made: dict[str, Run] = {}

    def make(name: str) -> Run:
        if name not in made:
            folder = tmp_path_factory.mktemp("runs")
            torch.manual_seed(0)
            backbone = stir(catalog().resolve("backbone", name).create(image_size=32))
            file: Path = folder / "weights.safetensors"
            state = {k: v.clone().contiguous() for k, v in backbone.state_dict().items()}
            save_file(state, file)
            made[name] = import_checkpoint(file, folder / "run", backbone=name, settings=NARROW)
        return made[name]

    return make
