"""The tables of the docs that are written by the code."""

from __future__ import annotations

import ast
import inspect
import itertools
import tomllib
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

from docs_commands import commands_list
from torch import nn

import simsiam_zoo as zoo_api
from simsiam_zoo import plugin
from simsiam_zoo.catalog import HOST_SUPPLIED, PARTS, Component, catalog
from simsiam_zoo.cli import COMMANDS
from simsiam_zoo.recipe.expected import Expected
from simsiam_zoo.recipe.layers import COMPONENTS
from simsiam_zoo.recipe.recipe import Recipe, operational_paths, recipe_keys

ROOT = Path(__file__).parents[1]


SHOWN_PRESETS = ("mnist-5k", "digits", "cifar10", "imagenet")


def keys_table() -> str:
    """Every key with its default, and what the presets have in its place."""
    operational = set(operational_paths())
    presets = {name: Recipe.make(name) for name in SHOWN_PRESETS}
    heads = ["key", "default", *(f"`{name}`" for name in presets), "meaning"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for path, field in recipe_keys():
        if path in COMPONENTS:
            continue
        default = plain(field.get_default())
        cells = ["" if default in ({}, None, "") else f"`{default}`"]
        for recipe in presets.values():
            value = plain(attrgetter(path)(recipe))
            own = value not in (default, None) and path != "preset" and not isinstance(value, dict)
            cells.append(f"`{value}`" if own else "")
        how = " *Operational.*" if path in operational else ""
        lines.append(f"| `{path}` | {' | '.join(cells)} | {field.description}.{how} |")
    return "\n".join(lines)


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def parts_table() -> str:
    text = []
    for kind in (*PARTS, "augmentation", "dataset", "protocol", "logger", "launcher", "format"):
        text.append(f"## {kind}\n")
        for entry in catalog().entries(kind):
            component = entry.component
            source = f" ({component.reference})" if component.reference else ""
            text.append(f"**`{entry.call}`** {component.summary}{source}")
            for param in component.params:
                default = (
                    "" if param.default is None else f", default `{param.spell(param.default)}`"
                )
                text.append(f"- `{param.name}`{default}: {param.help}; {param.describe()}")
            if isinstance(component, Component) or component.params:
                text.append("")
    return "\n".join(text).rstrip()


INTERFACES: dict[str, Any] = {
    "gradient": plugin.GradientPolicy,
    "augmentation": plugin.Augmentation,
    "protocol": plugin.EvaluationProtocol,
    "logger": plugin.Logger,
    "launcher": plugin.Launcher,
    "format": plugin.ExportFormat,
}


CONTRACTS = {
    "backbone": "images [N, 3, H, W] to features [N, in_dim]",
    "projector": "features [N, in_dim] to z [N, out_dim]; has the attribute `out_dim`",
    "predictor": "z [N, dim] to p [N, dim]",
    "gradient": "a `GradientPolicy`: a batch to a `StepOutput`, pairs of [N, dim] each",
    "loss": "(prediction, target), both [N, dim] float32, to a scalar; may be a `Loss`",
    "augmentation": "draws a `ViewParams`, whose box lies in the image; the host renders it;"
    " it may have `view_sizes(size)`",
    "dataset": "gives a `Dataset`: shards to train on and to test on, and class names",
    "protocol": "`FeatureSplits` (features and labels) to a list of `Score`",
    "logger": "writes each row of metrics.jsonl once more, also where a run goes on",
    "launcher": "starts the commands of a study and tells how they ended",
    "format": "an `ExportFormat`: writes a backbone for another library, and says how to load it",
    "preset": 'a TOML recipe in the package, `target="package:file.toml"`; it may say `extends`',
    "study": 'a TOML study in the package, `target="package:file.toml"`',
}


def contracts_table() -> str:
    lines = ["| kind | the host supplies | the contract | methods |", "| --- | --- | --- | --- |"]
    for kind, contract in CONTRACTS.items():
        host = ", ".join(f"`{name}`" for name in sorted(HOST_SUPPLIED.get(kind, ())))
        methods = ", ".join(f"`{call}`" for call, _ in methods_of(INTERFACES.get(kind)))
        lines.append(f"| `{kind}` | {host} | {contract} | {methods} |")
    return "\n".join(lines)


def api_list() -> str:
    """Every name of simsiam_zoo.plugin with its arguments and what its docstring begins with."""
    text = []
    for name in plugin.__all__:
        value = getattr(plugin, name)
        text.append(f"**`{name}{arguments(value)}`** {summary(name, value)}")
        if is_interface(value):
            text += [f"- `{call}`: {meaning}" for call, meaning in methods_of(value)]
            text += [f"- `{n} = {d!r}`: {meaning}" for n, d, meaning in attributes_of(value)]
        text.append("")
    return "\n".join(text).rstrip()


def is_interface(value: object) -> bool:
    """Whether authors subclass it, or write what has its methods."""
    protocol = getattr(value, "_is_protocol", False)
    abstract = inspect.isabstract(value)
    return isinstance(value, type) and (protocol or abstract or issubclass(value, nn.Module))


def arguments(value: Any) -> str:
    """`(x, folder=None)`; empty where there is nothing to call, or the class says nothing of it."""
    if not (inspect.isclass(value) or inspect.isfunction(value)) or is_interface(value):
        return ""
    signature = inspect.signature(value)
    names = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=names, return_annotation=signature.empty))


