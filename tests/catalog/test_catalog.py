from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from simsiam_zoo.catalog import KINDS, Catalog, Plugin, catalog, split_spec
from simsiam_zoo.components.plugin import timm_names
from simsiam_zoo.errors import InputError, PluginError, ZooError
from simsiam_zoo.plugin import Component, Family, Param

PARAMS = (
    Param("hidden_dim", int, None, min=1, max=4096),
    Param("scale", float, 0.5, min=0, max=1),
    Param("norm", str, "all", choices=("all", "none")),
)


def component(name: str, kind: str = "projector", **fields) -> Component:
    return Component(kind, name, "a:B", "", **fields)


def family(prefix: str, *names: str, kind: str = "projector") -> Family:
    return Family(kind, prefix, lambda: names, "a:B")


def plugin(distribution: str, *components: Component | Family, **fields) -> Plugin:
    return Plugin("p", "m", distribution, "1.0", "v1", components=components, **fields)


HOST = plugin("simsiam-zoo", component("mlp", params=PARAMS), family("lib", "vgg", "mlp"))
A = plugin("a-zoo", component("mlp"), component("twin"), component("vgg"), component("own-a"))
B = plugin("b-zoo", component("twin"), family("lib", "vgg", "other"), family("ext", "own-b"))
C = plugin("c-zoo", family("ext", "own-c", "own-a"))


@pytest.mark.parametrize(
    ("spec", "meaning"),
    [
        # built-ins keep their names, those of their families too
        ("mlp", "simsiam-zoo/mlp"),
        ("vgg", "simsiam-zoo/lib:vgg"),
        ("lib:vgg", "simsiam-zoo/lib:vgg"),
        ("lib:mlp", "simsiam-zoo/lib:mlp"),
        ("lib:other", InputError),  # the prefix is the built-in's, though b-zoo's lib has the name
        ("other", "b-zoo/lib:other"),
        # a distribution always reaches its own
        ("a-zoo/mlp", "a-zoo/mlp"),
        ("A_Zoo/vgg", "a-zoo/vgg"),
        ("b-zoo/lib:vgg", "b-zoo/lib:vgg"),
        ("b-zoo/vgg", "b-zoo/lib:vgg"),
        ("b-zoo/mlp", InputError),
        # third parties that clash must be called by their distribution
        ("twin", InputError),
        ("b-zoo/twin", "b-zoo/twin"),
        ("ext:own-b", InputError),
        ("c-zoo/ext:own-c", "c-zoo/ext:own-c"),
        ("own-a", InputError),  # a component of a-zoo, a name in c-zoo's family
        # and those that do not keep the bare name
        ("own-b", "b-zoo/ext:own-b"),
    ],
)
def test_what_a_name_means_does_not_depend_on_the_order_of_installation(spec, meaning):
    for order in itertools.permutations((HOST, A, B, C)):
        known = Catalog(order)
        if isinstance(meaning, str):
            resolved = known.resolve("projector", spec)
            assert resolved.id == meaning
            # What is written into a recipe means the same when it is read back.
            assert known.resolve("projector", resolved.name).id == meaning
            assert known.resolve("projector", resolved.id).id == meaning
        else:
            with pytest.raises(meaning):
                known.resolve("projector", spec)


def test_listings_say_how_to_call_what_lost_its_name():
    known = Catalog((HOST, A, B, C))
    rows = {(e.distribution, e.name): (e.status, e.call) for e in known.entries("projector")}
    assert rows == {
        ("simsiam-zoo", "mlp"): ("ok", "mlp"),
        ("simsiam-zoo", "lib"): ("ok", "lib:*"),
        ("a-zoo", "mlp"): ("shadowed", "a-zoo/mlp"),
        ("a-zoo", "twin"): ("ambiguous", "a-zoo/twin"),
        ("a-zoo", "vgg"): ("shadowed", "a-zoo/vgg"),
        ("a-zoo", "own-a"): ("ambiguous", "a-zoo/own-a"),
        ("b-zoo", "twin"): ("ambiguous", "b-zoo/twin"),
        ("b-zoo", "lib"): ("shadowed", "b-zoo/lib:*"),
        ("b-zoo", "ext"): ("ambiguous", "b-zoo/ext:*"),
        ("c-zoo", "ext"): ("ambiguous", "c-zoo/ext:*"),
    }
    for name in known.names("projector"):
        known.resolve("projector", name)


def test_an_ambiguous_name_is_refused_with_both_ways_out():
    with pytest.raises(InputError) as error:
        Catalog((HOST, A, B)).resolve("projector", "twin")
    assert "a-zoo 1.0 and b-zoo 1.0" in error.value.what
    assert error.value.hint == "Write a-zoo/twin or b-zoo/twin."


def test_names_of_a_family_are_read_once_and_only_when_needed():
    calls = []

    def names():
        calls.append(1)
        return ["vgg"]

    lib = Family("backbone", "lib", names, "a:B")
    known = Catalog((plugin("simsiam-zoo", component("cnn", "backbone"), component("mlp"), lib),))
    known.resolve("projector", "mlp")
    known.resolve("backbone", "cnn")
    known.entries()
    assert calls == []
    known.resolve("backbone", "vgg")
    known.resolve("backbone", "lib:vgg")
    known.names("backbone")
    assert calls == [1]


