"""`plugin check`: the kit on one package, without a test folder."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from unittest import mock

from simsiam_zoo.errors import InputError, PluginError


def check_plugin(distribution: str, fast: bool = False, specs: Sequence[str] = ()) -> None:
    """Check every component that an installed package supplies against the contract.

    pytest's lines go to stdout.

    Args:
        distribution: the package's name.
        fast: leave out the checks that take seconds each.
        specs: check components with parameters: `launcher:slurm:cluster=local`.

    Raises:
        InputError: there is no such package, or pytest is not installed.
        PluginError: a component does not conform.
    """
    if importlib.util.find_spec("pytest") is None:
        raise InputError(
            "the conformance kit needs pytest, and it is not installed",
            "python -m pip install pytest",
        )
    import pytest

    import simsiam_zoo.testing
    from simsiam_zoo.testing.checks import components_of

    list(components_of(distribution, specs))  # an unknown name is refused at once
    # Neither the user's options and plugins of pytest, nor tests in a folder: the checks alone.
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    with tempfile.TemporaryDirectory() as nothing, mock.patch.dict(os.environ, alone):
        words = ["-q", "-rs", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", nothing]
        words += ["--zoo-plugin", distribution, *(["--zoo-fast"] if fast else [])]
        words += [word for spec in specs for word in ("--zoo-spec", spec)]
        code = pytest.main([*words, nothing], plugins=[simsiam_zoo.testing])
    if code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if code == pytest.ExitCode.TESTS_FAILED:
        raise PluginError(f"{distribution} does not conform")
    if code:
        raise PluginError(f"the conformance kit could not run (pytest's exit code {int(code)})")
