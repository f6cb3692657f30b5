"""The picture of a running study that `run` and `watch` draw, fitted to any terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.panel import Panel
from rich.text import Text

from hpc_hpo.block_record import BlockRecord
from hpc_hpo.cli.common import duration, one_line, value_text
from hpc_hpo.cli.tally import Scene, chosen_segments, live_blocks, sampled
from hpc_hpo.results.failures import cause_of, message_pattern
from hpc_hpo.results.limits import node_seconds

#: Columns of the labels, and below which width there is no border.
LABEL, BORDERED = 9, 60
LONGEST_BAR, LONGEST_SPARK = 30, 40
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.,-=+*#"
FULL, EMPTY, ASCII_FULL, ASCII_EMPTY = "█", "░", "#", "."
#: Losses that differ by more than this factor are drawn on a logarithmic scale.
LOG_RATIO = 10.0
#: Without an event for so long, the journal's age is told, in seconds.
QUIET_S = 60.0
#: (blocks, errors, lines of the point, segments) at most, from a high terminal to a low one.
LIMITS = ((6, 3, 3, 15), (3, 2, 1, 9), (1, 1, 1, 4), (0, 1, 0, 0), (0, 0, 0, 0))
WHY_STYLE = {"failing": "red", "active": "", "best": "green"}

Row = tuple[str, list[Text]]


class Screen:
    """A rich renderable of a scene: as wide and at most as high as its terminal."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        framed = options.max_width >= BORDERED
        width = options.max_width - (4 if framed else 0)
        # A line is left for the cursor below, two for the frame, or one for the title.
        height = max(1, options.max_height - (3 if framed else 2))
        lines = fit(self._scene, width, height, options.ascii_only)
        body = Text("\n").join(lines)
        if not framed:
            yield _cut(Text(one_line(self._scene.title), style="bold"), width, options.ascii_only)
            yield body
            return
        now = time.localtime(self._scene.tally.now())
        yield Panel(
            body, box=ROUNDED, title=Text(one_line(self._scene.title), style="bold"),
            title_align="left", subtitle=Text(time.strftime("%H:%M:%S", now), style="dim"),
            subtitle_align="right",
        )  # fmt: skip


def fit(scene: Scene, width: int, height: int, ascii_only: bool) -> list[Text]:
    """The lines of a scene, as many as there is room for, none longer than `width`."""
    lines: list[Text] = []
    for limits in LIMITS:
        lines = list(_Painter(scene, width, ascii_only, *limits).lines())
        if len(lines) <= height:
            break
    return lines[:height]


def _cut(text: Text, width: int, ascii_only: bool) -> Text:
    text.truncate(max(1, width), overflow="crop" if ascii_only else "ellipsis")
    return text


