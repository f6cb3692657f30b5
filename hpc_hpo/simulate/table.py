"""Losses, learning curves and times from a table: a benchmark's, or that of a study that ran."""

from __future__ import annotations

import csv
import io
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpc_hpo.errors import InputError
from hpc_hpo.model import Point
from hpc_hpo.results.table import POINT
from hpc_hpo.schema import one_of
from hpc_hpo.simulate.objectives import Curved, Maker, Objective, refuse_several
from hpc_hpo.space import Space
from hpc_hpo.steering.start_sources import ABSENT, cell_value
from hpc_hpo.study import Study

KEY = "--table"
#: Columns that are no parameters; the second of a pair has the same meaning.
STEP, TIME = ("step", "epoch"), ("time", "busy_s")
NEEDS = (
    "a column loss and one for each parameter; step (or epoch), time (s) and segment may be there"
)


@dataclass(frozen=True)
class _Line:
    number: int
    values: dict[str, str]
    segment: str | None
    loss: float
    step: int | None
    time: float | None


@dataclass
class Curve:
    """What a table says of one point.

    Attributes:
        steps: rising; [0] where the table has none.
        losses: at each of them, the mean of the lines with the same.
        time: seconds of the whole trial; None = not known.
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    time: float | None = None

    def at(self, step: int) -> float:
        """The loss of the last line up to `step`; of the first, before that."""
        return self.losses[max(0, bisect_right(self.steps, step) - 1)]


class Tabled(Curved):
    """The losses of a table's points; a point that it lacks has those of the nearest.

    Nearness is Euclidean over Space.encode: numbers on their own scale, choices one-hot. Without
    steps in the table, the way to a loss is the power law of Curved.

    Attributes:
        exact, asked: trials whose point was in the table, and all of them.
    """

    def __init__(
        self, space: Space, points: Sequence[Point], curves: Sequence[Curve], sign: int, seed: int
    ) -> None:
        from scipy.spatial import cKDTree  # slow to import

        super().__init__(lambda point: self._curve(point).losses[-1], space, sign, seed)
        self._height = float(np.std([curve.losses[-1] for curve in curves]))
        self._curves = list(curves)
        self._known = {space.key(point): i for i, point in enumerate(points)}
        self._tree = cKDTree(space.encode(points))
        self._found: dict[str, int] = {}
        self.exact, self.asked = 0, 0

    def _curve(self, point: Point) -> Curve:
        key = self._space.key(point)
        if key not in self._found:
            at = self._known.get(key)
            self.asked, self.exact = self.asked + 1, self.exact + (at is not None)
            nearest = self._tree.query(self._space.encode([point])[0])[1] if at is None else at
            self._found[key] = int(nearest)
        return self._curves[self._found[key]]

    def loss(self, point: Point, step: int, steps: int) -> float:
        curve = self._curve(point)
        return curve.at(step) if curve.steps[-1] else super().loss(point, step, steps)

    def seconds(self, point: Point) -> float | None:
        return self._curve(point).time


class Table:
    """A CSV file of points with their losses.

    Its columns are those of `hpc-hpo export --format csv`, or `loss` and the parameters by their
    names. With a column `step`, the lines of one point are its learning curve; `time` is in seconds
    from the trial's begin to the line's step.

    Attributes:
        steps: the highest step; None where there is no such column.
        mean_s: mean time of a whole trial, seconds; None where there is no such column.

    Raises:
        InputError: it cannot be read, or a line is no point with a loss; file and line are named.
    """

    def __init__(self, path: Path, study: Study, seed: int) -> None:
        refuse_several(study, KEY, str(path))
        self._sign, self._seed = study.direction_sign, seed
        self._file, self._made = str(path), list[Tabled]()
        lines = list(_read(path, study))
        if not lines:
            raise InputError("no line has a loss", file=self._file, key=KEY)
        self._segmented = any(line.segment is not None for line in lines)
        self._lines: dict[str | None, list[_Line]] = defaultdict(list)
        for line in lines:
            self._lines[line.segment].append(line)
        known = [line.step for line in lines if line.step is not None]
        self.steps = max(known, default=None)
        most = study.fidelity.max if study.fidelity is not None else 0
        if self.steps is not None and self.steps < most:
            raise InputError(
                "its curves end before the study's fidelity.max", file=self._file, key=KEY,
                found=self.steps, valid=f"curves of {most} steps",
            )  # fmt: skip
        # Every segment's own lines are looked at before anything is simulated.
        self._points: dict[str | None, tuple[list[Point], list[Curve]]] = {}
        for name in study.segments:
            own = self._lines.get(name if self._segmented else None)
            if not own:
                raise InputError(f"no line is of segment {name}", file=self._file, key=KEY)
            self._points[name] = self._gather(own, study.segments[name].space)
        times = [c.time for _, curves in self._points.values() for c in curves]
        found = [time for time in times if time is not None]
        self.mean_s = float(np.mean(found)) if found else None

    def _gather(self, lines: list[_Line], space: Space) -> tuple[list[Point], list[Curve]]:
        """The points of one segment, each with the lines that have it."""
        points: dict[str, Point] = {}
        found: dict[str, list[_Line]] = defaultdict(list)
        for line in lines:
            values = {}
            for name in space.names:
                value = cell_value(line.values.get(name, ""), space.domain(name))
                if value is not ABSENT:
                    values[name] = value
            try:
                point = space.validate(values)
            except InputError as error:
                raise InputError(str(error), file=self._file, line=line.number) from None
            key = space.key(point)
            points[key] = point
            found[key].append(line)
        return list(points.values()), [_curve(found[key]) for key in points]

    def timeless(self) -> None:
        """Leave its times out."""
        self.mean_s = None
        for _, curves in self._points.values():
            for curve in curves:
                curve.time = None

    @property
    def maker(self) -> Maker:
        """Makes each segment's objective."""

        def make(name: str | None, space: Space) -> Objective:
            made = Tabled(space, *self._points[name], self._sign, self._seed)
            self._made.append(made)
            return made

        return make

    def use(self) -> tuple[int, int]:
        """(points that were looked up, how many of them the table has)."""
        return sum(t.asked for t in self._made), sum(t.exact for t in self._made)


