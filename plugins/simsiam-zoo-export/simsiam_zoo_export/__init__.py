"""Export formats: ONNX graphs, programs of torch.export, folders for the Hub. No torch here."""

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl


@hookimpl
def zoo_components() -> Iterator[Component]:
    """The three formats."""
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
    yield Component(
        "format",
        "hub",
        target="simsiam_zoo_export.hub:HubFormat",
        summary="A folder for the Hugging Face Hub, with a model card",
        reference="https://huggingface.co/docs/hub/model-cards",
        params=(Param("license", str, None, "Of the weights, as the Hub spells it: cc-by-4.0"),),
    )
