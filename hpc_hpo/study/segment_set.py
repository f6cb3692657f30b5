"""The segments of one study: each with its search space, optimiser, budget and inputs.

A study without the key ``segments`` has one segment, without a name.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.schema import one_of, validate
from hpc_hpo.space import Space
from hpc_hpo.space.domains import canonical
from hpc_hpo.study.inputs import Input
from hpc_hpo.study.sections import OptimizerChoice
from hpc_hpo.study.segments import (
    Entry,
    SegmentSpec,
    SegmentsSpec,
    Transfer,
    Under,
    fill_values,
    segment_names_in,
    with_changes,
)
from hpc_hpo.yamlio import Document


@dataclass(frozen=True, slots=True)
class Segment:
    """One model of a study.

    Attributes:
        name: None for the only one of a study without segments.
        values: what ``{segment.NAME}`` stands for.
        space: its whole search space.
        optimizer: name and options, without the seed.
        seed: of its optimiser.
        trials: its budget; None: only the whole study's epochs or node-hours end it.
        target_loss: a loss as good as this ends its search; None: no target.
        inputs: those that it alone needs, with their sources filled in.
    """

    name: str | None
    values: Mapping[str, Any]
    space: Space
    optimizer: dict[str, Any]
    seed: int
    trials: int | None
    target_loss: float | None
    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class Shared:
    """What of a study holds for its segments where they say nothing of their own."""

    space: Mapping[str, Any]
    constraint: tuple[str, ...]
    optimizer: OptimizerChoice
    seed: int
    trials: int | None
    target_loss: float | None
    inputs: tuple[Input, ...]


def belongs(item: Input) -> bool:
    """Whether an input is not shared by all segments."""
    return item.segment is not None or bool(segment_names_in(item.source))


def _seed_of(seed: int, name: str | None) -> int:
    """A seed for each segment, which does not change when others are added."""
    return seed if name is None else (seed + zlib.crc32(name.encode())) & 0x7FFFFFFF


class Segments:
    """All segments of a study, in order; made when they are looked at.

    Attributes:
        named: whether the study has the key ``segments``.
        spec: the section, with its policy; the defaults where there is none.
    """

    def __init__(
        self,
        shared: Shared,
        entries: Iterable[Entry],
        spec: SegmentsSpec | None,
        where: Under,
        doc: Document,
    ) -> None:
        self._shared, self._spec, self._where, self._doc = shared, spec, where, doc
        self._entries = {entry.name: entry for entry in entries}
        self._made: dict[str | None, Segment] = {}
        self._spaces: dict[str, Space] = {}
        self._numbers: dict[str, int] = {}
        self._by_number: dict[int, str] = {}

    @property
    def named(self) -> bool:
        """Whether the study has segments with names."""
        return self._spec is not None

    @property
    def policy(self) -> str:
        """fair or best-gain."""
        return self._spec.policy if self._spec is not None else "fair"

    @property
    def floor(self) -> float:
        """The least share of a segment under best-gain, of that of one that improves."""
        return self._spec.floor if self._spec is not None else 1.0

    @property
    def transfer(self) -> Transfer:
        """What segments take from their neighbours; 0 points: nothing."""
        return self._spec.transfer if self._spec is not None else Transfer(points=0)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str | None]:
        """The names."""
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str | None) -> Segment:
        """One segment.

        Raises:
            KeyError: there is none of this name.
        """
        if name not in self._made:
            self._made[name] = self._make(self._entries[name])
        return self._made[name]

    def values(self) -> Iterator[Segment]:
        """The segments, in order."""
        return (self[name] for name in self._entries)

    def number(self, name: str) -> int:
        """The model's id of a segment for evaluation payloads and services: its value
        ``model_id``, or its place, counted from 0."""
        return self._all_numbers()[name]

    def by_number(self, number: int) -> str | None:
        """The segment with this model's id."""
        self._all_numbers()
        return self._by_number.get(number)

    def _all_numbers(self) -> Mapping[str, int]:
        if len(self._numbers) != len(self._entries):
            for place, (name, entry) in enumerate(self._entries.items()):
                given = entry.values.get("model_id")
                self._numbers[name or ""] = given if isinstance(given, int) else place
            self._by_number = {number: name for name, number in self._numbers.items()}
        return self._numbers

    def trials(self, name: str | None) -> int | None:
        """The budget of one segment; None: it has none of its own."""
        own = self._entries[name].trials
        return self._shared.trials if own is None else own

    @property
    def total_trials(self) -> int | None:
        """The budgets of all segments together; None: one of them has none."""
        each = [self.trials(name) for name in self._entries]
        return None if None in each else sum(filter(None, each))

    # ---------------------------------------------------------------- making

    def _make(self, entry: Entry) -> Segment:
        shared, choice = self._shared, entry.optimizer or self._shared.optimizer
        seed = shared.seed if choice.seed is None else choice.seed
        return Segment(
            name=entry.name,
            values=entry.values,
            space=self._space(entry),
            optimizer=choice.spec(),
            seed=_seed_of(seed, entry.name),
            trials=self.trials(entry.name),
            target_loss=shared.target_loss if entry.target_loss is None else entry.target_loss,
            inputs=tuple(self._inputs(entry)),
        )

    def _space(self, entry: Entry) -> Space:
        """Its space; segments with the same changes share one."""
        key = canonical([dict(entry.space), entry.constraint])
        if key not in self._spaces:
            self._spaces[key] = self._parse(entry)
        return self._spaces[key]

    def _parse(self, entry: Entry) -> Space:
        spec = {**self._shared.space, **entry.space}
        kept = {name: content for name, content in spec.items() if content is not None}
        constraint = self._shared.constraint if entry.constraint is None else entry.constraint
        if entry.space_key and not kept:
            raise InputErrors([self._where.problem(entry.space_key, "no parameter is left")])
        return Space.parse(
            kept, constraints=list(constraint), file=self._doc.file, line_of=self._doc.line_of,
            key=self._where.path(entry.space_key) if entry.space_key else "space",
        )  # fmt: skip

    def _own(self, entry: Entry) -> Iterator[Input]:
        """The inputs of one segment alone, as they are written."""
        for item in (*filter(belongs, self._shared.inputs), *entry.inputs):
            if item.segment in (None, entry.name):
                yield item

    def _inputs(self, entry: Entry) -> Iterator[Input]:
        for item in self._own(entry):
            if item.segment is not None and not segment_names_in(item.source):
                yield item
                continue
            source = fill_values(item.source, entry.name, entry.values)
            yield item.model_copy(update={"source": source, "segment": entry.name})

    def shared_inputs(self) -> Iterator[Input]:
        """Those that all trials need."""
        return (item for item in self._shared.inputs if not belongs(item))

    def all_inputs(self) -> Iterator[Input]:
        """The shared inputs, then each segment's own, with their sources filled in."""
        yield from self.shared_inputs()
        for entry in self._entries.values():
            yield from self._inputs(entry)

    def parameter_names(self) -> list[str]:
        """The parameters that some segment has, those of the study first."""
        entries = (name for e in self._entries.values() for name in e.space)
        return list(dict.fromkeys([*self._shared.space, *entries]))

    def input_names(self) -> dict[str, str | None]:
        """The names of all inputs, each with a segment that lacks it, or None: all have it."""
        counts = Counter(item.name for item in self._shared.inputs if item.segment is None)
        shared = set(counts)
        for entry in self._entries.values():
            counts.update(item.name for item in self._own(entry) if item.name not in shared)
        lacking: dict[str, str | None] = {}
        for name, count in counts.items():
            lacking[name] = None
            if name not in shared and count < len(self):
                entries = self._entries.values()
                lacks = (e.name for e in entries if name not in [i.name for i in self._own(e)])
                lacking[name] = next(lacks)
        return lacking

    # ---------------------------------------------------------------- checking

    def check(self) -> Iterator[InputError]:
        """What is wrong with the segments' spaces and inputs."""
        seen: set[str] = set()
        for entry in self._entries.values():
            key = canonical([dict(entry.space), entry.constraint])
            if key in seen:
                continue
            seen.add(key)
            try:
                self._space(entry)
            except InputErrors as error:
                yield from error.errors
        yield from self._check_inputs()

    def _check_inputs(self) -> Iterator[InputError]:
        for i, item in enumerate(self._shared.inputs):
            if item.segment is not None and item.segment not in self._entries:
                yield self._doc.problem(
                    f"inputs[{i}].segment", "there is no such segment", found=item.segment,
                    valid=one_of(item.segment, [str(name) for name in self._entries][:20])
                    if self.named else "no segment: the study has no key `segments`",
                )  # fmt: skip
            else:
                yield from self.check_text(item.source, f"inputs[{i}].source", item.segment)
        shared = {item.name.upper() for item in self.shared_inputs()}
        for entry in self._entries.values():
            names = [item.name.upper() for item in entry.inputs]
            others = {
                item.name.upper()
                for item in filter(belongs, self._shared.inputs)
                if item.segment in (None, entry.name)
            }
            twice = [n for n in names if names.count(n) > 1 or n in shared or n in others]
            if twice:
                yield self._where.problem(
                    entry.key, f"two inputs of segment {entry.name} have one name",
                    found=twice[0].lower(), valid="names that differ by more than case",
                )  # fmt: skip
                return
            for item in entry.inputs:
                key = self._where.path(f"{entry.key}.inputs")
                yield from self.check_text(item.source, key, entry.name)

    def check_text(self, text: str, key: str, name: str | None = None) -> Iterator[InputError]:
        """Placeholders ``{segment.NAME}`` of a text that some segment has no value for.

        Args:
            name: the only segment that the text is for; None: all.
        """
        entries = list(self._entries.values()) if name is None else [self._entries[name]]
        for wanted in segment_names_in(text):
            missing = next((e for e in entries if not _knows(e, wanted)), None)
            if missing is None:
                continue
            if not self.named:
                problem, known = "the study has no segments", list[str]()
            else:
                problem = f"segment {missing.name} has no such value"
                known = ["name", *missing.values]
            listed = [f"segment.{value}" for value in known]
            yield self._doc.problem(
                key, problem, found=f"{{segment.{wanted}}}",
                valid=one_of(f"segment.{wanted}", listed),
            )  # fmt: skip
            return

    # ---------------------------------------------------------------- changing

    def added(self, specs: Iterable[Mapping[str, Any]]) -> Segments:
        """These segments and more; one that is known already is left as it is.

        Args:
            specs: as an entry of ``segments.list``.

        Raises:
            InputError: a specification is not valid.
        """
        more = Segments(self._shared, self._entries.values(), self._spec, self._where, self._doc)
        more._spaces.update(self._spaces)
        for spec in specs:
            entry = self._read_added(spec)
            if more._entries.setdefault(entry.name, entry) is entry:
                more._space(entry)
                texts = [item.source for item in more._own(entry)]
                errors = [e for text in texts for e in more.check_text(text, "inputs", entry.name)]
                if errors:
                    raise InputErrors(errors)
        return more

    def _read_added(self, spec: Mapping[str, Any]) -> Entry:
        where = _Added(f"segment {spec.get('name', '')}")
        if not self.named:
            raise where.problem("", "the study has no segments, so none can be added")
        content, errors = validate(SegmentSpec, spec, where)
        if content is None:
            raise InputErrors(errors)
        entry = Entry(content.name, "", values=content.values)
        return with_changes(self._spec, entry).changed(content, "")


def _knows(entry: Entry, wanted: str) -> bool:
    return wanted in entry.values or (wanted == "name" and entry.name is not None)


class _Added(Under):
    """Errors of a segment that stands in no file."""

    def __init__(self, root: str) -> None:
        super().__init__(Document(None, None, ""), root)
