"""``hpc-hpo stop``: ask a running study to checkpoint and stop."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.cli.common import find_study, path_argument
from hpc_hpo.clock import Clock, SystemClock
from hpc_hpo.folder import StudyFolder, steering_alive
from hpc_hpo.fsio import storage_error, write_atomic
from hpc_hpo.steerer.chain import read_chain, waiting_job

_POLL_S = 0.25


@click.command()
@path_argument
@click.option("--wait", is_flag=True, help="Return when the study has stopped.")
def stop(path: Path, wait: bool) -> None:
    """Ask a running study to checkpoint and stop; `run` goes on with it later.

    PATH is the study's folder or its study.yaml (default: here).
    """
    folder = find_study(path)
    clock = SystemClock()
    holder = steering_alive(folder, clock.now())
    if holder is None:
        # A request left behind would end the next run as it begins.
        click.echo(f"{folder.path}: nobody is running this study")
        if waiting_job(read_chain(folder)) is not None:
            cancel_chain(folder)
        return
    request_stop(folder)
    click.echo(f"{folder.path}: asked process {holder['pid']} on {holder['host']} to stop")
    if wait:
        wait_until_stopped(folder, clock)
        click.echo("it has stopped")


def cancel_chain(folder: StudyFolder) -> None:
    """Cancel the jobs that were to go on with the study."""
    from hpc_hpo.steerer.batch import stop_chain

    cancelled = stop_chain(folder, "stopped")
    click.echo(f"cancelled: job {' and '.join(cancelled)}" if cancelled else "no job waits for it")


def request_stop(folder: StudyFolder) -> None:
    """Leave the request that the steering process looks for.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        folder.control.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(folder.control, error) from error
    write_atomic(folder.stop_request, b"")


def wait_until_stopped(folder: StudyFolder, clock: Clock) -> None:
    """Return when no steering process is at work on the study."""
    while steering_alive(folder, clock.now()) is not None:
        clock.sleep(_POLL_S)
