"""`simsiam-zoo plugin`: the packages that supply components, listed, written and checked."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from simsiam_zoo.api.names import list_plugins as plugin_facts
from simsiam_zoo.catalog import KINDS, canonical_name
from simsiam_zoo.cli import LazyGroup, options
from simsiam_zoo.cli.text import columns, print_columns, print_heading, print_json, print_line
from simsiam_zoo.runtime.progress import tell

PLUGIN_COMMANDS = {
    "list": ("simsiam_zoo.cli.plugin:list_plugins", "What is installed, and what became of it."),
    "new": ("simsiam_zoo.cli.plugin:new_package", "Write a package that supplies one component."),
    "check": ("simsiam_zoo.cli.plugin:check_package", "Hold a package to the contract."),
}


@click.group(cls=LazyGroup, table=PLUGIN_COMMANDS)
def plugin() -> None:
    """Plugins: the packages that supply components, other people's and your own.

    \b
    From nothing to a package that conforms:
      simsiam-zoo plugin new leaky-zoo --kind projector
      pip install -e ./leaky-zoo
      simsiam-zoo plugin check leaky-zoo
      simsiam-zoo plugin list
    """


@click.command(name="list")
@options.as_json("the list")
def list_plugins(as_json: bool) -> None:
    """List the installed plugins: who supplies what, and what cannot be used and why.

    The time is what importing the plugin and asking it for its components took.
    """
    facts = plugin_facts()
    if as_json:
        print_json(facts)
        return
    rows = []
    for each in facts:
        took = "not loaded" if each["load_ms"] is None else f"{each['load_ms']:.0f} ms"
        slow = ", slow" if each["slow"] else ""
        rows.append(
            (each["distribution"], each["version"], each["api"], took + slow, each["status"])
        )
    for head, each in zip(columns(rows, wrap=4), facts, strict=True):
        print_heading(head[2:])
        supplies = each["supplies"].items()
        details = [(f"{len(names)} {kind}", ", ".join(names)) for kind, names in supplies]
        print_columns(details + ([("cause", each["cause"])] if each["cause"] else []), wrap=1)


@click.command(name="new")
@click.argument("name")
@click.option(
    "--kind",
    type=options.KIND,
    required=True,
    metavar="KIND",
    help=f"What it supplies: {', '.join(KINDS[:-1])} or {KINDS[-1]}.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The package's folder, new or empty.  [default: NAME]",
)
@options.as_json("what was written")
def new_package(name: str, kind: str, out: Path | None, as_json: bool) -> None:
    """Write a package NAME that supplies one component.

    It builds, installs, passes `simsiam-zoo plugin check` and trains as it is: change the
    body, and run its tests. The component is named after NAME without `-zoo`.
    """
    from simsiam_zoo.api.names import USES
    from simsiam_zoo.testing.scaffold import names_of, write_package

    files = write_package(name, kind, out)
    folder = Path(canonical_name(name)) if out is None else out
    use = "evaluate RUN --protocol" if kind == "protocol" else USES[kind]
    following = {
        "install": f"pip install -e {shlex.quote(str(folder) if out else f'./{folder}')}",
        "check": f"simsiam-zoo plugin check {canonical_name(name)}",
        "try": f"simsiam-zoo {use} {names_of(name, kind)[1]}",
    }
    if as_json:
        print_json({"folder": str(folder), "files": [str(file) for file in files], **following})
        return
    for file in files:
        print_line(f"  {folder / file}")
    print_line()
    print_columns([(f"{what.capitalize()} it:", how) for what, how in following.items()], wrap=1)


@click.command(name="check")
@click.argument("distribution", metavar="DIST")
@click.option("--fast", is_flag=True, help="Leave out the checks that take seconds each.")
@click.option(
    "--spec",
    "specs",
    multiple=True,
    metavar="KIND:SPEC",
    help="Check a component with these parameters: launcher:slurm:cluster=local.",
)
def check_package(distribution: str, fast: bool, specs: tuple[str, ...]) -> None:
    """Check every component that the package DIST supplies against the contract.

    A failure says what the contract asks and how to meet it; the exit code is then 3. The
    same checks run in a package's own tests: pytest -p simsiam_zoo.testing.
    """
    from simsiam_zoo.testing.conformance import check_plugin

    tell(f"checking {distribution}: each component is built and run, which takes some seconds each")
    check_plugin(distribution, fast, specs)
