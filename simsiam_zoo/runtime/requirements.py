"""Whether the packages that simsiam-zoo needs are here, and new enough."""

from __future__ import annotations

import importlib.metadata

from packaging.requirements import Requirement


def unmet_requirements(distribution: str = "simsiam-zoo") -> list[str]:
    """One line for each required package that is missing, or of a version that is refused.

    The floors are those of the installed metadata, so `pyproject.toml` alone states them. Extras
    are not looked at. Empty where `distribution` itself is not installed.
    """
    try:
        stated = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    unmet = []
    for requirement in map(Requirement, stated):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, wanted = requirement.name, str(requirement.specifier)
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            unmet.append(f"{name} is not installed, and {name}{wanted} is needed")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            unmet.append(f"{name} {found} is here, and {name}{wanted} is needed")
    return unmet
