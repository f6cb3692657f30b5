"""Nodes without a network: a network namespace each, on a bridge that leads nowhere else.

The bridge is this machine's, so that the controller and a steering process out here reach the nodes
and are reached by them; there is no default route in a namespace, and nothing is forwarded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
#: 10.77.0.0/16 is divided among the clusters of this machine.
_SUBNETS = 250


def missing() -> str:
    """Why namespaces cannot be made here, as a sentence; "" when they can."""
    if shutil.which("ip", path=_PATH) is None:
        return "needs the program ip: apt-get install iproute2"
    name = f"hpo-try-{os.getpid()}"
    tried = _ip("netns", "add", name, check=False)
    if tried.returncode != 0:
        return f"needs network namespaces with names, which root can make: {tried.stderr.strip()}"
    made = _ip("link", "add", f"hpo{os.getpid()}", "type", "bridge", check=False)
    _ip("netns", "del", name)
    if made.returncode != 0:
        return f"needs a bridge: {made.stderr.strip()}"
    _ip("link", "del", f"hpo{os.getpid()}")
    return ""


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", *words], env={**os.environ, "PATH": _PATH}, capture_output=True, text=True,
        check=check, timeout=20,
    )  # fmt: skip


class Namespaces:
    """Namespaces of the nodes 1, 2, ...; made on entry, gone on exit.

    Attributes:
        controller: this machine's address, as the nodes see it.
    """

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self._bridge = f"hpob{os.getpid()}"
        taken = _ip("-4", "-o", "addr").stdout
        self._subnet = next(n for n in range(_SUBNETS) if f" 10.77.{n}." not in taken)
        self.controller = f"10.77.{self._subnet}.1"

    def name(self, number: int) -> str:
        """The namespace of a node."""
        return f"hpo-{os.getpid()}-n{number}"

    def address(self, number: int) -> str:
        """The address of a node."""
        return f"10.77.{self._subnet}.{10 + number}"

    @property
    def addresses(self) -> str:
        """All of them, as Slurm writes them."""
        return f"10.77.{self._subnet}.[11-{10 + self.nodes}]"

    def inside(self, number: int) -> list[str]:
        """What to put before a command that runs in a node's namespace."""
        return ["ip", "netns", "exec", self.name(number)]

    def __enter__(self) -> Namespaces:
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.controller}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for number in range(1, self.nodes + 1):
                self._make(number)
        except BaseException:
            self.remove()
            raise
        return self

    def _make(self, number: int) -> None:
        name, outside = self.name(number), f"hpo{os.getpid()}v{number}"
        _ip("netns", "add", name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", outside, "master", self._bridge, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Leave nothing behind; a namespace takes its end of the cable along."""
        for number in range(1, self.nodes + 1):
            with contextlib.suppress(subprocess.SubprocessError):
                _ip("netns", "del", self.name(number), check=False)
        _ip("link", "del", self._bridge, check=False)
