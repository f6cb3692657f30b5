"""Early stopping: how many epochs until a study has what full training of all its trials reaches.

    python benchmarks/fidelity.py [--problems digits,hartmann6,hartmann6-noisy] [--workers 1,16,64]
        [--seeds 5] [--only auto/asha,...] [--again auto/asha,...] [--curves digits_curves.npz]
        [--runs fidelity.jsonl] [--limit 60] [--jobs 1] [--json FILE]

Full training runs a number of trials for 81 epochs each; its best loss is the target. With the
same optimiser and seed, a policy with rungs at 1, 3, 9 and 27 begins as many trials as it likes,
until one that trained for all 81 epochs is as good, or has used the same number of epochs. Real
steering loop, optimisers, ready queue and policies, in virtual time, over asynchronous workers that
take unequal times for an epoch. Optuna's pruners (extra `peers`) have the same workers.

Printed for each problem, number of workers and method, with standard errors over seeds:

    epochs     to the target, as a share of full training's; a run that did not get there counts 1
    reached    runs that got there
    strict     the same epochs, as a share of those after which full training itself was there
    time       workers' time to the target, as a share of full training's
    random     epochs to what full training of random points reaches, as a share: one target for all

Goal: at most 0.3 in `epochs` for asha. Every run is a line of the file of runs, and what stands
there is not run again. A run that computes for longer than --limit seconds is given up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # matrices are small: threads only spin

import numpy as np  # noqa: E402
from common import machine, read_runs, write_result  # noqa: E402
from fidelity_problems import MOST, Curves, digits, problems, rank_agreement  # noqa: E402
from fidelity_runs import Course, Limits, TooSlow, optuna_runs, ours  # noqa: E402

PACKAGES = ("numpy", "scikit-learn", "scikit-optimize", "optuna")
#: Trials of full training, by workers.
TRIALS = {1: 81, 16: 81, 64: 256}
#: optimiser -> policies; the first is what the others are compared with.
METHODS = {
    "random": ("full", "asha", "hyperband", "median"),
    "tpe": ("full", "asha", "hyperband", "median"),
    "auto": ("full", "asha", "hyperband", "median"),
    "Optuna random": ("full", "SHA", "Hyperband", "median"),
    "Optuna TPE": ("full", "SHA", "Hyperband", "median"),
}
NAMES = [f"{optimizer}/{policy}" for optimizer, found in METHODS.items() for policy in found]
BASE = "random/full"
Cell = tuple[str, int, int]


@cache
def _curves(name: str, file: Path) -> Curves:
    return problems(file)[name]()


def run(cell: Cell, method: str, target: float, file: Path, limit: float) -> dict[str, Any]:
    """One run as a line of the file.

    Args:
        cell: problem, workers, seed.
        target: where it may end; -infinity for full training.
        file: of the trained curves.
    """
    name, workers, seed = cell
    optimizer, policy = method.rsplit("/", 1)
    count = TRIALS[workers]
    most = count * MOST
    limits = Limits(count if policy == "full" else most, target, most, limit)
    row: dict[str, Any] = {"problem": name, "workers": workers, "seed": seed, "method": method}
    curves, begun = _curves(name, file), time.process_time()
    try:
        if optimizer.startswith("Optuna"):
            course = optuna_runs(curves, optimizer.split()[1], policy, workers, seed, limits)
        else:
            course = ours(curves, optimizer, policy, workers, seed, limits)
    except ImportError as error:
        return {**row, "missing": str(error)}
    except TooSlow as slow:
        return {**row, "given_up_at": slow.epochs, "limit_s": limit}
    return {**row, **plain(course), "cpu_s": time.process_time() - begun}


def plain(course: Course) -> dict[str, Any]:
    """As JSON has it."""
    best = [[float(value) for value in entry] for entry in course.best]
    return {"best": best, "epochs": float(course.epochs), "worker_s": float(course.worker_s),
            "begun": course.begun, "whole": course.whole}  # fmt: skip


def first_at(row: dict[str, Any], target: float) -> tuple[float, float] | None:
    """Epochs and worker-seconds after which a run was at the target; None: it never was."""
    return next(((e, s) for e, s, loss in row["best"] if loss <= target), None)


def run_cell(
    cell: Cell,
    methods: list[str],
    known: dict[str, dict[str, Any]],
    file: Path,
    limit: float,
    runs: Path,
) -> None:
    """Append the runs of a problem, a number of workers and a seed that are not known."""
    rows = dict(known)
    for method in sorted(methods, key=lambda m: (not m.endswith("/full"), m != BASE)):
        if method in rows:
            continue
        target = -math.inf
        if not method.endswith("/full"):
            wholes = [rows.get(name, {}) for name in (BASE, method.rsplit("/", 1)[0] + "/full")]
            found = [row["best"][-1][2] for row in wholes if row.get("best")]
            if len(found) < len(wholes):
                continue
            target = min(found)
        rows[method] = run(cell, method, target, file, limit)
        with runs.open("a") as lines:
            lines.write(json.dumps(rows[method]) + "\n")


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method of one problem and one number of workers."""
    by = {(row["method"], row["seed"]): row for row in rows if "best" in row}
    table = []
    for method in NAMES:
        whole = method.rsplit("/", 1)[0] + "/full"
        seeds = [s for m, s in by if m == method and (whole, s) in by and (BASE, s) in by]
        if not seeds:
            continue
        shares, strict, times, random = [], [0.0, 0.0], [], []
        for seed in seeds:
            mine, full, base = by[method, seed], by[whole, seed], by[BASE, seed]
            target = full["best"][-1][2]
            there, at = first_at(full, target), first_at(mine, target)
            assert there is not None, "it is its own best"
            shares.append(min(1.0, at[0] / full["epochs"]) if at else 1.0)
            times.append(min(1.0, at[1] / full["worker_s"]) if at else 1.0)
            strict[0] += at[0] if at else full["epochs"]
            strict[1] += there[0]
            common = first_at(mine, base["best"][-1][2])
            random.append(min(1.0, common[0] / base["epochs"]) if common else 1.0)
        reached = sum(
            first_at(by[method, s], by[whole, s]["best"][-1][2]) is not None for s in seeds
        )
        entry: dict[str, Any] = {"method": method, "seeds": len(seeds), "reached": reached}
        for key, values in (("epochs", shares), ("time", times), ("random", random)):
            entry[key], entry[f"{key}_error"] = mean_and_error(values)
        entry["strict"] = strict[0] / strict[1]
        entry["cpu_s"] = float(np.mean([by[method, s]["cpu_s"] for s in seeds]))
        table.append(entry)
    return table


