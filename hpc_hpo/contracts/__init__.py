"""The files and services of others that the package speaks: ATLAS's HPO service and its tools."""
