"""What one call of ``hpc-hpo steer`` takes, Python's start included.

    python benchmarks/steer.py [--points 1000] [--runs 7] [--optimizer tpe]

A steering container is started for every call of iDDS, so the start counts. The goal is under
one second with 1,000 points in the file and the default optimiser.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPACE = {
    "lr": {"method": "loguniform", "dimension": {"low": 1e-5, "high": 1e-1, "base": 10}},
    "units": {"method": "uniformint", "dimension": {"low": 1, "high": 512}},
    "act": {"method": "categorical", "dimension": {"categories": ["relu", "tanh", "gelu"]}},
    "dropout": {"method": "quniform", "dimension": {"low": 0, "high": 0.5, "q": 0.05}},
    "beta": {"method": "uniform", "dimension": {"low": 0, "high": 1}},
    "scale": {"method": "lognormal", "dimension": {"mu": 0, "sigma": 1}},
}


def document(points: int) -> dict[str, object]:
    """A steering input with this many points, one in a hundred of them not evaluated."""
    rng = random.Random(0)
    rows = []
    for i in range(points):
        point = {
            "lr": 10 ** rng.uniform(-5, -1),
            "units": rng.randint(1, 512),
            "act": rng.choice(["relu", "tanh", "gelu"]),
            "dropout": rng.randint(0, 10) / 20,
            "beta": rng.random(),
            "scale": rng.lognormvariate(0, 1),
        }
        rows.append([point, None if i % 100 == 99 else rng.random()])
    return {"points": rows, "opt_space": SPACE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--new", type=int, default=10)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--optimizer", default="tpe")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        source, target = Path(room, "in.json"), Path(room, "out.json")
        source.write_text(json.dumps(document(options.points)))
        command = [
            *(sys.executable, "-m", "hpc_hpo.cli.main", "steer", "--in", str(source)),
            *("--out", str(target), "--num-points", str(options.new)),
            *("--max-points", str(2 * options.points), "--optimizer", options.optimizer),
        ]
        taken = []
        for _ in range(options.runs):
            begun = time.perf_counter()
            subprocess.run(command, check=True)
            taken.append(time.perf_counter() - begun)
            assert len(json.loads(target.read_text())) == options.new
    print(
        f"{options.optimizer}, {options.points} points, {options.new} new ones: median "
        f"{statistics.median(taken):.2f} s, {min(taken):.2f} to {max(taken):.2f} s "
        f"over {options.runs} runs"
    )


if __name__ == "__main__":
    main()
