"""simsiam-zoo: SimSiam as five swappable parts. Importing this does not import torch."""

from simsiam_zoo.catalog.component import Component, Family, Param
from simsiam_zoo.catalog.hookspecs import hookimpl

__all__ = ["Component", "Family", "Param", "hookimpl"]
