"""What this package supplies. No torch here: the bodies are imported when a model is built."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl

SWAV = "arXiv:2006.09882"
_HERE = "simsiam_zoo_multiview"


@hookimpl
def zoo_components() -> Iterator[Component]:
    """An augmentation, two gradient policies and two presets."""
    yield Component(
        "augmentation",
        "multi-crop",
        target=f"{_HERE}.augmentation:MultiCrop",
        summary="Large views and several small ones, for the policy multi-crop",
        params=(
            Param("base", str, "simsiam", "The built-in augmentation that draws all but the crop"),
            Param("large", int, 2, "Large views, of data.image_size", min=1, max=16),
            Param("small", int, 6, "Small views", min=0, max=64),
            Param(
                "small_size",
                int,
                "auto",
                "Side of a small view in pixels; auto: 96/224 of a large one's",
                min=1,
                words=("auto",),
            ),
            Param("min_scale", float, 0.05, "Smallest share of the area in small views", 1e-3, 1),
            Param("split_scale", float, 0.14, "Largest in small views, smallest in large", 1e-3, 1),
            Param("max_scale", float, 1.0, "Largest in large views", 1e-3, 1),
        ),
        reference=f"{SWAV} appendix A",
    )
    yield from _policies()
    yield Component(
        "preset",
        "multi-crop-mnist-5k",
        target=f"{_HERE}:multi-crop-mnist-5k.toml",
        summary="mnist-5k with 2 views of 32 px and 4 of 16 px",
        reference=SWAV,
    )
    yield Component(
        "preset",
        "multi-crop",
        target=f"{_HERE}:multi-crop.toml",
        summary="imagenet with 2 views of 224 px and 6 of 96 px",
        reference=SWAV,
    )


def _policies() -> Iterator[Component]:
    yield Component(
        "gradient",
        "multi-crop",
        target=f"{_HERE}.policies:MultiCrop",
        summary="Each view's prediction against z of the large views, without gradient",
        params=(
            Param(
                "predictors",
                str,
                "one",
                "One for all views, or one for each size",
                choices=("one", "by-size"),
            ),
        ),
        reference=f"{SWAV} section 3.2; arXiv:2602.05845",
    )
    yield Component(
        "gradient",
        "fastsiam",
        target=f"{_HERE}.policies:FastSiam",
        summary="FastSiam's: each view's prediction against the mean z of the others",
        params=(
            Param("views", int, 4, "Views of each image", min=2, max=64),
            Param("normalize", bool, False, "l2-normalise z before the mean"),
        ),
        reference="doi:10.1007/978-3-031-16788-1_4",
    )
