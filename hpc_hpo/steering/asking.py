"""What a person may ask for segments, checked before the request is left in the study folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import unseal
from hpc_hpo.prestage.staging import stage
from hpc_hpo.schema import one_of
from hpc_hpo.steering.opening import pending_specs, with_added
from hpc_hpo.steering.requests import write_request
from hpc_hpo.study import Study


def journalled_specs(folder: StudyFolder) -> Iterator[dict[str, Any]]:
    """The segments that the journal has added, without replaying all of it."""
    try:
        stream = open(folder.journal, "rb")  # noqa: SIM115 (closed below)
    except OSError:
        return
    with stream:
        for line in stream:
            if b'"op":"add"' in line:
                event = unseal(line.rstrip(b"\n"))
                if event is not None and event.get("e") == "segment" and event["op"] == "add":
                    yield event["spec"]


def with_all_segments(study: Study, folder: StudyFolder) -> Study:
    """The study with the segments that were added to it, or are about to be."""
    return with_added(study, [*journalled_specs(folder), *pending_specs(folder)])


def ask_for(study: Study, folder: StudyFolder, op: str, names: Iterable[str], **facts: Any) -> None:
    """Leave requests for segments; see requests.write_request.

    Raises:
        InputError: there is no such segment.
        StorageError: the folder cannot be written.
    """
    known = with_all_segments(study, folder).segments
    listed = list(names)
    for name in listed:
        if name not in known or not known.named:
            some = [str(one) for one in known][:20] if known.named else []
            raise InputError(
                "there is no such segment", file=str(folder.path), found=name,
                valid=one_of(name, some) if some else "none: the study has no key `segments`",
            )  # fmt: skip
    for name in listed:
        write_request(folder, op, name, **facts)


def add_segment(study: Study, folder: StudyFolder, spec: dict[str, Any]) -> None:
    """Stage a new segment's inputs and leave the request to add it.

    Args:
        spec: as an entry of ``segments.list``.

    Raises:
        InputError: it is not valid, there is one of its name, or an input is missing.
        StorageError: the folder cannot be written.
    """
    if not folder.exists:
        raise InputError(
            "the study has never been run or prestaged; write the segment into its file",
            file=str(folder.path),
        )
    if "start_from" in spec:
        raise InputError(
            "a segment that is added begins with nothing", key="start_from",
            valid="in the study's file, for segments that stand there, before its first run",
        )  # fmt: skip
    before = with_all_segments(study, folder)
    if spec["name"] in before.segments:
        raise InputError("there is a segment of this name", found=spec["name"])
    study = before.with_segments([spec])
    if study.segments[spec["name"]].inputs:
        manifest = stage(study, folder, network=True)
        if problem := manifest.problem_of(spec["name"]):
            raise InputError(problem)
    write_request(folder, "add", spec["name"], spec=spec)