def report(name: str, workers: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print the table of one problem and one number of workers, and return it."""
    rows = [row for row in rows if (row["problem"], row["workers"]) == (name, workers)]
    table = summarise(rows)
    print(
        f"\n{name}: {workers} workers, {TRIALS[workers]} trials of {MOST} epochs in full training"
    )
    print(
        "method                   epochs      reached  strict      time          random     CPU s"
    )
    for row in table:
        print(
            f"{row['method']:22s} {row['epochs']:5.3f} +- {row['epochs_error']:5.3f}"
            f"  {row['reached']:2d}/{row['seeds']:<2d}  {row['strict']:6.2f}"
            f"  {row['time']:5.3f} +- {row['time_error']:5.3f}"
            f"  {row['random']:5.3f} +- {row['random_error']:5.3f}  {row['cpu_s']:6.1f}"
        )
    for row in rows:
        if "given_up_at" in row:
            print(f"{row['method']}, seed {row['seed']}: given up after {row['limit_s']:.0f} s of "
                  f"CPU, at {row['given_up_at']:.0f} epochs")  # fmt: skip
    for missing in sorted({row["missing"] for row in rows if "missing" in row}):
        print(missing)
    return [{"problem": name, "workers": workers, **row} for row in table]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", default="digits,hartmann6,hartmann6-noisy")
    parser.add_argument("--workers", default="1,16,64")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default=",".join(NAMES), help="methods")
    parser.add_argument("--again", default="", help="methods whose runs are forgotten")
    parser.add_argument("--curves", default="digits_curves.npz", type=Path)
    parser.add_argument("--runs", default="fidelity.jsonl", type=Path)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of CPU for one run")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json")
    options = parser.parse_args()
    valid = {"problems": problems(options.curves), "only": NAMES, "again": NAMES,
             "workers": {str(n): n for n in TRIALS}}  # fmt: skip
    for name, known in valid.items():
        values = [value for value in getattr(options, name).split(",") if value]
        for value in values:
            if value not in known:
                parser.error(f"--{name}: {value!r} is none of {', '.join(known)}")
        setattr(options, name, values)
    options.workers = [int(n) for n in options.workers]
    # All are compared with full training.
    needed = {BASE, *(method.rsplit("/", 1)[0] + "/full" for method in options.only)}
    options.only = [name for name in NAMES if name in {*options.only, *needed}]
    return options


def main() -> None:
    """Run what is missing, print the tables, save the JSON."""
    options = _parse()
    rows = read_runs(options.runs, "method", options.again)
    if "digits" in options.problems:
        digits(options.curves)
    cells = [
        (name, workers, seed)
        for seed, name, workers in itertools.product(
            range(options.seeds), options.problems, options.workers
        )
    ]
    known: dict[Cell, dict[str, dict[str, Any]]] = {}
    for row in rows:
        known.setdefault(_cell_of(row), {})[row["method"]] = row
    with ProcessPoolExecutor(options.jobs) as pool:
        work = partial(run_cell, file=options.curves, limit=options.limit, runs=options.runs)
        for _ in pool.map(
            work, cells, itertools.repeat(options.only), [known.get(c, {}) for c in cells]
        ):
            pass
    rows = read_runs(options.runs, "method", [])
    agreement = {
        name: {epoch: rank_agreement(_curves(name, options.curves), epoch) for epoch in (1, 9, 27)}
        for name in options.problems
    }
    for name, values in agreement.items():
        words = ", ".join(f"{value:.2f} after {epoch}" for epoch, value in values.items())
        print(f"{name}: rank correlation with the loss of full training: {words}")
    wanted = [row for row in rows if _cell_of(row) in set(cells) and row["method"] in options.only]
    tables = [
        row
        for name, workers in itertools.product(options.problems, options.workers)
        for row in report(name, workers, wanted)
    ]
    write_result(
        options.json,
        {"machine": machine(PACKAGES), "rank_correlation": agreement, "tables": tables},
    )


def _cell_of(row: dict[str, Any]) -> Cell:
    return row["problem"], row["workers"], row["seed"]


if __name__ == "__main__":
    main()
