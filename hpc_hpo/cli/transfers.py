"""How far a prestage has come: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from hpc_hpo.prestage.entry import Events
from hpc_hpo.study import Input
from hpc_hpo.units import format_size

#: Files get a bar of their own from this size on, and so many at one time.
LARGE, BARS = 64 << 20, 8
#: Without a terminal, a line every so many seconds.
LINE_S = 10.0
#: Bars are moved at most so often, in seconds.
MOVE_S = 0.1


class Transfers(Events):
    """Shows what is staged. Its methods may be called from several threads."""

    def __init__(self, live: bool) -> None:
        self._lock = threading.Lock()
        self._total = self._done = self._inputs = self._shown = 0
        self._began = self._next = time.monotonic()
        self._next += LINE_S if not live else 0.0
        self._bar: TaskID | None = None
        self._files: dict[str, int] = {}
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True),
            TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True),
            transient=True,
        ) if live else None  # fmt: skip

    def __enter__(self) -> Transfers:
        if self._progress is not None:
            self._progress.start()
            self._bar = self._progress.add_task("staging", total=None)
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def expect(self, size: int) -> None:
        with self._lock:
            self._total += size
            if self._progress is not None and self._bar is not None:
                self._progress.update(self._bar, total=self._total)

    def advance(self, name: str, size: int) -> None:
        with self._lock:
            self._done += size
            self._files[name] = self._files.get(name, 0) + size
            now = time.monotonic()
            if now < self._next:
                return
            if self._progress is not None and self._bar is not None:
                self._next = now + MOVE_S
                self._progress.update(self._bar, completed=self._done, total=self._total)
                self._move(self._progress)
            else:
                self._next = now + LINE_S
                click.echo(self._line(now), err=True)

    def _move(self, progress: Progress) -> None:
        for name, size in self._files.items():
            if size >= LARGE and name not in self._bars and len(self._bars) < BARS:
                self._bars[name] = progress.add_task(f"  {name}", total=None)
            if name in self._bars:
                progress.update(self._bars[name], completed=size)

    def _line(self, now: float) -> str:
        speed = self._done / max(now - self._began, 0.001)
        return (
            f"{self._inputs} inputs staged, {format_size(self._done)} of "
            f"{format_size(self._total)}, {format_size(int(speed))}/s"
        )

    def staged(self, spec: Input, size: int) -> None:
        with self._lock:
            self._inputs += 1

    def failed(self, spec: Input, problem: str) -> None:
        # Told at the end, with all others.
        return None

    def changed(self, spec: Input, what: str) -> None:
        self._say(f"{spec.label()}: {what} has changed since it was staged; taken as it is now")

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            click.echo(text, err=True)
