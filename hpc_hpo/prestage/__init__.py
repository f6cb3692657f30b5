"""Bringing a study's inputs into its folder before jobs need them, with a manifest to prove it."""

from hpc_hpo.prestage.lock import running

__all__ = ["running"]
