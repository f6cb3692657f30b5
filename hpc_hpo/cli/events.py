"""``hpc-hpo events``: evaluate a batch of points that Harvester has handed over in a file."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.common import path_argument, site_option
from hpc_hpo.cli.files import file_option
from hpc_hpo.cli.progress import PlainLog
from hpc_hpo.cli.run import DRAIN_SIGNALS, Interrupts, Wishes, report
from hpc_hpo.cli.tally import Tally
from hpc_hpo.clock import SystemClock
from hpc_hpo.contracts.events import (
    Event,
    checkpointed,
    finished,
    read_events,
    segment_of,
    status_file,
)
from hpc_hpo.contracts.given import with_points
from hpc_hpo.errors import ExitCode, InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import write_atomic
from hpc_hpo.journal import StudyState
from hpc_hpo.launch import SteeringRun, open_study, site_of
from hpc_hpo.model import Point, Trial
from hpc_hpo.pilot.allocation import allocation_blocks
from hpc_hpo.pilot.parsl_pilot import ParslPilot
from hpc_hpo.site import Site
from hpc_hpo.space import canonical
from hpc_hpo.steerer.batch import block_times, job_id, submitter
from hpc_hpo.steering.outcome import Outcome
from hpc_hpo.study import Study
from hpc_hpo.worker.checkpoint import FILES
from hpc_hpo.worker.payload_evaluation import given_checkpoint, pack

#: An event with the segment and the point that it means.
Meant = tuple[Event, str | None, Point]


@click.command()
@path_argument
@file_option("--in", "source", "The points: JobsEventRanges.json.")
@file_option("--out", "target", "Gets the results: event_status.dump.")
@click.option("--both-names", is_flag=True, help="Write FILE and FILE.json, too.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="The study folder. Default: beside the points, by the study and the points.",
)
@site_option
@click.option(
    "--inside", is_flag=True, help="Take the nodes of the batch job that this is part of."
)
def events(
    path: Path,
    source: Path,
    target: Path,
    both_names: bool,
    directory: Path | None,
    site_name: str | None,
    inside: bool,
) -> int:
    """Evaluate the points of an event file, and write what came out.

    PATH is a study.yaml, or a submission of phpo, that says what is run (default: here); its own
    search is left out. Killed or stopped, the same command goes on where it was. docs/atlas.md
    has the files.
    """
    study, _ = open_study(path)
    site = site_of(study, site_name)
    try:
        text = source.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=str(source)) from None
    all_events = [event for own in read_events(text, str(source)).values() for event in own]
    entries = [(e, finished(e, e.loss)) for e in all_events if e.loss is not None]
    meant: list[Meant] = []
    for event in all_events:
        if event.loss is not None:
            continue
        try:
            meant.append((event, *segment_of(study, event.point)))
        except InputError as error:
            # The others can be evaluated.
            click.echo(f"event {event.id} has failed: {error}", err=True)
            entries.append((event, finished(event, None)))
    code: int = ExitCode.NO_RESULT if entries else ExitCode.DONE
    if meant:
        place = directory or source.absolute().parent / f"{study.name}-{_digest(meant)}"
        folder = StudyFolder(place.resolve())
        outcome = _evaluate(study, site, folder, meant, inside)
        entries += _results(meant, outcome.state, folder, target.absolute().parent)
        code = outcome.exit_code
    if any("loss" in entry for _, entry in entries) and code == ExitCode.NO_RESULT:
        code = ExitCode.DONE
    order = {event.id: i for i, event in enumerate(all_events)}
    entries.sort(key=lambda pair: order[pair[0].id])
    content = json.dumps(status_file(entries)) + "\n"
    names = [target, target.with_name(f"{target.name}.json")] if both_names else [target]
    for name in names:
        write_atomic(name, content)
    return code


def _digest(meant: Iterable[Meant]) -> str:
    """The same for the same points: another batch is another study, the same one goes on."""
    points = json.dumps([[name, point] for _, name, point in meant], sort_keys=True)
    return hashlib.sha256(points.encode()).hexdigest()[:12]


def _evaluate(
    study: Study, site: Site, folder: StudyFolder, meant: Iterable[Meant], inside: bool
) -> Outcome:
    """Run the study of these points through the site's pilot."""
    points: dict[str | None, list[Point]] = {}
    for event, name, point in meant:
        points.setdefault(name, []).append(point)
        if event.checkpoint is not None:
            _hand_over(Path(event.checkpoint), folder, point, name)
    run = SteeringRun(with_points(study, points), site, folder)
    number = job_id(site) if inside else None
    run.open()
    try:
        view = PlainLog(Tally(run.study.to_dict()))
        for note in run.notes:
            view.say(f"note: {note}")
        interrupts = Interrupts(view.say)
        interrupts.install(*DRAIN_SIGNALS)
        wishes = Wishes({"stop": interrupts.wish})
        pilot = None
        if number is not None:
            interrupts.install(signal.SIGUSR1, signal.SIGUSR2)
            pilot, wishes = _inside(run, interrupts)
        outcome = run.steer(pilot=pilot, stop=wishes.wish, observe=view.update, inside=number)
        report(outcome, study, folder.path, outcome.reason)
    finally:
        run.close()
    return outcome


def _inside(run: SteeringRun, interrupts: Interrupts) -> tuple[ParslPilot, Wishes]:
    """A pilot over this job's nodes, and what ends it in time."""
    clock = SystemClock()
    walltime = run.planned.blocks.walltime
    if walltime is None:
        raise InputError("a job of a batch system has a walltime", key="blocks.walltime")
    start, end = block_times(submitter(run.planned, run.site), walltime, clock.now())
    pilot = ParslPilot(run.folder, allocation_blocks(run.planned, run.site, start, end))
    wishes = Wishes(
        {
            "signal": lambda: "drain" if interrupts.count else "",
            "time": lambda: "drain" if clock.now() >= end else "",
        }
    )
    return pilot, wishes


def _hand_over(archive: Path, folder: StudyFolder, point: Point, segment: str | None) -> None:
    """Lay a checkpoint where the point's trial looks for it."""
    target = given_checkpoint(folder.path, point, segment)
    if not archive.is_file():
        click.echo(f"there is no checkpoint {archive}; its point begins afresh", err=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(archive, target)


def _results(
    meant: Iterable[Meant], state: StudyState, folder: StudyFolder, home: Path
) -> list[tuple[Event, dict[str, Any]]]:
    """The entries of events that have ended, and of checkpoints of those that have not."""
    trials = {(t.segment, canonical(t.point)): t for t in state.trials.values()}
    found: list[tuple[Event, dict[str, Any]]] = []
    for event, name, point in meant:
        trial = trials.get((name, canonical(point)))
        if trial is None:
            continue
        if trial.final:
            found.append((event, finished(event, trial.loss)))
        elif trial.checkpoint is not None:
            found.append((event, checkpointed(_packed(event, trial, folder, home))))
    return found


def _packed(event: Event, trial: Trial, folder: StudyFolder, home: Path) -> Path:
    """The newest checkpoint of a trial as an archive, named as the grid's wrapper names it."""
    assert trial.checkpoint is not None, "the caller has looked"
    archive = home / f"{event.task}_{event.sample}"
    temporary = archive.with_name(f".{archive.name}.tmp")
    pack(folder.trial(trial.id) / trial.checkpoint["name"] / FILES, temporary)
    temporary.replace(archive)
    return archive
