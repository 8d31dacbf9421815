"""The Python API: build a model, train one, look at what a run left behind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simsiam_zoo.charts.tables import html_table, text_table
from simsiam_zoo.data.processes import refuse_script_without_guard
from simsiam_zoo.errors import InputError
from simsiam_zoo.evaluation.target import read_backbone, read_network
from simsiam_zoo.metrics import TRAINED, short_names, top1_of, top1_table
from simsiam_zoo.model.siamese import Siamese
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import read_lock, read_locked, refuse_missing, refuse_other_recipe
from simsiam_zoo.runtime.checkpoint import load_into
from simsiam_zoo.runtime.folders import new_run_folder
from simsiam_zoo.runtime.progress import Progress, open_progress
from simsiam_zoo.training.run_folder import MetricsRow, read_metrics, read_result
from simsiam_zoo.training.setup import build_siamese
from simsiam_zoo.training.train import train as train_in
from simsiam_zoo.training.weights import InitialWeights, States, read_initial_weights


@dataclass(frozen=True)
class Run:
    """What a run left behind in its folder, complete or not. Reading it changes nothing there.

    `load` and `train` give one. What is in files is read when it is first asked for, and kept.
    """

    folder: Path
    recipe: Recipe

    @cached_property
    def lock(self) -> dict[str, Any]:
        """Who supplied each part, which versions, on which machine: `lock.toml`."""
        return read_lock(self.folder)

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """What `result.json` holds; None while the run is not complete."""
        return read_result(self.folder)

    @property
    def verdict(self) -> str | None:
        """`learned`, `collapsed` or another of those in `docs/verdicts.md`; None for now."""
        return None if self.result is None else str(self.result["verdict"])

    @property
    def figures(self) -> list[dict[str, Any]]:
        """The trained network's, one for each protocol: `protocol`, `top1` (0 to 1), ..."""
        return [each for each in self._figures if each["network"] == TRAINED]

    @property
    def baselines(self) -> list[dict[str, Any]]:
        """The same of what was not trained: `network` is the untrained network or raw pixels."""
        return [each for each in self._figures if each["network"] != TRAINED]

    @property
    def _figures(self) -> list[dict[str, Any]]:
        return [] if self.result is None else list(self.result["figures"])

    def top1(self, protocol: str) -> float:
        """The share of test images, 0 to 1, that the trained network's features classify right.

        `protocol`: `knn`, `knn k=200`, or its whole text. InputError: there is no such figure.
        """
        return top1_of(self.figures, protocol)

    @cached_property
    def metrics(self) -> list[MetricsRow]:
        """The rows of `metrics.jsonl`, in the order of steps; `pandas.DataFrame` takes them."""
        return read_metrics(self.folder)

    @cached_property
    def model(self) -> Siamese:
        """The five parts with the weights of the last whole checkpoint, on the CPU, in eval mode.

        InputError: there is no checkpoint. DataError: none is whole, or it does not fit.
        """
        path = self.folder / "checkpoints"
        state, changes = read_network(path)
        siamese = build(self.recipe.stages()[changes].recipe)
        load_into(siamese, state, f"{path} does not fit the recipe beside it")
        return siamese.eval()

    @cached_property
    def backbone(self) -> nn.Module:
        """The trained backbone, [N, 3, H, W] → features, on the CPU, in eval mode.

        It is made from `backbone.safetensors`; of a run that is not complete, from its checkpoint.
        Errors as of `model`.
        """
        return read_backbone(self.folder, self.recipe)

    def __repr__(self) -> str:
        names = short_names(figure["protocol"] for figure in self.figures)
        words = [f"{names[f['protocol']]} {100 * f['top1']:.1f} %" for f in self.figures]
        told = ": ".join([self.verdict or "not complete", *filter(None, [", ".join(words)])])
        return f"Run({str(self.folder)!r}, {told})"

    def __str__(self) -> str:
        lines = [f"{self.folder}: {self.verdict or 'not complete'}"]
        lines += [] if self.result is None else [f"  {self.result['reason']}"]
        return "\n".join(filter(None, [*lines, text_table(top1_table(self._figures))]))

    def _repr_html_(self) -> str:
        """The verdict and the figures, as a notebook shows them."""
        told = [
            self.verdict or "not complete",
            *([] if self.result is None else [self.result["reason"]]),
        ]
        return html_table(top1_table(self._figures), str(self.folder), ": ".join(told))


