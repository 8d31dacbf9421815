"""The queue of a study's jobs, on a launcher whose processes the test plays."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from played import Played, complete, plan_of, run, states

import simsiam_zoo as zoo
from simsiam_zoo.errors import InputError, StoppedError
from simsiam_zoo.report.write import publish
from simsiam_zoo.studies import running
from simsiam_zoo.studies.job import command, is_complete, run_job
from simsiam_zoo.studies.launcher import LaunchError, Resources
from simsiam_zoo.studies.plan import write_plan
from simsiam_zoo.studies.results import collect_results
from simsiam_zoo.studies.running import StudyProgress, run_study


def test_a_report_that_is_watched_is_made_anew_while_jobs_run(tmp_path: Path) -> None:
    made: list[bool] = []

    class Waiting(Played):
        def poll(self, job: str) -> int | None:
            return super().poll(job) if len(made) > 1 else None

    run_study(
        plan_of(),
        tmp_path,
        Waiting(),
        jobs=2,
        resources=Resources(),
        progress=StudyProgress(None),
        changed=lambda: made.append("data-reload" in page(tmp_path, 10)),
        every=0.001,
    )
    assert len(made) > 2
    assert all(made)
    assert "data-reload" not in page(tmp_path, 0)


def page(folder: Path, reload: int) -> str:
    """The head of the study's page."""
    publish(folder, reload)
    return (folder / "report.html").read_text().partition("<head>")[0]


def test_so_many_at_once_seed_by_seed_and_the_launcher_is_let_go(tmp_path: Path) -> None:
    launcher = Played()
    ended = run(plan_of(), tmp_path, launcher)
    assert launcher.most == 2
    assert [each.rpartition("/")[2] for each in launcher.order] == ["seed0"] * 2 + ["seed1"] * 2
    assert [code for _, code in ended] == [0] * 4
    assert launcher.closed


def test_what_is_complete_is_not_run_again_and_what_was_changed_is(tmp_path: Path) -> None:
    run(plan_of(), tmp_path, Played())
    again = Played()
    run(plan_of({"part": "predictor", "action": "remove"}), tmp_path, again)
    assert [each.partition("-")[0] for each in again.order] == ["predictor", "predictor"]
    third = Played()
    run(plan_of(seeds=(0, 1, 2)), tmp_path, third)
    assert {each.rpartition("/")[2] for each in third.order} == {"seed2"}
    (stale,) = collect_results(tmp_path)["stale"]
    assert stale.startswith("jobs/predictor-none-")


def test_a_crash_a_divergence_and_an_error_stop_no_other(tmp_path: Path) -> None:
    def ends(folder: Path) -> int:
        return {"gradient": -9, "predictor": 5, "projector": 3}.get(
            folder.parent.name.partition("-")[0], 0
        )

    removed = [{"part": part, "action": "remove"} for part in ("predictor", "projector")]
    run(plan_of(*removed), tmp_path, Played(ends))
    results = collect_results(tmp_path)
    arms = {arm["name"]: arm for arm in results["arms"]}
    assert states(tmp_path) == {
        "base": ["done"] * 2,
        "gradient-none": ["failed"] * 2,
        "predictor-none": ["done"] * 2,
        "projector-none": ["failed"] * 2,
    }
    assert arms["predictor-none"]["summary"]["verdict"] == "diverged"
    assert "killed by signal 9" in arms["gradient-none"]["runs"][0]["error"]
    assert arms["gradient-none"]["summary"]["as_expected"] is None  # nothing to tell by
    assert {(each["arm"], each["seed"]) for each in results["not_run"]} == {
        (arm, seed) for arm in ("gradient-none", "projector-none") for seed in (0, 1)
    }
    again = Played()  # and what failed is tried again by the same command
    run(plan_of(*removed), tmp_path, again)
    assert len(again.order) == 4


def test_a_divergence_that_was_killed_before_it_could_be_told_is_found(tmp_path: Path) -> None:
    plan = plan_of(seeds=(0,))
    write_plan(plan, tmp_path)
    job = next(iter(plan.jobs(tmp_path)))
    complete(job.folder, 5)
    (job.folder / "status.json").unlink()
    # It has no weights to measure by another protocol.
    assert run_job(job.folder, ("low-shot",)) == 5
    assert is_complete(job.folder, ("low-shot",))


def test_figures_are_compared_with_the_base_seed_by_seed(tmp_path: Path) -> None:
    run(
        plan_of({"part": "training.batch_size", "action": "replace", "with": 64}),
        tmp_path,
        Played(),
    )
    base, removed, same = collect_results(tmp_path)["arms"]
    difference = removed["summary"]["difference"]["knn"]
    assert difference["mean"] == pytest.approx(-0.3)
    assert difference["p"] is None  # the same with every seed: no spread to judge by
    assert removed["summary"]["metrics"]["knn"]["mean"] == pytest.approx(0.55)
    assert (removed["summary"]["verdict"], removed["summary"]["as_expected"]) == ("collapsed", True)
    assert (same["same_as"], same["runs"]) == ("base", [])
    assert same["summary"]["metrics"] == base["summary"]["metrics"]


