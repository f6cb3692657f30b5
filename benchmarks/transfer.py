"""Whether segments gain by what similar segments learned.

    python benchmarks/transfer.py [--seeds 10] [--trials 12] [--optimizer auto] [--json FILE]

15 segments (3 particles x 5 slices in eta, as in the FastCaloGAN test of the ATLAS service) are
searched in four parameters, with `transfer` off and on, by the real steering loop; four trials run
at one time. The loss of a segment is a function whose optimum is known: a bowl with ripples, of
which the bottom moves with eta and from particle to particle. Two families:

- related: the bottom moves by a tenth of the range from slice to slice;
- unrelated: each segment has its bottom anywhere. What transfer costs where it cannot help.

The figure is the loss above the optimum, its mean over the 15 segments, after so many trials of
each; mean and standard error over the seeds, and the ratio of on to off (geometric mean).
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, write_result

from hpc_hpo.clock import SystemClock
from hpc_hpo.journal import Journal, StudyState
from hpc_hpo.model import SliceOutcome, SliceRequest
from hpc_hpo.optimizers.registry import create
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.space import Space
from hpc_hpo.steering.loop import Steering
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.search import Search
from hpc_hpo.steering.terms import Terms

PIDS, SLICES, DIMS = (22, 11, 211), 5, 4
NAMES = [f"x{i}" for i in range(DIMS)]
SPACE = Space.parse({name: {"float": [0.0, 1.0]} for name in NAMES})
VALUES = {f"pid{p}_eta{e}": {"pid": p, "eta": e} for p in PIDS for e in range(SLICES)}


def bottoms(family: str, seed: int) -> dict[str, np.ndarray]:
    """Where the optimum of each segment is, shape (DIMS,)."""
    rng = np.random.default_rng([seed, 7])
    found = {}
    for pid in PIDS:
        start, way = rng.uniform(0.2, 0.8, DIMS), rng.normal(size=DIMS)
        for eta in range(SLICES):
            place = start + 0.1 * eta * way / np.abs(way).max()
            if family == "unrelated":
                place = rng.uniform(0, 1, DIMS)
            found[f"pid{pid}_eta{eta}"] = np.clip(place, 0.0, 1.0)
    return found


def loss(x: np.ndarray, bottom: np.ndarray) -> float:
    """A bowl with ripples; 0 at the bottom."""
    away = x - bottom
    return float(np.sum(away**2) + 0.02 * np.sum(1.0 - np.cos(8 * math.pi * away)))


def regrets(family: str, seed: int, trials: int, optimizer: str, points: int) -> np.ndarray:
    """Mean over the segments of the best loss after 1, 2, ... trials of each, shape (trials,)."""
    goal = bottoms(family, seed)

    def execute(request: SliceRequest) -> SliceOutcome:
        x = np.array([request["point"][name] for name in NAMES])
        return SliceOutcome(
            run=1, trial=request["trial"], slice=1, end="completed",
            loss=loss(x, goal[request["segment"]["name"]]), started=0.0, ended=60.0,
        )  # fmt: skip

    def search(number: int, name: str) -> Search:
        return Search(
            name, trials, lambda again: create(optimizer, SPACE, 1000 * seed + number,
                                               budget=trials), values=VALUES[name],
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as room:
        state = StudyState()
        journal = Journal(Path(room) / "journal.jsonl")
        searches = Portfolio([search(*s) for s in enumerate(VALUES)], state, points=points)
        Steering(
            Terms(sign=1, task="task.json"), room, state, journal, searches,
            InlinePilot(execute, 4), SystemClock(),
        ).run()  # fmt: skip
        journal.close()
    curves = []
    for name in VALUES:
        losses = [t.loss or 0.0 for t in state.trials.values() if t.segment == name]
        curves.append(np.minimum.accumulate(losses))
    return np.mean(curves, axis=0)


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--optimizer", default="auto")
    parser.add_argument("--points", type=int, default=3, help="as segments.transfer.points")
    parser.add_argument("--families", nargs="+", default=["related", "unrelated"])
    parser.add_argument("--json")
    options = parser.parse_args()
    facts, result = machine(), dict[str, Any]()
    depths = sorted({max(1, options.trials * part // 4) for part in (1, 2, 3, 4)})
    print("family     trials of each  off                on                 on/off  better in")
    for family in options.families:
        curves = {
            points: np.array(
                [
                    regrets(family, seed, options.trials, options.optimizer, points)
                    for seed in range(options.seeds)
                ]
            )
            for points in (0, options.points)
        }
        off, on = curves[0], curves[options.points]
        result[family] = {"off": off.tolist(), "on": on.tolist()}
        for depth in depths:
            a, b = off[:, depth - 1], on[:, depth - 1]
            ratio = float(np.exp(np.mean(np.log(b / a))))
            print(
                f"{family:10s} {depth:14d}  {spread(a)}  {spread(b)}  {ratio:6.2f}"
                f"  {int(np.sum(b < a))} of {options.seeds}"
            )
    write_result(options.json, {"machine": facts, "options": vars(options), "regret": result})


def spread(values: np.ndarray) -> str:
    """Mean and standard error over the seeds."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{values.mean():.4f} +- {error:.4f}"


if __name__ == "__main__":
    main()
