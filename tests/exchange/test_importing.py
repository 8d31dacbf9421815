"""Import: what the original computation gives, the run's model gives."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import tomli_w
import torch
import torchvision
from click.testing import CliRunner
from made_weights import SMALL, images, stir
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import simsiam_zoo as zoo
from simsiam_zoo.cli.import_ import import_ as command
from simsiam_zoo.data.packing.writer import PackedSample, pack_dataset
from simsiam_zoo.errors import DataError, InputError
from simsiam_zoo.exchange.importing import import_checkpoint
from simsiam_zoo.model.gradients import StopGradient
from simsiam_zoo.model.siamese import Siamese


class Original(nn.Module):
    """The model as arXiv:2011.10566's authors lay it out around torchvision's ResNet."""

    def __init__(self, arch: str, dim: int = 24, hidden: int = 6) -> None:
        super().__init__()
        self.encoder: Any = torchvision.models.get_model(arch, num_classes=dim)
        width = self.encoder.fc.in_features
        self.encoder.fc = nn.Sequential(
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
            *(self.encoder.fc, nn.BatchNorm1d(dim, affine=False)),
        )
        self.encoder.fc[6].bias.requires_grad = False
        self.predictor = nn.Sequential(
            *(nn.Linear(dim, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
            nn.Linear(hidden, dim),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        return z, self.predictor(z)


@pytest.fixture(scope="module")
def original() -> Original:
    torch.manual_seed(1)
    model = stir(Original("resnet18"))
    assert isinstance(model, Original)
    nn.init.normal_(model.encoder.fc[6].bias)  # so that a bias which is lost is missed
    return model


def as_released(model: nn.Module, arch: str = "resnet18") -> dict[str, Any]:
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    return {"epoch": 100, "arch": arch, "state_dict": state, "optimizer": {"state": {}}}


@pytest.fixture
def released(original: Original, tmp_path: Path) -> Path:
    file = tmp_path / "checkpoint_0099.pth.tar"
    torch.save(as_released(original), file)
    return file


def test_the_original_layout_gives_the_original_z_and_p(original, released, tmp_path) -> None:
    run = import_checkpoint(released, tmp_path / "run", settings=SMALL)
    assert run.lock["imported"]["parts"] == ["backbone", "projector", "predictor"]
    model = zoo.load(tmp_path / "run").model
    with torch.no_grad():
        z, p = original(images(32))
        ours = model.encode(images(32))
        assert torch.allclose(ours, z, atol=1e-5)
        assert torch.allclose(model.predict(ours), p, atol=1e-5)
    assert z.std() > 0.01  # else anything would be near
    assert not hasattr(model.projector[6], "bias") or model.projector[6].bias is None


def test_the_folded_bias_has_no_effect_in_training_mode_either(
    original, released, tmp_path
) -> None:
    import_checkpoint(released, tmp_path / "run", settings=SMALL)
    model = zoo.load(tmp_path / "run").model.double().train()
    reference = Original("resnet18").double().train()
    reference.load_state_dict(original.state_dict())
    with torch.no_grad():
        z, p = reference(images(32, 8).double())
        ours = model.encode(images(32, 8).double())
        assert torch.allclose(ours, z, atol=1e-5)
        assert torch.allclose(model.predict(ours), p, atol=1e-5)
        # the running mean moved as the original's, but for the bias
        moved = model.projector[7].running_mean
        bias = reference.encoder.fc[6].bias
        # m' = 0.9 (m - b) + 0.1 (batch mean without b), which is the original's m' - b
        assert torch.allclose(moved, reference.encoder.fc[7].running_mean - bias, atol=1e-5)


def test_the_folder_says_where_its_weights_are_from(released, tmp_path) -> None:
    import_checkpoint(released, tmp_path / "run", settings=SMALL)
    lock = tomllib.loads((tmp_path / "run" / "lock.toml").read_text())
    digest = hashlib.sha256(released.read_bytes()).hexdigest()
    assert lock["imported"]["sha256"] == digest
    assert lock["imported"]["source"] == "checkpoint_0099.pth.tar"
    run = zoo.load(tmp_path / "run")
    assert run.recipe.training.init
    assert run.recipe.projector.params["hidden_dim"] == 512
    assert run.recipe.projector.params["out_dim"] == 24
    assert run.recipe.predictor.params["hidden_dim"] == 6
    assert run.result is None
    assert torch.equal(run.backbone.conv1.weight, run.model.backbone.conv1.weight)


def test_parts_are_set_up_with_the_imported_weights(
    original, released, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that copies the encoder, say, must not keep the weights that it replaced."""
    seen: list[Tensor] = []

    def setup(self: StopGradient, siamese: Siamese) -> None:
        seen.append(siamese.backbone.conv1.weight.detach().clone())

    monkeypatch.setattr(StopGradient, "setup", setup, raising=False)
    import_checkpoint(released, tmp_path / "run", settings=SMALL)
    assert torch.equal(seen[-1], original.encoder.conv1.weight)


