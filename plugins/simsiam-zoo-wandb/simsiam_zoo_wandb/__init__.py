"""The logger `wandb`: its name and parameters. wandb itself is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator

from simsiam_zoo.plugin import Component, Param, hookimpl


@hookimpl
def zoo_components() -> Iterator[Component]:
    """The logger."""
    yield Component(
        "logger",
        "wandb",
        target="simsiam_zoo_wandb.logger:WandbLogger",
        summary="Weights & Biases: figures over steps, the recipe as config, the verdict",
        params=(
            Param("project", str, "simsiam-zoo", "Project", operational=True),
            Param("entity", str, None, "User or team (default: yours)", operational=True),
            Param("group", str, None, "Group of the run", operational=True),
            Param(
                "mode",
                str,
                None,
                "Offline: files to `wandb sync` later (default: WANDB_MODE, or online)",
                choices=("online", "offline"),
                operational=True,
            ),
        ),
        reference="https://docs.wandb.ai",
    )
