"""The model card: what the weights are, how they came about, what was measured of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from simsiam_zoo.exchange.formats import Source, timm_code
from simsiam_zoo.model.backbones import TimmRecipe


def model_card(source: Source, made: TimmRecipe, weights: str) -> str:
    """README.md as the Hub reads it: YAML front matter, then the text.

    Every figure comes with its protocol; a run without a result has none.

    Args:
        source, made: the backbone.
        weights: name of the file with the weights.
    """
    front = _front_matter(source).to_yaml().strip()
    sections = [_what(source), _use(made, weights), _figures(source), _recipe(source)]
    return "\n\n".join([f"---\n{front}\n---", *sections]) + "\n"


def _front_matter(source: Source) -> ModelCardData:
    name = source.run.folder.resolve().name
    trained = _trained(source)
    return ModelCardData(
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=["timm", "self-supervised-learning", "simsiam"],
        license=source.licence,
        model_name=name if trained else None,
        eval_results=[_eval_result(source, figure) for figure in trained] or None,
    )


def _eval_result(source: Source, figure: dict[str, Any]) -> EvalResult:
    dataset = source.recipe.dataset.name
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


def _trained(source: Source) -> list[dict[str, Any]]:
    """The figures of the trained network: the run's first, before its baselines."""
    figures = source.run.figures
    return [figure for figure in figures if figure["network"] == figures[0]["network"]]


def _protocol(figure: dict[str, Any]) -> str:
    return f"{figure['protocol']}, version {figure['protocol_version']}"


def _what(source: Source) -> str:
    run, recipe = source.run, source.recipe
    lines = [
        f"# {run.folder.resolve().name}",
        "",
        f"A {recipe.backbone.name} whose features were learned without labels, with"
        " [SimSiam](https://arxiv.org/abs/2011.10566) as simsiam-zoo takes it apart.",
        "",
        f"- Data set: {recipe.dataset.name}, at {recipe.data.image_size} px",
        f"- Verdict: {_verdict(source)}",
        f"- Identity of the run: `{source.identity}`",
        f"- Licence: {source.licence or 'none was stated'}",
    ]
    if imported := run.lock.get("imported"):
        lines.append(
            f"- Imported from `{imported['source']}` (sha256 `{imported['sha256']}`), not trained"
            " from scratch by this recipe"
        )
    return "\n".join(lines)


def _verdict(source: Source) -> str:
    result = source.run.result
    if result is None:
        return "none: the run is not complete"
    return f"{result['verdict']} ({result['reason']})"


def _use(made: TimmRecipe, weights: str) -> str:
    """The Python of the card; the folder is whatever the reader downloaded it to."""
    if made.changes:
        return f"## Use\n\n```python\n{timm_code(made)(Path(weights))}\n```"
    code = [
        "import timm",
        "",
        'model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True)  # or local-dir:FOLDER',
        "model.eval()",
        "features = model(images)",
    ]
    return "## Use\n\n```python\n" + "\n".join(code) + "\n```"


def _figures(source: Source) -> str:
    figures = source.run.figures
    if not figures:
        return "## Figures\n\nNone: the run was not evaluated."
    rows = ["| network | protocol | test images | top-1 |", "| --- | --- | --- | --- |"]
    rows += [
        f"| {figure['network']} | {_protocol(figure)} | {figure['test_images']:,} |"
        f" {100 * figure['top1']:.1f} % |"
        for figure in figures
    ]
    text = f"On the test images of {source.recipe.dataset.name}, features frozen:"
    return "## Figures\n\n" + text + "\n\n" + "\n".join(rows)


def _recipe(source: Source) -> str:
    return f"## Recipe\n\n```toml\n{source.recipe.to_toml().strip()}\n```"
