"""Downloads into the store: resumed, tried again, checksummed while they stream."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_hpo.errors import HpoError, StorageError
from hpc_hpo.fsio import NO_ROOM, storage_error, write_atomic
from hpc_hpo.prestage import remote
from hpc_hpo.prestage.sources import Source
from hpc_hpo.prestage.store import Store, Stored

_BLOCK = 1 << 20


class FetchError(HpoError):
    """A file could not be downloaded; the text says why, and what was tried."""

    transient = True


class WrongContent(FetchError):
    """What came is not what the study asks for."""

    transient = False


@dataclass(frozen=True)
class Patience:
    """How often a download that makes no progress is tried again.

    Attributes:
        tries: in a row without a new byte.
        first_s, longest_s: waits between them, which double; up to a quarter is added by chance,
            so that many do not come back at one moment.
        sleep: replaced in tests.
    """

    tries: int = 6
    first_s: float = 1.0
    longest_s: float = 60.0
    sleep: Callable[[float], object] = time.sleep

    def wait(self, tried: int) -> None:
        """Wait after so many tries in a row."""
        seconds = min(self.longest_s, self.first_s * 2 ** (tried - 1))
        self.sleep(seconds * (1 + random.random() / 4))


@dataclass
class Download:
    """One remote file on its way into the store.

    Attributes:
        source: the file; `url` is what stands for it in messages and in the store.
        system: its file system.
        expected: the sha256 it must have; None: any.
        advance: called with bytes that came; negative where some are thrown away.
        stopped: true ends the download where it is.
    """

    store: Store
    system: Any
    source: Source
    url: str
    key: str
    expected: str | None
    patience: Patience
    advance: Callable[[int], object]
    stopped: Callable[[], bool] = lambda: False
    _counted: int = field(default=0, init=False)
    _resumed: bool = field(default=False, init=False)

    def run(self) -> Stored:
        """Bring the file into the store, or find it there.

        Raises:
            FetchError: the source cannot be had.
            WrongContent: it has another checksum than `expected`.
            StorageError: the store cannot be written.
        """
        with self.store.downloading(self.key) as part:
            known = self.store.last(self.key)
            # Another process may have brought it while this one waited.
            if (
                known is not None
                and known.validator is not None
                and known.validator == self.source.validator
                and self.expected in (None, known.sha256)
            ):
                self.advance(known.size)
                return known
            tried, restarts = 0, 0
            while True:
                before = _size_of(part)
                try:
                    stored = self._try(part)
                except remote.Changed:
                    restarts += 1
                    self._discard(part)
                    if restarts >= self.patience.tries:
                        raise FetchError(
                            f"{self.url}: the source changes while it is read; {restarts} "
                            "downloads were begun and each met another content"
                        ) from None
                    continue
                except StorageError:
                    raise
                except Exception as error:
                    if self.stopped():
                        raise FetchError(f"{self.url}: the download was stopped") from None
                    if isinstance(error, OSError) and error.errno in NO_ROOM:
                        raise storage_error(part, error) from error
                    if remote.permanent(error):
                        raise FetchError(f"{self.url}: {remote.explain(error)}") from None
                    tried = 1 if _size_of(part) > before else tried + 1
                    if tried >= self.patience.tries:
                        raise FetchError(
                            f"{self.url}: {remote.explain(error)}; given up after {tried} tries. "
                            "What has come is kept: the same command goes on from there"
                        ) from None
                    self.patience.wait(tried)
                    continue
                if self.expected not in (None, stored.sha256):
                    self._discard(part)
                    if self._resumed:
                        # Perhaps two contents in one, which the server did not tell apart.
                        self._resumed = False
                        continue
                    raise WrongContent(
                        f"{self.url}: its sha256 is {stored.sha256}, not the study's "
                        f"{self.expected}"
                    )
                self.store.adopt(part, stored.sha256)
                self.store.remember(self.key, self.url, stored)
                return stored

    def _discard(self, part: Path) -> None:
        self._count(0)
        part.unlink(missing_ok=True)
        part.with_suffix(".json").unlink(missing_ok=True)

    def _count(self, done: int) -> None:
        """Tell that so many bytes are here; fewer than before where some are thrown away."""
        self.advance(done - self._counted)
        self._counted = done

    def _begun(self, part: Path) -> tuple[int, str | None]:
        """(bytes of an earlier try that may be gone on with, their validator)."""
        try:
            record = json.loads(part.with_suffix(".json").read_text())
            validator = record["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0, None
        return (_size_of(part), validator) if isinstance(validator, str) else (0, None)

    def _try(self, part: Path) -> Stored:
        """One connection. What came before a break stays in the part, with its validator."""
        have, validator = self._begun(part)
        # An HTTP server says with its answer which content that is of; others have said so before.
        if not self._streams and self.source.validator != validator:
            have = 0
        opened = remote.reading(self.system, self.source.place, have, validator, self.source.size)
        digest = hashlib.sha256()
        with opened as (stream, start, size), _writing(part) as fd:
            if start == 0:
                validator = self._validator(stream)
                record = {"validator": validator}
                write_atomic(part.with_suffix(".json"), json.dumps(record), durable=False)
            if start < _size_of(part):
                os.ftruncate(fd, start)
            self._rehash(fd, start, digest)
            self._resumed = self._resumed or start > 0
            done = start
            self._count(done)
            while block := stream.read(_BLOCK):
                if self.stopped():
                    raise InterruptedError
                digest.update(block)
                _write(fd, memoryview(block), part)
                done += len(block)
                self._count(done)
            if size is not None and done < size:
                raise ConnectionError(f"the connection ended after {done} of {size} bytes")
            if size is not None and done > size:
                raise remote.Changed
            os.fsync(fd)
        if not self._streams and validator is not None:
            now = remote.validator_of(self.system.info(self.source.place))
            if now != validator:
                raise remote.Changed
        return Stored(digest.hexdigest(), done, validator)

    def _validator(self, stream: Any) -> str | None:
        if not self._streams:
            return self.source.validator
        return remote.validator_of(stream.r.headers)

    @property
    def _streams(self) -> bool:
        """Whether the content and what is said of it come in one answer."""
        return remote.is_http(self.system)

    def _rehash(self, fd: int, length: int, digest: hashlib._Hash) -> None:
        """Take in what an earlier try has brought."""
        os.lseek(fd, 0, os.SEEK_SET)
        left = length
        while left:
            block = os.read(fd, min(left, _BLOCK))
            if not block:
                raise OSError(errno.EIO, "the part is shorter than it was")
            digest.update(block)
            left -= len(block)


class _writing:
    """An open part, closed whatever happens."""

    def __init__(self, part: Path) -> None:
        self._part = part

    def __enter__(self) -> int:
        try:
            self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(self._part, error) from error
        return self._fd

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)


def _write(fd: int, data: memoryview, part: Path) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        raise storage_error(part, error) from error


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
