from __future__ import annotations

from pathlib import Path

import pytest

from simsiam_zoo.catalog import catalog
from simsiam_zoo.catalog.discovery import config_path, disabled
from simsiam_zoo.errors import InputError, PluginError
from simsiam_zoo.recipe.lock import refuse_missing

SWISH = {"parts": {"projector": {"id": "swish-zoo/swish", "distribution": "swish-zoo"}}}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """`config(text)` → the file, named by the environment."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "config.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        monkeypatch.setenv("SIMSIAM_ZOO_CONFIG", str(path))
        return path

    return write


@pytest.fixture
def swish(install_plugins, monkeypatch):
    """swish-zoo, from its wheel, on this process's path."""
    monkeypatch.syspath_prepend(install_plugins("swish-zoo")["PYTHONPATH"].split(":")[0])


def state(distribution: str) -> tuple[str, str | None]:
    (plugin,) = [p for p in catalog().plugins if p.distribution == distribution]
    return plugin.status, plugin.cause


def test_a_distribution_that_the_file_disables_is_not_loaded(config, swish, monkeypatch):
    monkeypatch.delenv("SIMSIAM_ZOO_PLUGINS")
    path = config('[plugins]\ndisabled = ["Swish_Zoo", "not-installed-here"]')
    assert state("swish-zoo") == ("disabled", f"switched off in {path}")
    config("")
    assert state("swish-zoo") == ("ok", None)


def test_the_environment_takes_precedence(config, swish, monkeypatch):
    config('[plugins]\ndisabled = ["swish-zoo"]')
    monkeypatch.setenv("SIMSIAM_ZOO_PLUGINS", "swish-zoo")
    assert state("swish-zoo") == ("ok", None)
    monkeypatch.setenv("SIMSIAM_ZOO_PLUGINS", "")
    assert state("swish-zoo") == ("disabled", "not named in SIMSIAM_ZOO_PLUGINS")


def test_a_run_whose_plugin_is_disabled_says_where(config, swish, monkeypatch):
    monkeypatch.delenv("SIMSIAM_ZOO_PLUGINS")
    path = config('[plugins]\ndisabled = ["swish-zoo"]')
    with pytest.raises(PluginError) as caught:
        refuse_missing(SWISH)
    assert "the run's projector is swish-zoo/swish" in str(caught.value)
    assert f"swish-zoo 0.3.0 is disabled: switched off in {path}" in str(caught.value)
    assert "pip install" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[plugins", "is not TOML"),
        (b"\xff", "cannot be read"),
        (b"\xef\xbb\xbf[plugin]", "unknown key plugin"),  # with a BOM it is TOML all the same
        ("[plugin]", "unknown key plugin\n  Did you mean plugins?"),
        ("plugins = 3", "no table"),
        ('[plugins]\ndisable = ["a"]', "unknown key plugins.disable\n  Did you mean disabled?"),
        ('[plugins]\ndisabled = "a"', "plugins.disabled = 'a'"),
        ("[plugins]\ndisabled = [1]", "plugins.disabled = [1]"),
        ('[plugins]\ndisabled = ["simsiam_zoo"]', "disables simsiam-zoo"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(config, text, said):
    path = config(text)
    with pytest.raises(InputError) as caught:
        disabled()
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_file_that_the_environment_names_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("SIMSIAM_ZOO_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match="SIMSIAM_ZOO_CONFIG names it"):
        disabled()
    monkeypatch.setenv("SIMSIAM_ZOO_CONFIG", "")
    assert config_path() is None
    assert disabled() == frozenset()


def test_without_the_variable_the_users_folder_has_it(monkeypatch, tmp_path):
    monkeypatch.delenv("SIMSIAM_ZOO_CONFIG", raising=False)
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path / name)
    assert disabled() == frozenset()
    (tmp_path / "simsiam-zoo").mkdir()
    (tmp_path / "simsiam-zoo" / "config.toml").write_text('[plugins]\ndisabled = ["a-zoo"]')
    assert disabled() == {"a-zoo"}


def test_the_command_line_stops_at_a_broken_file_with_2(zoo, tmp_path):
    (tmp_path / "broken.toml").write_text("[plugins")
    run = zoo("list", SIMSIAM_ZOO_CONFIG="broken.toml")
    assert (run.returncode, run.stdout) == (2, "")
    assert "the configuration broken.toml is not TOML" in run.stderr
