"""Short ways to submit jobs in the tests of the fakes."""

from __future__ import annotations

import re
import subprocess

from tests.fakes.lsf import FakeLsf

#: Says which signals come, and ends on none of them.
STUBBORN = """
for name in USR1 USR2 INT TERM; do trap "echo $name" $name; done
echo ready
while :; do sleep 0.05; done
"""


def bsub(
    lsf: FakeLsf, body: str = "true", *options: str, lines: str = "", needed: bool = True
) -> subprocess.CompletedProcess[str]:
    """Submit a script; at Summit with the options that it demands, unless `needed` is off."""
    demanded = "#BSUB -P abc123\n#BSUB -W 60\n#BSUB -nnodes 1\n" if needed else ""
    path = lsf.folder / "job.lsf"
    path.write_text(f"#!/bin/bash\n{demanded}#BSUB -o out.%J -e err.%J\n{lines}\n{body}\n")
    return lsf.run("bsub", *options, "job.lsf")


def submit(lsf: FakeLsf, body: str = "true", *options: str, lines: str = "") -> int:
    """Submit a script that is accepted: its id."""
    done = bsub(lsf, body, *options, lines=lines)
    match = re.match(r"Job <(\d+)> is submitted to ", done.stdout)
    assert match, done.stderr
    return int(match[1])


def output(lsf: FakeLsf, job: int) -> list[str]:
    """Lines of a job's output so far, without the report."""
    path = lsf.folder / f"out.{job}"
    text = path.read_text() if path.exists() else ""
    return text.split("\n------")[0].splitlines()


def stat(lsf: FakeLsf, job: int) -> str:
    """What ``bjobs`` says of a job."""
    return lsf.run("bjobs", "-noheader", "-o", "stat", str(job)).stdout.strip()
