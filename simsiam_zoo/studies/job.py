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

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from simsiam_zoo.catalog import local_files, use_file
from simsiam_zoo.catalog.blame import plugin_error
from simsiam_zoo.errors import DataError, DivergedError, InputError, StoppedError, ZooError
from simsiam_zoo.recipe import Recipe
from simsiam_zoo.runtime import folders
from simsiam_zoo.runtime.folders import atomic_write_text
from simsiam_zoo.studies.arms import arm_identity, known_digest
from simsiam_zoo.studies.found_runs import Score, read_json


def command(folder: Path, metrics: tuple[str, ...], until: int = 0) -> list[str]:
    """What a launcher is given to run; `until` an epoch, where it is not 0."""
    plugins = [word for file in local_files() for word in ("--plugin", str(file.cached))]
    job = [*(("--until", str(until)) if until else ()), str(folder.resolve()), *metrics]
    # -P: a file in the current folder hides no module.
    return [sys.executable, "-P", "-m", "simsiam_zoo.studies.job", *plugins, *job]


def is_held(folder: Path) -> bool:
    """Whether some process is at work in the folder."""
    return folders.is_held(folder / "lock")


def is_complete(folder: Path, metrics: tuple[str, ...]) -> bool:
    """Whether the folder's run is trained, judged and measured by `metrics`; all else runs again.

    A run that diverged is complete: that is its result.
    """
    code = (job_status(folder) or {}).get("exit_code")
    try:
        if code not in (0, DivergedError.exit_code) or read_run_result(folder) is None:
            return False
    except DataError:
        return False
    return code != 0 or not _unmeasured(folder, metrics)


def job_status(folder: Path) -> dict[str, Any] | None:
    """How the folder's last process ended; None where it did not say."""
    return read_json(folder / "status.json") or None


def note_end(folder: Path, code: int) -> None:
    """Write down how a process ended that could not do so itself: killed, most often."""
    if job_status(folder) is None and code not in (0, StoppedError.exit_code):
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        _write_status(folder, code, f"its process {how}; log.txt has what it printed")


def _write_status(folder: Path, code: int, error: str | None) -> None:
    text = json.dumps({"exit_code": code, "error": error})
    atomic_write_text(folder / "status.json", text + "\n")


class _Evidence(BaseModel):
    std_sqrt_d: float | None = None
    effective_rank: float | None = None
    last_loss: float | None = None


class RunResult(BaseModel):
    """What a study takes from a run's `result.json`."""

    verdict: str
    reason: str
    identity: str
    steps: int
    figures: list[Score]
    measured_on: str = "test"
    evidence: _Evidence = _Evidence()
    seconds: dict[str, float] = {}


class _Measured(BaseModel):
    protocols: list[str] = []
    figures: list[Score] = []


def read_run_result(folder: Path) -> RunResult | None:
    """What a job's run ended with; None where it has not. Raises DataError: it is damaged."""
    path = folder / "run" / "result.json"
    try:
        return RunResult.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError):
        hint = "The study's command ends the run anew, from its last checkpoint."
        raise DataError(f"{path} is damaged", hint) from None


def read_measured(folder: Path) -> _Measured:
    """What the study had measured after the run; empty where there is nothing."""
    with suppress(OSError, ValidationError):
        return _Measured.model_validate_json((folder / "figures.json").read_bytes())
    return _Measured()


def _unmeasured(folder: Path, metrics: tuple[str, ...]) -> list[str]:
    """The protocols that the run does not end with: all of them, until `figures.json` has all.

    They are measured together, on features that are computed once.
    """
    have = Recipe.of_run(folder / "recipe.toml").evaluation.protocols
    wanted = [metric for metric in metrics if metric not in have]
    return [] if read_measured(folder).protocols == wanted else wanted


def run_job(folder: Path, metrics: tuple[str, ...], until: int = 0) -> int:
    """Do it, write down how it ended, and return the exit code.

    A run that stops after the epoch `until` ends as a stopped one, to be gone on with. A process of
    an earlier study that is still at work in the folder is waited for.
    """
    with FileLock(folder / "lock").acquire(poll_interval=0.2):
        code, error = _guarded(folder, metrics, until)
        _write_status(folder, code, error)
        return code


def _guarded(folder: Path, metrics: tuple[str, ...], until: int) -> tuple[int, str | None]:
    try:
        (folder / "status.json").unlink(missing_ok=True)
        refuse_other_arm(folder)
        if _train(folder, until) == "diverged":  # it was killed before it could say so
            return DivergedError.exit_code, None
        _measure(folder, metrics)
    except DivergedError:
        return DivergedError.exit_code, None  # that is a result
    except ZooError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code, str(error)
    except Exception as error:
        traceback.print_exc()
        if (told := plugin_error(error)) is not None:
            return told.exit_code, told.what
        return 1, f"{type(error).__name__}: {error}"
    return 0, None


def refuse_other_arm(folder: Path) -> None:
    """Stop where code or data are not those of the plan, which the name of the arm's folder has.

    Seeds of one arm, of which some are of one code and some of another, have no mean.
    """
    recipe = Recipe.of_run(folder / "recipe.toml")
    planned = folder.resolve().parent.name
    for data in (recipe.data_at_hand(), None):  # or was it not at hand when the study was planned?
        computes = arm_identity(recipe, known_digest(recipe, data))
        if planned.endswith(f"-{computes[:8]}"):
            return
    raise InputError(
        "the code, a plugin or the data have changed since the study was planned",
        "The study's command, given again, plans the arm anew and runs all its seeds.",
    )


def _train(folder: Path, until: int) -> str:
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
        return result.verdict
    resume = (run / "checkpoints" / "last.pt").exists()
    if not resume and run.exists():  # it had not come to a checkpoint
        shutil.rmtree(run)
    recipe = Recipe.of_run(folder / "recipe.toml")
    training = recipe.training.model_copy(update={"until": until})
    recipe = recipe.model_copy(update={"training": training})
    trained = train(recipe, run, resume=resume, progress=PlainProgress()).result
    assert trained is not None  # else it had raised
    return str(trained["verdict"])


def _measure(folder: Path, metrics: tuple[str, ...]) -> None:
    """The study's figures into `figures.json`: of the protocols that the run did not end with."""
    from simsiam_zoo.evaluation.evaluate import evaluate, write_report
    from simsiam_zoo.evaluation.target import open_target

    if wanted := _unmeasured(folder, metrics):
        report = evaluate(open_target(str(folder / "run"), {"evaluation.protocols": wanted}))
        write_report({"protocols": wanted, **report}, folder / "figures.json")


def start_job(words: list[str]) -> int:
    """[--plugin FILE]... [--until EPOCH] FOLDER [PROTOCOL...]; the exit code."""
    until = 0
    try:
        while words[:1] == ["--plugin"]:
            use_file(words[1])
            words = words[2:]
        if words[:1] == ["--until"]:
            until, words = int(words[1]), words[2:]
        if not words or not Path(words[0]).is_dir():
            raise InputError("a study's job is given its folder", "`simsiam-zoo ablate` does that.")
    except ZooError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return run_job(Path(words[0]), tuple(words[1:]), until)


if __name__ == "__main__":
    sys.exit(start_job(sys.argv[1:]))
