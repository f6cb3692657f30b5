"""Hyperparameter optimisation on Summit-like supercomputers.

Importing this package imports nothing else: workers and ``--help`` must start fast.
"""

from hpc_hpo.version import __version__

__all__ = ["__version__"]
