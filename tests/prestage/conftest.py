"""A study whose inputs are written by each test, a store of its own, and a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpc_hpo.folder import StudyFolder
from hpc_hpo.prestage.entry import Events
from hpc_hpo.prestage.fetch import Patience
from hpc_hpo.prestage.manifest import Manifest
from hpc_hpo.prestage.staging import stage
from hpc_hpo.prestage.store import Store
from hpc_hpo.study import Input, load_study
from tests.prestage.server import Server, serving


class Told(Events):
    """Remembers what was told."""

    def __init__(self) -> None:
        self.bytes = self.expected = 0
        self.changes: list[str] = []
        self.order: list[str] = []

    def expect(self, size: int) -> None:
        self.expected += size

    def advance(self, name: str, size: int) -> None:
        self.bytes += size

    def staged(self, spec: Input, size: int) -> None:
        self.order.append(f"{spec.segment}/{spec.name}")

    def changed(self, spec: Input, what: str) -> None:
        self.changes.append(f"{spec.name}: {what}")


class Place:
    """A study's source folder, its study folder and a store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = StudyFolder(path / "small")
        self.store = Store(path / "store")
        self.waits: list[float] = []
        self.told = Told()

    def write(self, *inputs: dict[str, Any]) -> Path:
        """Write study.yaml."""
        names = dict.fromkeys(item["segment"] for item in inputs if "segment" in item)
        spec = {
            "name": "small", "objective": "objective.py:train",
            "space": {"x": {"float": [0, 1]}}, "budget": {"trials": 2}, "inputs": list(inputs),
            **({"segments": [{"name": name} for name in names]} if names else {}),
        }  # fmt: skip
        (self.path / "objective.py").write_text("def train(config, trial):\n    return 1.0\n")
        file = self.path / "study.yaml"
        file.write_text(yaml.safe_dump(spec))
        return file

    def stage(self, *inputs: dict[str, Any], **options: Any) -> Manifest:
        """Stage with the network, without waiting between tries."""
        study = load_study(self.write(*inputs))
        self.told = Told()
        options = {
            "store": self.store, "network": True, "events": self.told,
            "patience": Patience(tries=4, sleep=self.waits.append), **options,
        }  # fmt: skip
        return stage(study, self.folder, **options)

    def staged(self, name: str, segment: str | None = None) -> Path:
        """The path that trials get, by the manifest on the disk."""
        from hpc_hpo.prestage.manifest import load_manifest

        manifest = load_manifest(self.folder)
        assert manifest is not None
        return Path(manifest.absolute(self.folder, segment)[name])

    def begin(self) -> None:
        """Make the study one that has trials."""
        self.folder.journal.write_bytes(b"x\n")

    def names(self) -> list[str]:
        """All files of the study's inputs and of the store, without locks and records."""
        found = [*self.folder.inputs.rglob("*"), *(self.store.path / "sha256").rglob("*")]
        return sorted(p.name for p in found if not p.is_dir())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server
