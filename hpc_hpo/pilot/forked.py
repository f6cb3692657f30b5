"""Imported by the fork server of a worker pool (pool.py), for its effects on that process alone.

The server outlives a TERM that the scheduler sends to all processes of a job: with it the pool
would take all its workers for dead. What it forks ends by TERM as usual.
"""

from __future__ import annotations

import os
import signal

from hpc_hpo.pilot.pool import enter_bare

enter_bare()
signal.signal(signal.SIGTERM, lambda *_: None)
os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
