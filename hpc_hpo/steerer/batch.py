"""Steering inside batch jobs: a chain, in which each job submits the next one."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from hpc_hpo.clock import Clock
from hpc_hpo.errors import InputError, PilotError, StudyHeld
from hpc_hpo.folder import HOLDER_TTL_S, StudyFolder
from hpc_hpo.fsio import write_atomic
from hpc_hpo.launch import SteeringRun, load_frozen
from hpc_hpo.pilot.batch import BatchJobs
from hpc_hpo.pilot.queues import queue_name, queue_of
from hpc_hpo.pilot.scheduler import Caller, SubmissionRefused, call
from hpc_hpo.pilot.sources import batch_jobs
from hpc_hpo.plan import make_plan
from hpc_hpo.site import Site, load_site
from hpc_hpo.steerer.chain import Chain, add_job, change_chain, close_chain, read_chain
from hpc_hpo.steerer.script import ENDINGS, SUBMIT_BY_HAND, SteeringScript
from hpc_hpo.study import Study
from hpc_hpo.worker.deadline import TIME_LEFT, find_end, find_start

#: The variable in which each scheduler tells a job its id.
JOB_ID = {"lsf": "LSB_JOBID", "slurm": "SLURM_JOB_ID", "pbs": "PBS_JOBID"}
#: Jobs of a chain at most, where no expected time of a trial lets it be planned; ...
MAX_JOBS = 20
#: ... and where one does, so many times the planned number.
SPARE = 2
#: Of a job's time, what is kept for the end of steering itself: a share, at least and at most s.
RESERVE_SHARE, RESERVE_S = 0.05, (5.0, 45.0)
#: A job waits for its predecessor's last sign of life to be old; looks this often, in seconds.
HELD_LOOK_S = 5.0


def submitter(study: Study, site: Site, caller: Caller = call) -> BatchJobs:
    """The scheduler, as it takes jobs that steer.

    Args:
        study: with its blocks resolved.
        caller: runs the scheduler's commands; replaced in tests.
    """
    jobs = batch_jobs(study, site)
    jobs.call = caller
    # The steering process knows the job's end; a signal would only reach what it started.
    jobs.warning = None
    return jobs


def submit_job(jobs: BatchJobs, site: Site, script: Path, after: str | None) -> str:
    """Submit a script, to start when the job `after` has ended however it did; its id.

    Raises:
        SubmissionRefused: with the command, its exit status and what it printed.
    """
    (command, *rest), stdin = jobs.submit_call(script)
    wait = []
    if after is not None:
        wait = {
            "lsf": ["-w", f"ended({after})"],
            "slurm": [f"--dependency=afterany:{after}"],
            "pbs": ["-W", f"depend=afterany:{after}"],
        }[site.scheduler]
    reply = jobs.call([command, *wait, *rest], stdin)
    job = jobs.job_of(reply) if reply.status == 0 else None
    if job is None:
        raise SubmissionRefused(reply)
    return job


def may_chain(study: Study, site: Site) -> bool:
    """Whether the study's queue lets one job be followed by the next, which waits meanwhile."""
    queue = queue_of(site, study.queue)
    return queue is None or (queue.chaining and queue.max_queued != 1)


def chain_length(study: Study, site: Site, asked: int | None) -> int:
    """The most jobs that a chain may have.

    Args:
        study: with its blocks resolved.
        asked: by the user.

    Raises:
        InputError: more than one was asked for, and the queue forbids chains.
    """
    if not may_chain(study, site):
        if asked is not None and asked > 1:
            raise InputError(
                f"queue {queue_name(site, study.queue)} at {site.name} forbids chains of jobs",
                key="--max-jobs", found=asked, valid="1, or another queue in the study",
            )  # fmt: skip
        return 1
    if asked is not None:
        return asked
    if study.trial.expected_time is None:
        return MAX_JOBS
    made = make_plan(study, site)
    return SPARE * next((c for c in made.choices if c.asked), made.recommended).jobs + 1


