"""The MPI that tests of ranks run on."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def require_mpiexec() -> str:
    """The launcher; it lies beside this Python when MPI came as a wheel.

    Skips without one, or fails where it is demanded (HPC_HPO_NEEDS_MPI, set by CI).
    """
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        found = None
    if not found:
        words = "needs mpi4py and an MPI: pip install mpi4py mpich"
        if os.environ.get("HPC_HPO_NEEDS_MPI"):
            pytest.fail(words)
        pytest.skip(words)
    return found
