"""One job of a chain, seen from inside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_hpo.errors import InputError, StudyHeld
from hpc_hpo.folder import HOLDER_TTL_S, StudyFolder
from hpc_hpo.launch import SteeringRun
from hpc_hpo.pilot.allocation import LAST_START_S, allocation_blocks
from hpc_hpo.site import Site, load_site
from hpc_hpo.steerer import batch
from hpc_hpo.steerer.batch import ChainJob
from hpc_hpo.steerer.chain import (
    Chain,
    add_job,
    change_chain,
    read_chain,
)
from hpc_hpo.study import Study
from tests.steerer.conftest import Clock, Scheduler


@pytest.fixture
def member(
    folder: StudyFolder, make_study: Callable[..., Study], summit: Site, scheduler: Scheduler
) -> Callable[..., ChainJob]:
    """A job as it sees itself; the lines that it says are in `.said`."""

    def make(job: str, script: str | None = "S", max_jobs: int = 3, said: list | None = None):
        say = (said if said is not None else []).append
        path = Path(script) if script else None
        return ChainJob(folder, make_study(), summit, job, path, max_jobs, say, scheduler)

    return make


def test_that_a_chain_goes_on_to_its_number_of_jobs_and_no_further(
    member: Callable[..., ChainJob], folder: StudyFolder, scheduler: Scheduler
) -> None:
    scheduler.jobs["101"] = "RUN"  # submitted by hand
    submitted = []
    job: str | None = "101"
    while job is not None:
        place = member(job)
        assert place.join() == ""
        assert place.submit_next() == place.submit_next(), "a requeued job finds its successor"
        submitted.append(job)
        scheduler.jobs[job] = "EXIT"
        chain = read_chain(folder)
        assert chain is not None
        job = chain.successor(job)
    assert submitted == ["101", "102", "103"]
    assert [call[2] for call in scheduler.of("bsub")] == ["ended(101)", "ended(102)"]


def test_that_a_job_without_a_script_submits_none(
    member: Callable[..., ChainJob], scheduler: Scheduler
) -> None:
    place = member("101", script=None)
    place.join()
    assert place.submit_next() is None and not scheduler.of("bsub")


def test_that_a_refused_successor_is_said_and_tried_again_at_the_end(
    member: Callable[..., ChainJob], scheduler: Scheduler
) -> None:
    said: list[str] = []
    place = member("101", said=said)
    place.join()
    scheduler.jobs["101"] = "RUN"
    scheduler.down = True
    assert place.submit_next() is None
    assert "could not be submitted" in said[0] and "LSF is down" in said[0]
    scheduler.down = False
    assert place.submit_next() == "102"


def test_that_a_done_study_cancels_the_successor_but_not_the_job_itself(
    member: Callable[..., ChainJob], folder: StudyFolder, scheduler: Scheduler
) -> None:
    scheduler.jobs["101"] = "RUN"
    place = member("101")
    place.join()
    place.submit_next()
    place.end_chain("the study is done")
    assert scheduler.jobs == {"101": "RUN", "102": "EXIT"}
    assert member("102").join() == "the study is done", "were it to start all the same"
    assert place.submit_next() is None or len(scheduler.of("bsub")) == 1


def test_that_a_job_may_start_before_its_submitter_has_written_it_down(
    member: Callable[..., ChainJob], folder: StudyFolder, summit: Site
) -> None:
    change_chain(folder, lambda _: Chain(str(summit.path), 9))
    assert member("101", max_jobs=3).join() == ""
    assert add_job(folder, "101") == Chain(str(summit.path), 9, ("101",))


def test_that_a_job_of_no_chain_is_refused_while_another_chain_waits(
    member: Callable[..., ChainJob], folder: StudyFolder, summit: Site, scheduler: Scheduler
) -> None:
    scheduler.jobs["55"] = "PEND"
    change_chain(folder, lambda _: Chain(str(summit.path), 9, ("55",)))
    with pytest.raises(StudyHeld, match="job 55"):
        member("101").join()
    scheduler.jobs["55"] = "DONE"
    assert member("101").join() == ""
    assert read_chain(folder) == Chain(str(summit.path), 3, ("101",))


def test_that_the_job_s_id_is_the_scheduler_s(summit: Site) -> None:
    assert batch.job_id(summit, {"LSB_JOBID": "7", "SLURM_JOB_ID": "8"}) == "7"
    with pytest.raises(InputError, match="LSB_JOBID is not set"):
        batch.job_id(summit, {"SLURM_JOB_ID": "8"})
    with pytest.raises(InputError, match="no batch system"):
        batch.job_id(load_site("local"), {"LSB_JOBID": "7"})


@pytest.mark.parametrize(
    ("left", "end"), [("", 1900.0 + 7200), ("0:30 L", 2000.0 + 30 * 60 + 59), ("odd", 9100.0)]
)
def test_that_the_block_ends_ahead_of_the_job(
    left: str, end: float, make_study: Callable[..., Study], summit: Site, scheduler: Scheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HPC_HPO_JOB_START", "1900")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    scheduler.time_left = left
    jobs = batch.submitter(make_study(), summit, scheduler)
    start, stop = batch.block_times(jobs, 7200.0, 2000.0)
    assert start == 1900.0
    assert stop == end - 45.0
    assert batch.block_times(jobs, 20.0, 1901.0)[1] == 1915.0, "of a short one, 5 s"


def test_that_the_block_is_one_step_over_all_nodes(
    make_study: Callable[..., Study], summit: Site
) -> None:
    site = summit.model_copy(update={"interface": None})
    source = allocation_blocks(make_study(), site, 1000.5, 5000.0)
    assert source.launch[:3] == ["jsrun", "-n", "2"]
    assert source.launch[-2:] == ["env", "HPC_HPO_JOB_START=1000"]
    assert (source.nodes, source.max_blocks, source.walltime_s) == (2, 1, 3999.5)


def test_that_a_lost_block_is_replaced_while_its_job_lasts(
    make_study: Callable[..., Study], summit: Site
) -> None:
    site, now = summit.model_copy(update={"interface": None}), time.time()
    lasts = allocation_blocks(make_study(), site, now, now + 10 * LAST_START_S)
    assert lasts.room(1, 0, 0) == 1
    assert lasts.room(1, 0, 1) == lasts.room(1, 1, 0) == 0, "its nodes are taken"
    ends = allocation_blocks(make_study(), site, now - 3600, now + LAST_START_S / 2)
    assert ends.room(1, 0, 0) == 0
    short = allocation_blocks(make_study(), site, now, now + LAST_START_S / 2)
    assert short.room(1, 0, 0) == 1, "a short job has its block, too"


def test_that_a_predecessor_s_last_sign_of_life_is_waited_for(
    folder: StudyFolder, make_study: Callable[..., Study]
) -> None:
    clock, said = Clock(), []
    tries = iter([StudyHeld("its last sign of life is 3 s old")] * 4)

    class Run:
        def open(self) -> None:
            if (error := next(tries, None)) is not None:
                raise error

    batch.open_when_free(Run(), clock, said.append)  # type: ignore[arg-type]
    assert len(clock.sleeps) == 4 and len(said) == 1


def test_that_a_living_steering_process_is_not_waited_for_for_ever(folder: StudyFolder) -> None:
    clock = Clock()

    class Run:
        def open(self) -> None:
            raise StudyHeld("alive")

    with pytest.raises(StudyHeld):
        batch.open_when_free(Run(), clock, lambda line: None)  # type: ignore[arg-type]
    assert HOLDER_TTL_S < sum(clock.sleeps) < 2 * HOLDER_TTL_S


def test_that_only_jobs_of_this_site_s_scheduler_are_leftovers(
    folder: StudyFolder, make_study: Callable[..., Study], summit: Site
) -> None:
    run = SteeringRun(make_study(), summit, folder)
    run.state.apply({"e": "run", "run": 1, "at": 1.0, "site": "summit"})
    run.state.apply({"e": "block", "block": "1.0", "state": "requested", "job": "77", "at": 2.0})
    assert run.leftover_jobs() == ["77"]
    run.state.run_info = {"site": "summit", "inside": "101"}
    assert run.leftover_jobs() == [], "those were processes inside a job"
    run.state.run_info = {"site": "local"}
    assert run.leftover_jobs() == []