def steering_script(
    study: Study, site: Site, place: Path, script: Path, max_jobs: int, *options: str
) -> str:
    """The text of a job that steers.

    Args:
        study: with its blocks resolved.
        place: the study file or folder, absolute.
        script: where the text will be kept, absolute.
        max_jobs: of the chain; 1 = the job submits no other.
        options: further arguments of ``hpc-hpo job``.
    """
    jobs = submitter(study, site)
    lines = [*jobs.head(), *jobs.scheduler_options.splitlines()]
    if site.scheduler == "lsf":
        # LSF would send the output by mail; the others write a file of their own.
        lines.append(f"#BSUB -o {jobs.job_name}.%J.out")
    style = "lsf-redirection" if site.submit.style == "redirection" else site.scheduler
    modules = [f"module load {shlex.quote(name)}" for name in site.modules]
    return SteeringScript(
        name=study.name,
        by_hand=SUBMIT_BY_HAND[style],
        directives=[line for line in lines if line.strip()],
        prepare=[*modules, *site.worker_init.splitlines()],
        python=site.python or sys.executable,
        study=str(place),
        options=options,
        script=str(script) if max_jobs > 1 else None,
        max_jobs=max_jobs,
    ).text()


def living_jobs(jobs: BatchJobs, chain: Chain) -> list[str]:
    """The jobs of a chain that wait or run, as far as the scheduler says otherwise of none."""
    # Older ones have ended before these could start. Asked twice: a job is believed gone when
    # two replies in a row have not listed it.
    newest = list(chain.jobs[-2:])
    states = {**jobs.poll(newest)[0], **jobs.poll(newest)[0]} if newest else {}
    return [job for job in newest if job not in states or states[job].name != "COMPLETED"]


def require_no_chain(folder: StudyFolder, caller: Caller = call) -> None:
    """Make sure that no job waits which would steer the study.

    Raises:
        StudyHeld: one does.
    """
    chain = read_chain(folder)
    if chain is None or chain.closed:
        return
    living = living_jobs(_submitter_of(folder, chain, caller), chain)
    if living:
        raise StudyHeld(
            f"{folder.path}: job {' and '.join(living)} of an earlier submit will go on with this "
            "study. `hpc-hpo stop` cancels it."
        )
    close_chain(folder, "its jobs are gone")


def _submitter_of(folder: StudyFolder, chain: Chain, caller: Caller) -> BatchJobs:
    return submitter(load_frozen(folder), load_site(chain.site), caller)


def begin_chain(
    folder: StudyFolder, study: Study, site: Site, max_jobs: int, caller: Caller = call
) -> str:
    """Submit the first job of a chain; its id.

    Args:
        study: checked, frozen into the folder, with its blocks resolved.

    Raises:
        StudyHeld: another chain has not ended.
        SubmissionRefused: by the scheduler.
    """
    require_no_chain(folder, caller)
    script = folder.path / f"job.{ENDINGS[site.scheduler]}"
    where = str(site.path)
    text = steering_script(study, site, folder.path, script, max_jobs, "--site", where)
    write_atomic(script, text)
    change_chain(folder, lambda _: Chain(where, max_jobs))
    try:
        job = submit_job(submitter(study, site, caller), site, script, None)
    except PilotError:
        close_chain(folder, "the first job was not taken")
        raise
    add_job(folder, job)
    return job


def stop_chain(folder: StudyFolder, why: str, caller: Caller = call, spare: str = "") -> list[str]:
    """Let the study's chain go no further: close it and cancel its jobs that have not ended.

    Args:
        spare: a job that ends by itself.

    Returns:
        The jobs that were cancelled.
    """
    chain = read_chain(folder)
    if chain is None or chain.closed:
        return []
    chain = close_chain(folder, why) or chain
    jobs = _submitter_of(folder, chain, caller)
    living = [job for job in living_jobs(jobs, chain) if job != spare]
    jobs.cancel(living)
    return living


