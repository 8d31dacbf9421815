"""One rank of a run, or of several runs in turn: `RANK`, `WORLD_SIZE` and so on say which.

    python distributed_script.py FOLDER

FOLDER/runs.json holds a list of [recipe, folder, resume, allow_bn_change]: the recipe is TOML.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime import distributed
from simsiam_zoo.runtime.progress import Progress
from simsiam_zoo.training.train import train


def check_gather() -> None:
    """The mean over ranks of each rank's gradient is that of the whole batch on one process."""
    rank, world = distributed.rank(), distributed.world_size()
    x = torch.randn(4 * world, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(3, 3, dtype=torch.float64, requires_grad=True)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return (z @ z.T).softmax(dim=1).square().sum()  # every pair of the batch is in it

    (whole,) = torch.autograd.grad(loss(x @ weight), weight)
    mine = distributed.gather(x[4 * rank : 4 * rank + 4] @ weight)
    torch.testing.assert_close(mine, x @ weight)
    (part,) = torch.autograd.grad(loss(mine), weight)
    torch.testing.assert_close(distributed.mean(part), whole)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with distributed.joined():
        check_gather()
        for recipe, name, resume, allow_bn_change in json.loads((folder / "runs.json").read_text()):
            (folder / f"{name}-{distributed.rank()}.toml").write_text(recipe)
            train(
                Recipe.make(None, folder / f"{name}-{distributed.rank()}.toml"),
                folder / name,
                resume=resume,
                allow_bn_change=allow_bn_change,
                progress=Progress(),
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
