"""A study into a store of MLflow: in batches, beside value by value.

    python benchmarks/mlflow_export.py [--trials 500 5000] [--naive 20] [--ways sqlite naive]

The studies are simulated (see simulated.py). Measured, each in a process of its own and from a
replayed journal on: the export into a new database, the same again (nothing is new), and into a
store of plain files. Beside it, for some trials of the same study, what one would write by hand: a
run for each, then log_param, log_metric and set_tag for every value. Goal: minutes for 5,000
trials.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine, write_result
from simulated import Shape, write_study

from hpc_hpo.results.mlflow.export import MlflowExport
from hpc_hpo.results.mlflow.records import trial_record
from hpc_hpo.results.view import open_study
from hpc_hpo.study.stores import read_store

WAYS = ("sqlite", "again", "files", "naive")


def measure(way: str, folder: Path, some: int) -> dict[str, Any]:
    """Seconds of one way, made in this process; importing MLflow and making tables included.

    Args:
        some: so many trials are written by the naive way.
    """
    view = open_study(folder)
    begun = time.perf_counter()
    if way == "naive":
        values = naive(folder, some)
        return {"way": way, "trials": some, "values": values, "s": time.perf_counter() - begun}
    name = f"file:{folder}/mlruns" if way == "files" else "all.db"
    found = MlflowExport(view, read_store(name, folder, "")).write()
    seconds = time.perf_counter() - begun
    records = [trial_record(trial, view.folder, 0.0) for trial in view.state.trials.values()]
    values = sum(len(r.metrics) + len(r.params) + len(r.tags) for r in records)
    return {"way": way, "trials": len(records), "values": values, "s": seconds, **found.runs}


def naive(folder: Path, some: int) -> int:
    """The same values one by one, through the same client; how many."""
    from mlflow import MlflowClient

    view = open_study(folder)
    client = MlflowClient(f"sqlite:///{folder}/naive.db")
    experiment, values = client.create_experiment("naive", f"{folder}/naive"), 0
    for number in sorted(view.state.trials)[:some]:
        record = trial_record(view.state.trials[number], view.folder, 0.0)
        run = client.create_run(experiment, start_time=record.began).info.run_id
        for name, value in record.params.items():
            client.log_param(run, name, value)
        for metric in record.metrics:
            client.log_metric(run, metric.key, metric.value, metric.at, metric.step)
        for name, value in record.tags.items():
            client.set_tag(run, name, value)
        for name, text in record.texts.items():
            client.log_text(run, text, name)
        client.set_terminated(run, record.status, record.ended)
        values += len(record.params) + len(record.metrics) + len(record.tags)
    return values


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--reports", type=int, default=12, help="of a whole trial")
    parser.add_argument("--naive", type=int, default=20, help="trials of the naive way")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--json")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measure(options.way, options.folder, options.naive)))
        return
    facts, rows = machine(["mlflow-skinny", "sqlalchemy"]), []
    print(f"{'way':12}  trials  values    total s  ms/trial", flush=True)
    for trials in options.trials:
        with tempfile.TemporaryDirectory() as scratch:
            steps = options.reports
            write_study(Path(scratch), Shape(trials, steps=steps, rung=max(1, steps // 4)))
            for way in options.ways:
                command = [sys.executable, __file__, "--folder", scratch, "--way", way]
                command += ["--naive", str(min(options.naive, trials))]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                row = json.loads(done.stdout)
                rows.append({**row, "of": trials})
                each = 1000 * row["s"] / row["trials"]
                print(
                    f"{way:12}  {row['trials']:6d}  {row['values']:6d}  {row['s']:9.1f}"
                    f"  {each:8.1f}",
                    flush=True,
                )
    write_result(options.json, {"machine": facts, "rows": rows})


if __name__ == "__main__":
    main()
