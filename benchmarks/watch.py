"""What it costs to look on: `watch`, and the picture that `run` draws.

    python benchmarks/watch.py [--seconds 60] [--trials 200 100000] [--rate 150] [--json FILE]

`watch` runs as the command, in a process of its own, on a pseudo-terminal of 100 x 40 and in a
pipe, beside simulated studies (see simulated.py): of the last events, `--rate` a second are
appended to the journal as a steering process would (150 are those of 27,648 workers whose trials
last ten minutes). The screen within `run` is measured in a real study of two workers on this
machine, and in this process with the state of a large one, by the CPU time between the view's entry
and its return. The figure is CPU seconds over wall seconds, once the first picture is there; of
small studies fewer events are appended. Goal: below 1 %.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from common import machine, write_result
from simulated import Shape, events, study_spec

from hpc_hpo.cli import run as run_command
from hpc_hpo.cli.progress import LivePanel, View
from hpc_hpo.cli.tally import Tally, journal_capacity
from hpc_hpo.folder import StudyFolder, process_start
from hpc_hpo.fsio import seal
from hpc_hpo.journal import Event, StudyState

#: Keys of events that hold seconds since the epoch.
TIMES = ("at", "requested", "started", "ended", "deadline")
SIZE = (40, 100)
SLEEPER = """
import time

def train(config, trial):
    for step in range(10):
        time.sleep(0.2)
        trial.report(step + 1, loss=config["x"] / (step + 1))
    return config["x"]