class _Painter:
    """Lines for one width and one set of limits."""

    def __init__(
        self, scene: Scene, width: int, ascii_only: bool, blocks: int, errors: int, point: int,
        segments: int,
    ) -> None:  # fmt: skip
        self.scene, self.state, self.tally = scene, scene.state, scene.tally
        self.width, self.ascii = width, ascii_only
        self.blocks, self.errors, self.point, self.segments = blocks, errors, point, segments
        self.label = LABEL if width >= 30 else 0
        self.room = width - self.label

    def lines(self) -> Iterator[Text]:
        """All lines, from the top."""
        if self.scene.note:
            yield self._cut(Text(one_line(self.scene.note), style="yellow"))
        for label, lines in self._rows():
            for number, line in enumerate(lines):
                head = label if number == 0 else ""
                # No style of the line's own: that would be the style of all that is added to it.
                start = Text().append(head.ljust(self.label)[: self.label], style="bold")
                yield start + self._cut(line, self.room)

    def _cut(self, text: Text, width: int | None = None) -> Text:
        return _cut(text, self.width if width is None else width, self.ascii)

    def _rows(self) -> Iterator[Row]:
        yield "trials", self._trials()
        if self._segmented():
            yield "segments", self._segments()
        elif self.tally.best is not None:
            yield "best", self._best()
        if self.state.runs:
            yield "workers", self._workers()
            yield "blocks", self._blocks()
            yield "used", self._used()
            yield "time", self._time()
        if self.errors and self.state.troubles:
            yield "errors", self._errors()

    def _packed(self, pieces: Sequence[Text]) -> list[Text]:
        """Pieces beside each other, in as few lines as hold them."""
        lines: list[Text] = []
        for piece in pieces:
            if lines and cell_len(lines[-1].plain) + 2 + cell_len(piece.plain) <= self.room:
                lines[-1] = lines[-1] + Text("  ") + piece
            else:
                lines.append(piece.copy())
        return lines or [Text("")]

    def _bar(self, share: float, longest: int = LONGEST_BAR) -> Text:
        width = max(4, min(longest, self.room // 2))
        full = round(width * min(1.0, max(0.0, share)))
        done, rest = (ASCII_FULL, ASCII_EMPTY) if self.ascii else (FULL, EMPTY)
        return Text(done * full, style="green") + Text(rest * (width - full), style="dim")

    # -- rows ----------------------------------------------------------------

    def _trials(self) -> list[Text]:
        states, found = self.state.trial_states, self.tally.limits(self.state)
        pieces = [Text(self.tally.done(self.state), style="bold")]
        pieces += [Text(str(limit), style="bold") for limit in found if limit.kind != "trials"]
        if found:
            pieces.insert(0, self._bar(found[0].share))
        for word in ("running", "paused", "asked", "failed"):
            if states[word]:
                style = "red" if word == "failed" else ""
                pieces.append(Text(f"{states[word]} {word}", style=style))
        return self._packed(pieces)

    def _best(self) -> list[Text]:
        best = self.tally.newest or self.tally.best
        assert best is not None
        lines = self._packed(
            [
                Text(one_line(self.tally.loss_words(best)), style="bold green"),
                Text(f"trial {best.id}"),
                *([self._history(None, LONGEST_SPARK)] if self.point else []),
            ]
        )
        if self.point:
            values = [f"{k} = {value_text(v)}" for k, v in best.point.items()]
            lines += self._packed([Text(one_line(v)) for v in values])[: self.point]
        return lines

    def _history(self, segment: str | None, longest: int) -> Text:
        """The best loss so far, trial by trial, as a sparkline."""
        steps = self.tally.improvements.get(segment, [])
        width = min(longest, max(8, self.room // 2))
        if not steps:
            return Text("")
        values = list(sampled(steps, self.tally.with_loss[segment], width))
        return Text(sparkline(values, ASCII_BARS if self.ascii else BARS), style="cyan")

    def _segmented(self) -> bool:
        return "segments" in self.tally.study or any(n is not None for n in self.state.segments)

    def _segments(self) -> list[Text]:
        records = self.state.segments
        known = len(self.tally.known_segments(self.state))
        pieces = [Text(f"{sum(1 for r in records.values() if r.asked)} of {known} begun")]
        with_best = sum(1 for r in records.values() if r.completed)
        pieces.append(Text(f"{with_best} with a best point"))
        if failed := sum(1 for r in records.values() if r.problem is not None):
            pieces.append(Text(f"{failed} cannot run", style="red"))
        lines = self._packed(pieces)
        chosen = chosen_segments(self.tally, self.state, self.segments)
        names = [len(one_line(str(name))) for name, _ in chosen]
        longest = min(max(names, default=0), max(10, self.room // 3))
        return lines + [self._segment(name, why, longest) for name, why in chosen]

    def _segment(self, name: str | None, why: str, longest: int) -> Text:
        record = self.state.segments[name]
        line = self._cut(Text(one_line(str(name))), longest)
        line.pad_right(longest - cell_len(line.plain))
        line = Text(f"{why:<7} ", style=WHY_STYLE[why]) + line
        line += Text(f" {record.ended:>4}/{self.tally.budget_of(self.state, name) or '':<4}")
        best = self.state.best_of(name, self.tally.sign)
        if best is not None:
            line += Text(f" {value_text(best.loss):>11} ", style="bold")
            line += self._history(name, 12 if self.room >= 60 else 0) if self.room >= 60 else ""
        if record.failed:
            line += Text(f" {record.failed} failed", style="red")
        if record.problem is not None:
            line += Text(f" {one_line(record.problem)}", style="red")
        return line

    def _workers(self) -> list[Text]:
        connected = self.scene.capacity.connected
        busy = min(self.state.trial_states["running"], connected)
        pieces = [Text(f"{busy} of {connected} busy", style="bold" if busy else "")]
        if connected:
            pieces.insert(0, self._bar(busy / connected))
        allocated = sum(b.allocated_s(self._until(b)) for b in self.state.blocks.values())
        if allocated and self.state.busy_s:
            share = min(1.0, self.state.busy_s / allocated)
            pieces.append(Text(f"{share:.0%} of their time used", style="dim"))
        return self._packed(pieces)

    def _until(self, block: BlockRecord) -> float:
        return min(self.tally.now(), block.deadline or math.inf)

    def _blocks(self) -> list[Text]:
        live = live_blocks(self.state) if self.scene.steered else []
        running = [b for b in live if b.state == "running"]
        counts = {
            "running": len(running),
            "waiting": len(live) - len(running),
            "ended": len(self.state.blocks) - len(live),
        }
        pieces = [Text(f"{n} {word}") for word, n in counts.items() if n or word == "running"]
        lines = self._packed(pieces)
        shown = live[: self.blocks]
        width = max((len(b.id) for b in shown), default=0)
        lines += [self._block(b, width) for b in shown]
        if self.blocks and len(live) > len(shown):
            lines.append(Text(f"... {len(live) - len(shown)} more", style="dim"))
        return lines

    def _block(self, block: BlockRecord, width: int) -> Text:
        now = self.tally.now()
        line = Text(block.id.ljust(width) + "  ")
        if block.state != "running":
            waited = duration(max(0.0, now - (block.requested or now)))
            return line + Text(f"waiting for {waited}{self._job(block)}", style="yellow")
        if block.deadline is None:
            return line + Text(f"no end  {block.workers} workers{self._job(block)}")
        length = max(1e-9, block.deadline - (block.started or now))
        left = max(0.0, block.deadline - now)
        line += self._bar(left / length, 12)
        return line + Text(f" {duration(left)} left  {block.workers} workers{self._job(block)}")

    def _job(self, block: BlockRecord) -> str:
        return f"  job {one_line(block.job)}" if block.job and self.room >= 60 else ""

    def _used(self) -> list[Text]:
        state, now = self.state, self.tally.now()
        hours = node_seconds(state, dict(self.tally.study), now, self.scene.steered) / 3600
        pieces = [Text(f"{hours:.1f} node-hours" if hours >= 10 else f"{hours:.2f} node-hours")]
        if state.wasted_s:
            share = state.wasted_s / state.busy_s if state.busy_s else 0.0
            pieces.append(Text(f"{share:.1%} of the work lost", style="yellow"))
        if lost := state.slice_ends["lost"]:
            pieces.append(Text(f"{lost} slice{'s' * (lost != 1)} lost", style="yellow"))
        return self._packed(pieces)

    def _time(self) -> list[Text]:
        state, now = self.state, self.tally.now()
        if not self.scene.steered:
            return [Text(f"{duration(state.elapsed_s)} of steering")]
        pieces = [Text(f"{duration(self.tally.running_s(state))} so far")]
        left = self.tally.remaining_s(state)
        if left is not None:
            pieces.append(Text(f"about {coarse(left)} to go", style="bold"))
            pieces.append(Text(f"ends about {clock_text(now + left, now)}", style="bold"))
        quiet = now - state.last_at if state.last_at is not None else 0.0
        if quiet > QUIET_S:
            pieces.append(Text(f"last event {duration(quiet)} ago", style="yellow"))
        return self._packed(pieces)

    def _errors(self) -> list[Text]:
        """The newest troubles, one line for each cause."""
        found: dict[str, Text] = {}
        for trial, record in reversed(self.state.troubles):
            _, _, message = cause_of(record)
            if len(found) < self.errors:
                text = Text(f"trial {trial}: {one_line(message)}", style="red")
                found.setdefault(message_pattern(message), text)
        return list(found.values())


def coarse(seconds: float) -> str:
    """A duration of which seconds do not matter: beyond ten minutes, whole ones."""
    return duration(round(seconds / 60) * 60 if seconds > 600 else seconds).removesuffix(" 00 s")


def clock_text(moment: float, now: float) -> str:
    """The time of day, with the day where that is another one."""
    then, today = time.localtime(moment), time.localtime(now)
    same = then[:3] == today[:3]
    if not same and moment - now > 6 * 86400:
        return time.strftime("%d %b %H:%M", then)
    return time.strftime("%H:%M" if same else "%a %H:%M", then)


def sparkline(values: Sequence[float], bars: str = BARS) -> str:
    """One character for each finite value: from the first of `bars` for the least to the last.

    Values above 0 that differ by more than LOG_RATIO are scaled by their logarithms.
    """
    low, high = min(values), max(values)
    if low > 0 and high / low > LOG_RATIO:
        values = [math.log(v) for v in values]
        low, high = min(values), max(values)
    span = high - low
    # A value's distance may overflow where its ends are near the greatest float.
    if not 0 < span < math.inf:
        return bars[0] * len(values)
    top = len(bars) - 1
    return "".join(bars[round((value - low) / span * top)] for value in values)