def test_a_run_starts_from_imported_weights(released, tmp_path) -> None:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(24):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file, "PNG")
        samples.append(PackedSample(f"{i:04d}", file.getvalue(), "png", i % 2))
    (tmp_path / "data").mkdir()
    pack_dataset(
        tmp_path / "data", {"train": samples[:16], "val": samples[16:]}, ("a", "b"), shard_size=8
    )
    recipe = tmp_path / "recipe.toml"
    evaluation = {"protocols": ["knn:k=3"], "baselines": False, "rank_samples": 8}
    recipe.write_text(tomli_w.dumps({"preset": "digits", "evaluation": evaluation}))
    few: dict[str, object] = {"training.batch_size": 8, "training.epochs": 1, "data.workers": 0}
    few |= {"data.image_size": 16, "dataset": str(tmp_path / "data"), "optim.lr": 0.01}
    imported = import_checkpoint(
        released, tmp_path / "imported", file=recipe, settings={**SMALL, **few}
    )
    run = zoo.train(imported.recipe, tmp_path / "run", init=imported.folder, quiet=True)
    assert run.result is not None
    assert run.result["steps"] == 2
    assert run.lock["init"]["parts"] == ["backbone", "projector", "predictor"]
    key = "backbone.conv1.weight"
    moved = (run.model.state_dict()[key] - imported.model.state_dict()[key]).abs()
    assert 0 < float(moved.max()) < 0.05  # from there, not from a start of its own
    with pytest.raises(InputError, match="starts from the weights"):
        zoo.train(imported.recipe, tmp_path / "anew", quiet=True)
    assert not (tmp_path / "anew").exists()
    with pytest.raises(InputError, match="an imported run has no step"):
        zoo.train(imported.recipe, imported.folder, resume=True, quiet=True)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11_bn"])
def test_torchvisions_own_weights_give_torchvisions_features(name, tmp_path) -> None:
    torch.manual_seed(2)
    with torch.device("meta"):
        model: Any = torchvision.models.get_model(name)
    if name == "vgg11_bn":  # as in a published file, but for 500 MB
        model.classifier = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model = model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    stir(model)
    file = tmp_path / f"{name}.pth"
    torch.save(model.state_dict(), file)
    run = import_checkpoint(file, tmp_path / "run", backbone=name, settings=SMALL)
    nodes = {"resnet18": "flatten", "densenet121": "flatten", "vgg11_bn": "features"}
    extractor = torchvision.models.feature_extraction.create_feature_extractor(model, [nodes[name]])
    with torch.no_grad():
        found = extractor(images(32))[nodes[name]]
        ours = run.backbone(images(32))
    assert torch.allclose(ours, found.mean((2, 3)) if found.ndim == 4 else found, atol=1e-5)


def test_timms_vit_from_safetensors_gives_timms_features(tmp_path) -> None:
    torch.manual_seed(2)
    model = timm.create_model("test_vit", img_size=32).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    run = import_checkpoint(
        tmp_path / "model.safetensors", tmp_path / "run", backbone="test_vit", settings=SMALL
    )
    assert run.lock["imported"]["parts"] == ["backbone"]
    with torch.no_grad():
        pooled = model.forward_head(model.forward_features(images(32)), pre_logits=True)
        assert torch.allclose(run.backbone(images(32)), pooled, atol=1e-5)


def test_old_checkpoints_lack_counts_and_spell_densenet_with_dots(tmp_path) -> None:
    model = stir(timm.create_model("densenet121", num_classes=0))
    old = {}
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            dotted = key.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.")
            old[dotted.replace("conv1.", "conv.1.").replace("conv2.", "conv.2.")] = value
    assert any("denselayer1.norm.1.weight" in key for key in old)
    torch.save({"state_dict": old}, tmp_path / "old.pth")
    run = import_checkpoint(
        tmp_path / "old.pth", tmp_path / "run", backbone="densenet121", settings=SMALL
    )
    with torch.no_grad():
        assert torch.allclose(run.backbone(images(32)), model(images(32)), atol=1e-5)


