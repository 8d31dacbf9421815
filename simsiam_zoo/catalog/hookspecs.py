"""Every hook that a plugin can implement.

A plugin is a light module (no torch) behind an entry point in the group `simsiam_zoo.v1`; it marks
its functions with `hookimpl`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from simsiam_zoo.catalog.component import Component, Family

PROJECT = "simsiam_zoo"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's function as the implementation of the hook of the same name."""


@hookspec
def zoo_components() -> Iterable[Component | Family]:  # type: ignore[empty-body]
    """Yield what the plugin supplies. All of it or, should this raise, none of it is used."""
