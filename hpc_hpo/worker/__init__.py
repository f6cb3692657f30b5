"""What runs on a compute node: one slice of a trial at a time.

A worker process calls ``entry.run_request`` for each slice. Python objectives run in a separate
runner process that is kept for the next slice; commands run in a process of their own. Nothing
here imports more than the standard library and the package's bottom layers; numpy and h5py are
imported only when arrays are checkpointed.
"""