def build(recipe: Recipe, init: States | None = None) -> Siamese:
    """The model at its initialisation, on the CPU in float32: the weights that a run starts from.

    The same recipe gives the same weights, and torch's generator is left as it was. Policies are
    told the data's size where it is at hand. `init` has weights in place of random ones, by parts.

    Returns:
        The model, in training mode and channels last. Called with a `siamese.Batch` of normalised
        views [N, 3, H, W] it gives the step's loss.
    """
    with torch.random.fork_rng(devices=[]):
        return build_siamese(recipe, *recipe.sizes(), init or {})


def train(
    recipe: Recipe,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    allow_bn_change: bool = False,
    locked: dict[str, Any] | Path | str | None = None,
    init: InitialWeights | Path | str | None = None,
    progress: Progress | None = None,
    quiet: bool = False,
) -> Run:
    """Train, evaluate, judge: what `simsiam-zoo train` does.

    torch's generators and its number of threads are left as they were.

    Args:
        out: the run's folder, new or empty; by default a new one in `runs/`.
        resume: go on with the run in `out`, from its last checkpoint.
        allow_bn_change: go on though BN will see another number of images at once.
        locked: a lock.toml, or what it holds: refuse a run that is not what it says.
        init: what a new run starts from: a run's folder, a checkpoint in one, or `timm:pretrained`.
        progress, quiet: where progress is shown, by default stderr, or none is.

    Raises:
        InputError: `out` is taken or cannot be written, the data does not go with the recipe, the
            run to resume is of another identity, or a script calls this outside of
            `if __name__ == "__main__":`.
        PluginError: a component cannot be used.
        DataError: a shard, too many images or the checkpoint are damaged.
        DivergedError: the loss or the weights stopped being finite; `load(out)` has the record.
        StoppedError: a signal asked to stop; a checkpoint was written.
        PeerError: another rank failed.
    """
    _check_call(recipe)
    if init is not None:
        if resume:
            raise InputError("a run goes on from its own checkpoint, so no init")
        if not isinstance(init, InitialWeights):
            init = read_initial_weights(str(init), recipe)
        recipe = init.named_in(recipe)
    if locked is not None:
        locked = _lock_for(recipe, locked)
    if out is None:
        if resume:
            raise InputError("there is no run to resume without its folder", "Say out=...")
        out = new_run_folder(recipe.run_name())
    threads = torch.get_num_threads()
    try:
        train_in(
            recipe,
            out,
            resume=resume,
            allow_bn_change=allow_bn_change,
            locked=locked,
            init=init,
            progress=progress or open_progress(quiet),
        )
    finally:
        torch.set_num_threads(threads)
    return Run(Path(out), recipe)


def _check_call(recipe: Recipe) -> None:
    if not isinstance(recipe, Recipe):
        raise InputError(f"train takes a Recipe, not {recipe!r}", 'Say Recipe.make("digits").')
    if recipe.data.workers != 0:
        refuse_script_without_guard()  # now, and not when the run's folder is there


def _lock_for(recipe: Recipe, locked: dict[str, Any] | Path | str) -> dict[str, Any]:
    """What a lock holds. InputError: a package of it is missing, or the recipe is another one."""
    if isinstance(locked, Path | str):
        locked = read_locked(Path(locked))
        refuse_missing(locked)
    refuse_other_recipe(locked, recipe)
    return locked


def load(folder: Path | str) -> Run:
    """The run in `folder`, complete or not. Nothing in the folder is executed or unpickled."""
    folder = Path(folder)
    refuse_missing(read_lock(folder))
    return Run(folder, Recipe.of_run(folder / "recipe.toml"))
