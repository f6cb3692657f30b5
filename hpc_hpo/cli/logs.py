"""``hpc-hpo logs``: what the steering process says."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.cli.common import find_study, path_argument
from hpc_hpo.clock import Clock, SystemClock
from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder, steering_alive
from hpc_hpo.steerer.chain import read_chain, waiting_job

#: How often a log that is followed is looked at, in seconds.
LOOK_S = 0.5


@click.command()
@path_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the steering process is gone.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True,
    help="Lines of the past to show.",
)  # fmt: skip
def logs(path: Path, follow: bool, lines: int) -> None:
    """Show the log of a study that was submitted.

    PATH is the study's folder or its study.yaml (default: here). It works from any machine that
    sees the folder.
    """
    folder = find_study(path)
    if not folder.steering_log.exists():
        raise InputError("has no steering log; `hpc-hpo submit` writes one", file=str(folder.path))
    offset = show_tail(folder.steering_log, lines)
    if follow:
        follow_log(folder, offset, SystemClock())


def show_tail(log: Path, lines: int) -> int:
    """Print the last lines; the offset behind them."""
    data = log.read_bytes()
    # A last line that is still being written is left to `follow`.
    whole = data[: data.rfind(b"\n") + 1]
    _echo(b"".join(whole.splitlines(keepends=True)[-lines:] if lines else []))
    return len(whole)


def _echo(data: bytes) -> None:
    click.echo(data.decode(errors="replace"), nl=False)


def follow_log(folder: StudyFolder, offset: int, clock: Clock) -> None:
    """Print what is appended until no steering process is left, and say so."""
    told_waiting = False
    while True:
        # Asked before reading, so that the last words of a process are read after its end.
        holder = steering_alive(folder, clock.now())
        with open(folder.steering_log, "rb") as stream:
            stream.seek(offset)
            data = stream.read()
        offset += len(data)
        _echo(data)
        if holder is not None:
            told_waiting = False
        elif (waiting := waiting_job(read_chain(folder))) is None:
            click.echo(f"{folder.path}: no steering process is at work any more")
            return
        elif not told_waiting:
            told_waiting = True
            click.echo(f"{folder.path}: no steering process is at work; job {waiting} is to go on")
        clock.sleep(LOOK_S)