def test_a_run_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    plan = plan_of(seeds=(0,))
    first = next(iter(plan.jobs(tmp_path)))
    first.folder.mkdir(parents=True)
    (tmp_path / "study.json").write_text("{}")
    orphan = FileLock(first.folder / "lock", thread_local=False)
    orphan.acquire()

    def finish() -> None:
        time.sleep(0.1)
        complete(first.folder)
        orphan.release()

    thread = threading.Thread(target=finish)
    thread.start()
    launcher = Played()
    run(plan, tmp_path, launcher)
    thread.join()
    assert [each.partition("-")[0] for each in launcher.order] == ["gradient"]
    assert states(tmp_path) == {"base": ["done"], "gradient-none": ["done"]}


def test_a_request_to_stop_reaches_the_jobs_and_can_be_gone_on_from(tmp_path, monkeypatch) -> None:
    class Asked:
        requested = False

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    asked = Asked()
    monkeypatch.setattr(running, "StopRequest", lambda: asked)
    launcher = Played()
    submit = launcher.submit
    monkeypatch.setattr(
        launcher, "submit", lambda *all_: (setattr(asked, "requested", True), submit(*all_))[1]
    )
    with pytest.raises(StoppedError, match="Go on with: simsiam-zoo ablate played"):
        run(plan_of(), tmp_path, launcher)
    assert launcher.cancelled == ["job-0", "job-1"]
    assert launcher.closed
    monkeypatch.undo()
    assert len(run(plan_of(), tmp_path, Played())) == 4


def test_one_process_at_a_time_runs_a_study(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"), pytest.raises(InputError, match="another process runs"):
        run(plan_of(), tmp_path, Played())


def test_a_launcher_that_cannot_start_anything_ends_the_study(tmp_path: Path) -> None:
    class Broken(Played):
        def submit(self, argv, folder, resources):
            if self.folders:
                raise LaunchError("the queue is closed")
            return super().submit(argv, folder, resources)

    launcher = Broken()
    with pytest.raises(LaunchError, match="closed"):
        run(plan_of(), tmp_path, launcher)
    assert launcher.cancelled == ["job-0"]


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="no study"):
        run(plan_of(), tmp_path, Played())
    assert {path.name for path in tmp_path.iterdir()} == {"precious.txt"}


def test_runs_of_other_numbers_of_threads_are_told(tmp_path: Path) -> None:
    """They are no part of an arm's digest: a study goes on, and says so."""
    run(plan_of(), tmp_path, Played())
    folders = sorted(tmp_path.glob("jobs/*/seed*/run"))
    for threads in (1, 2):
        for folder in folders[threads - 1 :]:
            (folder / "recipe.toml").touch()
            (folder / "lock.toml").write_text(f"[machine]\nthreads = {threads}\n")
        notes = [note for note in collect_results(tmp_path)["notes"] if "threads" in note]
        assert len(notes) == threads - 1
    assert "had 1 or 2 CPU threads each" in notes[0]


def test_the_plan_says_what_a_preset_makes_meaningless_or_impossible() -> None:
    sizes = {"part": "training.batch_size", "action": "replace", "with": [512, 5000]}
    skipped = {"part": "projector", "action": "remove", "on": {"digits": {"skip": "not here"}}}
    plan = plan_of(sizes, skipped)
    arms = {arm.name: arm for arm in plan.arms}
    few = "batch 512 on 1,347 images: 2 steps an epoch, 48 in all"
    assert {arm.name: arm.warnings for arm in plan.arms if arm.warnings} == {
        "batch_size-512": [few]
    }
    assert arms["projector-none"].not_run == "not here"
    assert "1347" in arms["batch_size-5000"].not_run
    names = {job.arm.name for job in plan.jobs(Path())}
    assert names == {"base", "gradient-none", "batch_size-512"}


def test_a_file_in_the_current_folder_hides_no_module_of_a_job(tmp_path: Path) -> None:
    (tmp_path / "shutil.py").write_text("raise SystemExit(99)\n")
    words = command(tmp_path / "no-such-job", ())
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "a study's job is given its folder" in done.stderr


def test_no_runs_at_once_are_refused_and_a_text_is_no_list_of_metrics() -> None:
    tree = {"base": {"preset": "digits"}}
    with pytest.raises(InputError, match="runs at once"):
        zoo.plan_study(tree, jobs=0)
    for wrong in ({"metrics": "knn"}, {"seeds": "0"}, {"seeds": 3}):
        with pytest.raises(InputError, match="is a list, not"):
            zoo.plan_study(tree, **wrong)
