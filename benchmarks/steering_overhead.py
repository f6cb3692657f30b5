"""What the steering costs: no-op trials a second beside Parsl's own no-op tasks.

    python benchmarks/steering_overhead.py [--trials 4000] [--rounds 3] [--json FILE]

Each round runs, in turn and on the same two workers: a study of no-op trials through the whole
stack (ask, journal, spool, a process of its own for the payload, tell), and the same number of
no-op tasks through plain Parsl, by its apps (the DataFlowKernel, as its users write it) and by
`executor.submit` (its lowest level). Rates are taken between the first and the last result, so
that neither pays for starting its workers. Goals: at least 0.7 of Parsl's apps; under 15
CPU-seconds of the steering process for 1,000 trials.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import machine, run_study, write_result

OBJECTIVE = "def noop(config):\n    return config['x']\n"


def ours(trials: int, folder: Path) -> tuple[float, float]:
    """(trials/s, steering CPU-seconds for 1,000 trials)."""
    spec = {
        "name": "noop",
        "objective": "objective.py:noop",
        "space": {"x": {"float": [0.0, 1.0]}},
        "optimizer": "random",
        "budget": {"trials": trials},
        "blocks": {"workers_per_node": 2},
    }
    state = run_study(folder, spec, OBJECTIVE).state
    assert state.trial_states["completed"] == trials
    ends = sorted(t.slices[-1].ended or 0.0 for t in state.trials.values())
    return (trials - 1) / (ends[-1] - ends[0]), 1000 * state.steering_cpu_s / trials


def parsl_noop() -> int:
    """The same work as the objective's."""
    return 0


def parsl_rates(tasks: int, folder: Path) -> tuple[float, float]:
    """Plain Parsl's tasks/s through its apps and through executor.submit."""
    # Plain Parsl finds its interchange and its worker pool on the PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    import parsl
    from parsl import python_app
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        label="plain", address="127.0.0.1", max_workers_per_node=2, cores_per_worker=1e-3,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )  # fmt: skip
    with parsl.load(Config(executors=[executor], run_dir=str(folder), strategy="none")):
        app = python_app(parsl_noop)
        app().result()
        begun = time.perf_counter()
        for future in [app() for _ in range(tasks)]:
            future.result()
        apps = tasks / (time.perf_counter() - begun)
        begun = time.perf_counter()
        for future in [executor.submit(parsl_noop, {}) for _ in range(tasks)]:
            future.result()
        direct = tasks / (time.perf_counter() - begun)
    return apps, direct


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    options = parser.parse_args()
    facts = machine()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.rounds):
            rate, cpu = ours(options.trials, Path(scratch) / f"ours{number}")
            apps, direct = parsl_rates(options.trials, Path(scratch) / f"parsl{number}")
            rows.append({"trials_s": rate, "apps_s": apps, "submit_s": direct, "cpu_s": cpu})
    print("round  hpc_hpo trials/s  Parsl apps/s  Parsl submit/s  of apps  of submit  CPU s/1000")
    for number, row in enumerate(rows):
        print(
            f"{number:5d}  {row['trials_s']:16.0f}  {row['apps_s']:12.0f}"
            f"  {row['submit_s']:14.0f}  {row['trials_s'] / row['apps_s']:7.2f}"
            f"  {row['trials_s'] / row['submit_s']:9.2f}  {row['cpu_s']:10.2f}"
        )
    median = statistics.median
    result = {
        "machine": facts,
        "trials": options.trials,
        "rounds": rows,
        "of_parsl_apps": median(r["trials_s"] / r["apps_s"] for r in rows),
        "of_parsl_submit": median(r["trials_s"] / r["submit_s"] for r in rows),
        "steering_cpu_s_per_1000": median(r["cpu_s"] for r in rows),
    }
    print(
        f"median: {result['of_parsl_apps']:.2f} of Parsl's apps (goal 0.7), "
        f"{result['of_parsl_submit']:.2f} of its executor.submit, "
        f"{result['steering_cpu_s_per_1000']:.2f} CPU s for 1,000 trials (goal 15)"
    )
    write_result(options.json, result)


if __name__ == "__main__":
    main()
