"""What an ask costs with few and with many segments.

    python benchmarks/segments.py [--asks 20000] [--learned 200] [--json FILE]

The real steering loop, journal and optimisers run with a pilot that returns a loss at once, so
that nothing but steering is measured: a turn, an ask, its events in the journal, the request, the
outcome, the tell. Three tables:

- whole studies with `optimizer: random`: 10 segments x 1,000 points, 300 x 100 and 10,000 x 10
  from the first to the last trial, and asks/s in stretches, to see whether they grow dearer;
- asks/s of 10, 300 and 10,000 segments in the middle of their budgets, `random`, one free worker;
- the same with the default optimiser: the first points that it asks by a model, one of each
  segment after 5 losses (later ones share what it has learned, with few segments and with many).

Goal: asks/s at 10, 300 and 10,000 segments within a factor of 2.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from common import machine, write_result

from hpc_hpo.clock import SystemClock
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import Journal, read_events, replay
from hpc_hpo.model import SliceOutcome, SliceRequest
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.prestage.manifest import Manifest
from hpc_hpo.steering.loop import Steering
from hpc_hpo.steering.opening import Opening
from hpc_hpo.steering.terms import Terms
from hpc_hpo.study import load_study

COUNTS = (10, 300, 10_000)
SPACE = {
    "lr": {"float": [1e-5, 1e-1], "log": True},
    "latent": {"int": [10, 200]},
    "depth": {"int": [1, 6]},
    "dropout": {"float": [0.0, 0.5]},
    "activation": {"choice": ["relu", "tanh", "gelu"]},
}


def execute(request: SliceRequest) -> SliceOutcome:
    """A trial that takes no time."""
    point = request["point"]
    loss = (point["dropout"] - 0.2) ** 2 + abs(point["depth"] - 3) + point["lr"]
    return SliceOutcome(
        run=request["run"], trial=request["trial"], slice=1, end="completed", loss=loss,
        started=0.0, ended=60.0,
    )  # fmt: skip


class Bench:
    """One study of many segments in a folder; each `run` is a steering process."""

    def __init__(self, folder: Path, segments: int, trials: int) -> None:
        folder.mkdir()
        self.folder = StudyFolder(folder)
        self.segments, self.trials = segments, trials

    def run(self, optimizer: str, workers: int, asks: int, trials: int) -> dict[str, Any]:
        """Steer until `asks` more points were asked, or all were; the figures of that run."""
        spec = {
            "name": "many",
            "objective": "objective.py:train",
            "space": SPACE,
            "optimizer": optimizer,
            "budget": {"trials": trials},
            "segments": {"table": {"eta": f"0..{self.segments - 1}"}},
        }
        file = self.folder.path / "study.yaml"
        file.write_text(yaml.safe_dump(spec))
        begun = time.perf_counter()
        study = load_study(file)
        state = replay(read_events(self.folder.journal))
        journal = Journal(self.folder.journal)
        number = state.runs + 1
        event = {"e": "run", "run": number, "at": time.time()}
        journal.append(event)
        state.apply(event)
        opening = Opening(study, self.folder, state, Manifest(), {}, lambda manifest: None)
        before, marks = len(state.trials), list[tuple[int, float]]()

        def stop() -> str:
            marks.append((len(state.trials) - before, time.perf_counter()))
            return "now" if marks[-1][0] >= asks else ""

        steering = Steering(
            Terms(sign=1, task="task.json"), str(self.folder.path), state, journal,
            opening.portfolio(), InlinePilot(execute, workers), SystemClock(), stop=stop,
            segment=opening.info,
        )  # fmt: skip
        opened = time.perf_counter()
        steering.run()
        journal.close()
        return {
            "segments": self.segments,
            "open_s": opened - begun,
            "asks": len(state.trials) - before,
            "run_s": time.perf_counter() - opened,
            "asks_s": (len(state.trials) - before) / (time.perf_counter() - opened),
            "stretches": stretches(marks, 4),
            "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def after_five(folder: Path, segments: int, asks: int) -> dict[str, Any]:
    """The default optimiser, where each segment has 5 losses."""
    bench = Bench(folder, segments, 10)
    bench.run("random", 64, 10**9, 5)
    return bench.run("auto", 1, asks, 10)


def stretches(marks: list[tuple[int, float]], parts: int) -> list[float]:
    """Asks/s in equal parts of a run."""
    total, rates = marks[-1][0], []
    last = marks[0]
    for part in range(1, parts + 1):
        mark = next(m for m in marks if m[0] >= total * part / parts)
        if mark[1] > last[1] and mark[0] > last[0]:
            rates.append((mark[0] - last[0]) / (mark[1] - last[1]))
        last = mark
    return rates


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    print(f"\n{title}\nsegments     asks  asks/s  in stretches                  open s  peak MB")
    for row in rows:
        parts = " ".join(f"{rate:6.0f}" for rate in row["stretches"])
        print(
            f"{row['segments']:8d} {row['asks']:8d} {row['asks_s']:7.0f}  {parts:28s} "
            f"{row['open_s']:7.2f} {row['max_rss_mb']:8.0f}"
        )
    rates = [row["asks_s"] for row in rows]
    print(f"fastest by slowest: {max(rates) / min(rates):.2f}")


def main() -> None:
    """Measure, print tables, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--asks", type=int, default=3000, help="in the middle, optimizer: random")
    parser.add_argument("--learned", type=int, default=100, help="... with the default optimiser")
    parser.add_argument("--json")
    options = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as scratch:
        room = Path(scratch)
        whole = [
            Bench(room / f"whole{n}", n, t).run("random", 64, 10**9, t)
            for n, t in ((10, 1000), (300, 100), (10_000, 10))
        ]
        show("whole studies, optimizer: random, 64 workers", whole)
        middle, learned = [], []
        for count in COUNTS:
            each = max(5, -(-options.asks // count))
            bench = Bench(room / f"middle{count}", count, 2 * each)
            bench.run("random", 64, 10**9, each)
            middle.append(bench.run("random", 1, options.asks, 2 * each))
        show("in the middle, optimizer: random, one free worker at a time", middle)
        Bench(room / "imports", 1, 10).run("auto", 1, 6, 10)
        for count in COUNTS:
            rounds = [
                after_five(room / f"learned{count}-{n}", count, min(options.learned, count))
                for n in range(max(1, options.learned // count))
            ]
            asks, seconds = sum(r["asks"] for r in rounds), sum(r["run_s"] for r in rounds)
            learned.append({**rounds[-1], "asks": asks, "run_s": seconds, "asks_s": asks / seconds})
        show("after 5 losses each, the default optimiser, one free worker at a time", learned)
    write_result(
        options.json, {"machine": facts, "whole": whole, "middle": middle, "learned": learned}
    )


if __name__ == "__main__":
    main()
