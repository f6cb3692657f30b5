"""``hpc-hpo show``: one trial, with all that is known of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.common import StudyView, duration, echo_rows, open_study, value_text
from hpc_hpo.errors import InputError
from hpc_hpo.model import ErrorInfo, SliceRecord, Trial

_CHUNK = 1 << 16


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("trial", type=click.IntRange(min=0))
@click.option("--log", is_flag=True, help="Print what its slices wrote to their logs.")
def show(path: Path, trial: int, log: bool) -> None:
    """Show one trial: its point, slices, errors and logs.

    PATH is the study's folder or its study.yaml; TRIAL is a number.
    """
    view = open_study(path)
    found = _find(view, path, trial)
    if log:
        for record in found.slices:
            click.echo(f"--- slice {record.number}: {_log_name(record)}")
            _copy_log(view.folder.path, record)
        return
    count = found.failures
    attempts = f", {count} failed attempt{'s' * (count != 1)}" if count else ""
    click.echo(f"trial {found.id}: {found.state.value}{attempts}")
    echo_rows(list(_facts(found)))
    for record in found.slices:
        click.echo(f"\nslice {record.number}: {_how(record)}")
        echo_rows(list(_slice_facts(record)))
        if record.error:
            _echo_error(record.error)


def _find(view: StudyView, path: Path, number: int) -> Trial:
    trials = view.state.trials
    if number in trials:
        return trials[number]
    if not trials:
        raise InputError(f"there is no trial {number}: the study has none yet", file=str(path))
    raise InputError(
        "there is no such trial", file=str(path), found=number, valid=f"{min(trials)}-{max(trials)}"
    )


def _facts(trial: Trial) -> Iterator[tuple[str, str]]:
    for name, value in trial.point.items():
        yield name, value_text(value)
    if trial.loss is not None:
        yield "loss", repr(trial.loss)
    if trial.segment is not None:
        yield "segment", trial.segment + (", begun again since" if trial.superseded else "")
    if trial.like is not None:
        yield "point of", f"trial {trial.like}, of a similar segment"
    yield "seed", str(trial.seed)
    yield "worked", duration(trial.spent_s)
    if trial.reports:
        step = max(trial.reports)
        metrics = ", ".join(f"{k} {value_text(v)}" for k, v in trial.reports[step].items())
        yield "reports", f"{len(trial.reports)}, the last at step {step}: {metrics}"
    if trial.checkpoint is not None:
        yield "checkpoint", trial.checkpoint["name"]


def _how(record: SliceRecord) -> str:
    if record.end is None:
        return "not ended"
    return record.end.value + (f" ({record.reason})" if record.reason else "")


def _slice_facts(record: SliceRecord) -> Iterator[tuple[str, str]]:
    if record.block is not None:
        yield "where", f"block {record.block}, worker {record.worker}, host {record.host}"
    if record.started is not None and record.ended is not None:
        wasted = f", {duration(record.wasted_s)} to be done again" if record.wasted_s else ""
        yield "took", duration(record.ended - record.started) + wasted
    if record.end is not None:
        yield "from", record.restored or "the beginning"
    if record.log is not None:
        yield "log", _log_name(record)
    for text in record.network or ():
        yield "refused", text


def _echo_error(error: ErrorInfo) -> None:
    click.echo(f"  {error.get('kind', 'error')}: {error.get('message', '')}")
    for title, text in (
        ("traceback", error.get("traceback")),
        ("end of its log", error.get("log_tail")),
    ):
        if text:
            click.echo(f"  {title}:")
            for line in text.rstrip().splitlines():
                click.echo(f"    {line}")


def _log_name(record: SliceRecord) -> str:
    if record.log is None:
        return "no log"
    file, start, end = record.log
    return f"{file}, bytes {start} to {end}" if end > start else f"{file}; it wrote nothing"


def _copy_log(folder: Path, record: SliceRecord) -> None:
    """Write the slice's part of its worker's log to standard output, byte for byte."""
    if record.log is None:
        return
    file, start, end = record.log
    left: Any = end - start
    sys.stdout.flush()
    try:
        with open(folder / file, "rb") as stream:
            stream.seek(start)
            while left > 0 and (chunk := stream.read(min(left, _CHUNK))):
                click.echo(chunk, nl=False)
                left -= len(chunk)
    except OSError as error:
        click.echo(f"(cannot be read: {error})", err=True)
