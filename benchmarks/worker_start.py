"""Files that a node opens until its first slice, and the seconds it takes.

    python benchmarks/worker_start.py [--workers 2] [--json FILE]

On a parallel file system each file that a start opens is a request to a server that thousands of
nodes ask at once. `strace` counts what was opened with success between the start of a block's
supervisor and the first line of the objective, for each process of the node: different files, and
opens in all. Beside it, in the same run, what Python and Parsl open by themselves: an empty Python,
and Parsl's own worker pool (2026.10.26, as its HighThroughputExecutor starts it) up to the first
line of its first task. Parsl's logs and keys count as Parsl's, in whichever folder they are.
Goal: at most 50 files beyond those. Needs strace (Debian: strace).
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parsl
from common import machine, run_study, write_result

import hpc_hpo

GOAL = 50
#: What the first slice and Parsl's first task open: the end of the count.
MARK = "first-slice-has-begun"
#: A program of the measurement itself.
TRACED = "traced-python"
OBJECTIVE = f"""
import os, time
def train(config):
    open(os.path.join(os.environ["MARKED"], "{MARK}"), "w").close()
    return config["x"]
"""
#: Parsl by itself, with a worker pool like ours.
PLAIN = """
import os, sys, time
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import WrappedLauncher
from parsl.providers import LocalProvider

def task():
    import os
    open(os.environ["MARKED"] + "/@", "w").close()

provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1,
                         launcher=WrappedLauncher(prepend=sys.argv[1]))
parsl.load(Config(run_dir=sys.argv[2], usage_tracking=0, executors=[HighThroughputExecutor(
    address="127.0.0.1", max_workers_per_node=int(sys.argv[3]), cores_per_worker=1e-3,
    encrypted=True, provider=provider)]))
parsl.python_app(task)().result()
parsl.dfk().cleanup()
"""
_OPEN = re.compile(r'^(\d+) +(\d+\.\d+) (?:openat|open)\([^"]*"((?:[^"\\]|\\.)*)"(.*)= \d')
_MOMENT = re.compile(r"^\d+ +(\d+\.\d+) ")
#: No files of a file system that others share. Temporary ones are the node's own, but for those
#: in the folder of this measurement, which stands for the study's.
_LOCAL = ("/proc/", "/sys/", "/dev/", "/etc/", "/run/", f"{tempfile.gettempdir()}/")
#: What Parsl writes for itself, with other paths in each run.
_PARSL_S = re.compile(r".*/(manager\.log|worker_\d+\.log|[^/]*\.key|[^/]*\.key_secret)$")


def opened(trace: Path, home: Path) -> tuple[list[str], float]:
    """(files that were opened until the mark, seconds until then). Folders are no files.

    Args:
        home: the folder of this measurement.
    """
    found: list[str] = []
    first: float | None = None
    for line in _lines(trace):
        moment = _MOMENT.match(line)
        if moment is not None and first is None:
            first = float(moment[1])
        match = _OPEN.match(line)
        if match is None:
            continue
        if MARK in match[3]:
            return found, float(match[2]) - (first or 0.0)
        if "O_DIRECTORY" in match[4]:
            continue
        path = match[3]
        if path.startswith(f"{home}{os.sep}"):
            if parsl_s := _PARSL_S.match(path):
                found.append(f"Parsl's {re.sub('[0-9]+', 'N', parsl_s[1])}")
            elif not path.endswith(TRACED):
                found.append(path)
        elif not path.startswith(_LOCAL):
            found.append(path)
    raise RuntimeError(f"{trace}: the first slice never began")


def _lines(trace: Path) -> Iterator[str]:
    """The trace's lines in order; an open that was interrupted is put together again."""
    begun: dict[str, str] = {}
    with open(trace, errors="replace") as stream:
        for line in stream:
            pid = line.partition(" ")[0]
            if line.rstrip().endswith("<unfinished ...>"):
                begun[pid] = line.rstrip().removesuffix("<unfinished ...>")
            elif "resumed>" in line and pid in begun:
                yield begun.pop(pid) + line.partition("resumed>")[2]
            else:
                yield line


