"""Stands at connect(2) and sendto(2) of a payload's processes, whatever they are written in.

The audit hook (guard/sitecustomize.py) sees Python alone. Where the kernel has what it takes
(Linux 5.5 and later), a payload also starts under a seccomp filter that hands its connections to
this process, which lets them go on or answers "Network is unreachable" at once. No privilege is
needed, and no namespace, so the allocation's own hosts stay open. It is no wall against malice:
whoever wants can get round it.

Facts from the kernel's Documentation/userspace-api/seccomp_filter.rst, seccomp(2),
seccomp_unotify(2) and the syscall tables of each architecture.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import re
import select
import socket
import struct
import sys
import threading
import time
from typing import Any

from hpc_hpo.worker.guard.sitecustomize import Policy, write_down

#: machine -> (AUDIT_ARCH of the filter, connect, sendto, seccomp)
_SYSCALLS = {
    "x86_64": (0xC000003E, 42, 44, 317),
    "ppc64le": (0xC0000015, 328, 335, 358),
    "aarch64": (0xC00000B7, 203, 206, 277),
}
#: Since Linux 5.3 and 5.6, the same everywhere.
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_CONTINUE = 1
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
#: struct seccomp_notif: id, pid, flags, nr, arch, instruction pointer, six arguments.
_NOTICE = struct.Struct("=QIIiIQ6Q")
#: struct seccomp_notif_resp: id, value, error, flags.
_RESPONSE = struct.Struct("=QqiI")
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def usable() -> bool:
    """Whether this kernel can do it; whether it may is known when a payload is started."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    version = (int(release[1]), int(release[2])) if release else (0, 0)
    return version >= (5, 5) and platform.machine() in _SYSCALLS


def _filter(arch: int, connect: int, sendto: int) -> bytes:
    """Classic BPF over struct seccomp_data: notify of connect, and of sendto with an address."""
    load, equal, done = 0x20, 0x15, 0x06
    low, high = (48, 52) if sys.byteorder == "little" else (52, 48)
    lines = [  # operation, lines to skip when equal, when not, operand
        (load, 0, 0, 4),
        (equal, 0, 8, arch),
        (load, 0, 0, 0),
        (equal, 5, 0, connect),
        (equal, 0, 5, sendto),
        (load, 0, 0, low),
        (equal, 0, 2, 0),
        (load, 0, 0, high),
        (equal, 1, 0, 0),
        (done, 0, 0, _NOTIFY),
        (done, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


class Gate:
    """Decides on the connections of one payload and of all that it starts.

    Made before the payload's process; `enter` runs in that process, `open` afterwards in this one.

    Args:
        spec: what the payload's Pythons are given (guard.VARIABLE).
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        arch, self._connect, self._sendto, self._seccomp = _SYSCALLS[platform.machine()]
        self._policy, self._log = Policy(spec), spec["log"]
        self._lines = ctypes.create_string_buffer(_filter(arch, self._connect, self._sendto))
        self._program = _Program((len(self._lines) - 1) // 8, ctypes.addressof(self._lines))
        self._reference = ctypes.byref(self._program)
        self._ours, self._theirs = socket.socketpair()
        self._ends = os.pipe()
        self._thread: threading.Thread | None = None

    def enter(self) -> None:
        """Between fork and exec: take the filter, and hand its other end to the parent.

        Where that is refused the payload runs without it.
        """
        if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return
        fd = _LIBC.syscall(self._seccomp, _SET_MODE_FILTER, _NEW_LISTENER, self._reference)
        if fd >= 0:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))
            self._theirs.sendmsg([b"+"], [rights])
            os.close(fd)

    def open(self) -> bool:
        """Begin to answer; False when the payload could not take the filter."""
        self._theirs.close()
        data, ancillary, *_ = self._ours.recvmsg(1, socket.CMSG_SPACE(4))
        self._ours.close()
        if not data or not ancillary:
            return False
        (listener,) = struct.unpack("i", ancillary[0][2][:4])
        self._thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
        self._thread.start()
        return True

    def close(self) -> None:
        """Stop answering; the payload is over."""
        os.close(self._ends[1])
        if self._thread is not None:
            self._thread.join()
        os.close(self._ends[0])
        for end in (self._ours, self._theirs):
            end.close()

    def _serve(self, listener: int) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._ends[0], select.POLLIN)
        try:
            while True:
                events = dict(poll.poll())
                if self._ends[0] in events or events.get(listener, 0) & ~select.POLLIN:
                    return  # it is over, or all its processes are
                # A process that was killed meanwhile has no notice any more.
                with contextlib.suppress(OSError):
                    self._answer(listener)
        finally:
            os.close(listener)

    def _answer(self, listener: int) -> None:
        notice = bytearray(_NOTICE.size)
        fcntl.ioctl(listener, _RECEIVE, notice)
        number, pid, _, call, _, _, *arguments = _NOTICE.unpack(notice)
        refused = False
        # What cannot be looked at goes on: this is a help, not a wall.
        with contextlib.suppress(OSError, ValueError, struct.error):
            refused = self._refuses(pid, call, arguments)
        answer = (number, 0, -errno.ENETUNREACH, 0) if refused else (number, 0, 0, _CONTINUE)
        fcntl.ioctl(listener, _ANSWER, bytearray(_RESPONSE.pack(*answer)))

    def _refuses(self, pid: int, call: int, arguments: list[int]) -> bool:
        where, size = arguments[1:3] if call == self._connect else arguments[4:6]
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(where)
            raw = memory.read(min(size, 28))
        family = int.from_bytes(raw[:2], sys.byteorder)
        if family not in (socket.AF_INET, socket.AF_INET6):
            return False
        port = int.from_bytes(raw[2:4], "big")
        four = family == socket.AF_INET
        address = socket.inet_ntop(family, raw[4:8] if four else raw[8:24])
        if self._policy.address_is_open(address, port):
            return False
        if call == self._connect and _is_datagram(pid, arguments[0]):
            return False  # sends nothing yet
        name = f"{address}:{port}" if four else f"[{address}]:{port}"
        write_down(
            self._log,
            {"at": time.time(), "pid": pid, "address": name, "program": _program_of(pid),
             "call": "connect" if call == self._connect else "send"},
        )  # fmt: skip
        return True


def _is_datagram(pid: int, fd: int) -> bool:
    """Whether another process's socket is one of datagrams."""
    with open(f"/proc/{pid}/status") as stream:
        (leader,) = (int(line.split()[1]) for line in stream if line.startswith("Tgid:"))
    process = _LIBC.syscall(_PIDFD_OPEN, leader, 0)
    if process < 0:
        return False
    try:
        copy = _LIBC.syscall(_PIDFD_GETFD, process, fd, 0)
        if copy < 0:
            return False
        with socket.socket(fileno=copy) as end:
            return end.type & 0xF == socket.SOCK_DGRAM
    finally:
        os.close(process)


def _program_of(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as stream:
        words = stream.read(2000).split(b"\0")
    if b"hpc_hpo.worker." in b" ".join(words[:3]):
        return ""  # the runner of a Python objective
    return b" ".join(words).decode("utf-8", "replace").strip()[:200]
