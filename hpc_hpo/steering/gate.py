"""Which segments have their inputs: trials of one start while prestage goes on with the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from hpc_hpo.folder import StudyFolder
from hpc_hpo.prestage import running
from hpc_hpo.prestage.manifest import Manifest, load_manifest
from hpc_hpo.study import Study

#: The manifest is looked at this often, in seconds, and less often where reading it takes long.
LOOK_S = 1.0
_SHARE = 0.05


class ManifestGate:
    """Looks into the manifest, anew when it has changed; see search.Gate.

    Args:
        study: with all its segments; replaced when one is added.
        manifest: as it is now.
        broken: segments of which a staged input is not as it was -> what is wrong with it.
        at_work: whether a prestage process is, so that more inputs may come.
        came: called with each new manifest.
        now: seconds.
    """

    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        manifest: Manifest,
        *,
        broken: Mapping[str | None, str] | None = None,
        at_work: Callable[[StudyFolder], bool] = running,
        came: Callable[[Manifest], None] = lambda manifest: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.study, self.manifest = study, manifest
        self._folder, self._broken = folder, dict(broken or {})
        self._at_work, self._came, self._now = at_work, came, now
        # In this order: what a prestage that has ended wrote last must not be missed.
        self._more = at_work(folder)
        self._seen = self._stamp()
        self._next_look = now() + LOOK_S

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._folder.manifest.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def changed(self, *, at_once: bool = False) -> bool:
        """See search.Gate."""
        begun = self._now()
        if begun < self._next_look and not at_once:
            return False
        before, self._more = self._more, self._at_work(self._folder)
        stamp = self._stamp()
        news = self._more != before
        if stamp != self._seen:
            self._seen, news = stamp, True
            self.manifest = load_manifest(self._folder) or Manifest()
            self._came(self.manifest)
        took = self._now() - begun
        self._next_look = begun + max(LOOK_S, took / _SHARE)
        return news

    def look(self, name: str | None) -> str | None:
        """See search.Gate."""
        if name not in self._broken and self.manifest.ready(self.study, name):
            return None
        if self._more:
            return ""
        return self._broken.get(name) or self.manifest.problem_of(name) or self._missing(name)

    def _missing(self, name: str | None) -> str:
        wanted = [i for i in self.study.all_inputs() if i.segment in (None, name)]
        missing = [i.label() for i in wanted if not self.manifest.holds(i.name, i.segment)]
        return f"{', '.join(missing)}: not staged; run `hpc-hpo prestage`"
