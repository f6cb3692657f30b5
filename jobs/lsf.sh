#!/bin/bash
# Runs the study digits inside this job: steering on its first node, trials
# on all of them. Each job submits the next one, which waits for it to end,
# until the study is done or stopped, or has had its number of jobs.
#
#   submit   bsub < THIS-FILE
#   look     hpc-hpo status STUDY; hpc-hpo logs -f STUDY
#   end      hpc-hpo stop STUDY
#BSUB -J hpo-digits
#BSUB -W 2:00
#BSUB -P ABC123
#BSUB -n 64
#BSUB -R "span[ptile=32]"
#BSUB -o hpo-digits.%J.out

export HPC_HPO_JOB_START=$(date +%s)

# The Python that hpc-hpo is installed in; the nodes must see it too.
PYTHON=/sw/hpo/bin/python
STUDY=/proj/abc123/digits/study.yaml
# This file, wherever you keep it: each job submits it again.
SCRIPT=/proj/abc123/digits/digits.lsf

exec "$PYTHON" -m hpc_hpo.cli.main job "$STUDY" \
  --site lsf \
  --script "$SCRIPT" \
  --max-jobs 13
