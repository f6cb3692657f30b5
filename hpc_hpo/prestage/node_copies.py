"""What nodes are told of the inputs that they copy to their own disks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

from hpc_hpo.folder import StudyFolder
from hpc_hpo.model import LocalInput
from hpc_hpo.prestage.manifest import Manifest, StagedFile
from hpc_hpo.site import Site
from hpc_hpo.study import Study


def node_copies(
    study: Study, manifest: Manifest, folder: StudyFolder, segment: str | None = None
) -> dict[str, LocalInput]:
    """The node-local inputs of a segment, or the shared ones, with sizes and checksums."""
    wanted = {
        spec.name: spec
        for spec in study.all_inputs()
        if spec.node_local and spec.segment == segment and manifest.holds(spec.name, segment)
    }
    if not wanted:
        return {}
    files: dict[str, list[StagedFile]] = {}
    for file in manifest.files:
        if file.segment == segment and file.input in wanted:
            files.setdefault(file.input, []).append(file)
    copies = {}
    for name, staged in files.items():
        spec, path = wanted[name], manifest.paths_of(segment)[name]
        single = len(staged) == 1 and staged[0].target == path
        home = os.path.dirname(path) if single else path
        opened = spec.archive and single
        environment = opened and spec.kind == "environment"
        listed = [
            [os.path.relpath(f.target, home), str(folder.path / f.target), f.size, f.sha256]
            for f in sorted(staged, key=lambda f: f.target)
        ]
        words = [f"{opened} {environment}", *(f"{row[3]}  {row[0]}" for row in listed)]
        key = hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()
        copies[name] = LocalInput(
            key=key[:40], files=listed, single=single, unpack=opened, environment=environment
        )
    return copies


def node_folder(site: Site, account: str | None, environ: Mapping[str, str]) -> str | None:
    """The site's node-local folder with the account in it; what else it names, the node knows."""
    if site.node_local is None:
        return None
    project = account or environ.get("PROJECT")
    parts = site.node_local.split("/")
    return "/".join(project if p == "$PROJECT" and project else p for p in parts)
