"""A worker's spool: the lines from which a restarted steering process adopts its results."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hpc_hpo.errors import StorageError
from hpc_hpo.fsio import SealedWriter, seal, storage_error
from hpc_hpo.model import SliceOutcome, SliceRequest
from hpc_hpo.worker.node import Node

#: Many short slices share one fsync; a long slice always gets its own.
_SYNC_EVERY_S = 1.0


class Spool:
    """``<study>/spool/r<run>-b<block>-w<worker>-<host>-<pid>.jsonl``, kept open.

    A spool that cannot be written never costs an outcome: the line on stderr says so, and the
    outcome still goes back over the network.
    """

    def __init__(self, study: Path, run: int, node: Node) -> None:
        self.path = study / "spool" / f"{node.stem(run)}.jsonl"
        self._node = node
        self._writer: SealedWriter | None = None
        self._synced = 0.0

    def _open(self) -> SealedWriter:
        if self._writer is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise storage_error(self.path, error) from error
            self._writer = SealedWriter(self.path)
        return self._writer

    def start(self, request: SliceRequest, at: float) -> StorageError | None:
        """Record that a slice has started; the error if it could not be written."""
        return self._append(
            {
                "e": "start",
                "run": request["run"],
                "trial": request["trial"],
                "slice": request["slice"],
                "at": at,
                "block": self._node.block,
                "worker": self._node.worker,
                "host": self._node.host,
            }
        )

    def end(self, outcome: SliceOutcome) -> StorageError | None:
        """Record an outcome; the error if it could not be written."""
        return self._append({"e": "end", **outcome}, sync=True)

    def _append(self, record: dict[str, object], sync: bool = False) -> StorageError | None:
        try:
            writer = self._open()
            writer.append(seal(record))
            now = time.monotonic()
            if sync and now - self._synced >= _SYNC_EVERY_S:
                self._synced = now
                writer.sync()
        except StorageError as error:
            print(f"hpc-hpo: {error}", file=sys.stderr, flush=True)
            return error
        return None

    def close(self) -> None:
        """Make all lines durable and close the file."""
        if self._writer is not None:
            try:
                self._writer.sync()
            except StorageError as error:
                print(f"hpc-hpo: {error}", file=sys.stderr, flush=True)
            self._writer.close()
            self._writer = None
