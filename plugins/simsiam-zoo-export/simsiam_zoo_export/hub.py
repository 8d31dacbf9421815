"""The format `hub`: a folder as the Hugging Face Hub takes it, with a model card.

The card says what the weights are, how they came about, and what was measured of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm

from simsiam_zoo.plugin import ExportFormat, ExportSource, InputError, atomic_write_text

WEIGHTS = "model.safetensors"
"""The name that timm looks for on the Hub."""

CARD = """\
---
library_name: timm
pipeline_tag: image-feature-extraction
tags: [timm, self-supervised-learning, simsiam]
{license_line}---

# {name}

A {backbone} whose features were learned without labels, with \
[SimSiam](https://arxiv.org/abs/2011.10566) as simsiam-zoo takes it apart.

- Data set: {dataset}, at {size} px
- Verdict: {verdict}
- Identity of the run: `{identity}`
- Licence: {license}
{imported}
## Use

```python
{code}
```

## Figures

{figures}

## Recipe

```toml
{recipe}
```
"""


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
        card = model_card(source, self.license)
        path.mkdir()
        source.write_weights(path / WEIGHTS)
        if not made.changes:
            atomic_write_text(path / "config.json", json.dumps(timm_config(source), indent=2))
        atomic_write_text(path / "README.md", card)

    def code(self, source: ExportSource, path: Path) -> str:
        """See the base class."""
        return _code(source, f"local-dir:{path}", str(path / WEIGHTS))


def _code(source: ExportSource, model: str, weights: str, remark: str = "") -> str:
    """Python that loads the folder: by timm's name for it, or of a changed module by its file."""
    if source.made_by_timm().changes:
        return source.timm_code(weights)
    create = f"model = timm.create_model({model!r}, pretrained=True){remark}"
    return "\n".join(["import timm", create, "model.eval()", "features = model(images)"])


def timm_config(source: ExportSource) -> dict[str, Any]:
    """What timm's `create_model("hf-hub:...")` and `("local-dir:...")` read."""
    made = source.made_by_timm()
    known: Any = timm.get_pretrained_cfg(made.name)
    own = known.to_dict() if known is not None else {}
    return {
        "architecture": made.name,
        "num_classes": 0,
        "num_features": getattr(source.backbone, "num_features", None),
        "model_args": dict(made.kwargs),
        "pretrained_cfg": {
            "num_classes": 0,
            "fixed_input_size": bool(own.get("fixed_input_size", False)),
            **source.timm_images(),
            **{key: own.get(key) for key in ("pool_size", "first_conv", "classifier")},
        },
    }


def model_card(source: ExportSource, license: str | None) -> str:
    """README.md as the Hub reads it: YAML front matter, then the text.

    Every figure comes with its protocol; a run without a result has none. Raises InputError where
    there is no run.
    """
    if (run := source.run) is None:
        raise InputError("a model card is of a run, and there is none")
    recipe, result, imported = run.recipe, run.result, run.lock.get("imported")
    return CARD.format(
        license_line="" if license is None else f"license: {json.dumps(license)}\n",
        name=run.folder.resolve().name,
        backbone=recipe.backbone.name,
        dataset=recipe.dataset.name,
        size=recipe.data.image_size,
        verdict="none: the run is not complete"
        if result is None
        else f"{result['verdict']} ({result['reason']})",
        identity=source.identity,
        license=license or "none was stated",
        imported=""
        if imported is None
        else f"- Imported from `{imported['source']}` (sha256 `{imported['sha256']}`), not trained"
        " from scratch by this recipe\n",
        code=_code(source, "hf-hub:OWNER/NAME", WEIGHTS, "  # or local-dir:FOLDER"),
        figures=_figures(
            [*run.figures, *run.baselines],
            (result or {}).get("measured_on", "test"),
            recipe.dataset.name,
        ),
        recipe=recipe.to_toml().strip(),
    )


def _figures(figures: list[dict[str, Any]], measured_on: str, dataset: str) -> str:
    if not figures:
        return "None: the run was not evaluated."
    rows = [
        f"| {figure['network']} | {figure['protocol']}, version {figure['protocol_version']} |"
        f" {figure['test_images']:,} | {100 * figure['top1']:.1f} % |"
        for figure in figures
    ]
    head = [f"| network | protocol | {measured_on} images | top-1 |", "| --- | --- | --- | --- |"]
    frozen = ", features frozen" if all(f.get("frozen", True) for f in figures) else ""
    text = f"On the {measured_on} images of {dataset}{frozen}:"
    return "\n".join([text, "", *head, *rows])
