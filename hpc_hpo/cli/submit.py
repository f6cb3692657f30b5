"""``hpc-hpo submit``: run a study in the background, or inside batch jobs."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import click

from hpc_hpo.cli.common import directory_option, echo_rows, path_argument, site_option
from hpc_hpo.cli.run import require_batch, site_arguments
from hpc_hpo.clock import Clock, SystemClock
from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.launch import SteeringRun, open_study, site_of
from hpc_hpo.steerer.background import spawn, wait_until_steering
from hpc_hpo.steerer.batch import begin_chain, chain_length, require_no_chain

#: How long a new steering process may take to come up before it is left to its log, in seconds.
PATIENCE_S = 60.0


@click.command()
@path_argument
@directory_option
@site_option
@click.option(
    "--steer", type=click.Choice(["login", "batch"]), default="login", show_default=True,
    help="Where steering lives: in the background of this machine, or inside batch jobs.",
)  # fmt: skip
@click.option(
    "--max-jobs", type=click.IntRange(min=1),
    help="With --steer batch: jobs at most, one after another. [default: from the plan, or 20]",
)  # fmt: skip
def submit(
    path: Path, directory: Path | None, site_name: str | None, steer: str, max_jobs: int | None
) -> int:
    """Run a study, or go on with one, after this session has ended.

    PATH is a study.yaml, or a study's folder (default: here). All that can be known to go wrong
    is said before anything starts. Then look with `status` and `logs -f`, and end with `stop`.
    """
    study, folder = open_study(path, directory)
    site = site_of(study, site_name)
    if steer == "batch":
        require_batch(site.batch, site.name)
    elif max_jobs is not None:
        raise InputError("goes with --steer batch", key="--max-jobs", found=max_jobs)
    run = SteeringRun(study, site, folder)
    run.open()
    done = run.done()
    run.close()
    for note in run.notes:
        click.echo(f"note: {note}")
    if steer == "batch":
        longest = chain_length(run.planned, site, max_jobs)
        job = begin_chain(folder, run.planned, site, longest)
        click.echo(f"{study.name}: job {job} is submitted to {site.name} and steers the study")
        chain = f"each job submits the next one, up to {longest} in all"
        _echo_how_to_look(folder, ("jobs", chain if longest > 1 else "this one alone"))
        return 0
    require_no_chain(folder)
    return _start_background(study.name, folder, site_arguments(site_name), SystemClock(), done)


def _start_background(
    name: str, folder: StudyFolder, options: list[str], clock: Clock, done: bool
) -> int:
    """Start the steering process; the command's exit code.

    Args:
        done: it will find nothing left to do, so its end is waited for.
    """
    log = folder.steering_log
    command = [
        sys.executable, "-m", "hpc_hpo.cli.main", "run", str(folder.path), "--plain",
        "--hand-over", *options,
    ]  # fmt: skip
    written = log.stat().st_size if log.exists() else 0
    process = spawn(command, log)
    if done:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
    elif wait_until_steering(process, folder, clock, PATIENCE_S):
        click.echo(f"{name}: process {process.pid} on {socket.gethostname()} steers the study")
        _echo_how_to_look(folder, ("log", str(log)))
        return 0
    code = process.poll()
    if code is None:
        click.echo(f"{name}: process {process.pid} has not begun yet; see {log}")
        return 0
    # Killed by a signal: as a shell reports it.
    code = code if code >= 0 else 128 - code
    said = log.read_bytes()[written:].decode(errors="replace").rstrip()
    click.echo(f"{name}: the steering process has ended already; its log {log}:\n{said}")
    return code


def _echo_how_to_look(folder: StudyFolder, *rows: tuple[str, str]) -> None:
    place = shlex.quote(str(folder.path))
    echo_rows(
        [
            *rows,
            ("look", f"hpc-hpo status {place}; hpc-hpo logs -f {place}"),
            ("end", f"hpc-hpo stop {place}"),
        ]
    )
