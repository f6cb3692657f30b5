"""From a study file to a running loop: freeze, lock, replay, adopt, steer.

The one place that puts the rooms together; the commands and the tests call it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hpc_hpo import journal as journals
from hpc_hpo.clock import Clock, SystemClock
from hpc_hpo.errors import InputError, InputErrors, StudyChanged
from hpc_hpo.folder import StudyFolder, StudyLock, find_folder
from hpc_hpo.fsio import to_json, write_atomic
from hpc_hpo.journal import Journal, StudyState
from hpc_hpo.model import TASK_FILE
from hpc_hpo.optimizers.helper import stop_shared
from hpc_hpo.pilot.base import Capacity, Pilot
from hpc_hpo.pilot.free import NotTold, Window, free_windows
from hpc_hpo.pilot.parsl_pilot import ParslPilot
from hpc_hpo.pilot.queues import check_queue
from hpc_hpo.pilot.sources import block_source, check_shape
from hpc_hpo.plan import resolve_blocks
from hpc_hpo.prestage import running
from hpc_hpo.prestage.manifest import Manifest, load_manifest
from hpc_hpo.prestage.sources import check_inputs
from hpc_hpo.prestage.staging import stage
from hpc_hpo.prestage.verify import broken_segments, verify
from hpc_hpo.site import Site, load_site
from hpc_hpo.steering.adopt import Inheritance, inherit_in, newest_checkpoint_in
from hpc_hpo.steering.loop import DONE_REASONS, Steering
from hpc_hpo.steering.opening import (
    Opening,
    added_specs,
    check_optimizers,
    pending_specs,
    with_added,
)
from hpc_hpo.steering.outcome import Outcome
from hpc_hpo.steering.reporting import reports_of
from hpc_hpo.steering.requests import pending
from hpc_hpo.steering.spending import used_up
from hpc_hpo.steering.start import Start, gather
from hpc_hpo.steering.task import task_of
from hpc_hpo.steering.terms import terms_of
from hpc_hpo.steering.verdict import reached
from hpc_hpo.study import Change, Study, check_payload, compare, load_study
from hpc_hpo.tracking import check_tracking, tracking
from hpc_hpo.version import versions

#: The folder to which the frozen study's relative paths belong.
ORIGIN = "origin.json"
#: How often the lock's holder leaves a sign of life, in seconds.
HOLDER_EVERY_S = 10.0


def open_study(path: Path, directory: Path | None = None) -> tuple[Study, StudyFolder]:
    """The study and its folder, from a study file or from a study folder.

    Args:
        path: what the user gave.
        directory: the study folder, when it is not the one beside the file.

    Raises:
        InputError: nothing usable is there.
    """
    folder = find_folder(path, lambda file: load_study(file).name)
    if path.is_dir() and folder.study.is_file() and (folder.path / ORIGIN).exists():
        if directory is not None and directory.resolve() != folder.path:
            raise InputError("--dir goes with a study file, not with a study folder")
        return load_frozen(folder), folder
    file = path / "study.yaml" if path.is_dir() else path
    study = load_study(file)
    return study, StudyFolder(directory.resolve()) if directory else folder


def load_frozen(folder: StudyFolder) -> Study:
    """The study as it was frozen, its paths relative to where it came from."""
    origin = json.loads((folder.path / ORIGIN).read_text())
    return load_study(folder.study, folder=Path(origin["folder"]))


def check(study: Study, site: Site, *, segments: bool = True) -> list[InputError]:
    """Everything that can be known to go wrong before the first block.

    Args:
        segments: False leaves out the inputs of segments: one that lacks its own fails alone.
    """
    problems = [
        *check_shape(study, site),
        *check_queue(study, site),
        *check_payload(study, site),
        *check_inputs(study, segments=segments),
        *check_tracking(study),
    ]
    return problems or list(check_optimizers(study))


def start_report(study: Study, folder: StudyFolder) -> list[str]:
    """What becomes of the sources that the study starts from, one line for each.

    Raises:
        InputError: one cannot be taken as it is.
    """
    known = journals.replay(journals.read_events(folder.journal)).start if study.start_from else []
    return gather(study).report if known is None else known


def freeze(study: Study, folder: StudyFolder) -> list[Change]:
    """Put the study into its folder, or hold it against the one that is there.

    Returns:
        The harmless differences that were accepted. Before the first trial, any is.

    Raises:
        StudyChanged: results from before and after would not belong together.
    """
    changes: list[Change] = []
    begun = folder.journal.exists() and folder.journal.stat().st_size > 0
    if begun and folder.study.exists() and (folder.path / ORIGIN).exists():
        changes = compare(load_frozen(folder).to_dict(), study.to_dict())
        harmful = [change for change in changes if not change.harmless]
        if harmful:
            listed = "\n".join(f"  {change}" for change in harmful)
            raise StudyChanged(
                f"the study in {folder.path} was begun with other values:\n{listed}\n"
                "Its trials and new ones would not belong together. Give the changed study "
                "another name (or --dir), or take the change back.",
                file=str(study.path),
            )
        if not changes:
            return []
    header = f"# {study.name}, frozen with all defaults from {study.path}\n"
    text = header + yaml.safe_dump(study.to_dict(), sort_keys=False, allow_unicode=True)
    write_atomic(folder.path / ORIGIN, json.dumps({"folder": str(study.folder)}) + "\n")
    write_atomic(folder.study, text)
    return changes


def require_inputs(study: Study, folder: StudyFolder) -> Manifest:
    """The manifest as it is now; local inputs are staged when some are missing.

    While a prestage is at work, what it has not brought yet is waited for by the steering loop;
    and a segment whose own inputs are missing or have changed fails there, alone.

    Raises:
        InputError: an input that all trials share is missing or has changed.
    """
    at_work = running(folder)
    manifest = load_manifest(folder)
    if manifest is None:
        manifest = Manifest() if at_work else stage(study, folder)
    elif not at_work and not all(manifest.holds(i.name, i.segment) for i in study.all_inputs()):
        return stage(study, folder)
    problems = list(verify(manifest, folder, rehash=False, segments=False))
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(
            f"staged inputs are not as they were:\n{listed}\n"
            "Bring them back, or take them as they are now: `hpc-hpo prestage --update`.",
            file=str(folder.manifest),
        )
    return manifest


class SteeringRun:
    """One run of a study, holding its lock from `open` to `close`."""

    def __init__(self, study: Study, site: Site, folder: StudyFolder, *, salvage: bool = False):
        self.study, self.site, self.folder = study, site, folder
        #: the study with `blocks: auto` resolved; the frozen one keeps the word
        self.planned = study
        self._salvage = salvage
        self.notes: list[str] = []
        self.state = StudyState()
        self._task = ""
        self.opening: Opening | None = None
        self._start: Start | None = None

    def open(self) -> None:
        """Check, freeze, lock, stage, and bring the journal back to life.

        Raises:
            HpoError: anything that would make the run fail later.
        """
        if self.study.blocks.auto:
            self._plan_blocks()
        problems = check(self.planned, self.site, segments=False)
        if problems:
            raise problems[0] if len(problems) == 1 else InputErrors(problems)
        self.folder.make()
        self._lock = StudyLock(self.folder)
        self._lock.acquire()
        try:
            self._open_locked()
        except BaseException:
            self._lock.release()
            raise

    def _plan_blocks(self) -> None:
        """Take the plan's recommendation, shaped to what the scheduler could start now."""
        free: list[Window] = []
        if self.site.batch:
            try:
                free = free_windows(self.site, self.study.queue)
            except NotTold as error:
                self.notes.append(f"blocks: auto is planned for a wait in the queue: {error}")
        blocks = resolve_blocks(self.study, self.site, free)
        self.planned = self.study.model_copy(update={"blocks": blocks})
        self.notes.append(f"blocks: auto takes {blocks.words()}")

    def _open_locked(self) -> None:
        changes = freeze(self.study, self.folder)
        if self._salvage and self.folder.journal.exists():
            bad = journals.salvage(self.folder.journal)
            self.notes.append(f"{bad} damaged journal records were set aside")
        self.state = journals.replay(journals.read_events(self.folder.journal))
        if self.study.start_from and self.state.start is None:
            self._start = gather(self.study)
        specs = [*added_specs(self.state), *pending_specs(self.folder)]
        manifest = require_inputs(with_added(self.study, specs), self.folder)
        broken = broken_segments(manifest, self.folder)
        self._write_task(manifest)
        self.opening = Opening(
            self.study, self.folder, self.state, manifest, broken, self._write_task
        )
        self.journal = Journal(self.folder.journal)
        if self.journal.repaired_bytes:
            self.notes.append(
                f"the journal's torn last record ({self.journal.repaired_bytes} bytes) was cut off"
            )
        if self._lock.taken_over:
            self.notes.append(f"taken over from {self._lock.taken_over}, which is gone")
        if self._start is not None:
            self.notes += [f"started from {line}" for line in self._start.report]
        for change in changes:
            self.notes.append(f"changed since the last run: {change}")
        self.folder.stop_request.unlink(missing_ok=True)

    def _write_task(self, manifest: Manifest) -> None:
        """Write what all slices share, where that has changed."""
        text = to_json(task_of(self.study, manifest, self.folder, self.site))
        if text != self._task:
            write_atomic(self.folder.path / TASK_FILE, text)
            self._task = text

    def steer(
        self,
        *,
        pilot: Pilot | None = None,
        clock: Clock | None = None,
        stop: Callable[[], str] = lambda: "",
        observe: Callable[[StudyState, Capacity], None] = lambda state, capacity: None,
        say: Callable[[str], object] = lambda text: None,
        inside: str | None = None,
    ) -> Outcome:
        """Run the loop to its end.

        Args:
            pilot: in place of the site's own, whose blocks are jobs of their own.
            clock: replaces the real one in tests.
            stop: as of Steering; ``hpc-hpo stop`` is heeded besides.
            say: tells people a line about what goes on beside the loop.
            inside: the batch job that this process and its blocks are part of.
        """
        clock = clock or SystemClock()
        run = self.state.runs + 1
        inheritance = Inheritance(self.folder, self.state)
        inheritance.dismiss_workers()
        inherited = inheritance.collect()
        closing = inheritance.block_events()
        leftovers = self.leftover_jobs()
        event = self._run_event(run, clock.now())
        if inside is not None:
            event["inside"] = inside
        self.journal.append(event)
        self.state.apply(event)
        for event in [*closing, *(self._start.events(clock.now()) if self._start else ())]:
            self.journal.append(event)
            self.state.apply(event)
        pilot = pilot or ParslPilot(
            self.folder, block_source(self.planned, self.site), leftovers=leftovers
        )
        next_sign, reports = 0.0, reports_of(self.planned)

        def heed(asked: Callable[[], str] = stop) -> str:
            return asked() or ("drain" if self.folder.stop_request.exists() else "")

        def watch(state: StudyState, capacity: Capacity) -> None:
            nonlocal next_sign
            if clock.now() >= next_sign:
                next_sign = clock.now() + HOLDER_EVERY_S
                self._lock.refresh()
            reports.observe(state)
            if tracker is not None:
                tracker.observe()
            observe(state, capacity)

        opening = self.opening
        assert opening is not None, "open() was called"
        searches = opening.portfolio()
        steering = Steering(
            terms_of(self.planned, self.site, TASK_FILE), str(self.folder.path), self.state,
            self.journal, searches, pilot, clock, inherited=inherited, stop=heed, observe=watch,
            newest_checkpoint=newest_checkpoint_in(self.folder), segment=opening.info,
            inherit=inherit_in(self.folder),
        )  # fmt: skip
        with tracking(self.study, self.folder, clock.now, say) as tracker:
            reason = steering.finished()
            if not reason:
                pilot.start(run)
                reason = steering.run()
                for late in inheritance.late_outcomes():
                    steering.refuse(late)
            self.journal.flush()
            done = reason in DONE_REASONS
            shown = "" if tracker is None else tracker.finish(done=done)
            reports.finish(self.state, done=done)
        return Outcome(reason, self.state, searches.without_result(), shown)

    def done(self) -> bool:
        """Whether the journal shows a limit of the study reached, so that nothing would run."""
        if pending(self.folder):
            return False
        assert self.opening is not None, "open() was called"
        terms, searches = terms_of(self.planned, self.site, TASK_FILE), self.opening.portfolio()
        # One that failed throughout may have been mended.
        found = reached(terms, self.state) not in ("", "failing")
        return found or used_up(terms, self.state, searches.runs) or bool(searches.finished())

    def leftover_jobs(self) -> list[str]:
        """Jobs that a steering process which died here left to the site's scheduler.

        Blocks of a run on another site, or inside a job of their own, are no jobs to cancel.
        """
        last = self.state.run_info
        if not self.site.batch or last.get("site") != self.site.name or "inside" in last:
            return []
        left = (block for block in self.state.blocks.values() if block.state != "ended")
        return [block.job for block in left if block.job is not None]

    def _run_event(self, run: int, now: float) -> dict[str, Any]:
        return {
            "e": "run", "run": run, "at": now, "host": socket.gethostname(), "pid": os.getpid(),
            "versions": versions(), "site": self.site.name,
        }  # fmt: skip

    def close(self) -> None:
        """Close the journal and give the lock back."""
        try:
            self.journal.close()
        finally:
            stop_shared()
            self.folder.stop_request.unlink(missing_ok=True)
            self._lock.release()


def site_of(study: Study, name: str | None = None) -> Site:
    """The site a study runs on.

    Args:
        name: overrides the study's own.
    """
    if name is not None:
        return load_site(name)
    return load_site(study.site, relative_to=study.folder, named_in=study.document)
