"""What this package supplies. No torch here: the bodies are imported when a model is built."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl

BYOL = "arXiv:2006.07733"
_HERE = "simsiam_zoo_byol"


@hookimpl
def zoo_components() -> Iterator[Component]:
    """A gradient policy, the two heads, an augmentation and two presets."""
    yield Component(
        "gradient",
        "momentum",
        target=f"{_HERE}.momentum:Momentum",
        summary="The target is z of a network that follows the trained one as a moving average",
        params=(
            Param("tau", float, 0.996, "What the target keeps in a step, at the start", 0, 1),
            Param("schedule", str, "cosine", "Of tau, up to 1", choices=("cosine", "constant")),
        ),
        reference=f"{BYOL} section 3.1",
    )
    hidden = Param("hidden_dim", int, 4096, "Width of the hidden layer", min=1)
    yield Component(
        "projector",
        "byol",
        target=f"{_HERE}.heads:ByolProjector",
        summary="fc-BN-ReLU, then a plain fc: no BN on the output",
        params=(hidden, Param("out_dim", int, 256, "Width of the output z", min=1)),
        reference=f"{BYOL} section 3.3",
    )
    yield Component(
        "predictor",
        "byol",
        target=f"{_HERE}.heads:ByolPredictor",
        summary="The projector's architecture once more: no bottleneck",
        params=(hidden,),
        reference=f"{BYOL} section 3.3",
    )
    yield _augmentation()
    for name, summary, reference in (
        ("byol", "BYOL's ImageNet settings, 100 epochs at batch 4096", f"{BYOL} section 3.3"),
        ("byol-mnist-5k", "The preset mnist-5k with BYOL's momentum target", BYOL),
    ):
        yield Component("preset", name, f"{_HERE}:{name}.toml", summary, reference=reference)


def _augmentation() -> Component:
    return Component(
        "augmentation",
        "byol",
        target=f"{_HERE}.augmentation:ByolAugmentation",
        summary="Crop, flip, jitter, grey; blur and solarisation differ between the two views",
        params=(
            Param("min_scale", float, 0.08, "Smallest crop, as a share of the area", 0.01, 1),
            Param("brightness", float, 0.4, "Strength of the brightness jitter", 0, 1),
            Param("contrast", float, 0.4, "Strength of the contrast jitter", 0, 1),
            Param("saturation", float, 0.2, "Strength of the saturation jitter", 0, 1),
            Param("hue", float, 0.1, "Strength of the hue jitter", 0, 0.5),
            Param("jitter_p", float, 0.8, "Share of views with colour jitter", 0, 1),
            Param("gray_p", float, 0.2, "Share of views turned grey", 0, 1),
            Param("flip_p", float, 0.5, "Share of views mirrored", 0, 1),
            Param("brightness_offset", bool, True, "Brightness is added; else a factor"),
            Param(
                "interpolation",
                str,
                "bicubic",
                "Of the crop's resize",
                choices=("bilinear", "bicubic"),
            ),
            Param("blur_p1", float, 1.0, "Share of first views blurred (sigma 0.1 to 2)", 0, 1),
            Param("blur_p2", float, 0.1, "Share of second views blurred", 0, 1),
            Param("solarize_p1", float, 0.0, "Share of first views solarised", 0, 1),
            Param("solarize_p2", float, 0.2, "Share of second views solarised", 0, 1),
        ),
        reference=f"{BYOL} appendix B",
    )
