"""The report of a large study: its size, and what it takes to make it.

    python benchmarks/report.py [--trials 1000 10000 100000] [--json FILE]

The studies are simulated (see simulated.py): journals of trials that were never run, with 12
reports, failures and lost slices; once all run to their end, once ASHA stops most of them at their
fourth report. Measured, each in a process of its own: reading the journal, making the page's
content, writing the page, and the peak of memory. Goals at 100,000 trials: below 15 MB and below
60 s.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine, write_result
from simulated import Shape, write_study

from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import read_events, replay
from hpc_hpo.results.report.content import content
from hpc_hpo.results.report.material import Material
from hpc_hpo.results.report.page import render
from hpc_hpo.study import load_study
from hpc_hpo.version import __version__


def measure(folder: Path) -> dict[str, Any]:
    """The figures of one report, made in this process."""
    home = StudyFolder(folder)
    begun = time.perf_counter()
    study = load_study(home.study).to_dict()
    state = replay(read_events(home.journal))
    read = time.perf_counter()
    found = content(Material(home, study, state, time.time()))
    made = time.perf_counter()
    page = render(found | {"version": __version__}).encode()
    (folder / "report.html").write_bytes(page)
    return {
        "trials": len(state.trials),
        "stopped_early": state.trial_states["stopped"],
        "slices": sum(state.slice_ends.values()),
        "journal_mb": home.journal.stat().st_size / 1e6,
        "read_s": read - begun,
        "content_s": made - read,
        "page_s": time.perf_counter() - made,
        "total_s": time.perf_counter() - begun,
        "page_mb": len(page) / 1e6,
        "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--json")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measure(options.folder)))
        return
    facts, rows = machine(), []
    for trials, rung in itertools.product(options.trials, (0, 4)):
        with tempfile.TemporaryDirectory() as scratch:
            nodes = max(1, trials // 1000)
            shape = Shape(trials, steps=12, rung=rung, blocks=16, nodes=nodes)
            write_study(Path(scratch), shape)
            command = [sys.executable, __file__, "--folder", scratch]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    print(" trials  stopped   slices  journal MB  read s  content s  total s  page MB  peak MB")
    for row in rows:
        print(
            f"{row['trials']:7d}  {row['stopped_early']:7d}  {row['slices']:7d}"
            f"  {row['journal_mb']:10.1f}  {row['read_s']:6.1f}  {row['content_s']:9.1f}"
            f"  {row['total_s']:7.1f}  {row['page_mb']:7.1f}  {row['max_rss_mb']:7.0f}"
        )
    write_result(options.json, {"machine": facts, "rows": rows})


if __name__ == "__main__":
    main()
