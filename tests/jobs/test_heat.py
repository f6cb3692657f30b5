"""The heat solver of jobs/heat on real MPI ranks: one field, whatever the decomposition."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).resolve().parents[2] / "jobs" / "heat"
PROGRAM = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from mpi4py import MPI
from objective import Block

px, py = int(sys.argv[2]), int(sys.argv[3])
comm = MPI.COMM_WORLD
block = Block(comm, px, py)
block.measure()
block.relax(1.9, 10)
saved = {k: v.copy() if hasattr(v, "copy") else v for k, v in block.state().items()}
block.relax(1.9, 10)
again = Block(comm, px, py)
again.load(saved)
again.relax(1.9, 10)
plates = [one.gather() for one in (block, again)]
if comm.rank == 0:
    digests = [hashlib.sha256(plate.tobytes()).hexdigest() for plate in plates]
    print(json.dumps([digests, block.residual, again.residual, block.sweeps, again.sweeps]))
"""


def solve(px: int, py: int) -> list:
    """What a run of px * py ranks prints."""
    beside = Path(sys.executable).parent / "mpiexec"
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        launcher = None
    if launcher is None:
        words = "needs mpi4py and an MPI: pip install mpi4py mpich"
        pytest.fail(words) if os.environ.get("HPC_HPO_NEEDS_MPI") else pytest.skip(words)
    done = subprocess.run(
        [launcher, "-n", str(px * py), sys.executable, "-c", PROGRAM, str(JOB), str(px), str(py)],
        text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_that_the_field_is_the_same_to_the_last_bit_for_every_decomposition_and_resume() -> None:
    alone = solve(1, 1)
    (whole, resumed), *_ = alone
    assert whole == resumed, "it goes on exactly where it was"
    for px, py in ((2, 1), (1, 2), (2, 2), (4, 1)):
        assert solve(px, py) == alone
