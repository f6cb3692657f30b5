"""Packages that a user's machine may lack and CI's may not."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def needs(module: str, of: str | None = None) -> Any:
    """The module; without it the test is skipped, or fails where CI demands its package.

    Args:
        of: what CI demands that brings the module; None: the module itself.
    """
    if os.environ.get(f"HPC_HPO_NEEDS_{of or module.partition('.')[0].upper()}"):
        return importlib.import_module(module)
    return pytest.importorskip(module)
