"""An LSF cluster with jsrun: real processes, a scaled clock, one daemon over a state folder.

What is imitated, and from where, is said in each module. Words of LSF's own messages are kept
where they are documented (``No such queue``, ``Bad RUNLIMIT specification``, ``Too many
processors requested``, ``LSF is down``); where no source gives the words, only the exit code and
the stream are meant to be relied on.
"""

from tests.fakes.lsf.fixture import FakeLsf

__all__ = ["FakeLsf"]