def test_a_family_whose_names_cannot_be_had_costs_its_own_members_only(capsys):
    def names():
        print("on stdout")
        raise SystemExit("no licence")

    known = Catalog((HOST, plugin("bad-zoo", Family("projector", "bad", names, "a:B"))))
    assert known.resolve("projector", "mlp").id == "simsiam-zoo/mlp"
    with pytest.raises(PluginError, match=r"bad-zoo/bad:\* .*no licence"):
        known.resolve("projector", "bad:x")
    with pytest.raises(InputError, match=r"Not searched: .*bad-zoo/bad"):
        known.resolve("projector", "nothing-like-it")
    assert capsys.readouterr().out == ""


BROKEN = Plugin("p", "m", "sad-zoo", "2.0", "v1", "broken", "ImportError: no libsad")


@pytest.mark.parametrize(
    ("kind", "spec", "error", "said"),
    [
        ("projektor", "mlp", InputError, "Did you mean projector"),
        ("projector", "MPL", InputError, "Did you mean mlp?"),
        ("projector", "twinn", InputError, "Did you mean twin?"),
        ("projector", "lib:vgh", InputError, "Did you mean vgg?"),
        ("projector", "lbi:vgg", InputError, "Did you mean lib:vgg or b-zoo/lib:vgg?"),
        ("projector", "lib", InputError, "lib is a family: write lib:NAME."),
        ("projector", "mlp:256", InputError, "Parameters are written mlp:KEY=VALUE."),
        ("projector", "a-zo/mlp", InputError, "Did you mean a-zoo"),
        ("projector", "a-zoo/twn", InputError, "Did you mean twin?"),
        ("projector", "cosine", InputError, "cosine is a loss."),
        ("projector", "zzz", InputError, "`simsiam-zoo list projector` shows"),
        ("projector", "zzz", InputError, "sad-zoo 2.0 (broken)"),
        ("projector", "sad-zoo/zzz", PluginError, "ImportError: no libsad"),
        ("projector", "mlp:hiden_dim=3", InputError, "Did you mean hidden_dim?"),
        ("projector", "mlp:zzz=3", InputError, "It takes hidden_dim, scale, norm."),
        ("projector", "mlp:hidden_dim=0", InputError, "an int from 1 to 4096, not 0"),
        ("projector", "mlp:hidden_dim=", InputError, "an int from 1 to 4096, not ''"),
        ("projector", "mlp:norm=non", InputError, "Did you mean none?"),
        ("projector", "mlp:scale=0.1,scale=0.2", InputError, "gives scale twice"),
        ("projector", "mlp:scale=0.1,", InputError, "is no parameter"),
        ("projector", "scale=0.1", InputError, "no name before its parameters"),
        ("projector", "", InputError, "names no component"),
    ],
)
def test_what_cannot_be_found_says_what_is_near(kind, spec, error, said):
    known = Catalog((HOST, A, B, plugin("d-zoo", component("cosine", "loss")), BROKEN))
    with pytest.raises(error) as caught:
        known.resolve(kind, spec)
    assert said in str(caught.value)


def test_params_are_complete_typed_and_in_the_descriptors_order():
    known = Catalog((HOST,))
    resolved = known.resolve("projector", "mlp:norm=none", {"hidden_dim": 3, "scale": 1})
    assert list(resolved.params.items()) == [("hidden_dim", 3), ("scale", 1.0), ("norm", "none")]
    assert type(resolved.params["scale"]) is float
    # A complete set of parameters, None included, is as good as the partial one it came from.
    bare = known.resolve("projector", "mlp")
    assert bare.params == {"hidden_dim": None, "scale": 0.5, "norm": "all"}
    assert known.resolve("projector", "mlp", bare.params).params == bare.params
    for wrong in ({"hidden_dim": "3"}, {"hidden_dim": True}, {"scale": None}, {"width": 3}):
        with pytest.raises(InputError):
            known.resolve("projector", "mlp", wrong)
    with pytest.raises(InputError, match="given twice"):
        known.resolve("projector", "mlp:scale=1", {"scale": 1.0})


def test_specs_split_at_the_colon_before_the_first_parameter():
    assert split_spec("mlp:hidden_dim=256, norm = none") == (
        "mlp",
        {"hidden_dim": "256", "norm": "none"},
    )
    assert split_spec("a-zoo/timm:vgg16_bn:rate=0.1") == ("a-zoo/timm:vgg16_bn", {"rate": "0.1"})
    assert split_spec("shards:path=s3://b/k=1") == ("shards", {"path": "s3://b/k=1"})
    assert split_spec("timm:vgg16_bn") == ("timm:vgg16_bn", {})


