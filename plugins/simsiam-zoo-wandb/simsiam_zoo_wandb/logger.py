"""The logger `wandb`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from simsiam_zoo.plugin import PluginError, atomic_write_text, run_title

_ID_FILE = "wandb-id.txt"

_open: dict[str, Any] = {}
"""The runs of this process that were begun and not finished, by id."""


class WandbLogger:
    """Each figure over steps, the recipe as the run's config, verdict and result in its summary.

    A run that goes on keeps its id, which is in wandb-id.txt in its folder.

    Args:
        project, entity, group: where it is filed.
        mode: `online` or `offline`; None is what WANDB_MODE says, or online.

    Raises:
        PluginError: online, and nobody is logged in.
    """

    def __init__(
        self,
        *,
        project: str,
        entity: str | None,
        group: str | None,
        mode: str | None,
    ) -> None:
        # Otherwise wandb reports its own errors to Sentry, and looks for that host offline too.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb: Any = wandb
        self._where = {"project": project, "entity": entity, "group": group}
        self._mode = mode or os.environ.get("WANDB_MODE") or "online"
        if self._mode == "online" and not self._is_logged_in():
            raise PluginError(
                "logger wandb cannot be used: nobody is logged in to Weights & Biases here",
                "Run `wandb login`, or write wandb:mode=offline.",
            )

    def start(self, folder: Path, recipe: dict[str, Any], step: int) -> None:
        """Open the run, or open it again."""
        name = _id_of(folder)
        if name in _open:  # interrupted in this process: wandb has one run of an id at a time
            _open.pop(name).finish()
        settings = self._wandb.Settings(console="off", quiet=True, silent=self._mode == "offline")
        self._run = self._wandb.init(
            **self._where,
            id=name,
            name=run_title(folder),
            config=recipe,
            dir=folder,
            mode=self._mode,
            # Rows that come again are as they were, timings aside: wandb keeps those that it has.
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",  # and not another run of this process
            settings=settings,
        )
        _open[name] = self._run

    def log(self, row: dict[str, Any]) -> None:
        """The figures of one step; rows of the same step are one to wandb."""
        figures = {name: value for name, value in row.items() if name != "step"}
        self._run.log(figures, step=row["step"])

    def finish(self, result: dict[str, Any]) -> None:
        """Verdict, figures and all of the result into the summary; closes the run."""
        figures = {f"{f['network']} {f['protocol']}": f["top1"] for f in result["figures"]}
        words = {"verdict": result["verdict"], "reason": result["reason"]}
        self._run.summary.update({**words, **figures, "result": result})
        self._run.finish()
        _open.pop(self._run.id, None)

    def _is_logged_in(self) -> bool:
        try:
            return bool(self._wandb.login(verify=False, prompt=False))
        except self._wandb.errors.UsageError:
            return False


def _id_of(folder: Path) -> str:
    """The run's id: made once, then read."""
    path = folder / _ID_FILE
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        name = secrets.token_hex(4)
        atomic_write_text(path, f"{name}\n")
        return name
