"""``hpc-hpo job``: steer a study inside a batch job, and go on in the next one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from hpc_hpo.cli.common import directory_option, path_argument, site_option
from hpc_hpo.cli.progress import PlainLog
from hpc_hpo.cli.run import DRAIN_SIGNALS, Interrupts, Wishes, report
from hpc_hpo.cli.tally import Tally
from hpc_hpo.clock import Clock, SystemClock
from hpc_hpo.errors import ExitCode, HpoError, PilotError, StudyHeld
from hpc_hpo.launch import SteeringRun, open_study, site_of
from hpc_hpo.pilot.allocation import allocation_blocks
from hpc_hpo.pilot.parsl_pilot import ParslPilot
from hpc_hpo.steerer.background import header
from hpc_hpo.steerer.batch import ChainJob, block_times, job_id, open_when_free, stop_chain
from hpc_hpo.steering.loop import DONE_REASONS
from hpc_hpo.steering.outcome import Outcome


@click.command()
@path_argument
@directory_option
@site_option
@click.option("--script", type=click.Path(path_type=Path), help="The job's own script.")
@click.option(
    "--max-jobs", type=click.IntRange(min=1), default=1, show_default=True,
    help="Jobs at most, one after another.",
)  # fmt: skip
def job(
    path: Path,
    directory: Path | None,
    site_name: str | None,
    script: Path | None,
    max_jobs: int,
) -> int:
    """Run a study inside this batch job, and go on in the next one.

    Called by the scripts of `hpc-hpo script` and `hpc-hpo submit --steer batch`. The job's nodes
    are the study's block. With --script, the job submits that file to start when it has ended.
    """
    study, folder = open_study(path, directory)
    site = site_of(study, site_name)
    number = job_id(site)
    folder.make()
    redirect_output(folder.steering_log, f"steering in job {number}")
    clock = SystemClock()
    run = SteeringRun(study, site, folder)
    view = PlainLog(Tally(study.to_dict()))
    try:
        open_when_free(run, clock, view.say)
    except StudyHeld:
        # Whoever holds the study may be of this chain.
        raise
    except HpoError as error:
        stop_chain(folder, f"failed: {error}", spare=number)
        raise
    try:
        place = ChainJob(folder, run.planned, site, number, script, max_jobs, view.say)
        if closed := place.join():
            view.say(f"nothing to do: {closed}")
            return 0
        signals = Interrupts(view.say)
        signals.install(*DRAIN_SIGNALS, signal.SIGUSR1, signal.SIGUSR2)
        try:
            outcome, reason = _steer(run, place, view, clock, number, signals)
        except PilotError as error:
            if not signals.count:
                place.end_chain(f"failed: {error}")
                raise
            # The scheduler's signal reached what steering had started, too.
            view.say(f"ended by the scheduler: {error}")
            return 0 if place.submit_next() else ExitCode.WORK_LEFT
        except HpoError as error:
            place.end_chain(f"failed: {error}")
            raise
        # Before the lock is given back: `logs -f` reads until then.
        report(outcome, study, folder.path, reason)
    finally:
        run.close()
    if outcome.reason in DONE_REASONS:
        place.end_chain("the study is done")
        return outcome.exit_code
    if reason == "stop":
        place.end_chain("stopped")
        return outcome.exit_code
    # The scheduler may have refused the successor before, and take it now.
    return 0 if place.submit_next() else outcome.exit_code


def _steer(
    run: SteeringRun,
    place: ChainJob,
    view: PlainLog,
    clock: Clock,
    number: str,
    signals: Interrupts,
) -> tuple[Outcome, str]:
    """Steer until the study is done, is stopped, or the job's time is up: (outcome, why)."""
    for note in run.notes:
        view.say(f"note: {note}")
    walltime = run.planned.blocks.walltime
    assert walltime is not None, "checked: a job of a batch system has a walltime"
    start, end = block_times(place.scheduler, walltime, clock.now())
    place.scheduler.cancel(run.leftover_jobs())
    place.submit_next()
    wishes = Wishes(
        {
            "stop": lambda: "drain" if run.folder.stop_request.exists() else "",
            # More of them follow, whatever one does; none of them means "at once".
            "signal": lambda: "drain" if signals.count else "",
            "time": lambda: "drain" if clock.now() >= end else "",
        }
    )
    source = allocation_blocks(run.planned, run.site, start, end)
    outcome = run.steer(
        pilot=ParslPilot(run.folder, source), stop=wishes.wish, observe=view.update,
        say=view.say, inside=number,
    )  # fmt: skip
    return outcome, wishes.first if outcome.reason in ("stop", "now") else outcome.reason


def redirect_output(log: Path, words: str) -> None:
    """Send this process's output, and that of all it starts, to the end of the study's log.

    So `hpc-hpo logs` shows it from everywhere, whatever the scheduler does with a job's output.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with open(log, "ab", buffering=0) as stream:
        stream.write(header(words))
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
