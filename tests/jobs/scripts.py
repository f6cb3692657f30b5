"""What tests of jobs share: their scripts as modules, and what they need beyond the package."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"


@contextmanager
def scripts(job: str, names: tuple[str, ...]) -> Iterator[dict[str, ModuleType]]:
    """A job's scripts as modules, imported as they import one another.

    Jobs may have scripts of equal names: what was imported before is put back.
    """
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.path.insert(0, str(JOBS / job))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(JOBS / job))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def require_torch() -> None:
    """Skip a module's tests, or one, without PyTorch, or fail where it is demanded (by CI)."""
    if importlib.util.find_spec("torch") is None:
        absent = "needs PyTorch: pip install 'hpc_hpo[torch]'"
        if os.environ.get("HPC_HPO_NEEDS_TORCH"):
            raise ModuleNotFoundError(absent)
        pytest.skip(absent, allow_module_level=True)
