"""The user's configuration file: so far, which distributions' plugins are switched off.

    [plugins]
    disabled = ["some-zoo"]

A file that cannot be read, or says something else, is an error and no warning: what it was to
switch off would be imported, and that may be what the user must not have happen.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from simsiam_zoo.errors import InputError, did_you_mean

CONFIG = "SIMSIAM_ZOO_CONFIG"
"""The environment variable that says where the file is; empty: there is none."""

_KEYS = {"plugins": {"disabled"}}


def config_path() -> Path | None:
    """Where the file is, whether it exists or not: `simsiam-zoo/config.toml` in the user's own.

    None where `SIMSIAM_ZOO_CONFIG` is empty.
    """
    text = os.environ.get(CONFIG)
    if text is not None:
        return Path(text).expanduser() if text else None
    import platformdirs

    return platformdirs.user_config_path("simsiam-zoo") / "config.toml"


def disabled_distributions(path: Path | None) -> frozenset[str]:
    """The names under `[plugins] disabled`, as written; none where there is no file.

    Raises:
        InputError: the file that SIMSIAM_ZOO_CONFIG names is missing, or a file cannot be read, is
            not TOML, or says something that this version does not know.
    """
    if path is None:
        return frozenset()
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        if os.environ.get(CONFIG):
            raise _wrong(path, "does not exist", f"{CONFIG} names it.") from None
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"cannot be read: {error}") from None
    import tomllib

    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"is not TOML: {error}") from None
    _refuse_unknown(path, tree, _KEYS, "")
    plugins = tree.get("plugins", {})
    if not isinstance(plugins, dict):
        raise _wrong(path, "has a plugins that is no table", "Write [plugins].")
    _refuse_unknown(path, plugins, _KEYS["plugins"], "plugins.")
    names = plugins.get("disabled", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _wrong(path, f"has plugins.disabled = {names!r}", 'Write disabled = ["some-zoo"].')
    return frozenset(names)


def _refuse_unknown(path: Path, table: dict[str, Any], known: Any, prefix: str) -> None:
    for key in table:
        if key not in known:
            there = f"There is {', '.join(prefix + name for name in sorted(known))}."
            raise _wrong(path, f"has an unknown key {prefix}{key}", did_you_mean(key, known, there))


def _wrong(path: Path, what: str, hint: str | None = None) -> InputError:
    return InputError(f"the configuration {path} {what}", hint)
