"""What the benchmarks share: studies in temporary folders, and results as table and JSON."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from hpc_hpo.launch import Outcome, SteeringRun, open_study, site_of


def run_study(folder: Path, spec: dict[str, Any], objective: str) -> Outcome:
    """Write a study with its objective into `folder` and run it in this process."""
    folder.mkdir(parents=True)
    (folder / "objective.py").write_text(objective)
    (folder / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    study, home = open_study(folder / "study.yaml")
    run = SteeringRun(study, site_of(study), home)
    run.open()
    try:
        return run.steer()
    finally:
        run.close()


def read_runs(path: Path, key: str, again: Sequence[str]) -> list[dict[str, Any]]:
    """The runs that an earlier call has made, a line each; a torn last line is none.

    Args:
        key: whose value names what ran.
        again: what is to run anew; it is taken out of the file.
    """
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            print(f"{path}: a line that is no run is left out", file=sys.stderr)
            continue
        if row[key] not in again:
            rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Where and with what this was measured.

    Args:
        packages: name these versions too, where they are installed.
    """
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return {
        **found,
        "cpu_count": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "parsl": version("parsl"),
    }


def write_result(path: str | None, result: dict[str, Any]) -> None:
    """Save the numbers as JSON when a path was given."""
    if path:
        Path(path).write_text(json.dumps(result, indent=1) + "\n")
