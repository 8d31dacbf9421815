"""The format `hub`: a folder as the Hugging Face Hub takes it, with a model card.

The card says what the weights are, how they came about, and what was measured of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCardData

from simsiam_zoo.errors import InputError
from simsiam_zoo.exchange.export import ExportFormat, ExportSource, timm_code, timm_images
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.training.export import write_backbone
from simsiam_zoo.training.run import Run

WEIGHTS = "model.safetensors"
"""The name that timm looks for on the Hub."""


class HubFormat(ExportFormat):
    """A folder: model.safetensors, README.md and, where timm can say it, config.json.

    timm's config.json cannot say how a module was changed (VGG without its fc layers, the ResNets
    for 32 px): such a folder has none, and the card has the Python instead.

    Args:
        license: of the weights, as the Hub spells it (`cc-by-4.0`); None: unknown.
    """

    file = "hub"

    def __init__(self, *, license: str | None) -> None:
        self.license = license

    def write(self, source: ExportSource, path: Path) -> None:
        """Raises InputError where the backbone is none of timm's, or there is no run."""
        made = source.made_by_timm()
        if source.run is None:
            raise InputError("a model card is of a run, and there is none")
        path.mkdir()
        write_backbone(source.backbone, source.recipe, source.identity, path / WEIGHTS)
        if not made.changes:
            atomic_write_text(path / "config.json", json.dumps(timm_config(source), indent=2))
        atomic_write_text(path / "README.md", model_card(source, source.run, self.license))

    def code(self, source: ExportSource, path: Path) -> str:
        """See the base class."""
        if source.made_by_timm().changes:
            return timm_code(source, str(path / WEIGHTS))
        model = f"timm.create_model({f'local-dir:{path}'!r}, pretrained=True)"
        return "\n".join(
            ["import timm", f"model = {model}", "model.eval()", "features = model(images)"]
        )


def timm_config(source: ExportSource) -> dict[str, Any]:
    """What timm's `create_model("hf-hub:...")` and `("local-dir:...")` read."""
    made = source.made_by_timm()
    known: Any = timm.get_pretrained_cfg(made.name)
    own = known.to_dict() if known is not None else {}
    kept = ("pool_size", "first_conv", "classifier")
    return {
        "architecture": made.name,
        "num_classes": 0,
        "num_features": getattr(source.backbone, "num_features", None),
        "model_args": dict(made.kwargs),
        "pretrained_cfg": {
            "num_classes": 0,
            "fixed_input_size": bool(own.get("fixed_input_size", False)),
            **timm_images(source.recipe),
            **{key: own.get(key) for key in kept},
        },
    }


def model_card(source: ExportSource, run: Run, license: str | None) -> str:
    """README.md as the Hub reads it: YAML front matter, then the text.

    Every figure comes with its protocol; a run without a result has none.
    """
    front = _front_matter(run, license).to_yaml().strip()
    sections = [_what(run, license), _use(source), _figures(run), _recipe(run)]
    return "\n\n".join([f"---\n{front}\n---", *sections]) + "\n"


def _front_matter(run: Run, license: str | None) -> ModelCardData:
    name = run.folder.resolve().name
    trained = _trained(run)
    return ModelCardData(
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=["timm", "self-supervised-learning", "simsiam"],
        license=license,
        model_name=name if trained else None,
        eval_results=[_eval_result(run, figure) for figure in trained] or None,
    )


def _eval_result(run: Run, figure: dict[str, Any]) -> EvalResult:
    dataset = run.recipe.dataset.name
    return EvalResult(
        task_type="image-classification",
        task_name="Image classification on frozen features",
        dataset_type=dataset,
        dataset_name=dataset,
        dataset_split="test",
        metric_type="accuracy",
        metric_name=f"top-1, {_protocol(figure)}",
        metric_value=figure["top1"],
    )


def _trained(run: Run) -> list[dict[str, Any]]:
    """The figures of the trained network: the run's first, before its baselines."""
    figures = run.figures
    return [figure for figure in figures if figure["network"] == figures[0]["network"]]


def _protocol(figure: dict[str, Any]) -> str:
    return f"{figure['protocol']}, version {figure['protocol_version']}"


def _what(run: Run, license: str | None) -> str:
    recipe = run.recipe
    lines = [
        f"# {run.folder.resolve().name}",
        "",
        f"A {recipe.backbone.name} whose features were learned without labels, with"
        " [SimSiam](https://arxiv.org/abs/2011.10566) as simsiam-zoo takes it apart.",
        "",
        f"- Data set: {recipe.dataset.name}, at {recipe.data.image_size} px",
        f"- Verdict: {_verdict(run)}",
        f"- Identity of the run: `{run.lock.get('identity', '')}`",
        f"- Licence: {license or 'none was stated'}",
    ]
    if imported := run.lock.get("imported"):
        lines.append(
            f"- Imported from `{imported['source']}` (sha256 `{imported['sha256']}`), not trained"
            " from scratch by this recipe"
        )
    return "\n".join(lines)


def _verdict(run: Run) -> str:
    result = run.result
    if result is None:
        return "none: the run is not complete"
    return f"{result['verdict']} ({result['reason']})"


def _use(source: ExportSource) -> str:
    """The Python of the card; the folder is whatever the reader downloaded it to."""
    if source.made_by_timm().changes:
        return f"## Use\n\n```python\n{timm_code(source, WEIGHTS)}\n```"
    code = [
        "import timm",
        "",
        'model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True)  # or local-dir:FOLDER',
        "model.eval()",
        "features = model(images)",
    ]
    return "## Use\n\n```python\n" + "\n".join(code) + "\n```"


def _figures(run: Run) -> str:
    figures = run.figures
    if not figures:
        return "## Figures\n\nNone: the run was not evaluated."
    rows = ["| network | protocol | test images | top-1 |", "| --- | --- | --- | --- |"]
    rows += [
        f"| {figure['network']} | {_protocol(figure)} | {figure['test_images']:,} |"
        f" {100 * figure['top1']:.1f} % |"
        for figure in figures
    ]
    text = f"On the test images of {run.recipe.dataset.name}, features frozen:"
    return "## Figures\n\n" + text + "\n\n" + "\n".join(rows)


def _recipe(run: Run) -> str:
    return f"## Recipe\n\n```toml\n{run.recipe.to_toml().strip()}\n```"
