"""Site files: what a machine is like, as data. Keys are explained in docs/sites.md."""

from hpc_hpo.site.load import list_sites, load_site, sites_folder
from hpc_hpo.site.machine import Site
from hpc_hpo.site.sections import Bin, CpuLimit, Heartbeat, Node, Queue, Submit, Warn

__all__ = [
    "Bin",
    "CpuLimit",
    "Heartbeat",
    "Node",
    "Queue",
    "Site",
    "Submit",
    "Warn",
    "list_sites",
    "load_site",
    "sites_folder",
]
