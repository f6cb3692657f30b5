"""This package's version, and those of others that a study's results may depend on."""

import importlib.metadata
import platform

__version__ = "0.1.0"

#: What steers, proposes points or writes results, where it is installed.
PACKAGES = ("parsl", "numpy", "scipy", "scikit-learn", "scikit-optimize", "h5py", "optuna", "cmaes",
            "nevergrad", "torch")  # fmt: skip


def versions() -> dict[str, str]:
    """This package, Python and those of PACKAGES that are installed, by name."""
    found = {"hpc_hpo": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
