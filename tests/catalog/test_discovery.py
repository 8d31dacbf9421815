from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from simsiam_zoo.catalog import Plugin, discovery
from simsiam_zoo.catalog.discovery import discover, load_plugin, selection
from simsiam_zoo.plugin import Component, hookimpl

SOUND = Component("projector", "sound", "a:B", "")
BAD = ["crash-zoo", "exit-zoo", "future-zoo", "swish-zoo", "twin-a-zoo"]

V1 = "[simsiam_zoo.v1]\n"
MODULE = """
from simsiam_zoo.plugin import Component, hookimpl
@hookimpl
def zoo_components():
    yield Component("projector", "{name}", "a:B", "")
"""


def plugin_giving(*items, error=None):
    def zoo_components():
        yield from items
        if error is not None:
            raise error

    return SimpleNamespace(zoo_components=hookimpl(zoo_components))


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (plugin_giving(SOUND, error=RuntimeError("half-way")), "RuntimeError: half-way"),
        (plugin_giving(SOUND, error=SystemExit(3)), "SystemExit: 3"),
        (plugin_giving(SOUND, SOUND), "projector sound twice"),
        (plugin_giving(SOUND, "projector"), "no Component or Family"),
        (SimpleNamespace(zoo_components=hookimpl(lambda: 3)), "not iterable"),
        (
            SimpleNamespace(zoo_components=lambda: [SOUND]),
            "marked with simsiam_zoo.plugin",
        ),
        (
            SimpleNamespace(zoo_component=hookimpl(lambda: [SOUND])),
            "unknown hook 'zoo_component'; the one hook is zoo_components",
        ),
        (None, "marked with simsiam_zoo.plugin"),
    ],
)
def test_a_plugin_that_misbehaves_is_broken_with_all_it_gave(plugin, said):
    loaded = load_plugin(Plugin("p", "m", "some-zoo", "1", "v1"), lambda: plugin)
    assert loaded.status == "broken"
    assert loaded.components == ()
    assert said in loaded.cause
    assert "\n" not in loaded.cause


def test_a_descriptor_that_raises_breaks_its_plugin():
    def zoo_components():
        yield Component("projector", "Not A Name", "a:B", "")

    plugin = SimpleNamespace(zoo_components=hookimpl(zoo_components))
    loaded = load_plugin(Plugin("p", "m", "some-zoo", "1", "v1"), lambda: plugin)
    assert (loaded.status, loaded.components) == ("broken", ())
    assert "lower case" in loaded.cause


