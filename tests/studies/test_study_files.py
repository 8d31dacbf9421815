"""Study files: what they may say, what they may not, and the ones that come by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import pack_digits

from simsiam_zoo.catalog import Text, catalog
from simsiam_zoo.errors import InputError
from simsiam_zoo.studies.arms import make_arms
from simsiam_zoo.studies.plan import plan_study
from simsiam_zoo.studies.study import flat, parse_study, read_study

PRESETS = ("mnist-5k", "mnist-5k-resnet10t", "digits", "cifar10", "imagenet")
STUDIES = [entry.call for entry in catalog().entries("study")]


def arms_of(*ablations: dict, **keys: object) -> list:
    base = {"preset": "digits"}
    return make_arms(parse_study({"base": base, "ablation": list(ablations), **keys}, "it"))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_that_comes_by_name_has_valid_arms_on_every_preset(name, preset) -> None:
    _, study = read_study(name, preset)
    arms = make_arms(study)
    assert len(arms) == 1 + sum(len(each.substitutions()) for each in study.ablation)
    assert len({arm.name for arm in arms}) == len(arms)
    for arm in arms[1:]:
        recipe = arm.recipes[0]
        assert recipe.preset == preset
        assert arm.differences or arm.same_as == "base"


def test_studies_are_read_without_torch() -> None:
    code = (
        "import sys; from simsiam_zoo.studies.study import read_study;"
        "from simsiam_zoo.studies.arms import make_arms; make_arms(read_study('five-parts')[1]);"
        "import simsiam_zoo.studies.running; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_figures_of_the_paper_stand_beside_the_arms_that_they_are_of() -> None:
    """arXiv:2011.10566, as its tables have them."""
    found = {}
    for name in STUDIES:
        for arm in make_arms(read_study(name, "imagenet")[1]):
            found[name, arm.label] = arm.paper
    assert found["stop-gradient", "base"] == 67.7
    assert found["stop-gradient", "stop-gradient removed"] == 0.1
    assert [found["predictor", f"{x}"] for x in ("no predictor", "fixed random predictor")] == [
        0.1,
        1.5,
    ]
    batches = (64, 128, 256, 512, 1024, 2048, 4096)
    assert [found["batch-size", f"batch {size}"] for size in batches] == [
        *(66.1, 67.3, 68.1, 68.1, 68.0, 67.9, 64.0)
    ]
    assert [found["width", f"{width} wide"] for width in (256, 512, 1024, 2048)] == [
        *(65.3, 67.2, 67.5, 68.1)
    ]
    ks = ("1", "10", "100", "an epoch")
    assert [found["alternation", f"k = {k}"] for k in ks] == [68.1, 68.7, 68.9, 67.0]
    assert found["moving-average", "moving average, no predictor"] == 55.0
    assert found["similarity", "cross-entropy"] == 63.2
    assert found["head-bn", "no BN in the heads"] == 34.6


def test_an_arm_that_is_the_base_is_recognised_however_it_is_spelt() -> None:
    base, same, other, also = arms_of(
        {"set": {"predictor": "mlp:hidden_dim=128", "training": {"batch_size": 64}}},
        {"part": "training.batch_size", "action": "replace", "with": 128},
        {"set": {"training.batch_size": 128}},
    )
    assert (same.same_as, same.key) == ("base", base.key)
    assert other.same_as is None
    assert also.same_as == other.name


def test_a_grid_crosses_and_what_is_set_together_is_one_arm() -> None:
    _, *crossed, together = arms_of(
        {"grid": {"training.batch_size": [32, 64], "optim.lr": [0.5, 1.0, 2.0]}},
        {"set": {"gradient": "none", "predictor": "none"}},
    )
    values = [(arm.recipes[0].training.batch_size, arm.recipes[0].optim.lr) for arm in crossed]
    assert values == [(32, 0.5), (32, 1.0), (32, 2.0), (64, 0.5), (64, 1.0), (64, 2.0)]
    assert together.recipes[0].gradient.name == together.recipes[0].predictor.name == "none"


def test_tables_specs_and_names_may_stand_for_a_component() -> None:
    _, spec, table = arms_of(
        {
            "part": "predictor",
            "action": "replace",
            "with": ["mlp:hidden_dim=64", {"name": "mlp", "hidden_dim": 64}],
        }
    )
    assert spec.recipes[0].predictor.params["hidden_dim"] == 64
    assert table.same_as == spec.name


def test_a_preset_may_be_asked_for_other_arms(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'base = { preset = "imagenet" }\n[[ablation]]\npart = "backbone"\naction = "replace"\n'
        'with = "vgg16_bn"\n[ablation.on.mnist-5k]\nwith = "vgg11_bn"\n'
    )
    chosen = {
        preset: make_arms(read_study(str(file), preset)[1])[1].recipes[0].backbone.name
        for preset in (None, "mnist-5k")
    }
    assert chosen == {None: "vgg16_bn", "mnist-5k": "vgg11_bn"}
    _, study = read_study(str(file), "simsiam-zoo/mnist-5k")  # by its whole name
    assert make_arms(study)[1].recipes[0].backbone.name == "vgg11_bn"


def test_a_base_may_be_a_recipes_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('preset = "digits"\n[training]\nepochs = 3\n')
    (tmp_path / "mine.toml").write_text(
        'base = "base.toml"\n[[ablation]]\npart = "gradient"\naction = "remove"\n'
    )
    _, study = read_study(str(tmp_path / "mine.toml"))
    assert {arm.recipes[0].training.epochs for arm in make_arms(study)} == {3}


def test_what_decides_the_figures_decides_the_folder() -> None:
    remove = {"part": "gradient", "action": "remove"}
    keys = {arms_of(remove)[1].key, arms_of(remove, seeds=[1, 2])[1].key}
    assert len(keys) == 1  # the seed has a folder of its own
    assert arms_of(remove, metrics=["knn:k=3"])[1].key in keys  # measured anew, not trained anew
    # Threads change the order of sums alone, and are the same in all arms.
    assert arms_of(remove, threads=2)[1].key in keys
    changed = {"preset": "digits", "optim": {"lr": 0.5}}
    assert arms_of(remove, base=changed)[1].key not in keys
    operational = {"preset": "digits", "logging": {"interval_steps": 1}}
    assert arms_of(remove, base=operational)[1].key in keys


def test_other_data_is_another_arm(tmp_path: Path, monkeypatch) -> None:
    """Where the data lies is operational; what it holds is not, and two places may differ."""
    classes = tuple("0123456789")
    first, second = (pack_digits(tmp_path / f"{at}", classes, at) for at in (0, 160))
    arms = {"part": "dataset.path", "action": "replace", "with": [str(first), str(second), "/no"]}
    base = {"preset": "digits", "dataset": {"name": "shards", "path": str(first)}}
    _, same, other, missing = arms_of(arms, base=base)
    assert same.same_as == "base"
    assert other.same_as is None
    assert missing.same_as is None
    assert missing.dataset is None


def test_an_arm_that_equals_a_skipped_one_is_run_itself() -> None:
    skipped = {"part": "gradient", "action": "remove", "skip": "not now"}
    plan = plan_study("it", parse_study({"base": DIGITS, "ablation": [skipped, REMOVE]}, "it"))
    _, first, second = plan.arms
    assert (first.not_run, second.same_as) == ("not now", None)
    assert [job.arm.name for job in plan.jobs(Path())] == ["base", second.name]


def test_a_substitution_lies_on_the_base_as_a_layer() -> None:
    base = {**DIGITS, "predictor.hidden_dim": 64, "training": {"epochs": 3, "batch_size": 32}}
    table = {"part": "training", "action": "replace", "with": {"epochs": 5}}
    _, removed, longer = arms_of({"part": "predictor", "action": "remove"}, table, base=base)
    assert removed.recipes[0].predictor.name == "none"
    recipe = longer.recipes[0]
    assert (recipe.training.epochs, recipe.training.batch_size) == (5, 32)
    assert recipe.predictor.params["hidden_dim"] == 64


def test_settings_lie_between_the_studys_base_and_its_arms() -> None:
    base = {
        "preset": "digits",
        "predictor": {"name": "mlp", "hidden_dim": 32},
        "optim": {"name": "lars", "trust_coefficient": 0.01},
        "training": {"epochs": 3},
    }
    arms = [{"part": "predictor", "action": "remove"}, REMOVE]
    study = parse_study({"base": base, "ablation": arms}, "it")

    def recipes(settings: dict[str, object]) -> list:
        changed = study.changed({"base": study.on_base(settings)})
        return [arm.recipes[0] for arm in make_arms(changed)]

    whole, removed, other = recipes({"predictor.hidden_dim": Text("64")})
    assert whole.predictor.params["hidden_dim"] == other.predictor.params["hidden_dim"] == 64
    assert (removed.predictor.name, removed.predictor.params) == ("none", {})
    assert {recipe.training.epochs for recipe in (whole, removed, other)} == {3}
    # A name drops the parameters of what the study's base has there, and no others.
    for settings in ({"predictor": Text("none")}, {"predictor.name": "none"}):
        whole, _, other = recipes(settings)
        assert whole.predictor.name == other.predictor.name == "none"
        assert other.optim.name == "lars"
    whole, removed, _ = recipes({"optim.name": Text("adamw"), "training.epochs": Text("5")})
    assert removed.optim.name == "adamw"
    assert whole.predictor.params["hidden_dim"] == 32
    with pytest.raises(
        InputError, match=r"the study's base: training.epochs.x: epochs holds a val"
    ):
        study.on_base({"training.epochs": 1, "training.epochs.x": 2})


def test_a_file_with_a_mark_of_the_byte_order_is_a_study(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes('title = "Mine"\n'.encode("utf-8-sig"))
    assert read_study(str(file))[1].title == "Mine"
    file.write_bytes('title = "Mine"\n'.encode("utf-16"))
    with pytest.raises(InputError, match=r"the study .*mine\.toml is not UTF-8"):
        read_study(str(file))


DIGITS = {"preset": "digits"}
REMOVE = {"part": "gradient", "action": "remove"}


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"ablation": [{**REMOVE, "acton": 1}]}, "Did you mean action"),
        ({"ablation": [{"part": "gradient"}]}, "a part goes with action"),
        ({"ablation": [{"part": "gradient", "action": "replace"}]}, "`with`"),
        ({"ablation": [{"part": "training.epochs", "action": "remove"}]}, "only a component"),
        ({"ablation": [{**REMOVE, "set": {"optim.lr": 1}}]}, "one of part, set and grid"),
        (
            {"ablation": [{**REMOVE, "expect": "colapsed"}]},
            "'no-collapse-seen' or 'undetermined', not 'colapsed'\n  Did you mean collapsed?",
        ),
        ({"ablation": [REMOVE], "expect": ["learnt"]}, "Did you mean learned?"),
        (
            {"ablation": [{"part": "predicter", "action": "remove"}]},
            "only a component can be removed, and predicter is none. Did you mean predictor or",
        ),
        ({"ablations": [REMOVE]}, "the study mine.toml: it has no key 'ablations'\n  Did you mean"),
        ({"ablation": [{**REMOVE, "paper": float("nan")}]}, "paper"),
        ({"ablation": [REMOVE], "paper": float("inf")}, "paper is a finite number, not inf"),
        (
            {"ablation": [{"set": {"training.seed": 3}}]},
            "training.seed is the same in all arms: say seeds = ...",
        ),
        (
            {"ablation": [{"part": "training", "action": "replace", "with": {"threads": 2}}]},
            "training.threads is the same in all arms: say threads = ...",
        ),
        ({"ablation": [{"grid": {"training.seed": [1, 2]}}]}, "say seeds = ..."),
        (
            {"ablation": [{**REMOVE, "on": {"minst-5k": {"skip": "no"}}}]},
            "ablation.0.on: unknown preset 'minst-5k'",
        ),
        (
            {"ablation": [{**REMOVE, "on": {"imagenet": {"skpi": "no"}}}]},
            "ablation.0.on.imagenet: it has no key 'skpi'\n  Did you mean skip?",
        ),
        (
            {"ablation": [{"grid": {"optim.lr": [1, 2]}, "paper": [1.0]}]},
            "paper has 1 entries for 2 arms",
        ),
        ({"ablation": [{**REMOVE, "paper": "x"}]}, "ablation.0.paper.0 is a number, not 'x'"),
        ({"ablation": [{"set": {"optim": {}}}]}, "one of part, set and grid"),
        ({"ablation": [REMOVE], "seeds": [1.5]}, "seeds.0 is an int, not 1.5"),
        ({"ablation": [REMOVE], "seeds": [1, 1]}, "seeds are different"),
        ({"ablation": [REMOVE], "base": 3}, "base is a recipe's table"),
        (
            {"ablation": [REMOVE], "base": {"training": 3}},
            "the study's base: training is a table, not 3",
        ),
        ({"ablation": [REMOVE], "base": "/tmp"}, 'a run is base = "/tmp/recipe.toml".'),
        ({"ablation": [REMOVE], "base": "digits"}, 'A preset is base = { preset = "digits" }.'),
        ({"ablation": [{**REMOVE, "swap": 1}]}, "Its keys are part, action, with, set, grid,"),
        ({"ablation": [REMOVE], "seed": [1]}, "Did you mean seeds"),
        ({"ablation": [REMOVE], "metrics": ["knnn"]}, "unknown protocol 'knnn'"),
        (
            {"ablation": [{"part": "gradient", "action": "replace", "with": "nune"}]},
            "arm 'gradient nune': unknown gradient",
        ),
        ({"ablation": [{"set": {"training.epoch": 1}}]}, "Did you mean epochs"),
        ({"ablation": [{"part": "backbone", "action": "remove"}]}, "unknown backbone 'none'"),
    ],
)
def test_what_a_study_says_wrongly_is_told_before_anything_runs(tree, says) -> None:
    with pytest.raises(InputError) as told:
        make_arms(parse_study(tree, "the study mine.toml"))
    assert says in str(told.value)
    assert str(told.value).count("mine.toml") <= 1


def test_flat_keeps_what_names_a_component_together() -> None:
    tree = {"training": {"epochs": 1}, "predictor": {"name": "mlp"}, "loss": {"normalize": False}}
    assert flat(tree) == {
        "training.epochs": 1,
        "predictor": {"name": "mlp"},
        "loss.normalize": False,
    }