def refused(tmp_path: Path, state: Any, **options: Any) -> str:
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(InputError) as error:
        import_checkpoint(tmp_path / "file.pth", tmp_path / "run", settings=SMALL, **options)
    assert not (tmp_path / "run").exists()
    return str(error.value)


def test_missing_and_unknown_keys_are_named(original, tmp_path) -> None:
    state = as_released(original)
    del state["state_dict"]["module.encoder.layer1.0.conv1.weight"]
    state["state_dict"]["module.encoder.layer9.weight"] = torch.zeros(1)
    text = refused(tmp_path, state)
    assert "lacks layer1.0.conv1.weight" in text
    assert "has layer9.weight, which it has no place for" in text

    state = as_released(original)
    del state["state_dict"]["module.encoder.fc.4.weight"]
    assert "does not fit the projector: it lacks 4.weight" in refused(tmp_path, state)
    state = as_released(original)
    state["state_dict"]["module.encoder.bn1.bias"] = torch.full((64,), float("nan"))
    assert "has values that are not finite in bn1.bias" in refused(tmp_path, state)
    assert "holds 7, and no state dict" in refused(tmp_path, {7: torch.zeros(1)})
    state = as_released(original)
    state["state_dict"]["module.queue"] = torch.zeros(1)
    assert "has queue, which belongs to no part of SimSiam" in refused(tmp_path, state)


def test_a_wrong_architecture_is_told(original, tmp_path) -> None:
    text = refused(tmp_path, as_released(original, "resnet50"))
    assert "does not fit the backbone: it lacks layer1.0.conv3.weight" in text
    assert "layout is of torchvision's ResNets" in refused(tmp_path, as_released(original, "vgg11"))
    unnamed = {"state_dict": as_released(original)["state_dict"]}
    assert "does not say its arch" in refused(tmp_path, unnamed)
    text = refused(tmp_path, as_released(original), backbone="resnet34")
    assert "says that its arch is 'resnet18', and --backbone says 'resnet34'" in text
    plain = timm.create_model("resnet10t", num_classes=0).state_dict()
    assert "Say --backbone" in refused(tmp_path, plain)
    wide = plain | {"conv1.0.weight": torch.zeros(3, 3)}
    text = refused(tmp_path, wide, backbone="resnet10t")
    assert "has conv1.0.weight [3, 3], not [24, 3, 3, 3]" in text


def test_what_is_no_state_dict_is_told(tmp_path) -> None:
    assert "holds 'epoch', and no state dict" in refused(tmp_path, {"epoch": 3})
    assert "is a checkpoint of simsiam-zoo" in refused(tmp_path, {"siamese": {}, "step": 0})
    with pytest.raises(InputError, match="there is no file"):
        import_checkpoint(tmp_path / "none.pth", tmp_path / "run")


def test_a_part_that_the_file_holds_cannot_be_set(released, tmp_path) -> None:
    for key in ("projector", "predictor.hidden_dim"):
        with pytest.raises(InputError, match=f"{key} cannot be set"):
            import_checkpoint(released, tmp_path / "run", settings={**SMALL, key: 3})


def test_nothing_in_a_checkpoint_is_unpickled(tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "x": Evil()}, tmp_path / "a.pth")
    with pytest.raises(DataError, match="nothing in it was run"):
        import_checkpoint(tmp_path / "a.pth", tmp_path / "run", backbone="resnet18")
    assert not (tmp_path / "touched").exists()


def test_the_command_says_what_it_read(released, tmp_path) -> None:
    sets = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    out = str(tmp_path / "run")
    done = CliRunner().invoke(command, [str(released), "--out", out, *sets, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert report["parts"] == ["backbone", "projector", "predictor"]
    again = CliRunner().invoke(command, [str(released), "--out", out, *sets])
    assert isinstance(again.exception, InputError)
    other = CliRunner().invoke(
        command, [str(released), "--out", f"{out}2", *sets, "--data", "digits"]
    )
    assert f"simsiam-zoo train --recipe {out}2/recipe.toml --init {out}2" in other.output


def test_other_types_are_refused_by_name_with_a_way_out(tmp_path) -> None:
    torch.save({"state_dict": {}, "when": datetime.datetime(2020, 1, 1)}, tmp_path / "a.pth")
    with pytest.raises(DataError, match=r"datetime\.datetime.*nothing in it was run") as refused:
        import_checkpoint(tmp_path / "a.pth", tmp_path / "run", backbone="resnet18")
    assert "weights_only=False" in str(refused.value.hint)
