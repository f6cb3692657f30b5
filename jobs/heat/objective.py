"""The steady temperature of a heated plate, by red-black SOR over a px x py grid of MPI ranks.

It needs numpy and mpi4py, and shows what a resumable objective of several ranks does: every rank
works on its own block, saves and restores its own part, and leaves in the same step as the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from mpi4py import MPI

Array = np.ndarray[Any, Any]

CELLS = 192  # inner cells along each side of the plate
TOLERANCE = 1e-8  # of the largest residual, relative to that of the cold plate
CHECK = 100  # sweeps between two looks at the residual
LIMIT = 200_000  # sweeps; omega = 1, the slowest, needs about 40,000

# The loss's machine: a message costs as much as MESSAGE updates of one cell and a value in it as
# much as WORD. Seen between two ranks of one node: 10 ns an update, 23 us a message, 20 ns a value.
MESSAGE, WORD = 2000.0, 2.0


def solve(config: dict[str, Any], trial: Any) -> dict[str, float] | None:
    """Relax the plate until its residual is small enough. Runs on every rank.

    The loss is a modelled time, sweeps x cost of a sweep, not a measured one: that would be
    another number on each machine and with each neighbour on the node, and a trial that was
    interrupted could not give the loss of one that was not.

    Args:
        config: the point: ``omega`` (the relaxation parameter, 0 < omega < 2), ``px`` and ``py``
            (ranks along the rows and the columns; ``px * py`` is the number of ranks).
        trial: the trial's context.

    Returns:
        ``loss``, log10 of the slowest rank's cost in cell updates, and ``sweeps``; or None when
        asked to stop before the end.

    Raises:
        ValueError: the number of ranks is not ``px * py``.
        ArithmeticError: no convergence within LIMIT sweeps.
    """
    block = Block(trial.comm, int(config["px"]), int(config["py"]))
    if (state := trial.restore()) is not None:
        block.load(state)
    else:
        block.measure()
    while block.residual > TOLERANCE:
        if block.sweeps >= LIMIT:
            raise ArithmeticError(f"residual {block.residual:.1e} after {LIMIT} sweeps")
        block.relax(float(config["omega"]), CHECK)
        trial.report(block.sweeps, residual=block.residual)
        # All ranks see the same residual, so all of them make the same calls.
        stop = block.residual > TOLERANCE and trial.should_stop()
        if stop or trial.should_checkpoint():
            trial.checkpoint(block.state(), parts=True)
        if stop:
            return None
    sweeps = block.needed()
    return {"loss": math.log10(sweeps * block.cost()), "sweeps": sweeps}


class Block:
    """One rank's part of the plate, with a border one cell wide around it.

    The plate is a unit square. Its first row's edge is held at 1, the other three at 0, and a
    source heats a quarter of it. Every cell is computed by the same operations in the same order,
    whatever the decomposition, so that the field is the same to the last bit for all of them.

    Args:
        comm: of px * py ranks; rank r is block (r // py, r % py).
        px, py: blocks along the rows and along the columns.
    """

    def __init__(self, comm: Any, px: int, py: int) -> None:
        if comm.size != px * py:
            raise ValueError(f"{comm.size} ranks for {px} x {py} blocks")
        self.comm, self.px, self.py = comm, px, py
        row, column = divmod(comm.rank, py)
        self.rows, self.columns = _share(row, px), _share(column, py)
        # Beyond the plate's edge is no rank; MPI then neither sends nor receives.
        self.above = comm.rank - py if row > 0 else MPI.PROC_NULL
        self.below = comm.rank + py if row < px - 1 else MPI.PROC_NULL
        self.left = comm.rank - 1 if column > 0 else MPI.PROC_NULL
        self.right = comm.rank + 1 if column < py - 1 else MPI.PROC_NULL
        self.field = np.zeros((len(self.rows) + 2, len(self.columns) + 2))
        if row == 0:
            self.field[0, :] = 1.0
        self.source = self._heat()
        self.sweeps = 0
        self.scale = 1.0
        self.residual = self.before = math.inf

    def _heat(self) -> Array:
        """The source times the squared distance of two cells, (rows, columns)."""
        width = 1.0 / (CELLS + 1)
        x, y = (width * (np.array(part) + 1.0) for part in (self.rows, self.columns))
        inside = ((x > 0.5) & (x < 0.75))[:, None] & ((y > 0.25) & (y < 0.75))[None, :]
        return np.where(inside, 20.0 * width * width, 0.0)

    def relax(self, omega: float, sweeps: int) -> None:
        """Sweep over the red cells and then the black ones, `sweeps` times; then measure."""
        colours = [list(self._views(colour)) for colour in (0, 1)]
        for _ in range(sweeps):
            for views in colours:
                self.exchange()
                for centre, up, down, left, right, source in views:
                    mean = 0.25 * (((up + down) + (left + right)) + source)
                    centre += omega * (mean - centre)
        self.sweeps += sweeps
        self.measure()

    def _views(self, colour: int) -> Iterator[tuple[Array, ...]]:
        """For the two kinds of rows: cells of a colour, their four neighbours, their source."""
        for row in (0, 1):
            # A cell's colour follows from its place on the whole plate.
            column = (colour + row + self.rows.start + self.columns.start) % 2
            yield (
                self.field[1 + row : -1 : 2, 1 + column : -1 : 2],
                self.field[row:-2:2, 1 + column : -1 : 2],
                self.field[2 + row :: 2, 1 + column : -1 : 2],
                self.field[1 + row : -1 : 2, column:-2:2],
                self.field[1 + row : -1 : 2, 2 + column :: 2],
                self.source[row::2, column::2],
            )

    def exchange(self) -> None:
        """Fill the border with the neighbours' outermost cells."""
        field = self.field
        for target, outer, origin, border in (
            (self.above, field[1, 1:-1], self.below, field[-1, 1:-1]),
            (self.below, field[-2, 1:-1], self.above, field[0, 1:-1]),
            (self.left, field[1:-1, 1], self.right, field[1:-1, -1]),
            (self.right, field[1:-1, -2], self.left, field[1:-1, 0]),
        ):
            # Columns do not lie in one piece, and MPI sends pieces.
            incoming = np.empty(len(border))
            self.comm.Sendrecv(np.ascontiguousarray(outer), target, recvbuf=incoming, source=origin)
            if origin != MPI.PROC_NULL:
                border[:] = incoming

    def measure(self) -> None:
        """Set the residual: the largest of the plate, the same on every rank."""
        self.exchange()
        u = self.field
        around = (u[:-2, 1:-1] + u[2:, 1:-1]) + (u[1:-1, :-2] + u[1:-1, 2:])
        mine = float(np.abs(around + self.source - 4.0 * u[1:-1, 1:-1]).max())
        # A maximum, unlike a sum, does not depend on the order of the ranks.
        largest = self.comm.allreduce(mine, op=MPI.MAX)
        if self.sweeps == 0:
            self.scale = largest
        self.before, self.residual = self.residual, largest / self.scale

    def needed(self) -> float:
        """Sweeps to the tolerance, between the last two looks by the slope of log(residual)."""
        if not self.residual < TOLERANCE < self.before < math.inf:
            return float(self.sweeps)
        part = math.log(self.before / TOLERANCE) / math.log(self.before / self.residual)
        return self.sweeps - CHECK + CHECK * part

    def cost(self) -> float:
        """Of one sweep for the rank that has most to do, in updates of one cell."""
        rows, columns = -(-CELLS // self.px), -(-CELLS // self.py)
        across, along = min(2, self.px - 1), min(2, self.py - 1)
        # Each colour exchanges the whole border once.
        messages, words = across + along, across * columns + along * rows
        return rows * columns + 2 * (MESSAGE * messages + WORD * words)

    def state(self) -> dict[str, Any]:
        """This rank's part of a checkpoint."""
        return {
            "field": self.field,
            "sweeps": self.sweeps,
            "scale": self.scale,
            "residual": self.residual,
            "before": self.before,
        }

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of state()."""
        self.field[:] = state["field"]
        self.sweeps = int(state["sweeps"])
        self.scale, self.residual = float(state["scale"]), float(state["residual"])
        self.before = float(state["before"])

    def gather(self) -> Array | None:
        """On rank 0 the whole plate without its edges, (CELLS, CELLS); elsewhere None."""
        mine = (self.rows, self.columns, np.ascontiguousarray(self.field[1:-1, 1:-1]))
        parts = self.comm.gather(mine)
        if parts is None:
            return None
        plate = np.empty((CELLS, CELLS))
        for rows, columns, inner in parts:
            plate[rows.start : rows.stop, columns.start : columns.stop] = inner
        return plate


def _share(index: int, parts: int) -> range:
    """The cells of one of `parts` nearly equal shares of a side."""
    return range(index * CELLS // parts, (index + 1) * CELLS // parts)
