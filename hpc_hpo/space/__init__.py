"""The search space: parameters, conditions, constraints, and the dialects they are written in."""

from hpc_hpo.space.domains import canonical
from hpc_hpo.space.space import MAX_ENUMERATED, Parameter, Space

__all__ = ["MAX_ENUMERATED", "Parameter", "Space", "canonical"]
