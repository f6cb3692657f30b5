"""The jobs of several ranks under a real mpiexec: mpi_pi and heat, their ranks run directly."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc_hpo.pilot.shapes import Shapes
from hpc_hpo.site import load_site
from hpc_hpo.study.load import load_study
from tests.mpi import require_mpiexec

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "jobs"
CELLS = 19  # so that blocks are unequal, and begin with cells of either colour
SMALL = {"CELLS": CELLS, "CHECK": 10}
BEST = 2.0 / (1.0 + math.sin(math.pi / (CELLS + 1)))
DECOMPOSITIONS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)]


@pytest.fixture(scope="module")
def mpiexec() -> str:
    """The launcher."""
    return require_mpiexec()


def run_ranks(
    mpiexec: str,
    out: Path,
    ranks: int,
    point: dict[str, Any],
    *,
    job: str = "heat",
    function: str = "solve",
    constants: dict[str, Any] | None = None,
    stop_at: int | None = None,
) -> dict[str, Any]:
    """Run one slice in `out`, going on from what lies there: what ranks returned, and the steps."""
    out.mkdir(exist_ok=True)
    spec = {
        "job": str(JOBS / job), "function": function, "point": point, "set": constants or {},
        "stop_at": stop_at, "out": str(out),
    }  # fmt: skip
    command = [mpiexec, "-n", str(ranks), sys.executable]
    command += ["-m", "mpi4py", str(Path(__file__).with_name("ranks.py")), json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads((out / "result.json").read_text()))


def run_heat(
    mpiexec: str, out: Path, px: int, py: int, omega: float = BEST, stop_at: int | None = None
) -> dict[str, Any]:
    """One slice of the small plate."""
    point = {"omega": omega, "px": px, "py": py}
    return run_ranks(mpiexec, out, px * py, point, constants=SMALL, stop_at=stop_at)


def plate(out: Path, px: int, py: int) -> np.ndarray[Any, Any]:
    """The whole field, put together from the ranks' last checkpoints."""
    inner = []
    for rank in range(px * py):
        with np.load(out / f"part-{rank}.npz") as part:
            inner.append(part["field"][1:-1, 1:-1])
    return np.block([inner[row * py : (row + 1) * py] for row in range(px)])


def solved_directly() -> np.ndarray[Any, Any]:
    """The same plate by one linear system of all cells."""
    count, width = CELLS, 1.0 / (CELLS + 1)
    line = 2.0 * np.eye(count) - np.eye(count, k=1) - np.eye(count, k=-1)
    matrix = np.kron(line, np.eye(count)) + np.kron(np.eye(count), line)
    x = width * np.arange(1, count + 1)
    heated = np.outer((x > 0.5) & (x < 0.75), (x > 0.25) & (x < 0.75))
    right = 20.0 * width * width * heated
    right[0] += 1.0  # the warm edge
    return np.linalg.solve(matrix, right.ravel()).reshape(count, count)


def test_that_the_plate_is_what_a_direct_solver_finds(mpiexec: str, tmp_path: Path) -> None:
    run_heat(mpiexec, tmp_path, 2, 1)
    assert np.abs(plate(tmp_path, 2, 1) - solved_directly()).max() < 1e-7


def test_that_every_decomposition_gives_the_very_same_field(mpiexec: str, tmp_path: Path) -> None:
    fields, sweeps = [], set()
    for px, py in DECOMPOSITIONS:
        out = tmp_path / f"{px}x{py}"
        result = run_heat(mpiexec, out, px, py)
        assert len({json.dumps(returned) for returned in result["ranks"]}) == 1
        sweeps.add(result["ranks"][0]["sweeps"])
        fields.append(plate(out, px, py))
    assert len(sweeps) == 1
    assert all(np.array_equal(field, fields[0]) for field in fields)


@pytest.mark.parametrize(("px", "py"), [(1, 1), (1, 2), (2, 2)])
def test_that_an_interrupted_plate_ends_as_the_very_same(
    mpiexec: str, tmp_path: Path, px: int, py: int
) -> None:
    whole = run_heat(mpiexec, tmp_path / "whole", px, py)
    steps: list[int] = []
    for stop in (10, 40):
        part = run_heat(mpiexec, tmp_path / "parts", px, py, stop_at=stop)
        assert part["ranks"] == [None] * (px * py)
        steps += part["steps"]
    last = run_heat(mpiexec, tmp_path / "parts", px, py)
    assert last["ranks"] == whole["ranks"]
    assert steps + last["steps"] == whole["steps"]
    same = plate(tmp_path / "parts", px, py) == plate(tmp_path / "whole", px, py)
    assert same.all()


def test_that_a_trial_lost_after_its_last_sweep_needs_no_other(
    mpiexec: str, tmp_path: Path
) -> None:
    finished = run_heat(mpiexec, tmp_path, 1, 2)
    again = run_heat(mpiexec, tmp_path, 1, 2)
    assert again["ranks"] == finished["ranks"]
    assert again["steps"] == []


def test_that_the_best_omega_is_the_one_of_the_theory(mpiexec: str, tmp_path: Path) -> None:
    losses = {}
    for omega in (1.0, BEST - 0.1, BEST, BEST + 0.1, 1.95):
        result = run_heat(mpiexec, tmp_path / f"{omega:.3f}", 1, 1, omega)
        losses[omega] = result["ranks"][0]["loss"]
    below, above = [1.0, BEST - 0.1, BEST], [1.95, BEST + 0.1, BEST]
    for omegas in (below, above):
        assert all(losses[a] > losses[b] for a, b in pairwise(omegas))


def test_that_ranks_that_are_no_decomposition_are_refused(mpiexec: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="2 ranks for 2 x 2 blocks"):
        run_ranks(mpiexec, tmp_path, 2, {"omega": 1.5, "px": 2, "py": 2}, constants=SMALL)


def test_that_pi_is_the_same_over_any_ranks_and_best_at_the_midpoint(
    mpiexec: str, tmp_path: Path
) -> None:
    losses: dict[float, list[float]] = {}
    for shift in (0.1, 0.5):
        for ranks in (1, 4):
            point = {"shift": shift, "intervals": 1001}
            result = run_ranks(mpiexec, tmp_path, ranks, point, job="mpi_pi", function="quadrature")
            assert len(result["ranks"]) == ranks
            losses.setdefault(shift, []).extend(result["ranks"])
    for shift, found in losses.items():
        assert max(found) - min(found) < 1e-4, shift
    # A rule that is not the midpoint's is wrong by |shift - 1/2| times 2, over the intervals.
    assert losses[0.1][0] == pytest.approx(math.log10(0.8 / 1001), abs=0.01)
    assert losses[0.5][0] < -6.0


@pytest.mark.parametrize("job", ["mpi_pi", "heat", "ddp"])
def test_that_the_job_s_study_fits_its_site(job: str) -> None:
    study = load_study(JOBS / job / "study.yaml")
    site = load_site(study.site, relative_to=study.folder)
    sizes = {shape.ranks for shape in Shapes(study, site).all}
    assert sizes == {"mpi_pi": {4}, "heat": {1, 2, 4}, "ddp": {2}}[job]
