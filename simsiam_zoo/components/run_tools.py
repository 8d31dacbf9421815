"""The built-in components that serve whole runs: protocols, loggers, launchers, export formats, and
the presets and studies. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.catalog import Component, Param

SIMSIAM = "arXiv:2011.10566"
_HERE = "simsiam_zoo.components"


def run_tools() -> Iterator[Component]:
    """Protocols, loggers, launchers, formats, presets and studies."""
    yield from _protocols()
    yield from _loggers()
    yield from _launchers()
    yield from _formats()
    yield from _presets()
    yield from _studies()


def _protocols() -> Iterator[Component]:
    logistic = (
        Param("c", float, 1.0, "Inverse strength of the l2 penalty", min=1e-6),
        Param("max_iter", int, 500, "Most L-BFGS iterations", min=1),
    )
    yield Component(
        "protocol",
        "knn",
        target="simsiam_zoo.evaluation.knn:KnnProtocol",
        summary="Cosine-weighted k nearest neighbours on frozen features",
        params=(
            Param("k", int, None, "Neighbours that vote (default: 20, and 200)", min=1),
            Param("t", float, 0.1, "Temperature: a vote weighs exp(similarity / t)", min=1e-3),
        ),
        reference="arXiv:1805.01978",
    )
    yield Component(
        "protocol",
        "linear",
        target="simsiam_zoo.evaluation.linear:LinearProtocol",
        summary="Linear classifier by SGD, lr and weight decay chosen on held-out training images",
        params=(
            Param("lrs", list[float], [0.003, 0.01, 0.03, 0.1, 0.3], "Base lrs to try", min=1e-12),
            Param("wds", list[float], [0, 1e-4, 1e-3, 1e-2], "Weight decays to try", min=0),
            Param("epochs", int, 50, "Passes over the training features", min=1),
            Param("batch", int, None, "Images per step (default: about a 32nd of them)", min=1),
        ),
    )
    yield Component(
        "protocol",
        "linear-paper",
        target="simsiam_zoo.evaluation.linear_paper:LinearPaperProtocol",
        summary="The paper's: 90 epochs of LARS on crops and flips, tested on centre crops",
        params=(
            Param("lr", float, 0.1, "Base lr; the paper's text says 0.02, its code 0.1", min=1e-9),
            Param("epochs", int, 90, "Passes over the training images", min=1),
            Param("batch", int, 4096, "Images per step; at most the training set", min=1),
        ),
        reference=f"{SIMSIAM} section 3",
    )
    yield Component(
        "protocol",
        "logistic",
        target="simsiam_zoo.evaluation.logistic:LogisticProtocol",
        summary="L-BFGS logistic regression on standardised frozen features",
        params=logistic,
        reference="sklearn.linear_model.LogisticRegression",
    )
    yield Component(
        "protocol",
        "low-shot",
        target="simsiam_zoo.evaluation.logistic:LowShotProtocol",
        summary="Logistic regression on 1% and on 10% of the labels",
        params=(Param("seed", int, 0, "Chooses the labelled images", min=0), *logistic),
        reference="sklearn.linear_model.LogisticRegression",
    )


def _loggers() -> Iterator[Component]:
    where = "Where it is written; relative to the run's folder"
    yield Component(
        "logger",
        "tensorboard",
        target=f"{_HERE}.loggers:TensorBoardLogger",
        summary="Event files for TensorBoard; needs simsiam-zoo[tensorboard]",
        params=(Param("path", str, "tensorboard", where, operational=True),),
        reference="https://www.tensorflow.org/tensorboard",
    )
    yield Component(
        "logger",
        "csv",
        target=f"{_HERE}.loggers:CsvLogger",
        summary="One table, a column for each figure, for spreadsheets and data frames",
        params=(Param("path", str, "metrics.csv", where, operational=True),),
    )


def _launchers() -> Iterator[Component]:
    yield Component(
        "launcher",
        "local",
        target="simsiam_zoo.studies.launcher:LocalLauncher",
        summary="Processes on this machine; whole GPUs, handed out among the jobs",
    )


def _formats() -> Iterator[Component]:
    for name, target, summary in (
        ("timm", "TimmFormat", "Weights by timm's keys"),
        ("torchvision", "TorchvisionFormat", "Weights by torchvision's keys"),
        ("safetensors", "SafetensorsFormat", "Weights, and what rebuilds the backbone"),
    ):
        yield Component("format", name, f"simsiam_zoo.exchange.export:{target}", summary)
    yield Component(
        "format",
        "hub",
        target="simsiam_zoo.exchange.hub:HubFormat",
        summary="A folder for the Hugging Face Hub, with a model card",
        params=(Param("license", str, None, "Of the weights, as the Hub spells it: cc-by-4.0"),),
        reference="https://huggingface.co/docs/hub/model-cards",
    )


def _presets() -> Iterator[Component]:
    package = "simsiam_zoo.recipe.presets"
    for name, summary in (
        ("mnist-5k", "5,000 MNIST images, ResNet-10-T: two minutes on two cores"),
        ("digits", "scikit-learn's 8x8 digits: seconds, for tours and tests"),
        ("cifar10", "The paper's CIFAR-10 settings (appendix D), 800 epochs"),
        ("imagenet", "The paper's ImageNet settings, 100 epochs at batch 512"),
    ):
        yield Component("preset", name, f"{package}:{name}.toml", summary, reference=SIMSIAM)


def _studies() -> Iterator[Component]:
    package = "simsiam_zoo.studies.presets"
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
    ):
        target = f"{package}:{name}.toml"
        yield Component("study", name, target, summary, reference=f"{SIMSIAM}{where}")
