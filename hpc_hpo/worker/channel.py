"""One JSON document a line over a socket, between a worker and its runner process."""

from __future__ import annotations

import select
import socket
from typing import Any

from hpc_hpo.fsio import from_json, to_json


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel:
    """Both ends use it; messages arrive whole and in order.

    Args:
        end: one end of a connected stream socket; closed by close().
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = b""
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def send(self, message: dict[str, Any]) -> None:
        """Send one message.

        Raises:
            ChannelClosed: the other side is gone.
        """
        data = to_json(message).encode("utf-8", "surrogatepass") + b"\n"
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next message; None when there is none within `timeout_s` (None: wait for ever).

        Raises:
            ChannelClosed: the other side is gone.
        """
        while b"\n" not in self._buffer:
            # A message may come in parts; each part gets the whole timeout, for its sender
            # is at work.
            if timeout_s is not None and not self._poll.poll(timeout_s * 1000):
                return None
            try:
                part = self._socket.recv(1 << 16)
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not part:
                raise ChannelClosed("end of file")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = from_json(line.decode("utf-8", "surrogatepass"))
        assert isinstance(message, dict)
        return message

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
