"""Sites of this machine's own, and schedulers' commands that are shell scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_hpo.site import Site, load_site

MakeSite = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path) -> MakeSite:
    """A site that extends one of the shipped ones."""

    def make(base: str, *lines: str) -> Site:
        file = tmp_path / "site.yaml"
        file.write_text("\n".join([f"extends: {base}", "name: mine", *lines, ""]))
        return load_site(str(file))

    return make


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts shell scripts alone on PATH; gives their folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(**scripts: str) -> Path:
        for name, body in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)
        return folder

    return write