def strace(trace: Path) -> list[str]:
    """The words before a command whose opens are to be written down."""
    return ["strace", "-f", "-qq", "-ttt", "-s", "300", "-e", "trace=open,openat",
            "-e", "status=successful", "-o", str(trace)]  # fmt: skip


def traced_python(folder: Path, trace: Path) -> Path:
    """A program that is this Python under strace, where it is the first."""
    program = folder / TRACED
    line = " ".join(strace(trace))
    program.write_text(
        "#!/bin/sh\n"
        # The supervisor alone is started under strace, which follows all that it starts.
        f'case "$*" in *hpc_hpo.worker.block*) exec {line} {sys.executable} "$@";; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    program.chmod(0o755)
    return program


def ours(folder: Path, workers: int, network: str) -> Path:
    """Run a small study; the trace of its node."""
    trace = folder / "ours.strace"
    folder.mkdir()
    (folder / "site.yaml").write_text(
        f"name: traced\nextends: local\npython: {traced_python(folder, trace)}\n"
        "heartbeat: {period: 2s, threshold: 60s}\n"
    )
    spec: dict[str, Any] = {
        "name": "start",
        "objective": "objective.py:train",
        "space": {"x": {"float": [0.0, 1.0]}},
        "optimizer": "random",
        "budget": {"trials": workers},
        "network": network,
        "env": {"MARKED": str(folder)},
        "site": str(folder / "site.yaml"),
        "blocks": {"workers_per_node": workers},
    }
    run_study(folder / "study", spec, OBJECTIVE)
    return trace


def plain(folder: Path, workers: int) -> Path:
    """Run one task by Parsl alone; the trace of its worker pool."""
    trace = folder / "plain.strace"
    folder.mkdir()
    (folder / "plain.py").write_text(PLAIN.replace("@", MARK))
    subprocess.run(
        [sys.executable, "plain.py", " ".join(strace(trace)), str(folder / "runs"), str(workers)],
        cwd=folder, check=True, timeout=120,
        env={**os.environ, "MARKED": str(folder),
             "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    return trace


def empty(folder: Path) -> Path:
    """The trace of a Python that does nothing."""
    trace = folder / "empty.strace"
    folder.mkdir()
    code = f"open({str(folder / MARK)!r}, 'w')"
    subprocess.run([*strace(trace), sys.executable, "-c", code], check=True)
    return trace


def main() -> None:
    """Measure, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="workers on the node")
    parser.add_argument(
        "--list", action="store_true", help="name the files beyond Python's and Parsl's"
    )
    parser.add_argument("--json")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("needs strace: apt-get install strace")
    # As installed: with bytecode.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for package in (hpc_hpo, parsl):
        compileall.compile_dir(str(Path(package.__file__ or "").parent), quiet=2)
    facts = machine()
    rows: dict[str, tuple[list[str], float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        # Python looks into the folder that it starts in, and a checkout holds more than a user's.
        os.chdir(home)
        rows["an empty Python"] = opened(empty(home / "a"), home)
        rows["Parsl's worker pool"] = opened(plain(home / "b", options.workers), home)
        rows["hpc_hpo"] = opened(ours(home / "c", options.workers, "allow"), home)
        rows["hpc_hpo, network: deny"] = opened(ours(home / "d", options.workers, "deny"), home)
    known = set(rows["an empty Python"][0]) | set(rows["Parsl's worker pool"][0])
    print(f"{'until the first slice or task':30s}  files  opens  beyond  seconds")
    result: dict[str, Any] = {"machine": facts, "workers": options.workers, "at": time.time()}
    for name, (paths, seconds) in rows.items():
        beyond = sorted(set(paths) - known)
        result[name] = {"files": len(set(paths)), "opens": len(paths), "beyond": len(beyond),
                        "seconds": seconds}  # fmt: skip
        counts = f"{len(set(paths)):5d}  {len(paths):5d}  {len(beyond):6d}"
        print(f"{name:30s}  {counts}  {seconds:7.2f}")
        if options.list and beyond:
            print("\n".join(f"    {path}" for path in beyond))
    write_result(options.json, result)
    worst = max(result[name]["beyond"] for name in rows)
    print(f"goal: at most {GOAL} files beyond; {'reached' if worst <= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
