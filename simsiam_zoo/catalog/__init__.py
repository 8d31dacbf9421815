"""What components exist, and who supplies them. None of it imports torch."""

from simsiam_zoo.catalog.catalog import Catalog, catalog, check_kind
from simsiam_zoo.catalog.component import (
    CONTRACTS,
    HOST_SUPPLIED,
    KINDS,
    PARTS,
    Component,
    Family,
    Param,
    Value,
    load_target,
)
from simsiam_zoo.catalog.discovery import API, HOST, Plugin, discover, selection
from simsiam_zoo.catalog.entry import Entry, Resolved
from simsiam_zoo.catalog.hookspecs import hookimpl
from simsiam_zoo.catalog.local import local_files, use_file
from simsiam_zoo.catalog.spec import split_spec

__all__ = [
    "API",
    "CONTRACTS",
    "HOST",
    "HOST_SUPPLIED",
    "KINDS",
    "PARTS",
    "Catalog",
    "Component",
    "Entry",
    "Family",
    "Param",
    "Plugin",
    "Resolved",
    "Value",
    "catalog",
    "check_kind",
    "discover",
    "hookimpl",
    "load_target",
    "local_files",
    "selection",
    "split_spec",
    "use_file",
]
