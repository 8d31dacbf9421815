"""The launcher `slurm`: its name and parameters. submitit is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl


@hookimpl
def zoo_components() -> Iterator[Component]:
    """The launcher."""
    yield Component(
        "launcher",
        "slurm",
        target="simsiam_zoo_slurm.launcher:SlurmLauncher",
        summary="Jobs of Slurm, through submitit",
        params=(
            Param("partition", str, None, "Partition (default: the cluster's)"),
            Param("account", str, None, "Account that is charged (default: yours)"),
            Param("hours", float, 24.0, "Time limit of a run", min=0.05),
            Param("memory", float, None, "GB of memory of a run (default: the cluster's)", min=0.1),
            Param("options", str, "", "Other options of sbatch: KEY=VALUE KEY=VALUE"),
            Param("grace", float, 120.0, "Seconds from the request to stop to the kill", min=0),
            Param(
                "cluster",
                str,
                "slurm",
                "Local: processes on this machine, to try a study out",
                choices=("slurm", "local"),
            ),
        ),
        reference="https://github.com/facebookincubator/submitit",
    )
