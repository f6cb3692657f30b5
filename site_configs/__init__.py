"""Site files that are found by name. Shipped as the package data of hpc_hpo.site_configs."""