def job_id(site: Site, environ: Mapping[str, str] = os.environ) -> str:
    """The id of the job that this process runs in.

    Raises:
        InputError: it runs in none.
    """
    variable = JOB_ID.get(site.scheduler)
    if variable is None:
        raise InputError(f"site {site.name} has no batch system", key="--site")
    if not environ.get(variable):
        raise InputError(
            f"this is no job of site {site.name}: {variable} is not set",
            valid="`hpc-hpo submit --steer batch`, or the script that `hpc-hpo script` prints",
        )
    return environ[variable]


def block_times(jobs: BatchJobs, walltime_s: float, now: float) -> tuple[float, float]:
    """(start, end) of the block that this job is, which leaves steering time to end in order.

    Args:
        jobs: asked for the job's remaining time.
        walltime_s: that the job asked for.
        now: seconds since the epoch.
    """
    answer = jobs.call(["bash", "-c", jobs.time_left], None).out if jobs.time_left else ""
    start = find_start(os.environ, now)
    environ = {**os.environ, TIME_LEFT: f"{int(now)} {answer}"}
    end = find_end(environ, walltime_s, start) or now + walltime_s
    least, most = RESERVE_S
    return start, end - min(max(RESERVE_SHARE * (end - now), least), most)


class ChainJob:
    """One job of a chain, seen from inside.

    Args:
        study: with its blocks resolved.
        job: its id.
        script: what it submits again; None = nothing.
        max_jobs: of a chain that begins with this job.
        say: tells the user one line.
    """

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        site: Site,
        job: str,
        script: Path | None,
        max_jobs: int,
        say: Callable[[str], None],
        caller: Caller = call,
    ) -> None:
        self._folder, self._site, self._job = folder, site, job
        self._script, self._say, self._caller = script, say, caller
        self._max_jobs = chain_length(study, site, max_jobs)
        self.scheduler = submitter(study, site, caller)

    def join(self) -> str:
        """Take the place in the chain, or begin a chain; why not to run, or "".

        Raises:
            StudyHeld: the job belongs to no chain while another one has not ended.
        """
        chain = read_chain(self._folder)
        member = chain is not None and (self._job in chain.jobs or not (chain.jobs or chain.closed))
        if not member:
            require_no_chain(self._folder, self._caller)
            where = str(self._site.path)
            change_chain(self._folder, lambda _: Chain(where, self._max_jobs))
        return add_job(self._folder, self._job).closed

    def submit_next(self) -> str | None:
        """Submit the successor, unless it is there or the chain may have none; its id.

        A requeued job finds the one that it submitted in its former life.
        """
        chain = read_chain(self._folder)
        assert chain is not None, "joined"
        there = chain.successor(self._job)
        if there is not None or self._script is None or chain.full:
            return there
        try:
            job = submit_job(self.scheduler, self._site, self._script, self._job)
        except PilotError as error:
            self._say(f"the next job could not be submitted: {error}")
            return None
        number = len(add_job(self._folder, job).jobs)
        self._say(f"job {job} goes on after this one (number {number} of at most {chain.max_jobs})")
        return job

    def end_chain(self, why: str) -> None:
        """The study needs no further job."""
        for job in stop_chain(self._folder, why, self._caller, spare=self._job):
            self._say(f"job {job} was cancelled: {why.splitlines()[0]}")


def open_when_free(run: SteeringRun, clock: Clock, say: Callable[[str], None]) -> None:
    """Open a run; a predecessor killed on another node is waited for until it counts as dead.

    Raises:
        StudyHeld: a steering process is alive.
        HpoError: as SteeringRun.open.
    """
    end = clock.now() + HOLDER_TTL_S + 2 * HELD_LOOK_S
    waited = False
    while True:
        try:
            run.open()
            return
        except StudyHeld as error:
            if clock.now() >= end:
                raise
            if not waited:
                say(str(error))
            waited = True
        clock.sleep(HELD_LOOK_S)
