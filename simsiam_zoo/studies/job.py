"""One run of a study in a process of its own: `python -m simsiam_zoo.studies.job FOLDER`.

It trains what the folder's recipe says, or goes on with it, or finds it done; then it measures by
the study's protocols that the run itself was not measured by. How it ended is in `status.json`,
whoever started it; the exit code is the command line's.
"""

from __future__ import annotations

import json
import shutil
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from simsiam_zoo.catalog import local_files, use_file
from simsiam_zoo.errors import DataError, DivergedError, InputError, StoppedError, ZooError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.recipe.lock import differences
from simsiam_zoo.recipe.sizes import data_at_hand
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.studies.arms import NOT_AT_HAND, arm_digest, arm_lock, known_digest
from simsiam_zoo.studies.plan import JOB

_PATIENCE = 5.0  # seconds

BUSY = 76
"""Exit code of a job whose folder another process holds."""


def command(folder: Path, metrics: tuple[str, ...]) -> list[str]:
    """What a launcher is given to run."""
    plugins = [word for file in local_files() for word in ("--plugin", str(file.cached))]
    job = [str(folder.resolve()), *metrics]
    # -P: a file in the current folder hides no module.
    return [sys.executable, "-P", "-m", "simsiam_zoo.studies.job", *plugins, *job]


def is_held(folder: Path) -> bool:
    """Whether some process is at work in the folder."""
    if not (folder / "lock").exists():
        return False
    try:
        with FileLock(folder / "lock").acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's folder, which can only be read
        return False


def is_complete(folder: Path, metrics: tuple[str, ...]) -> bool:
    """Whether the folder's run is trained, judged and measured by `metrics`; all else runs again.

    A run that diverged is complete: that is its result.
    """
    status = job_status(folder)
    if status is None or status.get("error") is not None:
        return False
    try:
        result = read_run_result(folder)
    except DataError:
        return False
    if result is None:
        return False
    if status.get("exit_code") == DivergedError.exit_code:
        return True
    wanted = _still_wanted(folder, metrics)
    return status.get("exit_code") == 0 and (not wanted or _measured(folder) == wanted)


def note_end(folder: Path, code: int) -> None:
    """Write down how a process ended that could not do so itself: killed, most often."""
    if job_status(folder) is None and code not in (0, BUSY, StoppedError.exit_code):
        killed = f"its process was killed by signal {-code}" if code < 0 else ""
        error = killed or f"its process ended with exit code {code}"
        status = {"exit_code": code, "error": f"{error}; log.txt has what it printed"}
        atomic_write_text(folder / "status.json", json.dumps(status) + "\n")


def run_job(folder: Path, metrics: tuple[str, ...]) -> int:
    """Do it, write down how it ended, and return the exit code."""
    try:
        # Whoever asks whether the folder is held holds it for a moment.
        with FileLock(folder / "lock").acquire(timeout=_PATIENCE):
            code, error = _guarded(folder, metrics)
            status = {"exit_code": code, "error": error}
            atomic_write_text(folder / "status.json", json.dumps(status) + "\n")
            return code
    except Timeout:
        print(f"another process is at work in {folder}", file=sys.stderr)
        return BUSY


def job_status(folder: Path) -> dict[str, Any] | None:
    """How the folder's last process ended; None where it did not say."""
    return _read_json(folder / "status.json")


class _Score(BaseModel):
    network: str = "trained network"
    protocol: str
    protocol_version: int
    top1: float
    top1_interval: tuple[float, float] | None = None
    test_images: int


class _Result(BaseModel):
    """What a study takes from a run's `result.json`."""

    verdict: str
    reason: str
    identity: str
    steps: int
    figures: list[_Score]
    evidence: dict[str, Any] = {}
    seconds: dict[str, float] = {}


class _Measured(BaseModel):
    protocols: list[str]
    figures: list[_Score]


def read_run_result(folder: Path) -> dict[str, Any] | None:
    """What a job's run ended with, as plain values; None where it has not.

    Raises:
        DataError: it is damaged.
    """
    path = folder / "run" / "result.json"
    try:
        return _Result.model_validate_json(path.read_bytes()).model_dump()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError):
        hint = "The study's command ends the run anew, from its last checkpoint."
        raise DataError(f"{path} is damaged", hint) from None


