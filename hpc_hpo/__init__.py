"""Hyperparameter optimisation on Summit-like supercomputers.

Importing this package imports nothing else: workers and ``--help`` must start fast.
"""

import os
from importlib import import_module
from typing import Any

from hpc_hpo.version import __version__

__all__ = ["__version__", "load"]


def load(path: str | os.PathLike[str], table: str = "trials") -> Any:
    """A study's results: a pandas.DataFrame where pandas is installed, else a list of dicts.

    Args:
        path: a study's folder or its study.yaml, also while it runs; or a results.h5 that
            ``hpc-hpo export`` has written.
        table: trials (one row for each), curves (one for each report), or slices. Their columns
            are listed in docs/results.md.

    Raises:
        InputError: there is no such study or table.
        JournalCorrupt: a record in the middle of its journal is damaged.
    """
    return import_module("hpc_hpo.results.loading").load(path, table)
