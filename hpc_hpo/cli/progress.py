"""What `run` shows while it runs: a live panel on a terminal, a plain log elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from hpc_hpo.cli.common import duration, point_text, value_text
from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial
from hpc_hpo.pilot.base import Capacity

#: Seconds between two drawings of the live panel.
DRAW_EVERY_S = 0.5
#: Seconds between two lines of the plain log when nothing else happens.
LINE_EVERY_S = 30.0
#: The plain log looks for segments that cannot run this often, in seconds.
SEGMENTS_EVERY_S = 2.0


class Tally:
    """The few figures both views need, kept up without looking at every trial each time."""

    def __init__(
        self, budget: Callable[[], int], sign: int, now: Callable[[], float] = time.time
    ) -> None:
        self._budget, self.sign, self.now = budget, sign, now
        self.best: Trial | None = None
        self.begun = now()
        self._seen = 0
        self._done_before: int | None = None
        self._network_told = False

    @property
    def budget(self) -> int:
        """Trials of all segments; it may change while the study runs."""
        return self._budget()

    def update(self, state: StudyState) -> list[Trial]:
        """Trials that became final since the last call."""
        new = [state.trials[n] for kind, n in state.search_log[self._seen :] if kind == "told"]
        self._seen = len(state.search_log)
        for trial in new:
            if trial.loss is not None and (
                self.best is None
                or self.best.loss is None
                or self.sign * trial.loss < self.sign * self.best.loss
            ):
                self.best = trial
        if self._done_before is None:
            self._done_before = self.done(state)
        return new

    def done(self, state: StudyState) -> int:
        """Trials that are final."""
        return state.trial_states["completed"] + state.trial_states["failed"]

    def asked_network(self, trial: Trial) -> str:
        """A word on the first completed trial that was refused the network; "" for all others."""
        found = [text for record in trial.slices for text in record.network or ()]
        if not found or trial.loss is None or self._network_told:
            return ""
        self._network_told = True
        return (
            f"trial {trial.id} completed, but asked for a network that it has not: {found[0]} "
            "(said once; hpc-hpo show tells of each trial)"
        )

    def remaining_s(self, state: StudyState) -> float | None:
        """Expected seconds to the budget's end by this run's pace; None: not known, or done."""
        done = self.done(state)
        fresh = done - (self._done_before or 0)
        if fresh == 0 or done >= self.budget:
            return None
        return (self.now() - self.begun) / fresh * (self.budget - done)

    def figures(self, state: StudyState, capacity: Capacity) -> list[tuple[str, str]]:
        """(label, text) rows of the view."""
        states, now = state.trial_states, self.now()
        done = self.done(state)
        left = self.remaining_s(state)
        busy = min(states["running"], capacity.connected)
        running = [b for b in state.blocks.values() if b.state == "running"]
        waiting = sum(1 for b in state.blocks.values() if b.state == "requested")
        ends = [b.deadline - now for b in running if b.deadline is not None]
        blocks = f"{len(running)} running, {waiting} waiting, "
        blocks += f"{len(state.blocks) - len(running) - waiting} ended"
        if ends:
            blocks += f"; {duration(max(0.0, max(ends)))} left"
        trials = f"{done} of {self.budget}, {states['failed']} failed, {states['paused']} paused"
        rows = [
            ("trials", trials),
            ("workers", f"{busy} of {capacity.connected} busy"),
            ("blocks", blocks),
            ("time", f"{duration(now - self.begun)} so far"
             + (f", about {duration(left)} to go" if left is not None else "")),
        ]  # fmt: skip
        if None not in state.segments and state.segments:
            rows.insert(1, ("segments", segments_text(state)))
        elif self.best is not None and self.best.loss is not None:
            rows.insert(1, ("best", f"{value_text(self.best.loss)} (trial {self.best.id})"))
            rows.insert(2, ("", point_text(self.best.point)))
        return rows


def segments_text(state: StudyState) -> str:
    """How many segments have begun and have a best point, and how many have failed."""
    records = state.segments.values()
    text = f"{sum(1 for r in records if r.asked)} begun, "
    text += f"{sum(1 for r in records if r.completed)} with a best point"
    failed = sum(1 for r in records if r.problem is not None)
    return text + (f", {failed} without inputs" if failed else "")


class PlainLog:
    """A line for every new best, failure and block, for logs and pipes."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._next_line = tally.begun + LINE_EVERY_S
        self._blocks: dict[str, str] | None = None
        self._next_look = 0.0
        self._told: set[str | None] = set()

    def say(self, text: str) -> None:
        """Print one line with the time of day."""
        click.echo(f"{time.strftime('%H:%M:%S', time.localtime(self._tally.now()))} {text}")

    def update(self, state: StudyState, capacity: Capacity) -> None:
        """Print what is new."""
        before = self._tally.best
        for trial in self._tally.update(state):
            if text := self._tally.asked_network(trial):
                self.say(text)
            if trial.loss is None:
                error = trial.error or {}
                self.say(f"trial {trial.id} failed: {error.get('message', 'no message')}")
        self._say_segments(state)
        best = self._tally.best
        if (
            best is not None
            and best.segment is None
            and best is not before
            and best.loss is not None
        ):
            done = self._tally.done(state)
            self.say(
                f"best {value_text(best.loss)} by trial {best.id} "
                f"({done} of {self._tally.budget} done): {point_text(best.point)}"
            )
        if self._blocks is None:
            # Earlier runs have told of theirs.
            self._blocks = {b.id: b.state for b in state.blocks.values() if b.state == "ended"}
        for block in state.blocks.values():
            if self._blocks.get(block.id) == block.state:
                continue
            self._blocks[block.id] = block.state
            reason = f" ({block.reason})" if block.state == "ended" and block.reason else ""
            self.say(f"block {block.id} {block.state}{reason}")
        if self._tally.now() >= self._next_line:
            self._next_line = self._tally.now() + LINE_EVERY_S
            rows = self._tally.figures(state, capacity)
            self.say("; ".join(f"{label} {text}" for label, text in rows if label))

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


class LivePanel:
    """A panel that is redrawn in place."""

    def __init__(self, tally: Tally, title: str) -> None:
        from rich.live import Live

        self._tally, self._title = tally, title
        self._next_draw = 0.0
        self._last: tuple[StudyState, Capacity] | None = None
        self._live = Live(auto_refresh=False, transient=False)
        self._live.start()

    def say(self, text: str) -> None:
        """Print one line above the panel."""
        self._live.console.print(text, markup=False, highlight=False)

    def update(self, state: StudyState, capacity: Capacity) -> None:
        """Redraw when it is due."""
        for trial in self._tally.update(state):
            if text := self._tally.asked_network(trial):
                self.say(text)
            if trial.loss is None:
                self.say(f"trial {trial.id} failed: {(trial.error or {}).get('message', '')}")
        self._last = (state, capacity)
        if self._tally.now() < self._next_draw:
            return
        self._next_draw = self._tally.now() + DRAW_EVERY_S
        self._live.update(self._draw(state, capacity), refresh=True)

    def _draw(self, state: StudyState, capacity: Capacity) -> Any:
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_row("", ProgressBar(self._tally.budget, self._tally.done(state), width=40))
        for label, text in self._tally.figures(state, capacity):
            table.add_row(Text(label, style="bold"), Text(text))
        return Panel(table, title=Text(self._title), title_align="left", expand=False)

    def close(self) -> None:
        """Leave a last drawing on the screen, of how it all ended."""
        if self._last is not None:
            state, _ = self._last
            self._live.update(self._draw(state, Capacity(0, None, 0)), refresh=True)
        self._live.stop()