def read_measured(folder: Path) -> dict[str, Any] | None:
    """The figures that the study had measured after the run; None where there are none."""
    with suppress(OSError, ValidationError):
        content = (folder / "figures.json").read_bytes()
        return _Measured.model_validate_json(content).model_dump()
    return None


def _read_json(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        value = json.loads(path.read_text("utf-8"))
        return value if isinstance(value, dict) else None
    return None


def _guarded(folder: Path, metrics: tuple[str, ...]) -> tuple[int, str | None]:
    try:
        (folder / "status.json").unlink(missing_ok=True)
        refuse_other_arm(folder)
        if _train(folder) == "diverged":  # it was killed before it could say so
            return DivergedError.exit_code, None
        _measure(folder, metrics)
    except DivergedError:
        return DivergedError.exit_code, None  # that is a result
    except ZooError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code, str(error)
    except Exception as error:
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}"
    return 0, None


def refuse_other_arm(folder: Path) -> None:
    """Stop where the code or the data are not those that the study was planned with.

    Seeds of one arm, of which some are of one code and some of another, have no mean.

    Raises:
        InputError: they are not; the first difference is named.
    """
    planned = _read_json(folder / JOB)
    if planned is None:
        raise InputError(f"{folder / JOB} cannot be read", "`simsiam-zoo ablate` writes it.")
    recipe = Recipe.of_run(folder / "recipe.toml")
    data = planned.get("data")
    digest = str(data.get("digest") if isinstance(data, dict) else None)
    if not digest.startswith(NOT_AT_HAND):
        digest = known_digest(recipe, data_at_hand(recipe))
    lock = arm_lock(recipe, digest)
    if arm_digest(lock) == planned.get("digest"):
        return
    here = {"code": lock["code"], "data": lock["data"]}
    there = {key: planned.get(key) for key in here}
    where = next(differences(there, here), "its recipe")
    raise InputError(
        f"this is not what the study was planned with: {where}",
        "The study's command, given again, plans the arm anew and runs all its seeds.",
    )


def _train(folder: Path) -> str:
    """The verdict on the run that was there or is now."""
    from simsiam_zoo.runtime.progress import PlainProgress
    from simsiam_zoo.training.run import train

    run = folder / "run"
    try:
        result = read_run_result(folder)
    except DataError:  # all that it was made from is in the last checkpoint
        (run / "result.json").unlink()
        result = None
    if result is not None:
        return str(result["verdict"])
    resume = (run / "checkpoints" / "last.pt").exists()
    if not resume and run.exists():  # it had not come to a checkpoint
        shutil.rmtree(run)
    recipe = Recipe.of_run(folder / "recipe.toml")
    trained = train(recipe, run, resume=resume, progress=PlainProgress()).result
    assert trained is not None  # else it had raised
    return str(trained["verdict"])


def _measure(folder: Path, metrics: tuple[str, ...]) -> None:
    """The study's figures into `figures.json`: of the protocols that the run did not end with."""
    from simsiam_zoo.evaluation.evaluate import evaluate, write_report
    from simsiam_zoo.evaluation.target import open_target, read_recipe

    run = str(folder / "run")
    wanted = _still_wanted(folder, metrics)
    if not wanted or _measured(folder) == wanted:
        return
    recipe, place = read_recipe(run, None, {"evaluation.protocols": wanted})
    report = evaluate(open_target(run, recipe, place, None))
    write_report({"protocols": wanted, **report}, folder / "figures.json")


def _still_wanted(folder: Path, metrics: tuple[str, ...]) -> list[str]:
    """The protocols among `metrics` that the run does not end with."""
    have = Recipe.of_run(folder / "recipe.toml").evaluation.protocols
    return [metric for metric in metrics if metric not in have]


def _measured(folder: Path) -> list[str] | None:
    measured = read_measured(folder)
    return None if measured is None else list(measured["protocols"])


def start_job(words: list[str]) -> int:
    """[--plugin FILE]... FOLDER [PROTOCOL...]; the exit code."""
    while words[:1] == ["--plugin"]:
        try:
            use_file(words[1])
        except ZooError as refused:
            print(f"Error: {refused}", file=sys.stderr)
            return refused.exit_code
        words = words[2:]
    if not words or not Path(words[0]).is_dir():
        error = InputError("a study's job is given its folder", "`simsiam-zoo ablate` does that.")
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return run_job(Path(words[0]), tuple(words[1:]))


if __name__ == "__main__":
    sys.exit(start_job(sys.argv[1:]))
