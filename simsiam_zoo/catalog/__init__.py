"""What components exist, and who supplies them. None of it imports torch."""

from simsiam_zoo.catalog.catalog import Catalog, catalog, check_kind, create_component
from simsiam_zoo.catalog.component import (
    FILE_KINDS,
    HOST_SUPPLIED,
    KINDS,
    PARTS,
    CatalogEntry,
    Component,
    Family,
    Plugin,
    Resolved,
    hookimpl,
    load_target,
)
from simsiam_zoo.catalog.discovery import API, HOST, canonical_name, discover
from simsiam_zoo.catalog.local import local_files, use_file
from simsiam_zoo.catalog.param import Param, Text, Value, split_spec

__all__ = ["API", "FILE_KINDS", "HOST", "HOST_SUPPLIED", "KINDS", "PARTS", "Catalog"]
__all__ += ["CatalogEntry", "Component", "Family", "Param", "Plugin", "Resolved", "Text", "Value"]
__all__ += ["canonical_name", "catalog", "check_kind", "create_component", "discover", "hookimpl"]
__all__ += ["load_target", "local_files", "split_spec", "use_file"]