def _curve(lines: Sequence[_Line]) -> Curve:
    losses: dict[int, list[float]] = defaultdict(list)
    times: dict[int, list[float]] = defaultdict(list)
    for line in lines:
        losses[line.step or 0].append(line.loss)
        if line.time is not None:
            times[line.step or 0].append(line.time)
    steps = sorted(losses)
    whole = float(np.mean(times[max(times)])) if times else None
    return Curve(steps, [float(np.mean(losses[step])) for step in steps], whole)


def _read(path: Path, study: Study) -> Iterator[_Line]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=str(path), key=KEY) from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = list(reader.fieldnames or ())
    exported = any(column.startswith(POINT) for column in header)
    parameters = _parameters(header, exported, study, path)
    step = next((name for name in STEP if name in header and name not in parameters), None)
    time = next((name for name in TIME if name in header and name not in parameters), None)
    for cells in reader:
        at = reader.line_num
        if None in cells or None in cells.values():
            raise InputError("the line has another number of cells than the header",
                             file=str(path), line=at, valid=f"{len(header)} cells")  # fmt: skip
        # A failed trial has no loss, and one that was stopped early has that of a rung.
        if cells["loss"] == "" or (exported and not cells.get("rank", "1")):
            continue
        number = _number(cells, step, path, at) if step else None
        if number is not None and (number != int(number) or number < 0):
            raise InputError("not a step", file=str(path), line=at, key=step, found=cells[step],
                             valid="a whole number")  # fmt: skip
        loss = _number(cells, "loss", path, at)
        seconds = _number(cells, time, path, at) if time and cells[time] else None
        if seconds is not None and seconds < 0:
            raise InputError("not a time", file=str(path), line=at, key=time, found=cells[time],
                             valid="seconds, not negative")  # fmt: skip
        yield _Line(
            at, {name: cells[column] for name, column in parameters.items()},
            cells.get("segment") or None if study.segments.named else None,
            loss, None if number is None else int(number), seconds,
        )  # fmt: skip


def _number(cells: Mapping[str, str], column: str | None, path: Path, line: int) -> float:
    text = cells[column or ""]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError("not a finite number", file=str(path), line=line, key=column, found=text)
    return number


def _parameters(header: Sequence[str], exported: bool, study: Study, path: Path) -> dict[str, str]:
    """name -> column"""
    names = study.segments.parameter_names()
    found = {name: POINT + name if exported else name for name in names}
    more: dict[str, Any] = {"file": str(path), "line": 1, "valid": NEEDS}
    if "loss" not in header or (not exported and "loss" in names):
        raise InputError("there is no column loss", key=KEY, found=", ".join(header), **more)
    known = {*found.values(), "loss", *STEP, *TIME, "segment"}
    for column in () if exported else header:
        if column not in known:
            listed = one_of(column, sorted(known))
            raise InputError("unknown column", found=column, **{**more, "valid": listed})
    for name, column in found.items():
        if column not in header:
            raise InputError("there is no column of this parameter", key=name, **more)
    return found
