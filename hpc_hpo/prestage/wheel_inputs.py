"""Inputs of kind requirements: their wheelhouses, beside the staged requirements file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpc_hpo.folder import StudyFolder
from hpc_hpo.prestage.manifest import Manifest
from hpc_hpo.prestage.wheelhouse import (
    RECORD,
    Wheelhouse,
    fetch_wheelhouse,
    load_wheelhouse,
    wheel_problems,
)
from hpc_hpo.site.target import Target
from hpc_hpo.study import Input, Study


def _houses(study: Study, manifest: Manifest, folder: StudyFolder) -> Iterator[tuple[Input, Path]]:
    """(input, its staged requirements file)."""
    for spec in study.all_inputs():
        if spec.kind == "requirements" and manifest.holds(spec.name, spec.segment):
            yield spec, folder.path / manifest.paths_of(spec.segment)[spec.name]


def _written(study: Study, spec: Input, staged: Path) -> Path:
    """The requirements file where its author wrote it: what it includes lies beside it there."""
    if spec.remote:
        return staged
    own = Path(os.path.join(study.folder, os.path.expanduser(spec.source.removeprefix("file://"))))
    return own if own.is_file() else staged


def stage_wheels(
    study: Study,
    manifest: Manifest,
    folder: StudyFolder,
    target: Target,
    supplies: Mapping[str, str],
) -> int:
    """Fetch the wheels of every staged requirements file into the folder that it is in.

    Args:
        supplies: package -> the line that loads the module which holds it.

    Returns:
        How many wheels there are.

    Raises:
        InputError, IndexUnreachable: as fetch_wheelhouse.
    """
    made = [
        fetch_wheelhouse(_written(study, spec, file), file.parent, target, supplies)
        for spec, file in _houses(study, manifest, folder)
    ]
    return sum(len(house.wheels) for house in made)


def wheelhouses(
    study: Study, manifest: Manifest, folder: StudyFolder
) -> Iterator[tuple[Input, Path, Wheelhouse | None]]:
    """(input, folder, what is there) of each; None: it has not been fetched."""
    for spec, file in _houses(study, manifest, folder):
        yield spec, file.parent, load_wheelhouse(file.parent)


def verify_wheels(manifest: Manifest, folder: StudyFolder, *, rehash: bool) -> Iterator[str]:
    """What is wrong with the wheels beside staged files, one sentence each.

    Args:
        rehash: read every wheel again; otherwise only its size is looked at.
    """
    for paths in (manifest.paths, *manifest.segments.values()):
        for name, path in paths.items():
            house = (folder.path / path).parent
            if (house / RECORD).is_file():
                for problem in wheel_problems(house, rehash=rehash):
                    yield f"input {name}: {problem}"
