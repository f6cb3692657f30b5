"""Whether files will run on a site's nodes, told from their bytes: ELF objects, wheels, archives,
environments, container images. Nothing is executed, and nothing is unpacked to disk."""

from hpc_hpo.preflight.finding import Finding
from hpc_hpo.preflight.scan import Walk, scan
from hpc_hpo.preflight.versions import Versions, compare, versions_here
from hpc_hpo.site.target import Target, target_of

__all__ = [
    "Finding",
    "Target",
    "Versions",
    "Walk",
    "compare",
    "scan",
    "target_of",
    "versions_here",
]