"""


class Terminal:
    """A pseudo-terminal, or a pipe, that swallows what is written to it."""

    def __init__(self, terminal: bool) -> None:
        self.bytes = 0
        self.ours, self.theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
        threading.Thread(target=self._swallow, daemon=True).start()

    def _swallow(self) -> None:
        while True:
            try:
                data = os.read(self.ours, 1 << 16)
            except OSError:
                return
            if not data:
                return
            self.bytes += len(data)

    def start(self, *command: str) -> psutil.Process:
        """A process that writes to it."""
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.theirs, stderr=self.theirs,
            env={**environment, "TERM": "xterm-256color", "PYTHONUTF8": "1"},
        )  # fmt: skip
        os.close(self.theirs)
        return psutil.Process(process.pid)


def cpu_of(process: psutil.Process) -> float:
    """Seconds of CPU time so far."""
    used = process.cpu_times()
    return float(used.user + used.system)


@dataclass
class Story:
    """A simulated study, and its events in order of time but for the last."""

    shape: Shape
    events: list[Event]

    def fresh(self, tail: int) -> tuple[list[Event], list[Event]]:
        """As if it were of today: the events so far, and `tail` to come."""
        split = max(1, len(self.events) - tail)
        shift = time.time() - self.events[split - 1]["at"]
        moved = [{k: v + shift if k in TIMES else v for k, v in e.items()} for e in self.events]
        return moved[:split], moved[split:]


def write(folder: Path, shape: Shape, past: Sequence[Event]) -> StudyFolder:
    """A folder that looks as if this process steered it."""
    home = StudyFolder(folder)
    home.make()
    (folder / "objective.py").write_text("def train(config):\n    return config['lr']\n")
    home.study.write_text(yaml.safe_dump(study_spec(shape), sort_keys=False))
    with open(home.journal, "wb") as stream:
        for event in past:
            stream.write(seal(event))
    pid = os.getpid()
    holder = {"host": os.uname().nodename, "pid": pid, "process_start": process_start(pid)}
    home.holder.write_text(json.dumps(holder))
    return home


def story_of(trials: int, segments: int) -> Story:
    """One of this benchmark's studies; four blocks of four workers for each thousand trials."""
    shape = Shape(trials, steps=12, blocks=4, nodes=max(1, trials // 1000))
    if segments:
        shape.trials = trials // segments
        shape.segments = {f"s{n}": {"n": n} for n in range(segments)}
    return Story(shape, list(events(shape))[:-1])


def append(home: StudyFolder, coming: Sequence[Event], rate: float, seconds: float) -> int:
    """Append events evenly for so long; how many."""
    end, begun, done = time.monotonic() + seconds, time.monotonic(), 0
    with open(home.journal, "ab", buffering=0) as stream:
        while (now := time.monotonic()) < end:
            due = min(len(coming), int((now - begun) * rate))
            if due > done:
                stream.write(b"".join(map(seal, coming[done:due])))
                done = due
            time.sleep(0.1)
    return done


def watched(story: Story, rate: float, seconds: float, terminal: bool) -> dict[str, Any]:
    """`watch` beside a study that grows."""
    past, coming = story.fresh(int(rate * seconds))
    with tempfile.TemporaryDirectory() as scratch:
        home = write(Path(scratch) / "study", story.shape, past)
        screen = Terminal(terminal)
        begun = time.monotonic()
        looker = screen.start(
            sys.executable, "-m", "hpc_hpo.cli.main", "watch", str(home.path)
        )  # fmt: skip
        try:
            _wait_until_it_rests(looker)
            read_cpu, read_s = cpu_of(looker), time.monotonic() - begun
            wrote, before, since = screen.bytes, cpu_of(looker), time.monotonic()
            count = append(home, coming, rate, seconds)
            spent, wall = cpu_of(looker) - before, time.monotonic() - since
            memory = looker.memory_info().rss / 1e6
        finally:
            looker.terminate()
            looker.wait()
    return {
        "share": spent / wall, "events": count, "wall_s": wall, "kb": (screen.bytes - wrote) / 1e3,
        "first_cpu_s": read_cpu, "first_s": read_s, "memory_mb": memory,
    }  # fmt: skip


def _wait_until_it_rests(process: psutil.Process) -> None:
    """Until the journal has been read and a picture drawn: little CPU time in two seconds."""
    while True:
        before = cpu_of(process)
        time.sleep(2.0)
        if 0 < cpu_of(process) < before + 0.1:
            return


class Counted:
    """A view, and the CPU time that its calls take."""

    def __init__(self, view: View) -> None:
        self._view, self.cpu, self.calls = view, 0.0, 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        own = getattr(self._view, name)

        def call(*arguments: Any, **named: Any) -> None:
            begun = time.thread_time()
            own(*arguments, **named)
            self.cpu += time.thread_time() - begun
            self.calls += 1

        return call


def run_counted(study: str, result: str) -> None:
    """The command `run` with its view counted; called in a process with a terminal."""
    real, made = run_command.make_view, []

    def counted(*arguments: Any, **named: Any) -> Counted:
        made.append((Counted(real(*arguments, **named)), time.monotonic()))
        return made[0][0]

    run_command.make_view = counted  # type: ignore[assignment]
    begun = time.process_time()
    run_command.run.main([study], standalone_mode=False)
    view, since = made[0]
    figures = {
        "share": view.cpu / (time.monotonic() - since), "calls": view.calls,
        "wall_s": time.monotonic() - since, "steering_cpu_s": time.process_time() - begun,
    }  # fmt: skip
    Path(result).write_text(json.dumps(figures))


def within_run(seconds: float) -> dict[str, Any]:
    """The screen of a real `run` that lasts about so long."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "objective.py").write_text(SLEEPER)
        spec = {
            "name": "sleeper", "objective": "objective.py:train", "optimizer": "random",
            "space": {"x": {"float": [0.0, 1.0]}}, "budget": {"trials": max(4, round(seconds))},
            "blocks": {"workers_per_node": 2, "walltime": "1h"},
        }  # fmt: skip
        (folder / "study.yaml").write_text(yaml.safe_dump(spec))
        result = folder / "result.json"
        screen = Terminal(True)
        screen.start(
            sys.executable, __file__, "--run", str(folder / "study.yaml"), str(result)
        ).wait()
        figures: dict[str, Any] = json.loads(result.read_text())
        return figures


def within_large_run(story: Story, rate: float, seconds: float) -> dict[str, Any]:
    """The same view over the state of a large study, called ten times a second as it grows."""
    past, coming = story.fresh(int(rate * seconds))
    state = StudyState()
    for event in past:
        state.apply(event)
    screen = Terminal(True)
    with os.fdopen(screen.theirs, "w") as stream:
        out, sys.stdout = sys.stdout, stream
        try:
            view = Counted(LivePanel(Tally(study_spec(story.shape)), "large"))
            begun, done = time.monotonic(), 0
            view.update(state, journal_capacity(state, time.time()))
            view.cpu = 0.0
            while (now := time.monotonic()) < begun + seconds:
                due = min(len(coming), int((now - begun) * rate))
                for event in coming[done:due]:
                    state.apply(event)
                done = due
                view.update(state, journal_capacity(state, time.time()))
                time.sleep(0.1)
            wall = time.monotonic() - begun
            share = view.cpu / wall
            view.close()
        finally:
            sys.stdout = out
    return {"share": share, "events": done, "wall_s": wall, "calls": view.calls}


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--trials", type=int, nargs="+", default=[200, 100_000])
    parser.add_argument("--rate", type=float, default=150.0, help="events a second")
    parser.add_argument("--json")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_counted(*options.run)
        return
    facts, rows = machine(["rich"]), []

    def note(what: str, figures: dict[str, Any]) -> None:
        rows.append({"what": what, **figures})
        first = f"{figures['first_cpu_s']:7.1f}" if "first_cpu_s" in figures else "      -"
        print(f"{what:52s} {100 * figures['share']:7.2f} % {first}", flush=True)

    print(f"{'':52s} {'of a core':>9s} {'first s':>7s}")
    seconds, rate = options.seconds, options.rate
    for trials in options.trials:
        few = min(rate, trials / 200)
        one, many = story_of(trials, 0), story_of(trials, min(1500, trials // 10))
        note(f"watch, {trials} trials, at rest", watched(one, 0.0, seconds, True))
        note(f"watch, {trials} trials, {few:g} events/s", watched(one, few, seconds, True))
        note(f"watch, {trials} trials, {few:g} events/s, pipe", watched(one, few, seconds, False))
        text = f"{trials} trials in {len(many.shape.segments)} segments, {few:g} events/s"
        note(f"watch, {text}", watched(many, few, seconds, True))
        note(f"screen of run, {text}", within_large_run(many, few, seconds))
    note("screen of run, a real study of 2 workers", within_run(seconds))
    write_result(options.json, {"machine": facts, "rows": rows})


if __name__ == "__main__":
    main()