@pytest.fixture
def made(monkeypatch):
    """`made(factory)` → the resolved projector `it` whose target is that factory."""

    def make(factory, *params: Param, item: type = Component):
        monkeypatch.setitem(sys.modules, "made_impl", SimpleNamespace(factory=factory))
        if item is Family:
            it = Family("projector", "it", lambda: ["x"], "made_impl:factory", params=params)
        else:
            it = Component("projector", "it", "made_impl:factory", "", params)
        known = Catalog((plugin("some-zoo", it),))
        return known.resolve("projector", "it:x" if item is Family else "it")

    return make


def test_a_factory_gets_its_params_and_what_it_declares_of_the_hosts(made):
    width = Param("width", int, 8)
    got = made(lambda *, width, in_dim: (width, in_dim), width).create(in_dim=3, image_size=32)
    assert got == (8, 3)
    assert made(lambda **all_: all_, width).create(in_dim=3) == {"width": 8}
    member = made(lambda name, width: (name, width), width, item=Family).create(in_dim=3)
    assert member == ("x", 8)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (lambda in_dim: None, "unexpected keyword argument 'width'"),
        (lambda width, depth: None, "missing a required argument: 'depth'"),
        (lambda width, /: None, "does not take what its descriptor says"),
        (3, "does not take what its descriptor says"),
        (lambda width: 1 / 0, "could not be built: ZeroDivisionError"),
    ],
)
def test_a_factory_that_is_not_as_described_is_named(made, factory, said):
    with pytest.raises(PluginError) as error:
        made(factory, Param("width", int, 8)).create(in_dim=3)
    assert "projector some-zoo/it" in str(error.value)
    assert said in str(error.value)


def test_the_users_own_mistakes_pass_through_a_factory_unchanged(made):
    def factory(width):
        raise InputError("width is odd")

    with pytest.raises(InputError, match="width is odd"):
        made(factory, Param("width", int, 8)).create()


def test_every_installed_name_resolves_and_comes_back_from_a_recipe():
    known = catalog()
    for kind in KINDS:
        for entry in known.entries(kind):
            spec = known.members(entry)[0] if entry.is_family else entry.call
            resolved = known.resolve(kind, spec)
            again = known.resolve(kind, resolved.name, resolved.params)
            assert (again.id, again.params) == (resolved.id, resolved.params)


def test_bare_and_prefixed_timm_names_mean_the_same():
    for name in ("densenet121", "vgg16_bn", "convnext_atto"):
        bare = catalog().resolve("backbone", name)
        assert bare.id == f"simsiam-zoo/timm:{name}"
        assert bare == catalog().resolve("backbone", f"timm:{name}")
        assert bare == catalog().resolve("backbone", f"simsiam-zoo/timm:{name}")


def test_the_names_of_timm_are_timms():
    import timm

    assert timm_names() == sorted(timm.list_models())


def test_running_from_an_uninstalled_source_tree_says_how_to_mend_it(tmp_path):
    """A site-packages that has the dependencies, but of simsiam-zoo the bare source only."""
    site = Path(pytest.__file__).parents[1]
    for package in ("click", "pluggy"):
        (tmp_path / package).symlink_to(site / package)
    (tmp_path / "simsiam_zoo").symlink_to(Path(__file__).parents[2] / "simsiam_zoo")
    run = subprocess.run(
        [sys.executable, "-S", "-m", "simsiam_zoo", "list"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == PluginError.exit_code
    assert "pip install -e" in run.stderr
    assert "Traceback" not in run.stderr


def test_clashes_between_real_wheels_are_never_decided_by_the_path(zoo):
    """The two orders on sys.path stand for two orders of installation."""
    plugins = ["twin-a-zoo", "twin-b-zoo", "grab-zoo"]
    runs = [zoo("list", "--json", plugins=order) for order in (plugins, plugins[::-1])]
    assert runs[0].stdout == runs[1].stdout
    for order in (plugins, plugins[::-1]):
        refused = zoo("show", "projector", "twin", plugins=order)
        assert refused.returncode == InputError.exit_code
        assert "Write twin-a-zoo/twin or twin-b-zoo/twin." in refused.stderr
        taken = zoo("show", "projector", "twin-b-zoo/twin", plugins=order)
        assert "Of twin-b-zoo" in taken.stdout
        for kind, name in (("projector", "mlp"), ("backbone", "resnet18")):
            kept = zoo("show", kind, name, plugins=order)
            assert "supplied by  simsiam-zoo" in kept.stdout
            grabbed = zoo("show", kind, f"grab-zoo/{name}", plugins=order)
            assert f"the name {name} is built in: write grab-zoo/{name}" in grabbed.stdout


def test_every_error_of_the_catalogue_is_one_for_people():
    """No name, however odd, ends in anything but a ZooError."""
    known = Catalog((HOST, A, B, BROKEN))
    for spec in (
        "/",
        ":",
        "a-zoo/",
        "/mlp",
        "lib:",
        ":vgg",
        "mlp:",
        "=",
        "a=b=c",
        "a/b/c",
        "ö:é=x",
    ):
        with pytest.raises(ZooError):
            known.resolve("projector", spec)
