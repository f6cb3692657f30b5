"""A chain of jobs: its record, and its submission from the login node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_hpo.errors import InputError, StorageError, StudyHeld
from hpc_hpo.folder import StudyFolder
from hpc_hpo.pilot.scheduler import SubmissionRefused
from hpc_hpo.site import Site, load_site
from hpc_hpo.steerer import batch
from hpc_hpo.steerer.batch import begin_chain, stop_chain
from hpc_hpo.steerer.chain import (
    Chain,
    add_job,
    chain_file,
    change_chain,
    close_chain,
    read_chain,
    waiting_job,
)
from hpc_hpo.study import Study
from tests.steerer.conftest import Scheduler


def test_that_a_chain_s_record_is_read_back(folder: StudyFolder) -> None:
    assert read_chain(folder) is None
    assert close_chain(folder, "nothing is there") is None
    change_chain(folder, lambda _: Chain("/site.yaml", 3))
    for job in ("1", "2", "2", "1"):
        add_job(folder, job)
    chain = read_chain(folder)
    assert chain == Chain("/site.yaml", 3, ("1", "2"))
    assert chain.successor("1") == "2" and chain.successor("2") is None
    assert chain.successor("unknown") is None
    assert waiting_job(chain) == "2"


def test_that_a_chain_is_full_at_its_number_of_jobs_or_once_closed(folder: StudyFolder) -> None:
    assert not Chain("s", 2, ("1",)).full
    assert Chain("s", 2, ("1", "2")).full
    change_chain(folder, lambda _: Chain("s", 2, ("1",)))
    close_chain(folder, "stopped")
    chain = close_chain(folder, "another reason")
    assert chain is not None and chain.full and chain.closed == "stopped", "the first stays"
    assert waiting_job(chain) is None


@pytest.mark.parametrize("text", ["", "{}", '{"jobs": 3}', '{"jobs": [], "what": 1}', "[1]"])
def test_that_a_damaged_record_is_an_error_that_names_it(text: str, folder: StudyFolder) -> None:
    chain_file(folder).write_text(text)
    with pytest.raises(StorageError, match=r"chain\.json: cannot be read"):
        read_chain(folder)


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("summit", ["bsub", "-w", "ended(7)", "-o", "S.out", "-e", "S.err", "S"]),
        ("lsf", ["bsub", "-w", "ended(7)", "-o", "S.out", "-e", "S.err", "<", "S"]),
        ("slurm", ["sbatch", "--dependency=afterany:7", "--output=S.out", "--error=S.err", "S"]),
        ("polaris", ["qsub", "-W", "depend=afterany:7", "-o", "S.out", "-e", "S.err", "S"]),
    ],
)
def test_that_a_successor_waits_for_its_predecessor_however_that_ends(
    site: str, expected: list[str], make_study: Callable[..., Study], scheduler: Scheduler
) -> None:
    study, where = make_study("{nodes: 10, walltime: '1:00'}"), load_site(site)
    jobs = batch.submitter(study, where, scheduler)
    job = batch.submit_job(jobs, where, Path("S"), "7")
    assert scheduler.calls == [expected]
    assert job.startswith("101")
    batch.submit_job(jobs, where, Path("S"), None)
    assert len(scheduler.calls[1]) < len(expected), "the first waits for none"


@pytest.mark.parametrize(
    ("queue", "asked", "length"),
    [("batch", None, 20), ("batch", 7, 7), ("debug", None, 1), ("debug", 1, 1)],
)
def test_that_a_chain_s_length_is_bounded(
    queue: str, asked: int | None, length: int, make_study: Callable[..., Study], summit: Site
) -> None:
    study = make_study(more=f"queue: {queue}")
    assert batch.chain_length(study, summit, asked) == length


def test_that_no_chain_is_made_in_a_queue_that_forbids_it(
    make_study: Callable[..., Study], summit: Site
) -> None:
    with pytest.raises(InputError, match="queue debug at summit forbids chains"):
        batch.chain_length(make_study(more="queue: debug"), summit, 2)


def test_that_the_plan_bounds_a_chain_when_it_can(
    make_study: Callable[..., Study], summit: Site
) -> None:
    study = make_study("{nodes: 1, workers_per_node: 1, walltime: '2:00'}",
                       more="trial: {expected_time: 1h}")  # fmt: skip
    # Five trials of an hour, each in a block of two: five jobs with what is lost at their ends.
    assert batch.chain_length(study, summit, None) > 5
    assert batch.chain_length(study, summit, None) < 20


def test_that_a_chain_begins_with_one_job_whose_script_names_itself(
    folder: StudyFolder, make_study: Callable[..., Study], summit: Site, scheduler: Scheduler
) -> None:
    assert begin_chain(folder, make_study(), summit, 4, scheduler) == "101"
    assert read_chain(folder) == Chain(str(summit.path), 4, ("101",))
    script = folder.path / "job.lsf"
    assert scheduler.of("bsub")[0][-1] == str(script)
    text = script.read_text()
    assert "--max-jobs 4" in text and "#BSUB -nnodes 2" in text and "#BSUB -W 1:00" in text
    assert "-wa" not in text, "no signal: steering knows the end"


def test_that_a_second_chain_is_refused_while_the_first_waits(
    folder: StudyFolder, make_study: Callable[..., Study], summit: Site, scheduler: Scheduler
) -> None:
    begin_chain(folder, make_study(), summit, 4, scheduler)
    with pytest.raises(StudyHeld, match="job 101 of an earlier submit"):
        begin_chain(folder, make_study(), summit, 4, scheduler)
    scheduler.down = True
    with pytest.raises(StudyHeld):
        begin_chain(folder, make_study(), summit, 4, scheduler)
    scheduler.down = False
    scheduler.jobs["101"] = "EXIT"
    assert begin_chain(folder, make_study(), summit, 4, scheduler) == "102"
    assert read_chain(folder) == Chain(str(summit.path), 4, ("102",))


def test_that_a_refused_first_job_leaves_no_chain_open(
    folder: StudyFolder, make_study: Callable[..., Study], summit: Site, scheduler: Scheduler
) -> None:
    scheduler.down = True
    with pytest.raises(SubmissionRefused, match="LSF is down"):
        begin_chain(folder, make_study(), summit, 4, scheduler)
    chain = read_chain(folder)
    assert chain is not None and chain.closed and not chain.jobs


def test_that_stopping_a_chain_cancels_what_has_not_ended(
    folder: StudyFolder, make_study: Callable[..., Study], summit: Site, scheduler: Scheduler
) -> None:
    assert stop_chain(folder, "stopped", scheduler) == [], "there is none"
    begin_chain(folder, make_study(), summit, 4, scheduler)
    assert stop_chain(folder, "stopped", scheduler) == ["101"]
    assert scheduler.of("bkill") == [["bkill", "101"]]
    assert stop_chain(folder, "stopped", scheduler) == [], "once is enough"
