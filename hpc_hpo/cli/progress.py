"""How a running study is shown: a picture that is redrawn on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

import click

from hpc_hpo.cli.common import duration, one_line, point_text
from hpc_hpo.cli.tally import Scene, Tally, live_blocks
from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial
from hpc_hpo.pilot.base import Capacity
from hpc_hpo.results.limits import in_words

#: Seconds between two drawings at least.
DRAW_EVERY_S = 1.0
#: A drawing is followed by so many times its own CPU time without one: drawing takes below 0.4 % of
#: a core, whatever the machine, the terminal and the number of segments. What is left to 1 % is for
#: reading the journal.
PAUSE_PER_DRAW = 250.0
#: Lines above the picture with one drawing of it: where all fails, nothing else would be drawn.
MOST_LINES = 5
#: Seconds between two summaries of the plain log at least, and only when something has changed.
LINE_EVERY_S = 30.0
#: The plain log looks for segments that cannot run this often, in seconds.
SEGMENTS_EVERY_S = 2.0
#: Terminals on which nothing can be redrawn.
DUMB = ("", "dumb", "unknown")


class View(Protocol):
    """What `run` and `watch` tell of a study."""

    def say(self, text: str) -> None:
        """Tell one line."""

    def wait(self, text: str) -> None:
        """Say what keeps the view from showing anything yet."""

    def update(
        self, state: StudyState, capacity: Capacity, note: str = "", *, steered: bool = True
    ) -> None:
        """Show what is new; called several times a second.

        Args:
            note: why nothing moves; "" for no reason.
            steered: whether a steering process is at work.
        """

    def close(self) -> None:
        """Show the end, and leave the terminal as it was."""


def can_redraw() -> bool:
    """Whether standard output is a terminal on which a picture can be redrawn."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in DUMB


def make_view(tally: Tally, title: str, *, plain: bool, at_once: bool = False) -> View:
    """The view that fits standard output.

    Args:
        at_once: the first line of the plain log tells how the study stands.
    """
    if plain or not can_redraw():
        return PlainLog(tally, at_once=at_once)
    return LivePanel(tally, title)


def failure_text(trial: Trial) -> str:
    """A line about a trial that has failed for good."""
    return f"trial {trial.id} failed: {one_line((trial.error or {}).get('message', 'no message'))}"


class PlainLog:
    """A line for every new best, failure and block, for logs and pipes."""

    def __init__(self, tally: Tally, *, at_once: bool = False) -> None:
        self._tally = tally
        self._next_line = 0.0 if at_once else tally.now() + LINE_EVERY_S
        self._blocks: dict[str, str] | None = None
        self._next_look = 0.0
        self._told: set[str | None] = set()
        self._summary: list[str] = []
        self._note = ""

    def say(self, text: str) -> None:
        """Print one line with the time of day."""
        click.echo(f"{time.strftime('%H:%M:%S', time.localtime(self._tally.now()))} {text}")

    def wait(self, text: str) -> None:
        """A log does without."""

    def update(
        self, state: StudyState, capacity: Capacity, note: str = "", *, steered: bool = True
    ) -> None:
        """Print what is new."""
        if note != self._note:
            self._note = note
            if note:
                self.say(note)
        before = self._tally.newest
        for trial in self._tally.update(state):
            if text := self._tally.asked_network(trial):
                self.say(text)
            if trial.loss is None:
                self.say(failure_text(trial))
        self._say_segments(state)
        best = self._tally.newest
        if best is not None and best.segment is None and best is not before:
            self.say(
                f"best {self._tally.loss_words(best)} by trial {best.id} "
                f"({self._tally.done(state)} done): "
                f"{point_text(best.point)}"
            )
        self._say_blocks(state)
        if self._tally.now() >= self._next_line:
            self._next_line = self._tally.now() + LINE_EVERY_S
            if state.runs:
                self._say_summary(state, capacity, steered)

    def _say_blocks(self, state: StudyState) -> None:
        if self._blocks is None:
            # Earlier runs have told of theirs.
            self._blocks = {b.id: b.state for b in state.blocks.values() if b.state == "ended"}
        for block in state.blocks.values():
            if self._blocks.get(block.id) == block.state:
                continue
            self._blocks[block.id] = block.state
            reason = f" ({block.reason})" if block.state == "ended" and block.reason else ""
            self.say(f"block {block.id} {block.state}{reason}")

    def _say_summary(self, state: StudyState, capacity: Capacity, steered: bool) -> None:
        """One line on how the study stands, when that is another than the last time."""
        rows = summary_rows(self._tally, state, capacity)
        if rows == self._summary:
            return
        self._summary = rows
        if steered:
            left = self._tally.remaining_s(state)
            text = f"time {duration(self._tally.running_s(state))} so far"
            rows = [*rows, text + (f", about {duration(left)} to go" if left is not None else "")]
        self.say("; ".join(rows))

    def _say_segments(self, state: StudyState) -> None:
        """Say which segments cannot run, once each."""
        # Not at every turn: there may be thousands. The report at the end names all.
        if self._tally.now() < self._next_look:
            return
        self._next_look = self._tally.now() + SEGMENTS_EVERY_S
        for name, record in state.segments.items():
            if record.problem is not None and name not in self._told:
                self._told.add(name)
                what = "the study" if name is None else f"segment {name}"
                self.say(f"{what} cannot run: {record.problem}")

    def close(self) -> None:
        """Nothing is left open."""