def test_only_an_interrupt_gets_through():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_plugin(Plugin("p", "m", "some-zoo", "1", "v1"), interrupted)


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """`distribution("Some_Zoo", "[simsiam_zoo.v1]\n...", module=source)` on sys.path."""

    def make(name: str, entry_points: str, version: str = "1.0", **modules: str) -> None:
        place = tmp_path / f"{name}-{version}"
        metadata = place / f"{name}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        (metadata / "entry_points.txt").write_text(entry_points)
        for module, source in modules.items():
            (place / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(place)

    return make


def found(distribution: str) -> list[Plugin]:
    return [plugin for plugin in discover() if plugin.distribution == distribution]


def test_metadata_seen_twice_count_once_and_the_first_on_the_path_wins(distribution):
    distribution("Some_Zoo", V1 + "some = some_mod_old", "1.0", some_mod_old="")
    distribution("some.zoo", V1 + "some = some_mod", "2.0", some_mod=MODULE.format(name="one"))
    (plugin,) = found("some-zoo")
    assert (plugin.version, plugin.status) == ("2.0", "ok")


def test_a_distribution_for_two_api_versions_is_loaded_for_ours(distribution):
    distribution(
        "some_zoo",
        V1 + "some = both_mod\n[simsiam_zoo.v2]\nsome = no_such_module",
        both_mod=MODULE.format(name="one"),
    )
    assert [(plugin.api, plugin.status) for plugin in found("some-zoo")] == [("v1", "ok")]


def test_malformed_metadata_break_one_distribution_only(distribution, tmp_path):
    distribution("some_zoo", V1 + "no equals sign here")
    distribution("good_zoo", V1 + "good = good_mod", good_mod=MODULE.format(name="one"))
    distribution("left_over", V1 + "left = no_such_module")
    next(tmp_path.glob("left_over*/*/METADATA")).unlink()
    distribution("not_utf8", "")
    next(tmp_path.glob("not_utf8*/*/entry_points.txt")).write_bytes(b"[\xff]")
    assert [plugin.status for plugin in found("some-zoo")] == ["broken"]
    assert [plugin.status for plugin in found("good-zoo")] == ["ok"]
    assert [plugin.status for plugin in found("simsiam-zoo")] == ["ok"]


def test_distributions_without_metadata_are_told_apart_by_their_folders(distribution, tmp_path):
    for name in ("left_one", "left_two"):
        distribution(name, V1 + f"{name} = no_such_module_{name}")
        next(tmp_path.glob(f"{name}*/*/METADATA")).unlink()
    (one,), (two,) = found("left-one"), found("left-two")
    assert (one.version, one.status) == (two.version, two.status) == ("1.0", "broken")
    assert "no_such_module_left_two" in two.cause


def test_a_plugin_that_hangs_is_named_while_it_does(distribution, monkeypatch, capsys):
    monkeypatch.setattr(discovery, "_LONG_SECONDS", 0.05)
    body = "import time; time.sleep(0.4)" + MODULE.format(name="late")
    distribution("late-zoo", V1 + "x = late_zoo_of_tests\n", late_zoo_of_tests=body)
    assert "ok" in {plugin.status for plugin in discover({"late-zoo"})}
    told = "waiting for late-zoo 1.0 to load; SIMSIAM_ZOO_PLUGINS=-late-zoo leaves it out"
    assert capsys.readouterr().err.splitlines() == [f"simsiam-zoo: {told}"]
    discovery.warn("of z\x1b[31moo")  # what metadata hold is anybody's
    assert capsys.readouterr().err == "simsiam-zoo: of z [31moo\n"


def test_presets_that_cannot_be_read_break_no_list(distribution, monkeypatch, zoo_here):
    """A module is no package that holds a file, and importing a package may raise anything."""
    body = MODULE.replace('"projector"', '"preset"')
    beside = body.format(name="beside").replace("a:B", "odd_zoo_of_tests:beside.toml")
    distribution("odd-zoo", V1 + "x = odd_zoo_of_tests\n", odd_zoo_of_tests=beside)
    raising = body.format(name="raising").replace("a:B", "raising_of_tests:x.toml")
    points = V1 + "x = worse_zoo_of_tests\n"
    distribution("worse-zoo", points, worse_zoo_of_tests=raising, raising_of_tests="1 / 0")
    monkeypatch.setenv("SIMSIAM_ZOO_PLUGINS", "odd-zoo,worse-zoo")
    done = zoo_here("list", "presets")
    assert (done.returncode, done.stderr) == (0, "")
    states = [line.split()[:2] for line in done.stdout.partition("needs attention")[2].splitlines()]
    assert [name for name, *state in filter(None, states) if state == ["broken"]] == [
        "beside",
        "raising",
    ]
    assert zoo_here("train", "--preset", "raising", "--dry-run").returncode == 3


def test_a_broken_plugin_says_the_line_that_raised(distribution):
    distribution("lost_zoo", V1 + "lost = lost_zoo", lost_zoo="import os\nx = nm.Linear\n")
    distribution("loud_zoo", V1 + "loud = loud_zoo", loud_zoo=MODULE.format(name="Not A Name"))
    (lost,), (loud,) = found("lost-zoo"), found("loud-zoo")
    assert lost.cause == "NameError: name 'nm' is not defined (lost_zoo.py:2)"
    assert loud.cause.endswith("(loud_zoo.py:5)")  # where it makes the descriptor


def test_the_order_is_by_name_whatever_the_path_says(distribution):
    for name in ("b_zoo", "a_zoo", "c_zoo"):
        distribution(name, V1 + f"p = {name}_m", **{f"{name}_m": MODULE.format(name="one")})
    names = [plugin.distribution for plugin in discover()]
    assert names[0] == "simsiam-zoo"
    assert names[1:] == sorted(names[1:])


def states(rows: list[dict[str, str]]) -> dict[str, str]:
    """Of what the test installed; the project's own packages, where installed, are disabled."""
    others = [row for row in rows if not row["distribution"].startswith("simsiam-zoo-")]
    return {row["distribution"]: row["status"] for row in others}


def test_bad_plugins_cost_one_line_each_and_nothing_else(zoo, tmp_path):
    sentinel = tmp_path / "future-zoo was imported"
    plain = zoo("list", "--json")
    run = zoo("list", "--json", plugins=BAD, FUTURE_ZOO_SENTINEL=str(sentinel))
    assert run.returncode == 0
    rows = json.loads(run.stdout)  # although crash-zoo and twin-a-zoo print on stdout

    broken = [line for line in run.stderr.splitlines() if "is broken" in line]
    assert len(broken) == 2
    assert "crash-zoo 1.0.0" in broken[0]
    assert "libcrash.so is not here and says so on two lines" in broken[0]
    assert "exit-zoo 2.0.0" in broken[1]
    assert "SystemExit: 7" in broken[1]
    assert "crash-zoo prints on stdout" in run.stderr

    plugins = [row for row in rows if row["kind"] == "plugin"]
    assert states(plugins) == {
        "crash-zoo": "broken",
        "exit-zoo": "broken",
        "future-zoo": "incompatible",
    }
    assert not sentinel.exists()

    (swish,) = [row for row in rows if row["name"] == "swish"]
    assert swish == {
        "kind": "projector",
        "name": "swish",
        "call": "swish",
        "distribution": "swish-zoo",
        "version": "0.3.0",
        "status": "ok",
        "summary": "Two-layer SiLU projector",
    }
    built_in = [row for row in rows if row["distribution"] == "simsiam-zoo"]
    assert built_in == [row for row in json.loads(plain.stdout) if row["kind"] != "plugin"]


@pytest.mark.parametrize(
    ("selection", "loaded"),
    [("", set()), ("Swish_Zoo", {"swish-zoo"}), (" swish.zoo , crash-zoo", {"swish-zoo"})],
)
def test_the_environment_limits_plugins_by_distribution(zoo, selection, loaded):
    plugins = ["crash-zoo", "swish-zoo", "twin-a-zoo"]
    run = zoo("list", "--json", plugins=plugins, SIMSIAM_ZOO_PLUGINS=selection)
    rows = json.loads(run.stdout)
    usable = {row["distribution"] for row in rows if row["kind"] != "plugin"}
    assert usable == {"simsiam-zoo"} | loaded
    assert ("crash-zoo prints" in run.stderr) == ("crash-zoo" in selection)
    assert "twin-a-zoo prints" not in run.stderr
    assert states(rows)["twin-a-zoo"] == "disabled"


def test_a_misspelt_distribution_in_the_environment_is_told(zoo):
    run = zoo("list", plugins=["swish-zoo"], SIMSIAM_ZOO_PLUGINS="swsh-zoo")
    assert run.returncode == 0
    assert "names swsh-zoo, which has no plugin here. Did you mean swish-zoo?" in run.stderr


def test_a_minus_before_its_name_leaves_a_distribution_out(distribution, monkeypatch):
    for name in ("a_zoo", "b_zoo"):
        distribution(name, V1 + f"p = {name}_m", **{f"{name}_m": MODULE.format(name="one")})
    monkeypatch.setenv("SIMSIAM_ZOO_PLUGINS", "-A_Zoo, -c-zoo")
    plugins = {plugin.distribution: plugin for plugin in discover(selection())}
    assert plugins["a-zoo"].status == "disabled"
    assert plugins["a-zoo"].cause == "SIMSIAM_ZOO_PLUGINS leaves it out"
    assert plugins["b-zoo"].status == plugins["simsiam-zoo"].status == "ok"
    assert discover({"a-zoo", "-a-zoo"})[1].status == "disabled"
