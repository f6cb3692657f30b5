"""Names by which the two ends of a pilot, in processes of their own, know each other."""

#: Behind a block's id: its lead, the worker pool that starts trials of several ranks. It runs
#: where the launcher works, on the job's first or batch node, and holds no cores or GPUs.
LEAD = "+lead"
