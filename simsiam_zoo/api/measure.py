"""What a frozen network is good for, and its backbone for other libraries: `evaluate`, `export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsiam_zoo.api.given import RunLike, data_settings, named, opened
from simsiam_zoo.catalog import Text, catalog
from simsiam_zoo.charts.tables import html_table, text_table
from simsiam_zoo.errors import InputError, ZooError
from simsiam_zoo.metrics import all_frozen, figure_table, top1_of

if TYPE_CHECKING:
    from simsiam_zoo.evaluation.target import EvalTarget
    from simsiam_zoo.exchange.export import Exported
    from simsiam_zoo.runtime.progress import Progress


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one network on one data set.

    `report` is what `simsiam-zoo evaluate --json` prints; `path` the file that it was written to,
    if it was.
    """

    report: dict[str, Any] = field(repr=False)
    path: Path | None = None

    @property
    def figures(self) -> list[dict[str, Any]]:
        """One row for each protocol: `protocol`, `top1` (0 to 1), `top1_interval`, `per_class`,
        `confusion`, ..."""
        return list(self.report["figures"])

    @property
    def untrained(self) -> list[dict[str, Any]]:
        """The same of the network as the run began with it; [] where that was not measured."""
        return list(self.report.get("untrained", ()))

    def top1(self, protocol: str) -> float:
        """The share of test images, 0 to 1, that are classified right by `knn`, or `knn k=200`.

        InputError: there is no such figure.
        """
        return top1_of(self.figures, protocol)

    @property
    def heading(self) -> str:
        """What was measured: the network, on which images."""
        data, frozen = self.report["data"], ", frozen," if all_frozen(self.figures) else ""
        images = f"{data['test_images']:,} {data['measured_on']} images of {data['name']}"
        return f"{self.report['network']}{frozen} on {images}"

    def __str__(self) -> str:
        return f"{self.heading}\n{text_table(figure_table(self.figures))}"

    def _repr_html_(self) -> str:
        return html_table(figure_table(self.figures), self.heading)


