"""The key `start_from`: what a study begins with, in place of nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from hpc_hpo.errors import InputError
from hpc_hpo.schema import Count, Model, one_of, refuse, validate
from hpc_hpo.study.segments import Under
from hpc_hpo.yamlio import Document

#: Points that are evaluated again with ``take: best``, where no number is given.
DEFAULT_BEST = 10
KINDS = ("study", "csv", "points")


class StartSource(Model):
    """One entry of the list; see docs/study.md."""

    study: str | None = Field(None, min_length=1, description="another study's folder")
    csv: str | None = Field(None, min_length=1, description="a CSV file with a header")
    points: tuple[dict[str, Any], ...] | None = Field(
        None, description="points, as in [{lr: 0.1}, {point: {lr: 0.2}, loss: 0.5}]"
    )
    take: Literal["results", "best", "both"] = Field(
        "results", description="results are told, the best are evaluated here, or both"
    )
    best: Count | None = Field(None, description="how many are evaluated here, with take: best")
    segment: str | None = Field(None, description="the segment of this study that gets them")
    from_segment: str | None = Field(None, description="the segment there that has them")
    rename: dict[str, str] = Field({}, description="their parameters' names -> this study's")
    fill: dict[str, Any] = Field({}, description="values of parameters that they lack")
    drop: tuple[str, ...] = Field((), description="their parameters that are left away")
    accept: tuple[Literal["direction", "objective"], ...] = Field(
        (), description="differences under which results are taken all the same"
    )

    @field_validator("points", "drop", "accept", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("points", mode="before")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and not value:
            raise refuse("a list without points", "one point at least, as in [{lr: 0.1}]")
        return value

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def label(self) -> str:
        """The source in words, for people."""
        return str(self.study or self.csv or "points given by hand")

    @property
    def evaluated(self) -> int:
        """How many of its results are evaluated here: the best ones."""
        return 0 if self.take == "results" else self.best or DEFAULT_BEST

    def faults(self) -> Iterator[tuple[str, str, str]]:
        """What does not go together: (key, problem, what is valid)."""
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            problem = "several sources in one entry" if given else "no source"
            yield "", problem, f"one of {', '.join(KINDS)} in each entry"
            return
        if self.best is not None and self.take == "results":
            yield "best", "this goes with take: best or both", "take: best"
        if self.points is not None and self.from_segment is not None:
            yield "from_segment", "points given by hand have no segment", "segment"
        if self.study is None and self.accept:
            yield (
                "accept",
                "this goes with study: nothing else is known of where they come from",
                ("no accept"),
            )


class _Spec(Model):
    sources: tuple[StartSource, ...]

    @field_validator("sources", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        if not isinstance(value, list) or not value:
            valid = "as in [{study: ../old}, {csv: points.csv}, {points: [{lr: 0.1}]}]"
            what = "a list without sources" if value == [] else "not a list of sources"
            raise refuse(what, valid)
        return tuple(value)


def read_start(
    raw: Any, doc: Document, segments: Mapping[str, Any] | None
) -> tuple[tuple[StartSource, ...], list[InputError]]:
    """The sources that the key names, and what is wrong with them.

    Args:
        raw: its value, or None.
        segments: those of the study by their names; None where it has none.
    """
    if raw is None:
        return (), []
    where = Under(doc, "start_from", bare="sources")
    spec, errors = validate(_Spec, {"sources": raw}, where)
    if spec is None:
        return (), errors
    for i, source in enumerate(spec.sources):
        key = f"sources[{i}]"
        errors += [
            where.problem(f"{key}.{name}" if name else key, problem, valid=valid)
            for name, problem, valid in source.faults()
        ]
        if source.segment is not None and source.segment not in (segments or {}):
            valid = one_of(source.segment, list(segments)[:20]) if segments else "no segment"
            errors.append(
                where.problem(
                    f"{key}.segment", "there is no such segment", found=source.segment, valid=valid
                )
            )
    return spec.sources, errors
