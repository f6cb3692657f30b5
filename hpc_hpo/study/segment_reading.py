"""From the key ``segments``, in any of its forms, to the segments of a study."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.schema import Located, validate
from hpc_hpo.study.segment_set import Segments, Shared
from hpc_hpo.study.segments import Entry, SegmentsSpec, Under, entries_of
from hpc_hpo.yamlio import Document, load_yaml


def read_segments(
    raw: Any, shared: Shared, doc: Document, folder: Path
) -> tuple[Segments, list[InputError], dict[str, Any] | None]:
    """The segments of a study, what is wrong with them, and the section as it is frozen.

    Args:
        raw: the key's content; None where there is none.
        folder: where the path of a segmentSpecFile begins.
    """
    bare = isinstance(raw, list)
    where = Under(doc, "segments", "list" if bare else None)
    if raw is None:
        segments = Segments(shared, [Entry(None)], None, where, doc)
        return segments, list(segments.check()), None
    nothing = Segments(shared, [], None, where, doc)
    if not bare and not isinstance(raw, dict):
        return nothing, [
            doc.problem(
                "segments", "wrong type", found=raw,
                valid="a list of segments, or a mapping with list, table or file",
            )
        ], None  # fmt: skip
    content = {"list": raw} if bare else dict(raw)
    frozen = copy.deepcopy(content)
    spec, errors = validate(SegmentsSpec, content, where)
    if spec is None:
        return nothing, errors, None
    if spec.file is not None:
        listed, errors = read_spec_file(spec, folder, where)
        if errors:
            return nothing, errors, None
        frozen = {"list": listed, **{k: v for k, v in frozen.items() if k not in _OF_FILE}}
        spec, errors = validate(SegmentsSpec, frozen, where)
        if spec is None:
            return nothing, errors, None
    found: list[InputError] = []
    entries = entries_of(
        spec, lambda key, problem, **facts: found.append(where.problem(key, problem, **facts))
    )
    segments = Segments(shared, entries, spec, where, doc)
    return segments, found or list(segments.check()), frozen


_OF_FILE = ("file", "input", "folder")
_FORM = 'a list as in [{"name": "name_A", "files": ["file_1", "file_2"]}]'


def read_spec_file(
    spec: SegmentsSpec, folder: Path, where: Located
) -> tuple[list[dict[str, Any]], list[InputError]]:
    """A segmentSpecFile as entries of ``segments.list``.

    Each file of a segment becomes an input: `data` where there is one, `data_1`, `data_2`, ...
    where there are several (`input` gives another name).
    """
    path = folder / (spec.file or "")
    try:
        doc = load_yaml(path)
    except InputError as error:
        return [], [where.problem("file", str(error))]
    if not isinstance(doc.data, list) or not doc.data:
        return [], [doc.problem("", "not a list of segments", valid=_FORM)]
    listed, errors = [], list[InputError]()
    for i, item in enumerate(doc.data):
        fault = _fault(item)
        if fault is not None:
            key, problem, found = fault
            errors.append(doc.problem(f"[{i}]{key}", problem, found=found, valid=_FORM))
            continue
        files = item["files"]
        names = (
            [spec.input]
            if len(files) == 1
            else [f"{spec.input}_{n}" for n in range(1, len(files) + 1)]
        )
        listed.append(
            {
                "name": item["name"],
                "inputs": [
                    {"name": name, "source": _joined(spec.folder, file)}
                    for name, file in zip(names, files, strict=True)
                ],
            }
        )
    return listed, errors


def _fault(item: Any) -> tuple[str, str, Any] | None:
    """(key, problem, found) of one entry of the file; None when it is good."""
    if not isinstance(item, dict):
        return "", "not a segment", item
    unknown = [key for key in item if key not in ("name", "files")]
    if unknown:
        return f".{unknown[0]}", "unknown key", unknown[0]
    if not isinstance(item.get("name"), str):
        return ".name", "no name", item.get("name")
    files = item.get("files")
    if not isinstance(files, list) or not files or not all(isinstance(f, str) and f for f in files):
        return ".files", "no files", files
    return None


def _joined(folder: str, file: str) -> str:
    if not folder or re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|/", file):
        return file
    return f"{folder.rstrip('/')}/{file}"