def evaluate(
    source: RunLike,
    data: Path | str | None = None,
    *,
    protocols: Sequence[str] = (),
    untrained: bool | None = None,
    validation: float | str | None = None,
    preset: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int = 256,
    out: Path | str | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Take the features of a frozen network once, and measure them: `simsiam-zoo evaluate`.

    Args:
        source: a run, its folder, a checkpoint in it, or `timm:NAME`.
        data: a dataset's name, images or shards; by default the run's own.
        protocols: specs, `knn:k=20`; by default the recipe's.
        untrained: measure the network as the run began with it too; None: where a protocol trains
            the network.
        validation: measure on this share of the training images and not on test images.
        preset: transform and data of a source that is no run.
        device, precision: where, and in what arithmetic; by default as the recipe says.
        batch_size: images at once, of each process.
        out: the report, .json; by default in RUN/evaluations/.
        quiet: show no progress.

    Raises:
        InputError: there is no such source or data, or nothing can be measured there.
        DataError: data or weights are damaged.
        PluginError: a component cannot be used.
    """
    (found,) = evaluate_on(
        named(source),
        [data],
        protocols=protocols,
        validation=validation,
        device=device,
        precision=precision,
        untrained=untrained,
        preset=preset,
        batch_size=batch_size,
        out=None if out is None else Path(out),
        quiet=quiet,
    )
    return found


def evaluate_on(
    source: str,
    data: Sequence[Path | str | None],
    *,
    protocols: Sequence[str],
    validation: float | str | None,
    device: str | None,
    precision: str | None,
    untrained: bool | None,
    preset: str | None,
    batch_size: int,
    out: Path | None,
    quiet: bool,
) -> list[Evaluation]:
    """`evaluate` on each of these data sets, under torchrun by every rank.

    Of several an error is a report as well, `{"error": ...}`, and leaves the others'; `out` is then
    the caller's to write.
    """
    from simsiam_zoo.evaluation.source import find_run
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.runtime.folders import check_out

    for protocol in protocols:  # a wrong name is told before torch is imported
        catalog().resolve("protocol", protocol)
    stated = {
        "training.device": device,
        "training.precision": precision,
        "data.validation": validation,
        "evaluation.protocols": list(dict.fromkeys(protocols)) or None,
    }
    same = {
        key: Text(value) if isinstance(value, str) else value
        for key, value in stated.items()
        if value is not None
    }
    settings = [same | ({} if each is None else data_settings(each)) for each in data]
    if (run := find_run(source, preset)) is not None:  # so are a wrong run, device and precision
        own = {key: value for key, value in same.items() if key != "data.validation"}
        Recipe.of_run(run / "recipe.toml", own)

    from simsiam_zoo.evaluation.target import open_target
    from simsiam_zoo.runtime import distributed
    from simsiam_zoo.runtime.progress import Progress, open_progress

    several = len(settings) > 1
    if out is not None:
        check_out(out, "a report is", ".json")
    with distributed.joined():
        targets = distributed.together(
            lambda: [open_target(source, each, preset) for each in settings]
        )
        with open_progress(quiet) if distributed.rank() == 0 else Progress() as progress:
            targets = _beside(targets, untrained, progress)
            path = None if several else out
            return [_measured(each, batch_size, progress, path, several) for each in targets]


def _measured(
    target: EvalTarget, batch: int, progress: Progress, path: Path | None, several: bool
) -> Evaluation:
    """The report, and where it was written: in `path`, or beside the run.

    Of `several` data sets an error is a report as well; but not on several processes, of which
    one may have failed alone.
    """
    from simsiam_zoo.charts.drawing import evaluation_sheet
    from simsiam_zoo.evaluation.evaluate import evaluate as measure
    from simsiam_zoo.evaluation.evaluate import new_report_path, write_report
    from simsiam_zoo.runtime import distributed
    from simsiam_zoo.runtime.folders import save_text

    try:
        report = measure(target, batch=batch, progress=progress)
    except ZooError as error:
        if not several or distributed.world_size() > 1:
            raise
        stated = {"message": error.what, "hint": error.hint, "exit_code": error.exit_code}
        return Evaluation({"error": stated})
    if path is None and (run := target.run) is not None:
        path = Path(distributed.from_main(lambda: str(new_report_path(run))))
    if path is not None and distributed.rank() == 0:
        write_report(report, path)
        if (drawn := evaluation_sheet(report)) is not None:
            save_text(path.with_suffix(".svg"), drawn)
    return Evaluation(report, path)


def _beside(
    targets: Sequence[EvalTarget], asked: bool | None, progress: Progress
) -> list[EvalTarget]:
    """The targets, which are of one network, with the untrained network where it is wanted.

    It needs the run's own data, for its BN statistics; without them it is left out, unless it was
    asked for: then InputError.
    """
    from simsiam_zoo.evaluation.protocol import wants_images
    from simsiam_zoo.recipe import Recipe
    from simsiam_zoo.training.conclude import untrained_network
    from simsiam_zoo.training.setup import prepare
    from simsiam_zoo.training.weights import load_init

    first = targets[0]
    if asked is None:
        protocols = (resolved.create() for resolved in first.recipe.protocols())
        wanted = len(targets) > 1 or any(map(wants_images, protocols))
    else:
        wanted = asked
    untrained = None
    if wanted and first.run is not None:
        recipe = Recipe.of_run(first.run / "recipe.toml")
        recipe = recipe.model_copy(update={"training": first.recipe.training})
        try:
            setup = prepare(recipe, load_init(first.run))  # which opens the data anew
            untrained = untrained_network(setup).backbone
        except ZooError as error:
            if asked:
                raise
            progress.say(f"the untrained network is not measured: {error.what}")
    elif asked:
        raise InputError(
            f"{first.source} is no run, and has no untrained network",
            "Evaluate timm:NAME:pretrained=false.",
        )
    return [replace(each, backbone=first.backbone, untrained=untrained) for each in targets]


def export(run: RunLike, to: str, out: Path | str | None = None) -> Exported:
    """Write a run's backbone for another library and check it there: `simsiam-zoo export`.

    `to` is a format: `timm`, `torchvision`, `safetensors`, or one of a plugin; `out` is in the
    run's folder, in `exports/`, by default. Raises as `exchange.export.export_backbone` does.

    Returns:
        Its `path`, the `code` that loads it, and by how much its features differ from the run's.
    """
    catalog().resolve("format", to)  # a wrong name is told before torch is imported
    found = opened(run)
    from simsiam_zoo.exchange.export import export_backbone

    return export_backbone(found, to, out)
