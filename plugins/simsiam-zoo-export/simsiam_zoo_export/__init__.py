"""Export formats of simsiam-zoo: ONNX graphs and programs of torch.export. No torch here."""

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, hookimpl


@hookimpl
def zoo_components() -> Iterator[Component]:
    """The two formats."""
    yield Component(
        "format",
        "onnx",
        target="simsiam_zoo_export.traced:OnnxFormat",
        summary="The computation as an ONNX graph, for onnxruntime",
        reference="https://onnx.ai",
    )
    yield Component(
        "format",
        "pt2",
        target="simsiam_zoo_export.traced:Pt2Format",
        summary="The computation as a program of torch.export",
        reference="https://docs.pytorch.org/docs/stable/export.html",
    )
