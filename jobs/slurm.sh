#!/bin/bash
# Runs the study digits inside this job: steering on its first node, trials
# on all of them. Each job submits the next one, which waits for it to end,
# until the study is done or stopped, or has had its number of jobs.
#
#   submit   sbatch THIS-FILE
#   look     hpc-hpo status STUDY; hpc-hpo logs -f STUDY
#   end      hpc-hpo stop STUDY
#SBATCH --job-name=hpo-digits
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --time=02:00:00
#SBATCH --exclusive
#SBATCH --account=ABC123

export HPC_HPO_JOB_START=$(date +%s)

# The Python that hpc-hpo is installed in; the nodes must see it too.
PYTHON=/sw/hpo/bin/python
STUDY=/proj/abc123/digits/study.yaml
# This file, wherever you keep it: each job submits it again.
SCRIPT=/proj/abc123/digits/digits.slurm

exec "$PYTHON" -m hpc_hpo.cli.main job "$STUDY" \
  --site slurm \
  --script "$SCRIPT" \
  --max-jobs 7
