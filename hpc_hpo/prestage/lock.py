"""One prestage of a study at a time, and whether one is at work."""

from __future__ import annotations

import time

from hpc_hpo.folder import StudyFolder, StudyLock, holder_alive


class PrestageLock(StudyLock):
    """As the steering process's lock; the two do not exclude each other."""

    held_by = "the inputs are being staged by"
    advice = "Wait for it; `hpc-hpo status` shows how the study stands."

    def _place(self, folder: StudyFolder) -> None:
        self.lock_path, self.holder_path = folder.prestage_lock, folder.prestage_holder


def running(folder: StudyFolder) -> bool:
    """Whether a prestage process is at work on the study, so that more inputs may come.

    On this host its process is looked for; one on another host is believed for 90 s after its
    last sign of life.
    """
    return holder_alive(folder.prestage_holder, time.time()) is not None
