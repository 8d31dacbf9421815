"""A new plugin package, whole and conforming, from the templates beside this module. No torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
import sys
import tomllib
from importlib import resources
from pathlib import Path

import jinja2

from simsiam_zoo.catalog import FILE_KINDS, HOST, canonical_name, catalog, check_kind
from simsiam_zoo.errors import InputError
from simsiam_zoo.runtime.folders import unwritable

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\Z", re.IGNORECASE)  # PEP 508

_CIRCUMFIX = re.compile(r"^simsiam-zoo-|^zoo-|-zoo$")


def write_package(name: str, kind: str, folder: Path | None = None) -> list[Path]:
    """Write a package that supplies one component, into a new folder.

    Args:
        name: of the distribution; the module and the component are named after it.
        kind: of the component.
        folder: the package's, new or empty; `name` in the working directory by default.

    Returns:
        The files, relative to the folder. Raises InputError.
    """
    check_kind(kind)
    module, component = names_of(name, kind)
    folder = Path(canonical_name(name)) if folder is None else folder
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            hint = "Choose another with --out, or move it away."
            raise InputError(f"{folder} is there already, and nothing is overwritten", hint)
        files = _texts(canonical_name(name), kind, module, component)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, "utf-8")
    except OSError as error:
        raise unwritable(folder, error) from None
    return [Path(path) for path in files]


def names_of(name: str, kind: str) -> tuple[str, str]:
    """`leaky-zoo` → its module `leaky_zoo`, its component `leaky`. Raises InputError."""
    if not _NAME.match(name):
        raise InputError(
            f"{name!r} cannot name a distribution",
            "Letters, digits, '-', '_' and '.', with a letter or digit at both ends: leaky-zoo.",
        )
    distribution = canonical_name(name)
    module = distribution.replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module):
        hint = "Begin with a letter." if module[0].isdigit() else f"Try {distribution}-zoo."
        what = f"{name!r} gives no module's name: {module} is no Python identifier"
        raise InputError(what, hint)
    own = {plugin.distribution for plugin in catalog().plugins} - {HOST}  # written anew, perhaps
    spec = None if distribution in own else importlib.util.find_spec(module)
    # a mere folder that is near has no origin
    if module in sys.stdlib_module_names or (spec is not None and spec.origin is not None):
        raise InputError(f"there is a module {module} already", f"Try {distribution}-zoo.")
    component = _CIRCUMFIX.sub("", distribution) or distribution
    try:
        owner = catalog().resolve(kind, component).entry.distribution
    except InputError:
        return module, component
    if owner == HOST:
        raise InputError(
            f"{name!r} would supply the {kind} {component}, and that name is built in",
            "Choose another; the component is named after the distribution, without -zoo.",
        )
    return module, component


def _texts(name: str, kind: str, module: str, component: str) -> dict[str, str]:
    """Path → text of every file."""
    folder = resources.files("simsiam_zoo.testing").joinpath("templates")
    about = tomllib.loads(folder.joinpath("kinds.toml").read_text("utf-8"))[kind]
    camel = "".join(word.capitalize() for word in re.split(r"[-._]", component))
    factory = component.replace("-", "_") if kind == "dataset" else camel + kind.capitalize()
    if not factory.isidentifier():
        factory = f"{kind}_{factory}"
    is_file = kind in FILE_KINDS
    host = importlib.metadata.version(HOST)
    values = {
        "name": name,
        "kind": kind,
        "module": module,
        "component": component,
        "factory": factory,
        "target": f"{module}:{component}.toml" if is_file else f"{module}.{kind}:{factory}",
        "summary": about["summary"],
        "use": about["use"].format(component),
        "params": [param.replace("{}", component) for param in about.get("params", [])],
        "host": host,
        "next_host": int(host.split(".")[0]) + 1,  # it may change `simsiam_zoo.plugin`
    }
    body = f"{module}/{component}.toml" if is_file else f"{module}/{kind}.py"
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
        f"{module}/__init__.py": "init.py",
        f"{module}/plugin.py": "plugin.py",
        body: f"bodies/{kind}",
        f"tests/test_{module}.py": f"tests/{kind}",
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("simsiam_zoo.testing", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    texts = {
        path: environment.get_template(f"{template}.jinja").render(values)
        for path, template in templates.items()
    }
    return texts if is_file else texts | {f"{module}/py.typed": ""}
