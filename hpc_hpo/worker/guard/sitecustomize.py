"""Read by every Python of a payload when it starts: the guard of `network: deny`.

An audit hook sees each connection, look-up and datagram that Python code asks for before it
happens. One that leaves the allocation is written down, with the file and line of the payload's
code, and refused at once; without it, it would wait for a network that is not there. What is
written down survives a payload that swallows the error. Audit events as in CPython's own table
("Audit events table" in the library reference, since 3.8).

The Python may be any that the payload brings, so this file uses the standard library alone, and
imports what costs time when it is needed. Whatever else is called `sitecustomize` on the path is
run afterwards, as it would have been.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as of typing, which every Python would have to read
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

#: JSON: {"open": [names, addresses, networks], "log": file, "name_servers": [addresses]}.
VARIABLE = "HPC_HPO_NETWORK"
#: Part of each refusal's text, by which it is known in a traceback of another process.
MARK = "refused by network: deny"
#: How long the addresses of the allocation's hosts are looked for, in seconds.
LOOK_UP_S = 2.0
_EVENTS = frozenset(
    {
        "socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
        "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request",
    }
)  # fmt: skip
_HERE = os.path.dirname(os.path.abspath(__file__))
_STANDARD = os.path.dirname(os.__file__) + os.sep
_PACKAGE = os.path.dirname(os.path.dirname(_HERE)) + os.sep
_HOSTS_FILE = "/etc/hosts"
#: 0.0.0.0, :: and ::1.
_THIS_HOST = (b"\0" * 4, b"\0" * 16, b"\0" * 15 + b"\1")


class NetworkDenied(OSError):
    """A connection that leaves the allocation. An OSError, so that code which copes without a
    network does so here, too."""

    def __reduce__(self) -> Any:
        # It may reach a process that knows another `sitecustomize`.
        return OSError, self.args


def packed(address: str) -> bytes | None:
    """The bytes of a numeric address; None for a name. IPv4 within IPv6 is IPv4."""
    import socket

    text = address.partition("%")[0]
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except OSError:
        pass
    try:
        found = socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return None
    return found[12:] if found[:12] == b"\0" * 10 + b"\xff\xff" else found


class Policy:
    """What is inside: loopback, this host, the allocation's hosts, and what a study opens.

    Args:
        spec: see VARIABLE.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._names: set[str] = set()
        self._networks: list[Any] = []
        self._addresses: set[bytes | None] = set()
        for word in spec.get("open", ()):
            if "/" in word:
                import ipaddress

                self._networks.append(ipaddress.ip_network(word, strict=False))
            elif packed(word) is not None:
                self._addresses.add(packed(word))
            else:
                self._names.add(word.lower().rstrip("."))
        self._servers = {packed(word) for word in spec.get("name_servers", ())}
        self._searched = False

    def name_is_open(self, name: Any) -> bool:
        """Whether a name may be looked up. A numeric address needs no look-up."""
        import socket

        if isinstance(name, (bytes, bytearray)):
            name = bytes(name).decode("ascii", "replace")
        if not name or packed(name) is not None:
            return True
        name = name.lower().rstrip(".")
        if name == "localhost" or name.endswith(".localhost"):
            return True
        known = self._names | {socket.gethostname().lower(), "localhost.localdomain",
                               "ip6-localhost", "ip6-loopback"}  # fmt: skip
        if name in known:
            return True
        # A node's short name and its full one are the same node.
        head, dot, _ = name.partition(".")
        return any(head == k.partition(".")[0] and not (dot and "." in k) for k in known)

    def address_is_open(self, address: str, port: int | None = None) -> bool:
        """Whether a connection to a numeric address stays inside."""
        raw = packed(address)
        if raw is None:
            return self.name_is_open(address)
        if (len(raw) == 4 and raw[0] == 127) or raw in _THIS_HOST:
            return True
        if raw in self._addresses or (port == 53 and raw in self._servers):
            return True
        if self._networks:
            import ipaddress

            found = ipaddress.ip_address(raw)
            if any(found in network for network in self._networks):
                return True
        if _is_own(address, len(raw) == 4):
            return True
        if not self._searched:
            self._searched = True
            self._addresses |= _addresses_of(self._names)
        return raw in self._addresses


def _is_own(address: str, four: bool) -> bool:
    """Whether an interface of this host has the address: only then can a socket be bound to it."""
    import socket

    try:
        with socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_DGRAM) as end:
            end.bind((address, 0))
    except OSError:
        return False
    return True


