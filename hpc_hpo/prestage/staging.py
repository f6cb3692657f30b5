"""Staging: every input of a study brought into its folder, several at a time, with a manifest
that is published as it goes."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from hpc_hpo.errors import HpoError, InputError, InputErrors, StorageError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.prestage import remote
from hpc_hpo.prestage.carousel import Carousel
from hpc_hpo.prestage.entry import Bringer, Entry, Events, remove_stale
from hpc_hpo.prestage.fetch import FetchError, Patience
from hpc_hpo.prestage.lock import PrestageLock
from hpc_hpo.prestage.manifest import Failure, Manifest, load_manifest
from hpc_hpo.prestage.sources import Found, Source, check_inputs, source_problem
from hpc_hpo.prestage.store import Store, store_folder
from hpc_hpo.study import Input, Study

#: Files that are brought at one time.
AT_ONCE = 8
#: The manifest is published this often, in seconds; less often where writing it takes longer than
#: this share of the time.
PUBLISH_S, PUBLISH_SHARE = 1.0, 0.05
#: Signs of life of the process that stages.
ALIVE_S = 10.0
#: Small local files are brought in batches of so many, or of so many bytes.
BATCH, BATCH_BYTES = 64, 32 << 20

Key = tuple[str | None, str]


@dataclass
class _Unit:
    """The inputs of a segment, or the shared ones, on their way."""

    specs: list[Input]
    left: int = 0
    size: int = 0
    found: dict[Key, Found] = field(default_factory=dict)


@dataclass
class _Job:
    """An input whose files are being brought."""

    spec: Input
    found: Found
    entry: Entry
    left: int = 0
    problem: str | None = None


def key_of(spec: Input) -> Key:
    """What tells an input from all others."""
    return spec.segment, spec.name


class Staging:
    """See stage()."""

    def __init__(
        self, study: Study, folder: StudyFolder, store: Store, *, network: bool, update: bool,
        events: Events, patience: Patience, workers: int, now: Callable[[], float],
    ) -> None:  # fmt: skip
        self.study, self.folder = study, folder
        self.network, self.now = network, now
        self.events = events
        before = load_manifest(folder) or Manifest()
        self._specs = study.all_inputs()
        wanted = {key_of(spec) for spec in self._specs}
        self.entries: dict[Key, Entry] = {
            key: entry for key, entry in Entry.of(before).items() if key in wanted
        }
        self.failed: dict[Key, Failure] = {}
        self.errors: list[Exception] = []
        self.bringer = Bringer(
            folder, store, {file.target: file for file in before.files}, update, events, patience,
            now,
        )  # fmt: skip
        self._before = before
        self._workers = workers
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._running = 0
        self._publish_at = 0.0
        self._dirty = False
        self._abort: StorageError | None = None

    def manifest(self) -> Manifest:
        """What is staged at this moment."""
        manifest = Manifest(failed=list(self.failed.values()))
        for (segment, name), entry in self.entries.items():
            manifest.files.extend(entry.files)
            paths = manifest.paths
            if segment is not None:
                paths = manifest.segments.setdefault(segment, {})
            paths[name] = entry.path
        return manifest

    def run(self, alive: Callable[[], None]) -> Manifest:
        """Bring everything, or all that can be had."""
        units: dict[str | None, _Unit] = {None: _Unit([])}
        for spec in self._specs:
            units.setdefault(spec.segment, _Unit([])).specs.append(spec)
        self._units = list(units.values())
        self._carousel: Carousel[int] = Carousel(range(len(self._units)))
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="prestage")
        self._alive_at = 0.0
        try:
            while True:
                self._fill()
                if not self._running:
                    break
                self._take()
                self._publish(alive)
                if self._abort is not None:
                    raise self._abort
        finally:
            self.bringer.stop()
            self._pool.shutdown(cancel_futures=True)
            manifest = self.manifest()
            manifest.save(self.folder)
        remove_stale(self._before, manifest, self.folder)
        return manifest

    # -- what runs where: tasks in threads, their ends in this one ---------------

    def _submit(self, task: Callable[[], Callable[[], None]]) -> None:
        """Run a task in the pool; what it returns is called here."""
        self._running += 1

        def run() -> None:
            try:
                end = task()
            except BaseException as error:
                failure = error

                def end() -> None:
                    raise failure

            self._done.put(end)

        self._pool.submit(run)

    def _take(self) -> None:
        """Wait for the end of a task, or for a second."""
        try:
            end = self._done.get(timeout=PUBLISH_S)
        except queue.Empty:
            return
        self._running -= 1
        end()

    def _fill(self) -> None:
        """Keep the pool busy, and not much more, so that what comes next may still be chosen."""
        while self._running < 2 * self._workers:
            number = self._carousel.next_to_look_at()
            if number is not None:
                self._look(number)
                continue
            number = self._carousel.next_to_stage()
            if number is None:
                return
            self._begin(self._units[number])

    def _look(self, number: int) -> None:
        unit = self._units[number]
        unit.left = len(unit.specs)
        if not unit.specs:
            self._carousel.looked_at(number, 0)
        for spec in unit.specs:
            self._submit(partial(self._find, number, spec))

    def _find(self, number: int, spec: Input) -> Callable[[], None]:
        """In a thread: what an input consists of, and how much of it is missing."""
        found: Found | None = None
        error: Exception | None = None
        size = 0
        try:
            if spec.remote and not self.network:
                self._require_staged(spec)
            else:
                found = self.bringer.look(self.study, spec)
                size = self.bringer.missing(spec, found)
        except StorageError as full:
            self._abort = full
        except Exception as problem:
            error = problem

        def end() -> None:
            unit = self._units[number]
            if error is not None:
                self._fail(spec, error)
            elif found is not None:
                unit.found[key_of(spec)] = found
                unit.size += size
                self.events.expect(size)
            unit.left -= 1
            if unit.left == 0:
                self._carousel.looked_at(number, unit.size)

        return end

    def _require_staged(self, spec: Input) -> None:
        if key_of(spec) not in self.entries:
            raise source_problem(
                self.study, spec,
                "has not been staged; run `hpc-hpo prestage`, which alone uses the network",
                found=spec.source,
            )  # fmt: skip

    def _begin(self, unit: _Unit) -> None:
        for spec in unit.specs:
            found = unit.found.get(key_of(spec))
            if found is None:
                continue
            job = _Job(spec, found, self.bringer.prepare(spec, found))
            batches = _batches(found.files, spec.remote)
            job.left = len(batches)
            for batch in batches:
                self._submit(partial(self._bring, job, batch))
        unit.found.clear()

    def _bring(self, job: _Job, batch: Sequence[Source]) -> Callable[[], None]:
        """In a thread: bring some files of an input, and finish it with its last ones."""
        files, error = [], None
        try:
            if job.problem is None:
                for source in batch:
                    files.append(self.bringer.bring(job.spec, job.found, source))
        except StorageError as full:
            self._abort = full
        except Exception as problem:
            error = problem

        def end() -> None:
            job.entry.files.extend(files)
            job.left -= 1
            if error is not None and job.problem is None:
                job.problem = str(error)
                self._fail(job.spec, error)
            if job.left == 0 and job.problem is None and self._abort is None:
                self._finish(job)

        return end

    def _finish(self, job: _Job) -> None:
        if not (job.spec.archive and job.found.single):
            self._settle(job.spec, job.entry)
            return

        def unpack() -> Callable[[], None]:
            try:
                entry = self.bringer.open(job.spec, job.found, job.entry)
            except StorageError as full:
                self._abort = full
                return lambda: None
            except Exception as problem:
                failure = problem
                return lambda: self._fail(job.spec, failure)
            return lambda: self._settle(job.spec, entry)

        self._submit(unpack)

    def _settle(self, spec: Input, entry: Entry) -> None:
        entry.files.sort(key=lambda file: file.target)
        self.entries[key_of(spec)] = entry
        self.failed.pop(key_of(spec), None)
        self._dirty = True
        self.events.staged(spec, entry.size)

    def _fail(self, spec: Input, error: Exception) -> None:
        text = str(error) if isinstance(error, HpoError) else remote.explain(error)
        self.failed[key_of(spec)] = Failure(spec.name, spec.segment, text)
        self._dirty = True
        if spec.segment is None:
            self.errors.append(
                error if isinstance(error, (InputError, FetchError))
                else source_problem(self.study, spec, text, found=spec.source)
            )  # fmt: skip
        self.events.failed(spec, text)

    def _publish(self, alive: Callable[[], None]) -> None:
        began = time.monotonic()
        if began >= self._alive_at:
            self._alive_at = began + ALIVE_S
            alive()
        if self._dirty and began >= self._publish_at:
            self._dirty = False
            self.manifest().save(self.folder, durable=False)
            cost = time.monotonic() - began
            self._publish_at = began + max(PUBLISH_S, cost / PUBLISH_SHARE)


def _batches(files: Sequence[Source], remote: bool) -> list[list[Source]]:
    """The files in pieces of work: the largest first, small local ones together."""
    batches: list[list[Source]] = []
    room, length = 0, 0
    for file in sorted(files, key=lambda f: f.size or 0, reverse=True):
        size = file.size or 0
        if remote or not batches or length >= BATCH or size > room:
            batches.append([])
            room, length = BATCH_BYTES, 0
        batches[-1].append(file)
        room, length = room - size, length + 1
    return batches


def stage(
    study: Study,
    folder: StudyFolder,
    *,
    store: Store | None = None,
    network: bool = False,
    update: bool | None = None,
    events: Events | None = None,
    patience: Patience | None = None,
    workers: int = AT_ONCE,
    now: Callable[[], float] = time.time,
) -> Manifest:
    """Bring every input of the study in and write the manifest.

    What was staged before and has not changed is left as it is. What an earlier manifest held and
    the study no longer names is removed. A segment's input that cannot be staged fails alone: it
    stands in the manifest's `failed`.

    Args:
        store: where downloads are kept; by default as of store_folder, without a site.
        network: whether remote sources may be asked for; otherwise they have to be staged.
        update: whether a source that has changed since it was staged is taken as it is now; by
            default only before the study's first trial.
        events: told what happens.
        workers: files that are brought at one time.

    Raises:
        InputErrors: shared sources that do not exist, or may not be taken; all of them.
        FetchError: a shared source cannot be had now.
        StorageError: the study folder or the store cannot be written.
        StudyHeld: another process is staging.
    """
    problems = check_inputs(study, segments=False)
    if problems:
        raise InputErrors(problems)
    folder.make()
    if update is None:
        update = not (folder.journal.exists() and folder.journal.stat().st_size > 0)
    store = store or Store(store_folder(folder.path, None, study.account, os.environ))
    lock = PrestageLock(folder)
    lock.acquire()
    try:
        staging = Staging(
            study, folder, store, network=network, update=update, events=events or Events(),
            patience=patience or Patience(), workers=workers, now=now,
        )  # fmt: skip
        manifest = staging.run(lock.refresh)
    finally:
        lock.release()
    wrong = [error for error in staging.errors if isinstance(error, InputError)]
    if wrong:
        raise wrong[0] if len(wrong) == 1 else InputErrors(wrong)
    if staging.errors:
        raise FetchError("\n".join(map(str, staging.errors)))
    return manifest
