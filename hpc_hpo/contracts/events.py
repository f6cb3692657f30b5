"""Event files at an HPC edge: Harvester's shared-file messenger hands points to a worker.

A worker without a network reads ``JobsEventRanges.json`` and leaves ``event_status.dump``, as the
wrapper on the grid does in its offline mode (panda-wnscript, src/runhpo/runHPO.py and
pandawnutil/wnmisc/misc_utils.py). Harvester itself writes the events of a job as a plain list and
expects ``event_status.dump.json``; the wrapper knows a list of objects that hold ``eventRanges``.
Both are read, and both names can be written.
"""

from __future__ import annotations

import math
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_hpo.contracts.steering import parse_json
from hpc_hpo.errors import InputError
from hpc_hpo.model import Point
from hpc_hpo.space.reading import is_number
from hpc_hpo.study import Study

#: Where the sample's id stands among the fields of an event's id:
#: taskID-PandaID-fileID-sampleID-attempt.
_SAMPLE, _FIELDS = 3, 5
_FORM = '{"PandaID": [{"eventRanges": [{"eventRangeID": ..., "hp_point": {...}}]}]}'


@dataclass(frozen=True)
class Event:
    """One point to be evaluated.

    Attributes:
        job: PandaID.
        id: eventRangeID.
        point: parameters, or [model_id, parameters] of a segment.
        loss: of one that was evaluated before; else None.
        checkpoint: an archive to begin with, absolute; None: there is none.
    """

    job: str
    id: str
    point: Any
    loss: float | None
    checkpoint: str | None

    @property
    def task(self) -> str:
        """The task's id."""
        return self.id.split("-")[0]

    @property
    def sample(self) -> str:
        """The sample's id, by which the service knows the point."""
        return self.id.split("-")[_SAMPLE]


def read_events(text: str | bytes, file: str) -> dict[str, list[Event]]:
    """The events of each job, in the file's order; a job may have none.

    Raises:
        InputError: it is no such file; the text has the place.
    """
    data = parse_json(text, file)
    if not isinstance(data, dict):
        raise InputError("not an event file", file=file, found=type(data).__name__, valid=_FORM)
    jobs: dict[str, list[Event]] = {}
    for job, content in data.items():
        if not isinstance(content, list):
            raise InputError("not a list of events", file=file, key=job, valid=_FORM)
        where = Path(file).parent
        jobs[job] = [_event(job, e, key, file, where) for key, e in _unwrapped(job, content, file)]
    ids = [event.id for events in jobs.values() for event in events]
    twice = next((i for i in ids if ids.count(i) > 1), None) if len(set(ids)) < len(ids) else None
    if twice is not None:
        raise InputError("two events have this id", file=file, key="eventRangeID", found=twice)
    return jobs


def _unwrapped(job: str, content: list[Any], file: str) -> Iterator[tuple[str, Any]]:
    """(key path, event) of both shapes, also mixed."""
    for i, entry in enumerate(content):
        key = f"{job}[{i}]"
        if isinstance(entry, dict) and "eventRanges" in entry:
            inner = entry["eventRanges"]
            if not isinstance(inner, list):
                raise InputError("not a list", file=file, key=f"{key}.eventRanges", valid=_FORM)
            yield from ((f"{key}.eventRanges[{k}]", event) for k, event in enumerate(inner))
        elif entry != {}:  # the wrapper's sign for "no events"
            yield key, entry


def _event(job: str, content: Any, key: str, file: str, where: Path) -> Event:
    if not isinstance(content, dict):
        raise InputError("not an event", file=file, key=key, found=content, valid=_FORM)
    number = content.get("eventRangeID")
    if not isinstance(number, str) or len(number.split("-")) != _FIELDS:
        raise InputError(
            "not an event's id", file=file, key=f"{key}.eventRangeID", found=number,
            valid='text: "taskID-PandaID-fileID-sampleID-attempt"',
        )  # fmt: skip
    sample = content.get("hp_point")
    if not isinstance(sample, dict) or not isinstance(sample.get("parameters"), (dict, list)):
        raise InputError(
            "no point", file=file, key=f"{key}.hp_point", found=sample,
            valid='{"id": "12", "parameters": {...}, "loss": null}',
        )  # fmt: skip
    loss, checkpoint = sample.get("loss"), content.get("checkpoint")
    if loss is not None and not is_number(loss):
        raise InputError(
            "not a loss",
            file=file,
            key=f"{key}.hp_point.loss",
            found=loss,
            valid="a number or null",
        )
    if checkpoint is not None and not isinstance(checkpoint, str):
        raise InputError("not a file's name", file=file, key=f"{key}.checkpoint", found=checkpoint)
    return Event(
        job=job, id=number, point=sample["parameters"], loss=loss,
        checkpoint=str((where / checkpoint).absolute()) if checkpoint else None,
    )  # fmt: skip


def segment_of(study: Study, point: Any) -> tuple[str | None, Point]:
    """(segment, valid point) of parameters that may begin with a model's id.

    A model's id is the number of a segment in the study's order, or its name.

    Raises:
        InputError: there is no such segment, or the point is not valid in its space.
    """
    names = list(study.segments)
    if not study.segments.named:
        if isinstance(point, list):
            raise InputError("the study has no segments", found=point, valid="parameters alone")
        return None, _valid(study, None, point)
    if not isinstance(point, list) or len(point) != 2:
        raise InputError("a point without its segment", found=point, valid="[model_id, {...}]")
    number = point[0]
    whole = isinstance(number, int) and not isinstance(number, bool)
    name = study.segments.by_number(number) if whole else number
    if not isinstance(name, str) or name not in study.segments:
        raise InputError(
            "there is no such segment", found=number,
            valid=f"0 to {len(names) - 1}, or a name such as {names[0]}",
        )  # fmt: skip
    return name, _valid(study, name, point[1])


def _valid(study: Study, name: str | None, point: Any) -> Point:
    if not isinstance(point, Mapping):
        raise InputError("not a point", found=point, valid='as in {"lr": 0.1}')
    return study.segments[name].space.validate(point)


def finished(event: Event, loss: float | None) -> dict[str, Any]:
    """The entry of an event that has ended; without a usable loss it has failed."""
    if loss is None or not math.isfinite(loss):
        return {"eventRangeID": event.id, "eventStatus": "failed"}
    return {"eventRangeID": event.id, "eventStatus": "finished", "loss": loss}


def checkpointed(archive: Path) -> dict[str, Any]:
    """The entry of an archive with which somebody else may go on."""
    return {
        "guid": str(uuid.uuid4()),
        "path": str(archive.absolute()),
        "fsize": archive.stat().st_size,
        "type": "checkpoint",
        "chksum": adler32(archive),
    }


def adler32(path: Path) -> str:
    """The checksum of a file as the grid's storage writes it: 8 hexadecimal digits."""
    value = 1
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.adler32(block, value)
    return f"{value & 0xFFFFFFFF:08x}"


def status_file(entries: Iterable[tuple[Event, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The content of ``event_status.dump``: entries by their job."""
    found: dict[str, list[dict[str, Any]]] = {}
    for event, entry in entries:
        found.setdefault(event.job, []).append(entry)
    return found
