"""The key ``segments`` of study.yaml: many models, each with its own search, in one study.

They are written one by one (``list``), as a table of values (``table``), or taken from a
segmentSpecFile as ``phpo`` knows it (``file``). All three become entries: a segment's name, its
values, and what of the study is changed for it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from hpc_hpo.errors import InputError
from hpc_hpo.schema import Count, Located, Model, one_of, refuse
from hpc_hpo.space.expressions import Expression, ExpressionError
from hpc_hpo.study.inputs import Input
from hpc_hpo.study.sections import Identifier, OptimizerChoice, normal_optimizer

#: More segments than this are a mistake in a range.
MAX_SEGMENTS = 100_000
NAME_FORM = "up to 100 letters, digits, . _ -, beginning with a letter or digit"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_DOTS = re.compile(r"(-?[0-9]+)\.\.(-?[0-9]+)\Z")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
#: In a text of the study: a value of the segment, or its name.
_OF_SEGMENT = re.compile(r"\{segment\.([^{}]*)\}")
TABLE_FORM = "a list of values, {range: [first, last]}, {range: [first, last, step]} or first..last"


def _segment_name(value: str) -> str:
    if not _NAME.match(value):
        raise refuse("a segment's name becomes a folder's", NAME_FORM)
    return value


SegmentName = Annotated[str, AfterValidator(_segment_name)]


def _values(value: Any) -> Any:
    if not isinstance(value, dict):
        raise refuse("wrong type", "a mapping of names to values, as in {pid: 22, eta: 5}")
    for name, item in value.items():
        if not isinstance(name, str) or not name.isidentifier() or name == "name":
            raise refuse(
                f"a value cannot be called {name}",
                "letters, digits and _, not beginning with a digit; name is the segment's own",
            )
        if not isinstance(item, (int, float, str)):
            raise refuse(f"{name} is no single value", "a number, a text, true or false")
    return value


Values = Annotated[dict[str, Any], BeforeValidator(_values)]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _some(value: Any) -> Any:
    if isinstance(value, list) and not value:
        raise refuse("no segments", "at least one, as in [{name: a}]")
    return _tuple(value)


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else _tuple(value)


class SegmentBudget(Model):
    """What of the budget is a segment's own."""

    trials: Count | None = Field(None, description="number of trials of the segment")
    target_loss: float | None = Field(None, description="the segment is done at a loss as good")


class Changes(Model):
    """What may differ from segment to segment."""

    space_spec: dict[str, Any] | None = Field(
        None, alias="space", description="parameters that differ; null takes one out"
    )
    constraint: Annotated[tuple[str, ...] | None, BeforeValidator(_texts)] = Field(
        None, description="constraints in place of the study's"
    )
    optimizer: Annotated[OptimizerChoice | None, BeforeValidator(normal_optimizer)] = Field(
        None, description="in place of the study's"
    )
    budget: SegmentBudget = Field(SegmentBudget(), description="trials, target_loss")
    inputs: Annotated[tuple[Input, ...], BeforeValidator(_tuple)] = Field(
        (), description="inputs of its own"
    )


class SegmentSpec(Changes):
    """One segment that is written out."""

    name: SegmentName = Field(description="its name, as in name: pid22_eta0")
    values: Values = Field({}, description="what {segment.NAME} stands for")


class ChangeSpec(Changes):
    """What is changed for all segments of one kind."""

    where: str = Field(min_length=1, description="an expression over the segments' values and name")


def _column(name: Any, value: Any) -> list[Any]:
    """One column of the table as its values."""
    key = f"table.{name}"
    if isinstance(value, str) and (dots := _DOTS.match(value)):
        value = {"range": [int(dots[1]), int(dots[2])]}
    if isinstance(value, dict) and list(value) == ["range"]:
        limits = value["range"]
        whole = isinstance(limits, list) and all(type(limit) is int for limit in limits)
        if not whole or len(limits) not in (2, 3):
            raise refuse(f"{key}: not a range of whole numbers", TABLE_FORM)
        first, last, step = (*limits, 1)[:3]
        if step < 1 or last < first:
            raise refuse(f"{key}: the range is empty", "first <= last, and a step of at least 1")
        if (last - first) // step >= MAX_SEGMENTS:
            raise refuse(f"{key}: the range is too long", f"at most {MAX_SEGMENTS} values")
        return list(range(first, last + 1, step))
    if not isinstance(value, list) or not value:
        raise refuse(f"{key}: no values", TABLE_FORM)
    _values({str(name): value[0]})
    if not all(isinstance(item, (int, float, str)) for item in value):
        raise refuse(f"{key}: a value is no single one", "numbers, texts, true or false")
    if len({(type(item) is bool, item) for item in value}) != len(value):
        raise refuse(f"{key}: a value is given twice", "each value once")
    return value


