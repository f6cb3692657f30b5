"""What a study begins with: the results it is told and the points it tries first.

Points of another source are held against this study's search space. What both know alike is
taken; what the study must decide (a parameter that is new or gone, losses that mean something
else) is refused by name until it has; what is outside the space is left out and counted.

The outcome goes into the journal once, before the first ask. From then on no source is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.journal import Event
from hpc_hpo.model import Point
from hpc_hpo.optimizers.registry import learns
from hpc_hpo.pareto import fronts
from hpc_hpo.segment_record import Given
from hpc_hpo.space import Space
from hpc_hpo.space.domains import Choice, canonical
from hpc_hpo.space.space import MAX_DRAWS
from hpc_hpo.steering.start_sources import Content, Row, read_source
from hpc_hpo.study import Study
from hpc_hpo.study.segment_set import Segment
from hpc_hpo.study.start import StartSource

#: Points in one record of the journal.
_PART = 1000
#: Reasons that a report names before it counts the rest.
_SHOWN = 4
_PURPOSE = 12


class LeftOut(Exception):
    """Why a point is not taken."""


@dataclass
class Start:
    """What a study begins with.

    Attributes:
        told: segment -> results that its optimiser is told.
        queued: segment -> points that are evaluated before any other.
        report: what was taken, mapped and left out, for people; one line for each source.
    """

    told: dict[str | None, list[Given]] = field(default_factory=dict)
    queued: dict[str | None, list[Given]] = field(default_factory=dict)
    report: list[str] = field(default_factory=list)

    def events(self, at: float) -> Iterator[Event]:
        """For the journal; they count together, once the last is there."""
        flat = [
            (s, g) for some in (self.told, self.queued) for s, all_ in some.items() for g in all_
        ]
        parts = max(1, -(-len(flat) // _PART))
        for part in range(parts):
            points = [
                {"segment": segment, **given.plain()}
                for segment, given in flat[part * _PART : (part + 1) * _PART]
            ]
            event: Event = {"e": "start", "at": at, "part": part, "parts": parts, "points": points}
            if part == parts - 1:
                event["report"] = self.report
            yield event


def gather(study: Study) -> Start:
    """Read all sources of the study.

    Raises:
        InputError: one cannot be read, or differs from the study in a way that it does not answer.
    """
    start = Start()
    seen: dict[str | None, set[str]] = {}
    for i, source in enumerate(study.start_from):
        key = f"start_from[{i}]"
        content = read_source(source, study, key)
        _Taking(study, source, key, content, start, seen).take()
    for name in start.told:
        optimizer = study.segments[name].optimizer
        if not learns(optimizer):
            of = f"segment {name}: " if name is not None else ""
            start.report.append(
                f"{of}{optimizer['name']} pays no heed to losses: what it is told is only not "
                "asked again"
            )
    return start


class _Taking:
    """One source at work."""

    def __init__(
        self,
        study: Study,
        source: StartSource,
        key: str,
        content: Content,
        start: Start,
        seen: dict[str | None, set[str]],
    ) -> None:
        self._study, self._source, self._key, self._content = study, source, key, content
        self._start, self._seen = start, seen
        self._left = Counter(content.left)
        self._completed = self._told = self._queued = 0
        #: turns losses of the other direction
        self._turn = 1.0

    def take(self) -> None:
        """Sort all rows into the start, and say what became of them."""
        source, rows = self._source, self._rows()
        if source.take != "best" and any(row.loss is not None for _, row in rows):
            self._compare()
        self._check_names([row for _, row in rows])
        valid: list[tuple[Segment, Row, Point, bool]] = []
        for number, (segment, row) in enumerate(rows):
            try:
                point, partial = self._point(segment, row, number)
            except LeftOut as reason:
                self._left[str(reason)] += 1
                continue
            self._completed += partial
            valid.append((segment, row, point, partial))
        self._sort(valid)
        self._start.report.append(self._line(len(rows)))

    def _rows(self) -> list[tuple[Segment, Row]]:
        """Each row with the segments that get it."""
        source, study, content = self._source, self._study, self._content
        if source.from_segment is not None:
            known = sorted({str(r.segment) for r in content.rows if r.segment is not None})
            if source.from_segment not in known:
                raise self._problem(
                    "from_segment", "the source has no results of this segment",
                    source.from_segment, ", ".join(known[:20]) or "no segment",
                )  # fmt: skip
        found: list[tuple[Segment, Row]] = []
        for row in content.rows:
            if source.from_segment is not None and row.segment != source.from_segment:
                self._left["of other segments"] += 1
                continue
            names = self._segments_of(row)
            if not names:
                self._left[f"of segment {row.segment}, which this study has not"] += 1
            found += [(study.segments[name], row) for name in names]
        return found

    def _segments_of(self, row: Row) -> list[str | None]:
        source, segments = self._source, self._study.segments
        if source.segment is not None:
            if self._content.segmented and source.from_segment is None:
                raise self._problem(
                    "segment", "the source has segments of its own", source.segment,
                    "from_segment beside it: which of them",
                )  # fmt: skip
            return [source.segment]
        if not segments.named:
            if row.segment is not None and source.from_segment is None:
                raise self._problem(
                    "", "the source has segments and this study has none", row.segment,
                    "from_segment: which of them",
                )  # fmt: skip
            return [None]
        if row.segment is not None:
            return [row.segment] if row.segment in segments else []
        if row.loss is not None:
            raise self._problem(
                "", "the source has no segments: whose losses are these?", row.where,
                "segment: the one of this study that gets them",
            )  # fmt: skip
        return list(segments)

    def _problem(self, key: str, problem: str, found: object, valid: str) -> InputError:
        at = f"{self._key}.{key}" if key else self._key
        return self._study.problem(at, problem, found=found, valid=valid)

    def _compare(self) -> None:
        """Refuse losses that mean something else, unless that is accepted."""
        for what, (there, here) in self._content.differs.items():
            word = "direction" if what == "direction" else "objective"
            if word not in self._source.accept:
                hint = ", which turns the sign of its losses" if word == "direction" else ""
                raise self._problem(
                    "study", f"its `{what}` is another: its losses mean something else",
                    there if there is not None else "none",
                    f"{here!r} there, too; or accept: [{word}]{hint}; or take: best, which "
                    "evaluates its best points here",
                )  # fmt: skip
            if word == "direction":
                self._turn = -1.0

    def _check_names(self, rows: Sequence[Row]) -> None:
        """Refuse parameters that are gone or new and of which the study says nothing."""
        source, study = self._source, self._study
        known = set(study.segments.parameter_names())
        for key, names in (("fill", source.fill), ("rename", source.rename.values())):
            for name in names:
                if name not in known:
                    raise self._problem(
                        key, "there is no such parameter", name, ", ".join(sorted(known))
                    )
        for row in rows:
            for name in row.values:
                if source.rename.get(name, name) not in known and name not in source.drop:
                    raise self._problem(
                        "", f"{row.where} has the parameter {name}, which this study has not",
                        name, f"drop: [{name}], or rename: {{{name}: ...}}, or {name} in `space`",
                    )  # fmt: skip

    # ---------------------------------------------------------------- one point

    def _point(self, segment: Segment, row: Row, number: int) -> tuple[Point, bool]:
        """The row in the segment's space, and whether it had to be completed.

        Raises:
            LeftOut: it is outside.
            InputError: it lacks a parameter of which nothing is said.
        """
        source, space = self._source, segment.space
        values = {
            source.rename.get(name, name): value
            for name, value in row.values.items()
            if name not in source.drop
        }
        for name, value in source.fill.items():
            if name in space.names:
                values.setdefault(name, value)
        for name, value in values.items():
            if name not in space.names:
                raise LeftOut(f"segment {segment.name} has no parameter {name}")
            values[name] = _checked(space, name, value)
        missing = _missing(space, values)
        while constant := [name for name in missing if space.domain(name).dims == 0]:
            values.update({name: space.domain(name).from_unit([]) for name in constant})
            missing = _missing(space, values)
        if not missing:
            try:
                return space.validate(values), False
            except InputError as error:
                raise LeftOut(_reason(error)) from None
        if row.loss is not None or self._content.whole:
            names = ", ".join(missing)
            raise self._problem(
                "", f"{row.where} lacks the parameter{'s' * (len(missing) > 1)} {names}", values,
                f"fill: {{{missing[0]}: ...}}, with the value that it had",
            )  # fmt: skip
        rng = np.random.default_rng([segment.seed, number, _PURPOSE])
        return complete(space, values, rng), True

    # ---------------------------------------------------------------- all of them

    def _sort(self, valid: list[tuple[Segment, Row, Point, bool]]) -> None:
        """Told or evaluated: each row, once."""
        source = self._source
        best: set[int] = set()
        if source.evaluated:
            losses: dict[str | None, list[int]] = {}
            for i, (segment, row, _, _) in enumerate(valid):
                if row.loss is not None:
                    losses.setdefault(segment.name, []).append(i)
            ranks: dict[int, float] = {}
            for own in losses.values():
                ranks.update(zip(own, self._ranks([valid[i][1] for i in own]), strict=True))
            in_order = {name: sorted(own, key=ranks.__getitem__) for name, own in losses.items()}
            best = {i for own in in_order.values() for i in own[: source.evaluated]}
            valid = [valid[i] for i in sorted(sorted(best), key=ranks.__getitem__)] + [
                row for i, row in enumerate(valid) if i not in best
            ]
            best = set(range(len(best)))
        for i, (segment, row, point, _) in enumerate(valid):
            name = segment.name
            if row.loss is not None and source.take != "best":
                loss = (
                    [self._turn * x for x in row.loss]
                    if isinstance(row.loss, list)
                    else (self._turn * row.loss)
                )
                if self._is_new(name, canonical([point, loss])):
                    self._start.told.setdefault(name, []).append(Given(point, loss, row.where))
                    self._told += 1
            if (row.loss is None or i in best) and self._is_new(name, canonical(point)):
                self._start.queued.setdefault(name, []).append(Given(point, None, row.where))
                self._queued += 1
            elif row.loss is not None and source.take == "best" and i not in best:
                self._left[f"not among the best {source.evaluated}"] += 1

    def _ranks(self, rows: Sequence[Row]) -> list[float]:
        """Lower for better rows; of several objectives, the front on which each is."""
        losses = [row.loss for row in rows]
        if self._study.objectives and all(isinstance(loss, list) for loss in losses):
            values = np.array(losses, dtype=float) * self._study.signs
            return [float(front) for front in fronts(values, self._source.evaluated or 0)]
        firsts = [loss[0] if isinstance(loss, list) else loss for loss in losses]
        return [self._content.sign * (loss or 0.0) for loss in firsts]

    def _is_new(self, name: str | None, key: str) -> bool:
        seen = self._seen.setdefault(name, set())
        if key in seen:
            self._left["given twice"] += 1
            return False
        seen.add(key)
        return True

    def _line(self, rows: int) -> str:
        source = self._source
        parts = [f"{self._told} results told"] if source.take != "best" else []
        if self._queued or not parts:
            parts.append(f"{self._queued} points to evaluate first")
        mapped = [f"{old} is {new} here" for old, new in source.rename.items()]
        mapped += [f"{name} = {value!r} filled in" for name, value in source.fill.items()]
        mapped += [f"{name} left away" for name in source.drop]
        if self._turn < 0:
            mapped.append("the sign of its losses turned")
        if self._completed:
            mapped.append(f"{self._completed} completed at random")
        text = f"{source.label}: {', '.join(parts)}"
        if mapped:
            text += f"; {', '.join(mapped)}"
        if self._left:
            reasons = [f"{count} {why}" for why, count in self._left.most_common(_SHOWN)]
            if len(self._left) > _SHOWN:
                rest = sum(self._left.values()) - sum(c for _, c in self._left.most_common(_SHOWN))
                reasons.append(f"{rest} for other reasons")
            text += f"; left out: {', '.join(reasons)}"
        return text


def _checked(space: Space, name: str, value: object) -> object:
    """The value as its parameter has it.

    Raises:
        LeftOut: the parameter has no such value.
    """
    domain = space.domain(name)
    try:
        return domain.check(value)
    except (ValueError, OverflowError) as error:
        if isinstance(domain, Choice):
            raise LeftOut(f"{name} has no choice {canonical(value)} any more") from None
        raise LeftOut(f"{name} is not {error}") from None


def _missing(space: Space, values: Point) -> list[str]:
    """Parameters that a point with these values has and that are not among them, in order."""
    try:
        space.validate(values)
    except InputErrors as error:
        return [str(e.key) for e in error.errors if e.problem == "the point lacks this parameter"]
    except InputError:
        return []
    return []


def _reason(error: InputError) -> str:
    first = error.errors[0] if isinstance(error, InputErrors) else error
    valid = str(first).rpartition("; valid: ")[2]
    return f"{first.key}: {first.problem}" + (f" ({valid})" if valid else "")


def complete(space: Space, given: Point, rng: np.random.Generator) -> Point:
    """A random point of the space with the values `given`.

    Args:
        given: valid values of some parameters.

    Raises:
        LeftOut: conditions and constraints hold for no such point, as far as was tried.
    """
    fixed = space.to_unit(given, absent=np.nan)
    for _ in range(MAX_DRAWS):
        units = np.where(np.isnan(fixed), rng.random(space.dims), fixed)
        point = space.from_unit(units)
        if given.keys() <= point.keys():
            point = {name: given.get(name, value) for name, value in point.items()}
            if space.allows(point) and not _missing(space, point):
                try:
                    return space.validate(point)
                except InputError:
                    continue
    raise LeftOut("no point of the space has such values together")
