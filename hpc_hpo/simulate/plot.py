"""The page of a simulated study: the report's, with what the simulation alone knows."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import StudyState
from hpc_hpo.results.report.material import Material, rounded
from hpc_hpo.results.report.page import write_report
from hpc_hpo.simulate.clock import START
from hpc_hpo.simulate.run import Simulated

#: Moments at which the queue is drawn where more happened.
MOST_MOMENTS = 2000


def check_plot(path: Path) -> Path:
    """Where a page can be written.

    Raises:
        InputError: it is a folder, lies in none, or is to be of another kind.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError("a page is written", key="--plot", found=str(path),
                         valid="a file's name that ends in .html")  # fmt: skip
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise InputError(why, key="--plot", found=str(path), valid="a file's name")
    return path


def write_plot(found: Simulated, words: str, path: Path) -> int:
    """Write the page; its size in bytes.

    Args:
        words: a line on what was simulated where.
        path: by check_plot.

    Raises:
        StorageError: it cannot be written.
    """
    total = found.allocated_s or 1.0
    content = {
        "words": words,
        "parts": [[name, share / total, share / 3600] for name, share in found.parts.items()],
        "jobs": jobs(found.state),
        "wait": list(found.waits),
    }
    # The report looks for a manifest and a lock: of a simulation there are none.
    with tempfile.TemporaryDirectory() as nowhere:
        folder = StudyFolder(Path(nowhere) / found.study.name)
        material = Material(folder, found.study.to_dict(), found.state, time.time())
        return write_report([material], path, {"simulated": content})


def jobs(state: StudyState) -> dict[str, Any]:
    """How many jobs waited and ran: columns hours (from the start), waiting, running; each row
    holds until the next."""
    changes: list[tuple[float, int, int]] = []
    for block in state.blocks.values():
        requested = block.requested if block.requested is not None else START
        begun = block.started if block.started is not None else block.ended
        changes.append((requested, 1, 0))
        if begun is not None:
            changes.append((begun, -1, 0))
        if block.started is not None:
            changes.append((block.started, 0, 1))
            if block.ended is not None:
                changes.append((block.ended, 0, -1))
    if not changes:
        return {"hours": [], "waiting": [], "running": []}
    table = np.array(sorted(changes))
    at, first = np.unique(table[:, 0], return_index=True)
    # What holds after the last change of each moment.
    last = np.append(first[1:], len(table)) - 1
    counts = np.cumsum(table[:, 1:], axis=0)[last]
    if len(at) > MOST_MOMENTS:
        kept = np.unique(np.linspace(0, len(at) - 1, MOST_MOMENTS).round().astype(int))
        at, counts = at[kept], counts[kept]
    return {
        "hours": rounded((at - START) / 3600, 7),
        "waiting": counts[:, 0].astype(int).tolist(), "running": counts[:, 1].astype(int).tolist(),
    }  # fmt: skip
