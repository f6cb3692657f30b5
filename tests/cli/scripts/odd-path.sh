#!/bin/bash
# Brings the inputs of the study digits into its folder, then reads all of them and
# compares their checksums. Run it once, where the network is and reading much is
# welcome: on a data transfer node, or the login node; before the first job.
set -eu

# The Python that hpc-hpo is installed in.
PYTHON=/sw/hpo/bin/python
STUDY='/proj/abc123/it'"'"'s; rm/study.yaml'

"$PYTHON" -m hpc_hpo.cli.main prestage "$STUDY" --dir '/proj/abc123/my runs'
"$PYTHON" -m hpc_hpo.cli.main prestage "$STUDY" --dir '/proj/abc123/my runs' --verify