def _addresses_of(names: set[str]) -> set[bytes | None]:
    """The addresses of hosts by the hosts file, and by the name service as far as it answers."""
    import socket
    import threading

    found: set[bytes | None] = set()
    left = set(names)
    try:
        with open(_HOSTS_FILE, errors="replace") as stream:
            for line in stream:
                address, *aliases = line.partition("#")[0].split() or [""]
                here = {alias.lower() for alias in aliases} & left
                if here and packed(address) is not None:
                    found.add(packed(address))
                    left -= here
    except OSError:
        pass

    def ask() -> None:
        for name in sorted(left):
            try:
                found.update(packed(str(entry[4][0])) for entry in socket.getaddrinfo(name, None))
            except OSError:
                continue

    # A name service that is out of reach lets each question wait for seconds.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(LOOK_UP_S)
    return set(found)


def write_down(log: str, record: dict[str, Any]) -> None:
    """Append an attempt to the log; a disk without room must not change what happens next."""
    import json

    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(fd, json.dumps(record).encode() + b"\n")
        finally:
            os.close(fd)
    except OSError:
        pass


def describe(record: dict[str, Any]) -> str:
    """An attempt in words: what it wanted, and where in the payload."""
    what = {"look-up": "look-up of", "send": "datagram to"}.get(record["call"], "connection to")
    text = f"{what} {record['address']}"
    if record.get("url"):
        text += f" ({record['url']})"
    if record.get("file"):
        text += f" at {record['file']}:{record['line']}"
    else:
        text += " by code that is not Python"
    if record.get("program"):
        text += f" in {record['program']}"
    return text


def place() -> tuple[str, int]:
    """(file, line) of the payload's own code that is running: not a library's, where there is."""
    frame: FrameType | None = sys._getframe(2)
    best = (3, "?", 0)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith((_PACKAGE, _HERE)):
            rank = 3
        elif file.startswith((_STANDARD, "<frozen")) and "-packages" not in file:
            rank = 2
        else:
            rank = 1 if "site-packages" in file or "dist-packages" in file else 0
        if rank < best[0]:
            best = (rank, file, frame.f_lineno)
            if rank == 0:
                break
        frame = frame.f_back
    return best[1], best[2]


def install(spec: dict[str, Any]) -> None:
    """Add the hook to this Python; it cannot be taken away again."""
    policy, log = Policy(spec), spec["log"]
    urls: dict[int, str] = {}  # thread -> the URL it asked for last

    def refuse(call: str, address: str) -> NoReturn:
        import _thread
        import errno
        import time

        file, line = place()
        started = list(getattr(sys, "orig_argv", None) or sys.argv)
        record = {"at": time.time(), "pid": os.getpid(), "call": call, "address": address,
                  "file": file, "line": line}  # fmt: skip
        url = urls.pop(_thread.get_ident(), None)
        if url:
            record["url"] = url
        if not any("hpc_hpo.worker." in word for word in started):
            record["program"] = " ".join(started)[:200]
        write_down(log, record)
        raise NetworkDenied(errno.ENETUNREACH, f"{describe(record)}, {MARK}")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in _EVENTS:
            return
        import socket

        if event == "urllib.Request":
            import _thread

            urls[_thread.get_ident()] = str(args[0])[:300]
        elif event == "socket.getaddrinfo":
            if not policy.name_is_open(args[0]):
                refuse("look-up", f"{_text(args[0])}:{_text(args[1])}")
        elif event == "socket.gethostbyname":
            if not policy.name_is_open(args[0]):
                refuse("look-up", _text(args[0]))
        elif event == "socket.gethostbyaddr":
            # A reverse look-up leaves this host as a forward one does.
            if not policy.address_is_open(_text(args[0])):
                refuse("look-up", _text(args[0]))
        else:
            end, address = args[0], args[1]
            if end.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(
                address, tuple
            ):
                return
            if event == "socket.connect" and end.type & 0xF == socket.SOCK_DGRAM:
                return  # sends nothing: how programs find out their own address
            if not policy.address_is_open(_text(address[0]), address[1]):
                call = "connect" if event == "socket.connect" else "send"
                refuse(call, f"{_text(address[0])}:{address[1]}")

    sys.addaudithook(hook)


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _chain() -> None:
    """Run the `sitecustomize` that this one stands in front of."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    rest = [p for p in sys.path if p and os.path.abspath(p) != _HERE]
    found = PathFinder.find_spec("sitecustomize", rest)
    if found is None or found.loader is None:
        return
    module = module_from_spec(found)
    sys.modules["sitecustomize"] = module
    found.loader.exec_module(module)


if __name__ == "sitecustomize":
    if os.environ.get(VARIABLE) and hasattr(sys, "addaudithook"):
        import json

        install(json.loads(os.environ[VARIABLE]))
    _chain()