def summary(name: str, value: Any) -> str:
    """The first paragraph of its docstring, or of the text below a constant."""
    if inspect.isclass(value) or inspect.isfunction(value):
        return paragraph(value)
    homes = [home for home, names in plugin._HOMES.items() if name in names] or [
        "catalog.component"
    ]
    body = ast.parse((ROOT / "simsiam_zoo" / f"{homes[0].replace('.', '/')}.py").read_text()).body
    return dict(documented(body))[name]


def documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Assigned names, each with the text that stands below it."""
    for one, following in itertools.pairwise(body):
        targets = one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)]
        if isinstance(targets[0], ast.Name) and isinstance(following, ast.Expr):
            yield targets[0].id, " ".join(ast.literal_eval(following.value).split())


def methods_of(interface: Any) -> list[tuple[str, str]]:
    """`submit(argv, folder, resources)` and what it is for, of each public method."""
    if interface is None:
        return []
    found = []
    for name, method in vars(interface).items():
        if inspect.isfunction(method) and (name == "__call__" or not name.startswith("_")):
            given = ", ".join([*inspect.signature(method).parameters][1:])
            found.append((f"{name}({given})".removeprefix("__call__"), paragraph(method)))
    return found


def attributes_of(interface: Any) -> Iterator[tuple[str, object, str]]:
    (tree,) = ast.parse(inspect.getsource(interface)).body
    assert isinstance(tree, ast.ClassDef)
    for name, meaning in documented(tree.body):
        yield name, getattr(interface, name), meaning


def paragraph(value: Any) -> str:
    text = inspect.getdoc(value)
    assert text, f"{value} has no docstring"
    return " ".join(text.partition("\n\n")[0].split())


EXIT_CODES = {
    0: "done; a collapse is a result too",
    1: "an error that nobody foresaw (`--debug` shows where), or another process of the run failed",
    2: "what was asked for is wrong: a name, a value, a path, another run's identity",
    3: "a component or a plugin cannot be used, or one that a run recorded is missing",
    4: "data or a checkpoint is damaged, or a shard cannot be had",
    5: "the loss or the weights stopped being finite",
    75: "stopped on request; what was done is saved, and the last line says how to go on",
}


def reference_tables() -> str:
    """Every command, and every exit code."""
    lines = ["| command | |", "| --- | --- |"]
    lines += [f"| `simsiam-zoo {name}` | {text} |" for name, (_, text) in COMMANDS.items()]
    lines += ["", "[Commands](commands.md) has their options.", "", "## Exit codes", ""]
    lines += ["| code | |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {code} | {text} |" for code, text in EXIT_CODES.items())])


def functions_table() -> str:
    """Every public name, and what its docstring begins with."""
    names = [(name, getattr(zoo_api, name)) for name in zoo_api.__all__]
    rows = [f"| `zoo.{name}` | {paragraph(value).rstrip('.')} |" for name, value in names]
    return "\n".join(["| name | |", "| --- | --- |", *rows])


def anchors_table() -> str:
    """Every preset that states a published figure: the core's, and those of simsiam-zoo-anchors."""
    package = ROOT / "plugins" / "simsiam-zoo-anchors" / "simsiam_zoo_anchors"
    files = [*sorted((ROOT / "simsiam_zoo/recipe/presets").glob("*.toml"))]
    lines = [
        "| preset | published | by | its training | GPU-hours there |",
        "| --- | --- | --- | --- | ---: |",
    ]
    for file in [*files, *sorted(package.glob("*.toml"))]:
        tree = tomllib.loads(file.read_text())
        if (stated := tree.get("expected")) is None:
            continue
        found, whole = Expected.model_validate(stated), tree
        while "training" not in whole or "epochs" not in whole["training"]:
            whole = tomllib.loads((package / f"{whole['extends']}.toml").read_text())
        hours = "" if found.gpu_hours is None else f"{found.gpu_hours:g}"
        cells = (
            f"`{file.stem}`",
            f"{found.figure:.1f} by {found.protocol}",
            f"[{found.by}]({found.source})",
        )
        training = f"{whole['training']['epochs']:,} x {found.images:,} images"
        lines.append(f"| {' | '.join((*cells, training, hours))} |")
    return "\n".join(lines)


TABLES = {
    "anchors.md": ("anchors", anchors_table),
    "commands.md": ("commands", commands_list),
    "reference.md": ("reference", reference_tables),
    "recipes.md": ("keys", keys_table),
    "parts.md": ("parts", parts_table),
    "plugins.md": ("contracts", contracts_table),
    "plugin-api.md": ("names", api_list),
    "python.md": ("functions", functions_table),
}


def with_table(page: str) -> tuple[str, str]:
    """The page as it is, and as it should be."""
    name, make = TABLES[page]
    text = (ROOT / "docs" / page).read_text()
    begin, end = f"<!-- {name}: written by tests/test_docs.py --write -->", f"<!-- /{name} -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return text, f"{head}{begin}\n\n{make()}\n\n{end}{tail}"
