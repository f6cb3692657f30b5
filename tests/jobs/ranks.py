"""One rank of a job's objective, run without the package: ``mpiexec -n 4 python ranks.py SPEC``.

SPEC is JSON: ``job`` (the folder), ``function``, ``point``, ``set`` (module constants to change),
``stop_at`` (the reported step at which a stop is asked for, or null) and ``out`` (a folder, in
which ``part-N.npz`` is the checkpoint of each rank and ``result.json`` what rank 0 returns).
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI


class StubTrial:
    """One slice as one rank sees it; every look at the clock says: checkpoint."""

    def __init__(self, out: Path, stop_at: int | None) -> None:
        self.comm = MPI.COMM_WORLD
        self.rank, self.size = self.comm.rank, self.comm.size
        self.steps: list[int] = []
        self._part, self._stop_at = out / f"part-{self.rank}.npz", stop_at

    def restore(self) -> dict[str, Any] | None:
        if not self._part.exists():
            return None
        with np.load(self._part) as archive:
            return {name: archive[name] for name in archive.files}

    def report(self, step: int, **metrics: float) -> None:
        self.steps.append(step)

    def should_stop(self) -> bool:
        # A rank that makes another call than the others do waits here for ever.
        self.comm.barrier()
        return self._stop_at is not None and self.steps[-1] >= self._stop_at

    def should_checkpoint(self) -> bool:
        self.comm.barrier()
        return True

    def checkpoint(self, state: dict[str, Any], *, parts: bool = False) -> None:
        assert parts, "each rank has a part of its own"
        np.savez(self._part, **state)

    def reduce(self, value: float, how: str = "mean") -> float:
        assert how == "sum"
        return float(self.comm.allreduce(value))


def main(spec: dict[str, Any]) -> None:
    """Run one slice."""
    sys.path.insert(0, spec["job"])
    module = importlib.import_module("objective")
    for name, value in spec["set"].items():
        setattr(module, name, value)
    trial = StubTrial(Path(spec["out"]), spec["stop_at"])
    returned = getattr(module, spec["function"])(spec["point"], trial)
    everyone = trial.comm.gather(returned)
    if everyone is not None:
        result = {"ranks": everyone, "steps": trial.steps}
        (Path(spec["out"]) / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