def _table(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        raise refuse("no table", "as in {pid: [22, 11, 211], eta: {range: [0, 99]}}")
    columns = {name: _column(name, column) for name, column in value.items()}
    size = 1
    for column in columns.values():
        size *= len(column)
    if size > MAX_SEGMENTS:
        raise refuse(f"the table makes {size} segments", f"at most {MAX_SEGMENTS}")
    return columns


class Transfer(Model):
    """How much segments begin with what others learned; 0 points: nothing."""

    points: int = Field(3, ge=0, description="points that a segment takes from its neighbours")
    neighbours: Count = Field(3, description="segments that are asked, the nearest first")


def _transfer(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else {"points": 0}
    if not isinstance(value, dict):
        raise refuse("wrong type", "true, false, or as in {points: 3, neighbours: 3}")
    return value


class SegmentsSpec(Model):
    """The whole section."""

    listed: Annotated[tuple[SegmentSpec, ...] | None, BeforeValidator(_some)] = Field(
        None, alias="list", description="segments one by one"
    )
    table: Annotated[dict[str, Any] | None, BeforeValidator(_table)] = Field(
        None, description="every combination of these values is a segment"
    )
    file: str | None = Field(None, min_length=1, description="a segmentSpecFile")
    name: str | None = Field(
        None, min_length=1, description='with table, as in "pid{pid}_eta{eta}"'
    )
    input: Identifier = Field("data", description="with file: the name of the files as an input")
    folder: str = Field("", description="with file: the folder or URL where its files are")
    changes: Annotated[tuple[ChangeSpec, ...], BeforeValidator(_tuple)] = Field(
        (), description="what differs for some of them"
    )
    policy: Literal["fair", "best-gain"] = Field("fair", description="who gets the workers")
    floor: float = Field(0.1, gt=0, le=1, description="share of one that does not improve")
    transfer: Annotated[Transfer, BeforeValidator(_transfer)] = Field(
        Transfer(points=0), description="begin with what similar segments learned"
    )

    @field_validator("name")
    @classmethod
    def _whole(cls, value: str | None) -> str | None:
        if value is not None and set("{}") & set(_PLACEHOLDER.sub("", value)):
            raise refuse("a brace without its partner", 'as in "pid{pid}_eta{eta}"')
        return value

    @model_validator(mode="after")
    def _one_form(self) -> SegmentsSpec:
        given = [key for key in ("list", "table", "file") if getattr(self, _FIELDS[key])]
        if len(given) != 1:
            problem = f"{' and '.join(given)} at once" if given else "no segments"
            raise refuse(problem, "one of list, table and file")
        if self.name is not None and self.table is None:
            raise refuse("name goes with table", "segments of a list have each their own name")
        return self


_FIELDS = {"list": "listed", "table": "table", "file": "file"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A segment before it is put together with the study.

    Attributes:
        name: None for the one segment of a study that has none.
        key: where it is written, within the section.
        space_key: where its space is changed.
        space: parameters that differ; None as a value takes one out.
        optimizer: in place of the study's, with its seed if it has one.
    """

    name: str | None
    key: str = ""
    space_key: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Any] = field(default_factory=dict)
    constraint: tuple[str, ...] | None = None
    optimizer: OptimizerChoice | None = None
    trials: int | None = None
    target_loss: float | None = None
    inputs: tuple[Input, ...] = ()

    def changed(self, by: Changes, key: str) -> Entry:
        """With the changes on top, which are written at `key`."""
        own = {item.name: item for item in self.inputs}
        own.update((item.name, item) for item in by.inputs)
        budget = by.budget
        return replace(
            self,
            space_key=f"{key}.space" if by.space_spec else self.space_key or key,
            space={**self.space, **(by.space_spec or {})},
            constraint=by.constraint if by.constraint is not None else self.constraint,
            optimizer=by.optimizer or self.optimizer,
            trials=budget.trials if budget.trials is not None else self.trials,
            target_loss=self.target_loss if budget.target_loss is None else budget.target_loss,
            inputs=tuple(own.values()),
        )

    def plain(self) -> dict[str, Any]:
        """What decides how its losses compare, and its budget: for a comparison of studies."""
        return {
            "values": dict(self.values),
            "space": dict(self.space),
            "constraint": None if self.constraint is None else list(self.constraint),
            "optimizer": self.optimizer and self.optimizer.model_dump(mode="json"),
            "inputs": [i.model_dump(mode="json", exclude_defaults=True) for i in self.inputs],
            "budget": {"trials": self.trials, "target_loss": self.target_loss},
        }


Note = Callable[..., Any]  #: note(key, problem, found=..., valid=...)


def fill_values(template: str, name: str | None, values: Mapping[str, Any]) -> str:
    """`template` with ``{segment.NAME}`` replaced.

    Raises:
        KeyError: the segment has no such value.
    """

    def value_of(match: re.Match[str]) -> str:
        return str(name) if match[1] == "name" and name is not None else str(values[match[1]])

    return _OF_SEGMENT.sub(value_of, template)


def segment_names_in(text: str) -> list[str]:
    """The NAMEs of ``{segment.NAME}`` in a text."""
    return _OF_SEGMENT.findall(text)


def _name_of(template: str, values: Mapping[str, Any]) -> str:
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), template)


def _from_table(spec: SegmentsSpec, note: Note) -> Iterator[Entry]:
    table = spec.table or {}
    template = spec.name or "_".join(f"{column}{{{column}}}" for column in table)
    for column in _PLACEHOLDER.findall(template):
        if column not in table:
            note(
                "name", "unknown placeholder", found=f"{{{column}}}",
                valid=one_of(column, list(table)),
            )  # fmt: skip
            return
    for row in itertools.product(*table.values()):
        values = dict(zip(table, row, strict=True))
        name = _name_of(template, values)
        if not _NAME.match(name):
            note("name", "a segment's name becomes a folder's", found=name, valid=NAME_FORM)
            return
        yield Entry(name, "table", values=values)


def _base_entries(spec: SegmentsSpec, note: Note) -> Iterator[Entry]:
    if spec.table is not None:
        yield from _from_table(spec, note)
    for i, item in enumerate(spec.listed or ()):
        key = f"list[{i}]"
        yield Entry(item.name, key, values=item.values).changed(item, key)


def _conditions(
    changes: Sequence[ChangeSpec], entries: Sequence[Entry], note: Note
) -> list[Expression | None]:
    names = {"name": None, **{n: None for entry in entries for n in entry.values}}
    texts = {v for entry in entries for v in entry.values.values() if isinstance(v, str)}
    found: list[Expression | None] = []
    for i, change in enumerate(changes):
        try:
            found.append(Expression(change.where, list(names), texts))
        except ExpressionError as error:
            note(f"changes[{i}].where", str(error), found=change.where)
            found.append(None)
    return found


def _holds(condition: Expression | None, entry: Entry) -> bool:
    known = {"name": entry.name, **entry.values}
    return condition is not None and condition.holds(known, when_absent=False)


def entries_of(spec: SegmentsSpec, note: Note) -> list[Entry]:
    """All segments of the section, in order; what is wrong with them is noted."""
    found: dict[str | None, Entry] = {}
    for entry in _base_entries(spec, note):
        if entry.name in found:
            key = "name" if entry.key == "table" else f"{entry.key}.name"
            valid = "names that differ; each column of the table belongs into the name"
            note(
                key, "two segments have this name", found=entry.name,
                valid=valid if entry.key == "table" else "names that differ",
            )  # fmt: skip
            break
        found[entry.name] = entry
    entries = list(found.values())
    conditions = _conditions(spec.changes, entries, note)
    for i, (change, condition) in enumerate(zip(spec.changes, conditions, strict=True)):
        chosen = [_holds(condition, entry) for entry in entries]
        if condition is not None and not any(chosen):
            note(f"changes[{i}].where", "this holds for no segment", found=change.where)
        entries = [
            entry.changed(change, f"changes[{i}]") if taken else entry
            for entry, taken in zip(entries, chosen, strict=True)
        ]
    return entries


def plain_segments(frozen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> what its losses depend on, and its budget, from the frozen form of the section."""
    spec = SegmentsSpec.model_validate(frozen)
    entries = entries_of(spec, lambda *_, **__: None)
    return {str(entry.name): entry.plain() for entry in entries}


def with_changes(spec: SegmentsSpec | None, entry: Entry) -> Entry:
    """A segment that is added later, with the section's changes that hold for it."""
    for change in spec.changes if spec is not None else ():
        condition = _conditions([change], [entry], lambda *_, **__: None)[0]
        if _holds(condition, entry):
            entry = entry.changed(change, "changes")
    return entry


class Under:
    """A document's problems, for a section that was read on its own.

    Args:
        doc: the whole document.
        root: the section's key.
        bare: where a list stands for the section, the key that it is short for.
    """

    def __init__(self, doc: Located, root: str, bare: str | None = None) -> None:
        self._doc, self._root, self._bare = doc, root, bare

    def path(self, key: str) -> str:
        """The key path as the user wrote it."""
        if self._bare is not None and key.partition("[")[0] == self._bare:
            return self._root + key.removeprefix(self._bare)
        return f"{self._root}.{key}" if key else self._root

    def problem(
        self, key: str, problem: str, *, found: Any = None, valid: str | list[str] | None = None
    ) -> InputError:
        """As Document.problem, with the key as the user wrote it."""
        return self._doc.problem(self.path(key), problem, found=found, valid=valid)
