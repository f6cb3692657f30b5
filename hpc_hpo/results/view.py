"""Finding a study and reading it without disturbing its run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_hpo.folder import StudyFolder, find_folder
from hpc_hpo.journal import StudyState, read_events, replay


@dataclass(frozen=True)
class StudyView:
    """A study as its folder tells it.

    Attributes:
        folder: where it is, or would be.
        study: the frozen study as a plain dict; before a first run, the user's file.
        state: the replayed journal; empty before a first run.
    """

    folder: StudyFolder
    study: dict[str, Any]
    state: StudyState


def study_name(path: Path) -> str:
    """The name in a study file.

    Raises:
        InputError: the file is not a valid study.
    """
    from hpc_hpo.study import load_study

    return load_study(path).name


def find_study(path: Path) -> StudyFolder:
    """The study folder that the user means by `path`.

    Raises:
        InputError: there is none.
    """
    return find_folder(path, study_name)


def open_study(path: Path) -> StudyView:
    """Read a study; a steering process may be at work on it.

    Args:
        path: a study folder, a study file, or the folder of a study file.

    Raises:
        InputError: there is no study.
        JournalCorrupt: a record in the middle of its journal is damaged.
    """
    folder = find_study(path)
    return StudyView(folder, read_study(folder, path), replay(read_events(folder.journal)))


def read_study(folder: StudyFolder, path: Path) -> dict[str, Any]:
    """The frozen study, else the file that was named, else only a name: a folder that was
    prestaged holds no study file yet."""
    from hpc_hpo.study import load_study

    if folder.exists:
        return load_study(folder.study).to_dict()
    if folder.path != path.resolve():
        source = path / "study.yaml" if path.is_dir() else path
        return load_study(source).to_dict()
    return {"name": folder.path.name}
