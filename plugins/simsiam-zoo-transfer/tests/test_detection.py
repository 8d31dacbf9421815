"""A run's ResNet inside torchvision's detectors and segmentation models, trained for five steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import simsiam_zoo as zoo
from simsiam_zoo.catalog import catalog
from simsiam_zoo.exchange.export import Exported, create_format, write_checked
from simsiam_zoo.plugin import ExportSource, InputError

SIDE = 64


def source(name: str) -> ExportSource:
    """A backbone with BN statistics and scales of its own, in eval mode."""
    given = {"backbone": name, "data.image_size": SIDE, "data.mean": [0.1, 0.2, 0.3]}
    recipe = zoo.Recipe.make("digits", None, given)
    torch.manual_seed(0)
    backbone = recipe.part("backbone").create(image_size=SIDE)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for each in (module.running_var, module.weight.data):
                each.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
    return ExportSource(backbone.eval(), recipe)


def written(of: ExportSource, folder: Path, params: str = "") -> Exported:
    chosen = catalog().resolve("format", f"torchvision-detection{params}")
    form = create_format(chosen)
    return write_checked(form, chosen.name, of, folder / form.file)


def shapes(count: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Noise with one bright rectangle in each image, of class 1 or 2 by its colour."""
    generator = torch.Generator().manual_seed(1)
    images, targets = [], []
    for number in range(count):
        image = 0.2 * torch.rand(3, SIDE, SIDE, generator=generator)
        left, top = torch.randint(4, 28, (2,), generator=generator).tolist()
        image[number % 2, top : top + 28, left : left + 28] = 1.0
        mask = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
        mask[0, top : top + 28, left : left + 28] = 1
        box = torch.tensor([[left, top, left + 28, top + 28]], dtype=torch.float32)
        targets.append({"boxes": box, "labels": torch.tensor([1 + number % 2]), "masks": mask})
        images.append(image)
    return images, targets


def five_steps(model: nn.Module, loss_of: Any) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    model.train()
    losses = []
    for _ in range(5):
        torch.manual_seed(0)  # proposals are sampled
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_the_printed_python_builds_a_detector_with_the_runs_body_that_trains(
    tmp_path: Path,
) -> None:
    of = source("resnet18")
    done = written(of, tmp_path, ":model=maskrcnn,classes=3")
    assert done.difference <= 1e-5 < done.largest
    names: dict[str, Any] = {"images": of.images(2)}
    with torch.no_grad():
        exec(done.code, names)
    model = names["model"]
    state = torch.load(done.path, weights_only=True)
    assert model.backbone.body.state_dict().keys() == state.keys()  # as of a strict load
    assert all(torch.equal(v, state[k]) for k, v in model.backbone.body.state_dict().items())
    assert model.transform.image_mean == [0.1, 0.2, 0.3]
    assert not any("Frozen" in type(module).__name__ for module in model.modules())
    model.transform.min_size, model.transform.max_size = (SIDE,), SIDE
    images, targets = shapes(2)
    losses = five_steps(model, lambda: sum(model(images, targets).values()))
    assert losses[-1] < losses[0]
    first = model.backbone.body.conv1.weight
    assert not torch.equal(first, state["conv1.weight"])  # all layers are trained
    model.eval()
    with torch.no_grad():
        found = model(images)
    assert {*found[0]} >= {"boxes", "labels", "scores"}


def test_torchvisions_segmentation_models_take_the_same_file(tmp_path: Path) -> None:
    of = source("resnet50")
    file = written(of, tmp_path).path
    model = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=3
    )
    model.backbone.load_state_dict(torch.load(file, weights_only=True))  # strictly
    images, targets = shapes(2)
    truth = torch.stack([t["masks"][0].long() * t["labels"] for t in targets])

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(torch.stack(images))["out"], truth)

    losses = five_steps(model, loss)
    assert losses[-1] < losses[0]


def test_faster_r_cnn_is_the_default_and_the_stem_for_32_px_goes_with_it(tmp_path: Path) -> None:
    done = written(source("resnet18_cifar"), tmp_path)
    assert "detection.FasterRCNN(backbone, num_classes=91" in done.code
    assert "backbone.body.maxpool = torch.nn.Identity()" in done.code


@pytest.mark.parametrize("name", ["test_vit", "resnet_small", "densenet121"])
def test_what_torchvisions_detectors_have_no_body_for_is_refused(name: str, tmp_path: Path) -> None:
    of = source(name)
    with pytest.raises(InputError, match="no body like the backbone") as refused:
        written(of, tmp_path / "new")
    assert "resnet50" in str(refused.value)
    assert [*tmp_path.iterdir()] == []
