"""The launcher `ray`: each command in an actor that holds its cores and GPUs."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam_zoo.plugin import LOG, LaunchError, PluginError, Resources, thread_variables
from simsiam_zoo_ray.command import Command

_STORE = 80 * 2**20
"""Bytes of the object store of a cluster that is started: near Ray's least, since nothing but
commands and exit codes passes through it."""


@dataclass
class _Job:
    actor: Any
    ready: Any
    ended: Any
    folder: Path
    asked: bool = False
    exit_code: int | None = None


class RayLauncher:
    """Commands on the nodes of a Ray cluster.

    Every node needs the caller's Python environment, the working directory and the study's folder
    under the paths that they have here (a shared file system). The caller's environment variables
    are passed on, those that name GPUs excepted: a job sees the GPUs that Ray gave it, or none.

    Args:
        address: of the cluster, `auto` for the one that runs on this machine, `local` to start
            one. None joins the one that runs here (or that RAY_ADDRESS names) and starts one where
            there is none.
        cpus: cores of a cluster that is started; None is all of them.
        grace: seconds from the request to stop to the kill.
        autoscaling: the cluster grows when it is asked to: a job that fits on none of its nodes
            waits, and is not refused.

    Raises:
        PluginError: there is no such cluster, or none can be started.
    """

    def __init__(
        self,
        *,
        address: str | None,
        cpus: int | None,
        grace: float,
        autoscaling: bool,
    ) -> None:
        import ray

        self._ray: Any = ray
        self._grace = grace
        self._autoscaling = autoscaling
        self._jobs: dict[str, _Job] = {}
        self._owns = not ray.is_initialized()
        if self._owns:
            _connect(address, cpus)

    def submit(self, argv: Sequence[str], folder: Path, resources: Resources) -> str:
        """See `simsiam_zoo.studies.launcher.Launcher.submit`."""
        self._check_fits(resources)
        name = f"ray-{secrets.token_hex(8)}"
        # Not restarted by Ray: a run that is begun anew by anyone but the study would be unseen.
        actor = (
            self._ray.remote(Command)
            .options(
                name=name,
                num_cpus=resources.cpus,
                num_gpus=resources.gpus,
                max_concurrency=2,
                max_restarts=0,
            )
            .remote()
        )
        environment = os.environ | thread_variables(resources.cpus)
        self._jobs[name] = _Job(
            actor,
            ready=actor.ready.remote(),
            ended=actor.run.remote(
                list(argv), str(folder.absolute()), os.getcwd(), environment, resources.gpus
            ),
            folder=folder,
        )
        return name

    def poll(self, job: str) -> int | None:
        """See `Launcher.poll`; -9 where the node or Ray's worker died."""
        found = self._find(job)
        if found.exit_code is None and self._is_there(found.ended):
            found.exit_code = self._result(found)
            self._ray.kill(found.actor)  # its cores and GPUs are free from now on
        return found.exit_code

    def cancel(self, job: str) -> None:
        """See `Launcher.cancel`; a command that still runs after the time of grace is killed."""
        found = self._find(job)
        if found.asked or self.poll(job) is not None:
            return
        found.asked = True
        if self._is_there(found.ready):
            found.actor.stop.remote(self._grace)
        else:  # it waits for its resources
            self._ray.kill(found.actor)
            found.exit_code = -signal.SIGTERM

    def close(self) -> None:
        """Disconnect, and stop the cluster if it was started here; jobs that still run end."""
        if self._owns:
            self._ray.shutdown()

    def _find(self, job: str) -> _Job:
        try:
            return self._jobs[job]
        except KeyError:
            raise LaunchError(f"launcher ray has started no job {job!r}") from None

    def _is_there(self, result: Any) -> bool:
        return bool(self._ray.wait([result], timeout=0)[0])

    def _result(self, job: _Job) -> int:
        errors = self._ray.exceptions
        try:
            return int(self._ray.get(job.ended))
        except errors.RayActorError as error:
            _note(job.folder, f"Ray lost the process or its node: {error}")
            return -signal.SIGKILL
        except errors.RayTaskError as error:
            _note(job.folder, f"Ray could not start the command: {error.cause}")
            return 126

    def _check_fits(self, resources: Resources) -> None:
        """Refuse what no node can ever hold: Ray would let it wait for ever."""
        if self._autoscaling:
            return
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(
            node.get("CPU", 0) >= resources.cpus and node.get("GPU", 0) >= resources.gpus
            for node in nodes
        ):
            return
        each = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
        raise LaunchError(
            f"a job asks for {resources.cpus} cores and {resources.gpus:g} GPUs, and no node of the"
            f" Ray cluster has as many (it has, node by node: {each})",
            "If the cluster grows on demand, say so: ray:autoscaling=true.",
        )


def _connect(address: str | None, cpus: int | None) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    try:
        if address != "local":
            try:
                ray.init(address=address or "auto", **quiet)
                return
            except ConnectionError:
                if address is not None:
                    raise
        # A cluster of ours tells nobody that it is there, unless the user has said that it may.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=_STORE,
            **quiet,
        )
    except Exception as error:  # Ray raises what its many layers do
        what = (
            "no Ray cluster can be started here"
            if address in (None, "local")
            else (f"there is no Ray cluster at {address}")
        )
        reason = " ".join(str(error).split())
        raise PluginError(f"launcher ray cannot be used: {what} ({reason})") from error


def _note(folder: Path, text: str) -> None:
    with suppress(OSError), (folder / LOG).open("a") as log:
        log.write(f"{text}\n")
