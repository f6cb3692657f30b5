"""Optimisers of other packages, which are not installed with this one."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np

from hpc_hpo.errors import InputError


def require(module: str, extra: str) -> ModuleType:
    """The imported module.

    Raises:
        InputError: it is not installed; says which extra holds it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"it needs the package {module}, which cannot be imported here ({error}); "
            f"install it with: pip install 'hpc_hpo[{extra}]'"
        ) from error


def fill_absent(units: np.ndarray, seed: int, trial: int) -> np.ndarray:
    """`units` with random numbers for NaN, the same ones for the same trial.

    Samplers that know no conditions see an absent parameter at a place that says nothing.
    """
    drawn = np.random.default_rng([seed, trial, 5]).random(units.shape)
    filled: np.ndarray = np.where(np.isnan(units), drawn, units)
    return filled