def summary_rows(tally: Tally, state: StudyState, capacity: Capacity) -> list[str]:
    """How a study stands, without the time, in a few words each."""
    states, live = state.trial_states, live_blocks(state)
    limits = in_words(tally.limits(state)) or f"trials {state.final_trials}"
    running = sum(1 for b in live if b.state == "running")
    busy = min(states["running"], capacity.connected)
    rows = [
        f"{limits}, {states['failed']} failed, {states['paused']} paused",
        f"workers {busy} of {capacity.connected} busy",
        f"blocks {running} running, {len(live) - running} waiting, "
        f"{len(state.blocks) - len(live)} ended",
    ]
    if None not in state.segments and state.segments:
        rows.insert(1, segments_text(state))
    elif tally.best is not None:
        best = tally.newest or tally.best
        rows.insert(1, f"best {tally.loss_words(best)} (trial {best.id})")
    return rows


def segments_text(state: StudyState) -> str:
    """How many segments have begun and have a best point, and how many have failed."""
    records = state.segments.values()
    text = f"segments {sum(1 for r in records if r.asked)} begun, "
    text += f"{sum(1 for r in records if r.completed)} with a best point"
    failed = sum(1 for r in records if r.problem is not None)
    return text + (f", {failed} without inputs" if failed else "")


class LivePanel:
    """A picture that is redrawn in place.

    Args:
        cpu: seconds of CPU time that this process has used.
    """

    def __init__(
        self, tally: Tally, title: str, cpu: Callable[[], float] = time.process_time
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._tally, self._cpu = tally, cpu
        self._title = title
        self._next_draw = 0.0
        self._last: StudyState | None = None
        self._lines: list[str] = []
        self._untold = 0
        self._live = Live(console=Console(highlight=False), auto_refresh=False)
        self._size = self._live.console.size
        self._live.start()

    def say(self, text: str) -> None:
        """Print one line above the panel."""
        self._live.console.print(text, markup=False, highlight=False)

    def wait(self, text: str) -> None:
        """Draw one line in place of the picture."""
        if self._tally.now() >= self._next_draw:
            self._next_draw = self._tally.now() + DRAW_EVERY_S
            self._live.update(text, refresh=True)

    def update(
        self, state: StudyState, capacity: Capacity, note: str = "", *, steered: bool = True
    ) -> None:
        """Redraw when it is due, and at once when the terminal has another size."""
        for trial in self._tally.update(state):
            if text := self._tally.asked_network(trial):
                self._lines.append(text)
            if trial.loss is None:
                self._fail(trial)
        if self._last is not state:
            # The first picture does not wait.
            self._last, self._next_draw = state, 0.0
        resized = self._live.console.size != self._size
        now = self._tally.now()
        if resized or now >= self._next_draw:
            begun = self._cpu()
            if resized:
                self._wipe()
            self._draw(Scene(self._title, self._tally, state, capacity, steered, note))
            pause = PAUSE_PER_DRAW * (self._cpu() - begun)
            self._next_draw = now + max(DRAW_EVERY_S, pause)

    def _fail(self, trial: Trial) -> None:
        if len(self._lines) < MOST_LINES:
            self._lines.append(failure_text(trial))
        else:
            self._untold += 1

    def _wipe(self) -> None:
        """Clear what is to be seen: a terminal that changes its width breaks the lines of the
        old picture, and nobody can tell where it began."""
        self._size = self._live.console.size
        self._live.console.clear()

    def _draw(self, scene: Scene) -> None:
        from hpc_hpo.cli.screen import Screen

        lines, untold = self._lines, self._untold
        if untold:
            lines.append(f"{untold} more trial{'s' * (untold != 1)} failed")
        self._lines, self._untold = [], 0
        # Lines above the picture draw it, too: all at once, and the picture not a second time.
        self._live.update(Screen(scene), refresh=not lines)
        if lines:
            self.say("\n".join(lines))

    def close(self) -> None:
        """Leave a last drawing on the screen, of how it all ended."""
        if self._last is not None:
            nothing = Capacity(0, None, 0)
            self._draw(Scene(self._title, self._tally, self._last, nothing, steered=False))
        self._live.stop()
