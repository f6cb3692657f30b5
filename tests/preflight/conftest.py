"""Summit's facts as a target, and a way to scan bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_hpo.preflight import Finding, Target, scan
from hpc_hpo.site.target import ARCHITECTURES

SUMMIT = Target("summit", "ppc64le", ARCHITECTURES["ppc64le"], 1 << 16, (2, 28), (3, 11))
Scan = Callable[..., list[Finding]]


@pytest.fixture
def summit() -> Target:
    return SUMMIT


@pytest.fixture
def look(tmp_path: Path) -> Scan:
    """Scans one file of these bytes; its places begin with the name alone."""

    def scan_bytes(content: bytes, name: str = "f", target: Target = SUMMIT) -> list[Finding]:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        found = scan([file], target)
        return found

    return scan_bytes


def places(found: list[Finding]) -> list[str]:
    """Where the wrong ones are: what follows the file's name."""
    return [row.where.partition("!")[2] for row in found if row.level == "wrong"]
