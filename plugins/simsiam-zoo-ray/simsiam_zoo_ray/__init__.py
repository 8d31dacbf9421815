"""The launcher `ray`: its name and parameters. Ray itself is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl


@hookimpl
def zoo_components() -> Iterator[Component]:
    """The launcher."""
    yield Component(
        "launcher",
        "ray",
        target="simsiam_zoo_ray.launcher:RayLauncher",
        summary="Processes on the nodes of a Ray cluster",
        params=(
            Param(
                "address",
                str,
                None,
                "The cluster; `local` starts one here (default: the one that runs here, or that)",
            ),
            Param("cpus", int, None, "Cores of a cluster that is started (default: all)", min=1),
            Param("grace", float, 120.0, "Seconds from the request to stop to the kill", min=0),
            Param("autoscaling", bool, False, "Wait for nodes that the cluster does not have yet"),
        ),
        reference="https://docs.ray.io",
    )
