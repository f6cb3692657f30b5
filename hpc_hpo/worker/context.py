"""What an objective sees of its trial: ``def objective(config, trial)``."""

from __future__ import annotations

import contextlib
import operator
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, SupportsIndex

from hpc_hpo.clock import Clock
from hpc_hpo.errors import CheckpointError
from hpc_hpo.model import Pace, SegmentInfo, Usual
from hpc_hpo.worker.checkpoint import FILES, STATE, Saved, Store
from hpc_hpo.worker.fence import Fenced
from hpc_hpo.worker.margin import Steps, interval, margin
from hpc_hpo.worker.node import Stop

#: How trial.reduce makes one number of several.
REDUCTIONS = ("mean", "sum", "min", "max")


def _number(name: str, value: Any) -> float | int:
    """A metric as a plain number."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"trial.report: {name}={value!r} is not a number")
    with contextlib.suppress(TypeError):  # not an integer: a float, then
        return int(operator.index(value))
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"trial.report: {name}={value!r} is not a number") from error


@dataclass(frozen=True)
class TrialSegment:
    """The segment of a trial; without a name and values in a study that has none."""

    name: str | None = None
    values: dict[str, Any] = field(default_factory=dict)


class TrialContext:
    """One slice of a trial, as its objective sees it.

    Attributes:
        id: number of the trial.
        slice: number of the slice, from 1.
        seed: the trial's own seed; the same in each of its slices.
        inputs: name of an input -> its path on this node.
        segment: its name and values, as in trial.segment.values["pid"].
    """

    def __init__(
        self,
        *,
        id: int,
        seed: int,
        inputs: dict[str, str],
        segment: SegmentInfo | None = None,
        store: Store,
        restored: Saved | None,
        clock: Clock,
        deadline: float | None = None,
        margin_s: float = 1.0,
        usual: Usual | None = None,
        checkpoint_every_s: float | None = None,
        stop_step: int | None = None,
        poll: Callable[[], Stop | None] = lambda: None,
    ) -> None:
        self.id, self.slice, self.seed, self.inputs = id, store.slice, seed, dict(inputs)
        known = segment or SegmentInfo()
        self.segment = TrialSegment(known.get("name"), dict(known.get("values", {})))
        self._store, self._restored, self._clock, self._poll = store, restored, clock, poll
        self._deadline, self._margin_s, self._usual = deadline, margin_s, usual
        self._every_s, self._stop_step = checkpoint_every_s, stop_step
        self._begun = clock.now()
        self._mark: float | None = None
        self._steps = Steps()
        self._stop: str | None = None
        self.reports: dict[int, dict[str, float]] = {}
        self.fenced = False

    @property
    def rank(self) -> int:
        """Number of this process among the trial's, from 0."""
        return 0

    @property
    def size(self) -> int:
        """Processes of the trial."""
        return 1

    @property
    def comm(self) -> Any:
        """The communicator of the trial's ranks (mpi4py); of this process alone for one rank.

        Raises:
            ImportError: mpi4py is not installed.
        """
        from mpi4py import MPI

        return MPI.COMM_SELF

    def reduce(self, value: float, how: str = "mean") -> float:
        """A number of all ranks as one, the same on each; collective.

        Args:
            how: mean, sum, min or max.
        """
        if how not in REDUCTIONS:
            raise ValueError(f"trial.reduce: {how!r} is not one of {', '.join(REDUCTIONS)}")
        return float(value)

    @property
    def folder(self) -> Path:
        """The trial's own folder, made on first use. It is the same for all of its slices."""
        self._store.folder.mkdir(parents=True, exist_ok=True)
        return self._store.folder

    @property
    def deadline(self) -> float | None:
        """Seconds since the epoch at which the worker ends; None: it has no end."""
        return self._deadline

    def time_left(self) -> float:
        """Seconds to the deadline; infinity when there is none."""
        return float("inf") if self._deadline is None else self._deadline - self._clock.now()

    def restore(self) -> dict[str, Any] | None:
        """The state of the newest whole checkpoint; None when the trial starts from nothing.

        Raises:
            CheckpointError: the file cannot be read although its checksum is right.
        """
        # Imported even when there is nothing to read: an objective that restores will also
        # checkpoint, and the first import of h5py must not fall into the last second.
        from hpc_hpo.worker.state import read_state

        if self._restored is None:
            return None
        self._take_reports(self._restored)
        path = self._restored.folder / STATE
        return read_state(path) if path.exists() else None

    def restored_files(self) -> Path | None:
        """The folder with the files of the newest whole checkpoint; None when there are none.

        Read them only: they are the checkpoint, and it goes once two newer ones exist.
        """
        if self._restored is None:
            return None
        self._take_reports(self._restored)
        folder = self._restored.folder / FILES
        return folder if folder.is_dir() else None

    def _take_reports(self, saved: Saved) -> None:
        # Only once the objective goes on from it: one that ignores its checkpoints begins
        # again at the first step, and its old reports are not its own.
        self.reports = {**saved.reports, **self.reports}

    def report(self, step: SupportsIndex, **metrics: Any) -> None:
        """Tell the metrics of a finished step. Steps count upwards.

        Raises:
            TypeError: a metric is not a number.
        """
        self.reports[operator.index(step)] = {n: _number(n, v) for n, v in metrics.items()}

    def checkpoint(
        self,
        state: dict[str, Any] | None,
        files: tuple[str | PathLike[str], ...] = (),
        *,
        parts: bool = False,
    ) -> None:
        """Commit a checkpoint: all of it, or nothing.

        Args:
            state: nested dicts, lists and tuples of plain values and numpy arrays.
            files: files and folders to copy beside it.
            parts: each rank's state is kept, not rank 0's alone; the same for one rank.

        Raises:
            CheckpointError: a value that would not come back as it was.
            OSError: it cannot be written (ENOSPC: the slice fails without using an attempt).
        """

        def build(folder: Path) -> None:
            if state is not None:
                from hpc_hpo.worker.state import write_state

                write_state(folder / STATE, state)
            if files:
                copy_files([Path(file) for file in files], folder / FILES)

        self._commit(build)

    def _commit(self, build: Callable[[Path], None]) -> None:
        begun = self._clock.now()
        try:
            self._store.commit(build, step=self._last_step(), reports=self.reports, kind="python")
        except Fenced:
            self.fenced = True
            raise
        if self._mark is not None:
            self._mark += self._clock.now() - begun  # a checkpoint is not part of a step

    def checkpoint_file(self, *paths: str | PathLike[str]) -> None:
        """Commit a checkpoint of files and folders that a framework has written itself.

        Raises:
            CheckpointError: a path does not exist, or two have the same name.
            OSError: it cannot be written.
        """
        if not paths:
            raise CheckpointError("trial.checkpoint_file: no path was given")
        self.checkpoint(None, paths)

    def should_checkpoint(self) -> bool:
        """True when the last checkpoint is old enough, or when the slice has to stop."""
        if self.should_stop():
            return True
        last = self._store.last_at
        due = interval(self._every_s, self._store.longest_s)
        return self._clock.now() - (self._begun if last is None else last) >= due

    def should_stop(self) -> bool:
        """True when the objective should checkpoint and return None now; it stays true."""
        now = self._clock.now()
        if self._mark is not None:
            self._steps.add(now - self._mark)
        self._mark = now
        if self._stop is None:
            self._stop = self._find_stop(now)
        return self._stop is not None

    def _find_stop(self, now: float) -> str | None:
        asked = self._poll()
        if asked is not None:
            if asked.deadline is not None:
                self._deadline = asked.deadline
            return asked.reason
        last = self._last_step()
        if self._stop_step is not None and last is not None and last >= self._stop_step:
            return "rung"
        room = margin(self._margin_s, self._usual, self._steps, self._store.longest_s)
        if self._deadline is not None and now >= self._deadline - room:
            return "walltime"
        return None

    @property
    def stop_reason(self) -> str | None:
        """Why should_stop() is true: walltime, rung, stop or preempted."""
        return self._stop

    def _last_step(self) -> int | None:
        return max(self.reports, default=None)

    @property
    def pace(self) -> Pace:
        """What this slice has learned about its own speed, in seconds."""
        pace = self._steps.pace()
        if self._store.first_at is not None:
            pace["checkpoint_s"] = self._store.longest_s
            pace["first_checkpoint_s"] = self._store.first_at - self._begun
        return pace


def copy_files(paths: list[Path], folder: Path) -> None:
    """Copy files and folders into a new folder, each under its own name.

    Raises:
        CheckpointError: one does not exist, or two have the same name.
    """
    folder.mkdir()
    for path in paths:
        target = folder / path.name
        if not path.exists():
            raise CheckpointError(f"{path}: to be checkpointed, but it does not exist")
        if target.exists():
            raise CheckpointError(f"{path}: two files to be checkpointed are named {path.name!r}")
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copyfile(path, target)
